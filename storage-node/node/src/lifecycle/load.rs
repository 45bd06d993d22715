//! The load that this node reports to the ring, which chooses positions by it.

use std::sync::Arc;

use chordfs_store::Store;

use crate::{
    driver::Load,
    replica::{copy_traffic::CopyTraffic, departure::Departure},
};

/// Reports the bytes stored here once they are the bytes that should be stored here, and until then that chunks move.
pub(super) fn load(
    store: &Arc<Store>,
    traffic: &Arc<CopyTraffic>,
    departure: &Arc<Departure>,
) -> Arc<dyn Fn() -> Load + Send + Sync> {
    let (store, traffic, departure) = (store.clone(), traffic.clone(), departure.clone());
    Arc::new(move || match departure.drains() {
        true => Load::Leaving,
        false if traffic.status().rests() && traffic.has_no_surplus() => Load::Holds(store.stats().live_bytes),
        false => Load::Moving,
    })
}

#[cfg(test)]
mod tests {
    use chordfs_store::{DataFolder, StoreOptions};

    use super::*;

    #[tokio::test]
    async fn the_load_is_reported_once_it_is_final_and_a_drain_has_precedence() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(folder.path()).expect("it is free");
        let store = Arc::new(Store::open(&folder, StoreOptions::default()).expect("it is empty"));
        let (traffic, departure) = (Arc::new(CopyTraffic::default()), Arc::new(Departure::default()));
        let load = load(&store, &traffic, &departure);
        traffic.set_holders(&[]);
        assert_eq!(load(), Load::Moving, "the surplus copies were not looked for yet");
        traffic.record_no_surplus();
        assert_eq!(load(), Load::Holds(0));
        traffic.neighbours_changed();
        assert_eq!(load(), Load::Moving);
        departure.begin();
        traffic.record_no_surplus();
        assert_eq!(load(), Load::Leaving);
        departure.cancel();
        assert_eq!(load(), Load::Holds(0));
    }
}
