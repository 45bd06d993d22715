//! One mount: its memory, its kernel, its connection, the programs that use it, and the changes that it has answered
//! and not logged yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chordfs_types::namespace::{Ino, SessionId};

use super::{
    LEASE, Millis, NAMES_KEPT, Omission,
    history::SimValue,
    leader::{Seen, SimKind, SimOperation, SimRequest, SimResponse},
};
use crate::{Lease, LeaseNotice, NoticeKind};

pub(super) struct SimMount {
    pub(super) session: SessionId,
    omission: Option<Omission>,
    /// Counts connections; nothing of an older one arrives.
    pub(super) connection: u64,
    pub(super) is_attached: bool,
    pub(super) is_stopped: bool,
    /// Its leases have run out by then. It counts from when the last answered request was sent.
    lease_until: Millis,
    /// Grows when a notice arrives, when the connection breaks, and when a change by this mount begins or ends.
    epoch: u64,
    memory: BTreeMap<Ino, (SimValue, Lease)>,
    /// What the kernel answers on its own, and until when.
    kernel: BTreeMap<Ino, (SimValue, Millis)>,
    pub(super) operations: BTreeMap<u64, MountOperation>,
    /// Changes that were answered and are not known to be logged, in their order.
    pub(super) unlogged: VecDeque<SimOperation>,
    /// How many of them are under way to the leader.
    flushing: usize,
    /// Those of them whose leases have run out.
    lost: BTreeSet<SimValue>,
    /// LeaseNotices whose inodes are still to be logged, or to be forgotten by the kernel.
    unfinished: Vec<LeaseNotice>,
}

/// An operation of a program that the leader has to carry out.
pub(super) struct MountOperation {
    pub(super) operation: SimOperation,
    epoch: u64,
    /// It waits until what was answered before about its inodes is logged.
    is_sent: bool,
}

impl SimOperation {
    pub(super) fn writes(&self) -> bool {
        self.kind != SimKind::Read
    }

    fn concerns(&self, inos: &[Ino]) -> bool {
        self.inos.iter().any(|ino| inos.contains(ino))
    }
}

impl SimMount {
    pub(super) fn new(session: SessionId, omission: Option<Omission>) -> Self {
        Self {
            session,
            omission,
            connection: 0,
            is_attached: false,
            is_stopped: false,
            lease_until: 0,
            epoch: 0,
            memory: BTreeMap::new(),
            kernel: BTreeMap::new(),
            operations: BTreeMap::new(),
            unlogged: VecDeque::new(),
            flushing: 0,
            lost: BTreeSet::new(),
            unfinished: Vec::new(),
        }
    }

    /// What a program reads without asking the leader; the kernel answers also for a process that is stopped.
    pub(super) fn read_from_memory(&mut self, ino: Ino, now: Millis) -> Option<SimValue> {
        if let Some((value, until)) = self.kernel.get(&ino).copied()
            && until > now
        {
            return Some(value);
        }
        if !self.may_use_memory(ino, now) {
            return None;
        }
        let (value, lease) = self.memory.get(&ino).copied()?;
        if lease == Lease::Sole {
            self.kernel.insert(ino, (value, self.lease_until.min(now + NAMES_KEPT)));
        }
        Some(value)
    }

    /// Carries out a change under sole leases, to be logged later; returns false if it may not.
    pub(super) fn change_in_memory(&mut self, operation: &SimOperation, now: Millis) -> bool {
        let is_sole = |ino: &Ino| matches!(self.memory.get(ino), Some((_, Lease::Sole)));
        let is_plain = operation.kind == SimKind::Write;
        if !is_plain || !operation.inos.iter().all(|ino| is_sole(ino) && self.may_use_memory(*ino, now)) {
            return false;
        }
        // An answer that is under way tells what was before.
        self.epoch += 1;
        for ino in &operation.inos {
            self.memory.insert(*ino, (operation.id, Lease::Sole));
            self.kernel.remove(ino);
        }
        self.unlogged.push_back(operation.clone());
        true
    }

