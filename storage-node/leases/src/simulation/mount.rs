//! One mount: its memory, its kernel, its connection, and the programs that use it.

use std::collections::{BTreeMap, BTreeSet};

use chordfs_types::namespace::{Ino, SessionId};

use super::{
    LEASE, Millis, Omission,
    history::{Beginning, Place},
    leader::{SimOperation, SimRequest, SimResponse},
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
    memory: BTreeMap<Ino, (Place, Lease)>,
    /// What the kernel answers on its own, and until when.
    kernel: BTreeMap<Ino, (Place, Millis)>,
    pub(super) operations: BTreeMap<u64, MountOperation>,
    /// LeaseNotices whose inodes the kernel has not forgotten yet.
    unfinished: Vec<LeaseNotice>,
}

/// An operation of a program that the leader has to carry out.
pub(super) struct MountOperation {
    pub(super) operation: SimOperation,
    pub(super) begun: Beginning,
    epoch: u64,
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
            unfinished: Vec::new(),
        }
    }

    /// What a program reads without asking the leader; the kernel answers also for a process that is stopped.
    pub(super) fn read_from_memory(&mut self, ino: Ino, now: Millis) -> Option<Place> {
        if let Some((place, until)) = self.kernel.get(&ino).copied()
            && until > now
        {
            return Some(place);
        }
        if self.is_stopped || !(self.lease_until > now || self.omission == Some(Omission::Expiry)) {
            return None;
        }
        if self.is_changing(ino) && self.omission != Some(Omission::OwnChanges) {
            return None;
        }
        let (place, lease) = self.memory.get(&ino).copied()?;
        if lease == Lease::Sole {
            self.kernel.insert(ino, (place, self.lease_until));
        }
        Some(place)
    }

    pub(super) fn begin(&mut self, operation: SimOperation, begun: Beginning) -> SimRequest {
        if operation.writes && self.omission != Some(Omission::OwnChanges) {
            self.forget(&operation.inos);
        }
        let request = SimRequest::Operation(operation.clone());
        self.operations.insert(operation.id, MountOperation { operation, begun, epoch: self.epoch });
        request
    }

    /// What has to be sent again over a new connection.
    pub(super) fn attached(&mut self) -> Vec<SimRequest> {
        self.is_attached = true;
        let epoch = self.epoch;
        let again = self.operations.values_mut().map(|under_way| {
            under_way.epoch = epoch;
            SimRequest::Operation(under_way.operation.clone())
        });
        again.collect()
    }

    /// The inodes that the kernel may still answer for.
    pub(super) fn claims(&self, now: Millis) -> Vec<Ino> {
        self.kernel.iter().filter(|(_, (_, until))| *until > now).map(|(ino, _)| *ino).collect()
    }

    pub(super) fn disconnect(&mut self) {
        self.connection += 1;
        self.is_attached = false;
        self.unfinished.clear();
        self.memory.clear();
        self.epoch += 1;
    }

    pub(super) fn renew(&mut self, sent: Millis) {
        self.lease_until = self.lease_until.max(sent + LEASE);
    }

    /// Returns the operation that has ended, and what it saw or made.
    pub(super) fn receive(&mut self, response: SimResponse) -> Option<(MountOperation, Place)> {
        match response {
            SimResponse::Attached { sent } | SimResponse::Alive { sent } => self.renew(sent),
            SimResponse::Notice(notice) => {
                // An answer that was granted a lease before the notice may arrive after it.
                self.epoch += 1;
                if notice.kind == NoticeKind::Recalled {
                    for ino in &notice.inos {
                        self.memory.entry(*ino).and_modify(|(_, lease)| *lease = Lease::Shared);
                    }
                } else {
                    self.forget(&notice.inos);
                }
                self.unfinished.push(notice);
            }
            SimResponse::Answer { operation, sent, place, lease } => {
                self.renew(sent);
                let under_way = self.operations.remove(&operation)?;
                self.remember(&under_way, place, lease);
                return Some((under_way, place));
            }
        }
        None
    }

    fn remember(&mut self, ended: &MountOperation, place: Place, lease: Option<Lease>) {
        let inos = &ended.operation.inos;
        let is_current = ended.epoch == self.epoch || self.omission == Some(Omission::Epochs);
        if ended.operation.writes {
            self.forget(inos);
            self.kernel.retain(|ino, _| !inos.contains(ino));
        }
        if let [ino] = inos[..]
            && let Some(lease) = lease.filter(|_| is_current)
        {
            self.memory.insert(ino, (place, lease));
        }
    }

    pub(super) fn forget(&mut self, inos: &[Ino]) {
        self.epoch += 1;
        self.memory.retain(|ino, _| !inos.contains(ino));
    }

    /// Lets the kernel forget what it can now, and returns the notices to acknowledge.
    pub(super) fn finish_notices(&mut self) -> Vec<LeaseNotice> {
        let changing: BTreeSet<Ino> = self.changing().collect();
        let in_kernel = |ino: &&Ino| self.kernel.contains_key(*ino);
        let is_locked = |notice: &LeaseNotice| notice.inos.iter().filter(in_kernel).any(|ino| changing.contains(ino));
        let (locked, finished): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unfinished).into_iter().partition(is_locked);
        self.unfinished = locked;
        if self.omission == Some(Omission::KernelForgets) {
            return finished;
        }
        self.kernel.retain(|ino, _| !finished.iter().any(|notice| notice.inos.contains(ino)));
        finished
    }

    fn is_changing(&self, ino: Ino) -> bool {
        self.changing().any(|it| it == ino)
    }

    fn changing(&self) -> impl Iterator<Item = Ino> {
        let changes = self.operations.values().filter(|under_way| under_way.operation.writes);
        changes.flat_map(|under_way| under_way.operation.inos.iter().copied())
    }
}
