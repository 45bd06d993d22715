//! Whether the disk is full for the namespace's log. The log's writer thread waits for space and records that here;
//! other tasks read for how long it has waited.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Whether the disk is full, according to the last writes.
#[derive(Default)]
pub(crate) struct DiskSpace {
    full_since: Mutex<Option<Instant>>,
    closing: AtomicBool,
}

impl DiskSpace {
    /// Records whether a write found the disk full. Returns true if that has changed.
    pub(crate) fn record(&self, full: bool) -> bool {
        let mut since = self.full_since.lock();
        let changed = since.is_some() != full;
        if changed {
            *since = full.then(Instant::now);
        }
        changed
    }

    /// For how long the disk has been full; zero while there is space.
    pub(crate) fn full_for(&self) -> Duration {
        self.full_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ends the waiting for space, because the node stops.
    pub(crate) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_reported() {
        let space = DiskSpace::default();
        assert!(!space.record(false), "there was space before");
        assert!(space.record(true) && !space.record(true) && space.full_for() > Duration::ZERO);
        assert!(space.record(false) && space.full_for().is_zero());
    }
}
