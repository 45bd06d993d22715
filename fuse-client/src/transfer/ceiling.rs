//! The ceiling on the memory of bytes that are written and not yet stored, over all files of a mount.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

pub(super) struct Ceiling {
    limit: u64,
    held: AtomicU64,
    freed: watch::Sender<()>,
}

impl Ceiling {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, held: AtomicU64::new(0), freed: watch::Sender::new(()) }
    }

    /// Reserves memory; false if the ceiling is reached. A request always fits when nothing else is held, so a low
    /// ceiling makes writers slow, not stuck.
    pub(super) fn try_reserve(&self, bytes: u64) -> bool {
        let reserve = |held: u64| (held == 0 || held + bytes <= self.limit).then_some(held + bytes);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_ok()
    }

    /// Replaces `accounted` bytes, which were reserved or counted before, by the `actual` ones.
    pub(super) fn adjust(&self, accounted: u64, actual: u64) {
        if actual > accounted {
            self.held.fetch_add(actual - accounted, Ordering::AcqRel);
        } else if actual < accounted {
            self.held.fetch_sub(accounted - actual, Ordering::AcqRel);
            self.freed.send_replace(());
        }
    }

    /// Notifies of every decrease from now on.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}