    pub(super) fn begin(&mut self, operation: SimOperation) {
        if operation.writes() && self.omission != Some(Omission::OwnChanges) {
            // What it has changed and not logged it cannot forget.
            let claimed = self.claimed();
            let inos: Vec<Ino> = operation.inos.iter().copied().filter(|ino| !claimed.contains(ino)).collect();
            self.forget(&inos);
        }
        let id = operation.id;
        self.operations.insert(id, MountOperation { operation, epoch: self.epoch, is_sent: false });
    }

    /// What may be sent now: some of the changes that were answered, and what does not concern any of them.
    pub(super) fn sendable(&mut self, most: usize) -> Vec<SimRequest> {
        if !self.is_attached {
            return Vec::new();
        }
        let mut requests = Vec::new();
        let unlogged: Vec<Ino> = self.unlogged.iter().flat_map(|change| change.inos.iter().copied()).collect();
        let is_order_kept = self.omission != Some(Omission::Order);
        let mut waits = false;
        for under_way in self.operations.values_mut().filter(|under_way| !under_way.is_sent) {
            if is_order_kept && under_way.operation.concerns(&unlogged) {
                waits = true;
                continue;
            }
            (under_way.is_sent, under_way.epoch) = (true, self.epoch);
            let operation = under_way.operation.clone();
            requests.push(if operation.writes() {
                SimRequest::Changes(vec![operation])
            } else {
                SimRequest::Read(operation)
            });
        }
        let is_awaited =
            waits || self.unfinished.iter().any(|notice| notice.inos.iter().any(|it| unlogged.contains(it)));
        requests.extend(self.flush(if is_awaited { usize::MAX } else { most }));
        requests
    }

    /// One list at a time, so that nothing overtakes what was answered before.
    fn flush(&mut self, most: usize) -> Option<SimRequest> {
        let count = most.min(self.unlogged.len());
        if self.flushing > 0 || count == 0 {
            return None;
        }
        self.flushing = count;
        Some(SimRequest::Changes(self.unlogged.iter().take(count).cloned().collect()))
    }

    /// All that was under way has to be sent again over the new connection.
    fn attached(&mut self) {
        self.is_attached = true;
        self.flushing = 0;
        self.operations.values_mut().for_each(|under_way| under_way.is_sent = false);
    }

    /// The inodes that it has changed and not logged under leases that have not run out, also if they were recalled:
    /// the leader waits for these changes. `None`: the kernel still answers names, so it may not attach yet.
    pub(super) fn claims(&mut self, now: Millis) -> Option<Vec<Ino>> {
        if self.kernel.values().any(|(_, until)| *until > now) {
            return None;
        }
        if self.lease_until <= now && self.omission != Some(Omission::Expiry) {
            self.lose(None);
        }
        Some(self.claimed().into_iter().collect())
    }

    fn claimed(&self) -> BTreeSet<Ino> {
        let kept = self.unlogged.iter().filter(|change| !self.lost.contains(&change.id));
        kept.flat_map(|change| change.inos.iter().copied()).collect()
    }

    /// Notes that the leases under which these inodes, or all, were changed have run out, and returns the changes.
    pub(super) fn lose(&mut self, inos: Option<&[Ino]>) -> Vec<SimValue> {
        let concerned = |change: &&SimOperation| inos.is_none_or(|inos| change.concerns(inos));
        let lost: Vec<SimValue> = self.unlogged.iter().filter(concerned).map(|change| change.id).collect();
        self.lost.extend(&lost);
        self.memory.retain(|ino, _| inos.is_some_and(|inos| !inos.contains(ino)));
        lost
    }

    pub(super) fn lost(&self) -> impl Iterator<Item = SimValue> {
        self.lost.iter().copied()
    }

    pub(super) fn disconnect(&mut self) {
        self.connection += 1;
        self.is_attached = false;
        self.unfinished.clear();
        let claimed = self.claimed();
        self.memory.retain(|ino, _| claimed.contains(ino));
        self.epoch += 1;
    }

    fn renew(&mut self, sent: Millis) {
        self.lease_until = self.lease_until.max(sent + LEASE);
    }

