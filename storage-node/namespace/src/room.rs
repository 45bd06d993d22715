//! What this node does while its disk has no room for the namespace's log: it waits, and lets others decide meanwhile.
//!
//! The thread that writes the log finds out and says so here ([`Room`]). A node for which that lasts gives up the lead
//! and then its vote, by the ways that a drain takes; with room again it may be chosen as before. Its memory holds what
//! waits for the disk until then.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Inner, leave};

/// Compaction, or a person, may make room in this time, and nobody need be bothered.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether the disk is full, as the last writes met it.
#[derive(Default)]
pub struct Room {
    full_since: Mutex<Option<Instant>>,
    closing: AtomicBool,
}

impl Room {
    /// A write has met a full disk, or has found room. True if that is news.
    pub fn note(&self, full: bool) -> bool {
        let mut since = self.full_since.lock();
        let news = since.is_some() != full;
        if news {
            *since = full.then(Instant::now);
        }
        news
    }

    /// Zero while there is room.
    pub fn full_for(&self) -> Duration {
        self.full_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Nobody is to wait for room any more.
    pub fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives up the lead and the vote while the disk is full for long, and says when it is no more.
pub(super) async fn step_aside(inner: &Arc<Inner>) {
    let mut aside = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let full_for = inner.log.room().full_for();
        if full_for >= PATIENCE && inner.is_voter() {
            if !aside {
                tracing::warn!("the disk is full: others decide about the namespace until there is room");
            }
            aside = true;
            leave::step_back(inner).await;
        } else if aside && full_for.is_zero() {
            aside = false;
            leave::decline(inner, false).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_news() {
        let room = Room::default();
        assert!(!room.note(false), "there was room before");
        assert!(room.note(true) && !room.note(true) && room.full_for() > Duration::ZERO);
        assert!(room.note(false) && room.full_for().is_zero());
    }
}
