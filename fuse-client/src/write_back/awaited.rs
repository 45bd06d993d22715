//! The places in the order of changes up to which somebody waits for the log, so that the logger knows what is urgent.

use std::{collections::BTreeMap, sync::Weak};

use super::{WriteBack, queue::ChangePlace};

/// How many wait for the changes before each place.
#[derive(Default)]
pub(super) struct AwaitedPlaces(BTreeMap<ChangePlace, usize>);

impl AwaitedPlaces {
    pub(super) fn first(&self) -> Option<ChangePlace> {
        self.0.first_key_value().map(|(place, _)| *place)
    }

    fn add(&mut self, place: ChangePlace) {
        *self.0.entry(place).or_default() += 1;
    }

    fn remove(&mut self, place: ChangePlace) {
        if let Some(count) = self.0.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&place);
            }
        }
    }
}

/// A wait for the changes before a place, until this is dropped.
pub(super) struct AwaitedPlace {
    /// A wait must not keep the log alive: it ends with the mount.
    owner: Weak<WriteBack>,
    place: ChangePlace,
}

impl WriteBack {
    pub(super) fn await_place(&self, place: ChangePlace) -> AwaitedPlace {
        self.state.lock().awaited.add(place);
        self.wake.notify_one();
        AwaitedPlace { owner: self.me.clone(), place }
    }
}

impl Drop for AwaitedPlace {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.state.lock().awaited.remove(self.place);
        }
    }
}
