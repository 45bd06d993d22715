//! The locks on one inode, as a value: who holds what, and who waits in which order.
//!
//! A mount keeps such a set, too, and decides alone as long as no other mount uses the file.

use std::collections::VecDeque;

use chordfs_types::namespace::{HeldLock, LockKind, LockRange, SessionId};
use serde::{Deserialize, Serialize};

/// The most locks that are held on one inode.
pub(crate) const MAX_HELD: usize = 2048;
/// The most locks that are waited for on one inode: each time one is ended all of these are looked at.
pub(crate) const MAX_WAITING: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InodeLocks {
    held: Vec<HeldLock>,
    waiting: VecDeque<WaitingLock>,
}

/// A program waits for a lock. The ticket is its session's name for that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WaitingLock {
    pub(crate) ticket: u64,
    pub(crate) wanted: HeldLock,
}

/// A session and one of its owners.
pub(crate) type LockHolder = (SessionId, u64);

pub(crate) fn holder(held: &HeldLock) -> LockHolder {
    (held.session, held.lock.range.owner)
}

impl InodeLocks {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    pub fn held(&self) -> &[HeldLock] {
        &self.held
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &WaitingLock> {
        self.waiting.iter()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD || self.waiting.len() >= MAX_WAITING
    }

    /// A lock that keeps somebody else from this one.
    pub fn conflict(&self, wanted: &HeldLock) -> Option<&HeldLock> {
        self.held.iter().find(|held| conflicts(held, wanted))
    }

    /// Whether the owner holds all of this.
    pub fn covers(&self, wanted: &HeldLock) -> bool {
        let (range, kind) = (wanted.lock.range, wanted.lock.kind);
        // Ranges that touch are one.
        let covers = |held: &HeldLock| held.lock.range.first <= range.first && range.last <= held.lock.range.last;
        self.held.iter().any(|held| is_same_kind(held, wanted) && held.lock.kind == kind && covers(held))
    }

    /// Whether the lock would overtake somebody who waits for longer.
    pub(crate) fn overtakes(&self, wanted: &HeldLock) -> bool {
        self.has_to_queue(wanted) && self.waiting.iter().any(|waiting| conflicts(&waiting.wanted, wanted))
    }

    /// An owner who holds something already overtakes everybody: those who wait may wait for that.
    fn has_to_queue(&self, wanted: &HeldLock) -> bool {
        !self.held.iter().any(|held| holder(held) == holder(wanted))
    }

    /// Everybody for whom this lock has to wait, or waits already.
    pub(crate) fn blockers(&self, wanted: &HeldLock) -> Vec<LockHolder> {
        let held = self.held.iter().filter(|held| conflicts(held, wanted)).map(holder);
        let earlier = self.waiting.iter().map(|waiting| &waiting.wanted).take_while(|earlier| *earlier != wanted);
        let earlier = earlier.filter(|earlier| self.has_to_queue(wanted) && conflicts(earlier, wanted)).map(holder);
        held.chain(earlier).collect()
    }

    /// Gives a lock, in place of what its owner holds of the range.
    pub fn set(&mut self, lock: HeldLock) {
        self.unset(lock.session, &lock.lock.range);
        let mut merged = lock;
        self.held.retain(|held| {
            let joins = is_same_kind(held, &merged) && touches(&held.lock.range, &merged.lock.range);
            if joins {
                let range = &mut merged.lock.range;
                range.first = range.first.min(held.lock.range.first);
                range.last = range.last.max(held.lock.range.last);
            }
            !joins
        });
        self.held.push(merged);
    }

    /// Takes away what the owner holds of the range.
    pub fn unset(&mut self, session: SessionId, range: &LockRange) {
        let mut parts = Vec::new();
        self.held.retain(|held| {
            let own = held.lock.range;
            let is_concerned = (held.session, own.owner, own.space) == (session, range.owner, range.space);
            if !is_concerned || !overlap(&own, range) {
                return true;
            }
            let mut keep = |first: u64, last: u64| {
                let mut part = *held;
                (part.lock.range.first, part.lock.range.last) = (first, last);
                parts.push(part);
            };
            if own.first < range.first {
                keep(own.first, range.first - 1);
            }
            if own.last > range.last {
                keep(range.last + 1, own.last);
            }
            false
        });
        self.held.extend(parts);
    }

    pub(crate) fn wait(&mut self, waiting: WaitingLock) {
        self.waiting.push_back(waiting);
    }

    pub(crate) fn is_waiting(&self, session: SessionId, ticket: u64) -> bool {
        self.waiting.iter().any(|waiting| (waiting.wanted.session, waiting.ticket) == (session, ticket))
    }

    pub(crate) fn cancel(&mut self, session: SessionId, ticket: u64) {
        self.waiting.retain(|waiting| (waiting.wanted.session, waiting.ticket) != (session, ticket));
    }

    /// Ends everything of a session.
    pub(crate) fn drop_session(&mut self, session: SessionId) {
        self.held.retain(|held| held.session != session);
        self.waiting.retain(|waiting| waiting.wanted.session != session);
    }

    /// Gives those who wait what they can get now, in their order. Nobody overtakes somebody who wants the same.
    pub(crate) fn promote(&mut self) -> Vec<(SessionId, u64)> {
        let (mut granted, mut still) = (Vec::new(), VecDeque::new());
        if self.waiting.is_empty() {
            return granted;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            let WaitingLock { ticket, wanted } = waiting;
            let is_queued = self.has_to_queue(&wanted)
                && still.iter().any(|earlier: &WaitingLock| conflicts(&earlier.wanted, &wanted));
            if is_queued || self.conflict(&wanted).is_some() {
                still.push_back(waiting);
            } else {
                self.set(wanted);
                granted.push((wanted.session, ticket));
            }
        }
        self.waiting = still;
        granted
    }
}

fn conflicts(one: &HeldLock, other: &HeldLock) -> bool {
    let is_exclusive = [one, other].iter().any(|held| held.lock.kind == LockKind::Exclusive);
    let (range, wanted) = (&one.lock.range, &other.lock.range);
    is_exclusive && holder(one) != holder(other) && range.space == wanted.space && overlap(range, wanted)
}

fn overlap(one: &LockRange, other: &LockRange) -> bool {
    one.first <= other.last && other.first <= one.last
}

/// Whether the two together are one range.
fn touches(one: &LockRange, other: &LockRange) -> bool {
    one.first <= other.last.saturating_add(1) && other.first <= one.last.saturating_add(1)
}

fn is_same_kind(one: &HeldLock, other: &HeldLock) -> bool {
    holder(one) == holder(other) && one.lock.range.space == other.lock.range.space && one.lock.kind == other.lock.kind
}
