//! Whether what this session remembers may be used: its leases have not run out, and everything that the leader has
//! said about it was handled.
//!
//! Two clocks decide: one that continues while the machine sleeps, and the runtime's, which tests can set.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use chordfs_types::namespace::{FeedEvent, Granted, Ino, LEASE};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::boot_clock::since_boot;

#[derive(Default)]
pub(super) struct SessionMemory {
    /// Grows with every event, before the answers that follow it are delivered.
    epoch: AtomicU64,
    /// Events that were received, and those whose receiver has forgotten what they contradict.
    received: AtomicU64,
    handled: AtomicU64,
    is_attached: AtomicBool,
    lease: Mutex<LeaseEnd>,
    /// Inodes that no other session uses.
    sole: Mutex<HashSet<Ino>>,
    /// Until then the kernel may answer from its own memory.
    kernel_until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct LeaseEnd(Option<Moment>);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    runtime: Instant,
    boot: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { runtime: Instant::now(), boot: since_boot() }
    }

    /// The time until this moment on the clock that is further, zero if it has passed.
    fn left(self) -> Duration {
        let now = Self::now();
        let runtime = self.runtime.saturating_duration_since(now.runtime);
        runtime.min(self.boot.saturating_sub(now.boot))
    }
}

impl SessionMemory {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// How many events were received. Unlike the epoch it grows by nothing else.
    pub(super) fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    /// Notes that a request has been answered that was sent at `sent`.
    pub(super) fn note_answered(&self, sent: Moment) {
        let end = Moment { runtime: sent.runtime + LEASE, boot: sent.boot + LEASE };
        let mut lease = self.lease.lock();
        if lease.0.is_none_or(|former| former.boot < end.boot) {
            lease.0 = Some(end);
        }
    }

    /// Notes what may be remembered of an answer to a request that was sent in `epoch`.
    pub(super) fn note_granted(&self, epoch: u64, granted: &Granted) {
        if !granted.remember {
            // It is as if an event had overtaken the answer.
            self.epoch.fetch_add(1, SeqCst);
            return;
        }
        let mut sole = self.sole.lock();
        if self.epoch() == epoch {
            sole.extend(&granted.sole);
        }
    }

    /// Notes what the answer to a list of changes about `inos` has confirmed. What it does not name is shared now, or
    /// was never granted.
    pub(super) fn note_logged(&self, epoch: u64, inos: &[Ino], granted: &Granted) {
        let confirmed: HashSet<&Ino> = granted.sole.iter().collect();
        let mut sole = self.sole.lock();
        for ino in inos.iter().filter(|ino| !granted.remember || !confirmed.contains(ino)) {
            sole.remove(ino);
        }
        drop(sole);
        self.note_granted(epoch, granted);
    }

    /// Notes that the session has created the inode where no other one can see it.
    pub(super) fn note_created(&self, ino: Ino) {
        self.sole.lock().insert(ino);
    }

    /// Notes that the session is about to give its leases on these inodes back.
    pub(super) fn note_returned(&self, inos: &[Ino]) {
        let mut sole = self.sole.lock();
        for ino in inos {
            sole.remove(ino);
        }
    }

    /// Notes that events have arrived; `None` if some may have been missed. To be called before they are delivered.
    pub(super) fn note_received(&self, events: Option<&[FeedEvent]>) {
        self.received.fetch_add(1, SeqCst);
        self.epoch.fetch_add(1, SeqCst);
        let mut sole = self.sole.lock();
        let Some(events) = events else { return sole.clear() };
        for event in events {
            if let FeedEvent::Recalled { ino } | FeedEvent::Revoked { ino } = event {
                sole.remove(ino);
            }
        }
    }

    /// Notes that the receiver has forgotten what the next event contradicts.
    pub(super) fn note_handled(&self) {
        self.handled.fetch_add(1, SeqCst);
    }

    pub(super) fn set_attached(&self, is_attached: bool) {
        self.is_attached.store(is_attached, SeqCst);
    }

    /// How long the memory may be used; zero if it may not.
    pub(super) fn usable_for(&self) -> Duration {
        if !self.is_attached.load(SeqCst) || self.handled.load(SeqCst) < self.received.load(SeqCst) {
            return Duration::ZERO;
        }
        self.lease.lock().0.map_or(Duration::ZERO, Moment::left)
    }

    pub(super) fn is_sole(&self, ino: Ino) -> bool {
        self.sole.lock().contains(&ino)
    }

    /// Notes that the kernel may answer from its own memory for `time` from now on.
    pub(super) fn note_kernel(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut kernel_until = self.kernel_until.lock();
        if kernel_until.is_none_or(|former| former < until) {
            *kernel_until = Some(until);
        }
    }

    /// When the kernel has forgotten everything; `None` if it remembers nothing.
    pub(super) fn kernel_until(&self) -> Option<Instant> {
        *self.kernel_until.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(sole: &[u64]) -> Granted {
        Granted { remember: true, sole: sole.iter().map(|ino| Ino(*ino)).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_may_be_used_while_the_lease_lasts_and_every_event_is_heeded() {
        let memory = SessionMemory::default();
        memory.note_answered(Moment::now());
        assert_eq!(memory.usable_for(), Duration::ZERO, "it is not attached");
        memory.set_attached(true);
        assert!(memory.usable_for() > Duration::ZERO);
        memory.note_received(Some(&[]));
        assert_eq!(memory.usable_for(), Duration::ZERO, "the event is not handled yet");
        memory.note_handled();
        assert!(memory.usable_for() > Duration::ZERO);
        tokio::time::advance(LEASE).await;
        assert_eq!(memory.usable_for(), Duration::ZERO, "the lease has run out");
    }

    #[test]
    fn a_sole_lease_ends_by_an_event_and_is_not_noted_after_one() {
        let memory = SessionMemory::default();
        let epoch = memory.epoch();
        memory.note_granted(epoch, &granted(&[5, 6]));
        assert!(memory.is_sole(Ino(5)) && memory.is_sole(Ino(6)));
        memory.note_received(Some(&[FeedEvent::Recalled { ino: Ino(5) }]));
        assert!(!memory.is_sole(Ino(5)) && memory.is_sole(Ino(6)));
        memory.note_granted(epoch, &granted(&[5]));
        assert!(!memory.is_sole(Ino(5)), "the event overtook the answer");
        memory.note_received(None);
        assert!(!memory.is_sole(Ino(6)));
    }

    #[test]
    fn a_lease_that_is_given_back_is_no_longer_a_sole_one() {
        let memory = SessionMemory::default();
        memory.note_granted(memory.epoch(), &granted(&[5, 6]));
        memory.note_returned(&[Ino(5)]);
        assert!(!memory.is_sole(Ino(5)) && memory.is_sole(Ino(6)));
    }

    #[test]
    fn an_answer_that_must_not_be_remembered_counts_as_overtaken() {
        let memory = SessionMemory::default();
        let (epoch, received) = (memory.epoch(), memory.received());
        memory.note_granted(epoch, &Granted::default());
        assert!(memory.epoch() > epoch);
        assert_eq!(memory.received(), received, "the leader is told by this count which events were handled");
    }
}
