//! The ceiling over the memory that written, not yet stored bytes take, over all files of a mount.

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

    /// One request always fits when nothing else is held, so a low ceiling makes writers slow, not stuck.
    pub(super) fn try_reserve(&self, bytes: u64) -> bool {
        let reserve = |held: u64| (held == 0 || held + bytes <= self.limit).then_some(held + bytes);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_ok()
    }

    /// What the memory turned out to be, after `reserved` was set aside or accounted for it.
    pub(super) fn settle(&self, reserved: u64, now: u64) {
        if now > reserved {
            self.held.fetch_add(now - reserved, Ordering::AcqRel);
        } else if now < reserved {
            self.held.fetch_sub(reserved - now, Ordering::AcqRel);
            self.freed.send_replace(());
        }
    }

    /// Tells of every decrease from now on.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}