    /// Returns the operation that has ended, and what it saw or made.
    pub(super) fn receive(&mut self, response: SimResponse) -> Option<(MountOperation, Seen)> {
        match response {
            SimResponse::Attached { sent } => {
                self.renew(sent);
                self.attached();
            }
            SimResponse::Alive { sent } => self.renew(sent),
            SimResponse::Notice(notice) => {
                // An answer that was granted a lease before the notice may arrive after it.
                self.epoch += 1;
                match notice.kind {
                    NoticeKind::Recalled => {
                        for ino in &notice.inos {
                            self.memory.entry(*ino).and_modify(|(_, lease)| *lease = Lease::Shared);
                        }
                    }
                    // It has to log what it has answered, and nothing else.
                    NoticeKind::Wanted => {}
                    NoticeKind::Changed | NoticeKind::Revoked => self.forget(&notice.inos),
                }
                self.unfinished.push(notice);
            }
            SimResponse::Answer { operations, sent, seen } => {
                self.renew(sent);
                if self.unlogged.front().map(|change| change.id) == operations.first().copied() {
                    self.unlogged.drain(..operations.len());
                    self.flushing = 0;
                    return None;
                }
                let under_way = self.operations.remove(operations.first()?)?;
                self.remember(&under_way, &seen);
                return Some((under_way, seen));
            }
        }
        None
    }

    fn remember(&mut self, ended: &MountOperation, seen: &Seen) {
        let is_current = ended.epoch == self.epoch || self.omission == Some(Omission::Epochs);
        if ended.operation.writes() {
            let inos = &ended.operation.inos;
            self.forget(inos);
            self.kernel.retain(|ino, _| !inos.contains(ino));
        }
        for (ino, (value, lease)) in seen {
            if let Some(lease) = lease.filter(|_| is_current) {
                self.memory.insert(*ino, (*value, lease));
            }
        }
    }

    pub(super) fn forget(&mut self, inos: &[Ino]) {
        self.epoch += 1;
        self.memory.retain(|ino, _| !inos.contains(ino));
    }

    /// Lets the kernel forget what it can now, and returns the notices to acknowledge.
    pub(super) fn finish_notices(&mut self, now: Millis) -> Vec<LeaseNotice> {
        let changing: BTreeSet<Ino> = self.changing().collect();
        let may_flush_later = self.omission == Some(Omission::RecallsWaitForTheLog);
        let is_unlogged =
            |notice: &LeaseNotice| !may_flush_later && self.unlogged.iter().any(|it| it.concerns(&notice.inos));
        let in_kernel = |ino: &&Ino| self.kernel.get(*ino).is_some_and(|(_, until)| *until > now);
        let is_known = |notice: &LeaseNotice| match notice.kind {
            // Its names are not taken from it one by one: they expire soon.
            NoticeKind::Recalled => notice.inos.iter().any(|ino| in_kernel(&ino)),
            _ => notice.inos.iter().filter(in_kernel).any(|ino| changing.contains(ino)),
        };
        let forgets = self.omission != Some(Omission::KernelForgets);
        let (unfinished, finished): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unfinished)
            .into_iter()
            .partition(|notice| is_unlogged(notice) || forgets && is_known(notice));
        self.unfinished = unfinished;
        if forgets {
            self.kernel.retain(|ino, _| !finished.iter().any(|notice| notice.inos.contains(ino)));
        }
        finished
    }

    pub(super) fn has_unfinished_notices(&self) -> bool {
        !self.unfinished.is_empty()
    }

    fn may_use_memory(&self, ino: Ino, now: Millis) -> bool {
        let is_valid = self.lease_until > now || self.omission == Some(Omission::Expiry);
        let is_changing = self.changing().any(|it| it == ino) && self.omission != Some(Omission::OwnChanges);
        self.is_attached && !self.is_stopped && is_valid && !is_changing
    }

    fn changing(&self) -> impl Iterator<Item = Ino> {
        let changes = self.operations.values().filter(|under_way| under_way.operation.writes());
        changes.flat_map(|under_way| under_way.operation.inos.iter().copied())
    }
}
