//! The leader: requests wait in it as long as the lease table says. The log and what was applied survive it.

use std::collections::{BTreeMap, VecDeque};

use chordfs_types::namespace::{Ino, SessionId};

use super::{LEASE, Millis, Omission, history::Place, millis};
use crate::{Lease, LeaseNotice, LeaseSettings, LeaseTable, NoticeId, WaitId};

/// What mounts send.
#[derive(Clone, Debug)]
pub(super) enum SimRequest {
    Attach { claims: Vec<Ino> },
    KeepAlive,
    Operation(SimOperation),
    Acknowledge { notice: NoticeId, keeps: bool },
}

#[derive(Clone, Debug)]
pub(super) struct SimOperation {
    /// It stays when the operation is sent again.
    pub(super) id: u64,
    pub(super) inos: Vec<Ino>,
    pub(super) writes: bool,
}

/// What mounts receive.
#[derive(Clone, Debug)]
pub(super) enum SimResponse {
    Attached { sent: Millis },
    Alive { sent: Millis },
    Answer { operation: u64, sent: Millis, place: Place, lease: Option<Lease> },
    Notice(LeaseNotice),
}

/// Applied changes. They survive every leader.
#[derive(Default)]
pub(super) struct Log {
    last: Place,
    places: BTreeMap<Ino, Place>,
    replies: BTreeMap<u64, Place>,
}

impl Log {
    fn place(&self, ino: Ino) -> Place {
        self.places.get(&ino).copied().unwrap_or_default()
    }

    /// An operation that arrived twice is applied once.
    fn apply(&mut self, operation: &SimOperation) -> Place {
        if let Some(place) = self.replies.get(&operation.id) {
            return *place;
        }
        self.last += 1;
        self.places.extend(operation.inos.iter().map(|ino| (*ino, self.last)));
        self.replies.insert(operation.id, self.last);
        self.last
    }
}

pub(super) struct Leader {
    pub(super) leases: LeaseTable,
    waiting: BTreeMap<WaitId, SimWork>,
    omission: Option<Omission>,
    /// To send, in this order: over the connection of the request, or over the one that is attached.
    pub(super) responses: Vec<(SessionId, Option<u64>, SimResponse)>,
    /// Changes to apply after some time.
    pub(super) proposals: VecDeque<SimWork>,
}

/// An operation under way at the leader.
#[derive(Clone, Debug)]
pub(super) struct SimWork {
    session: SessionId,
    connection: u64,
    sent: Millis,
    operation: SimOperation,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Recall,
    Answer { place: Place, lease: Option<Lease> },
}

impl Leader {
    pub(super) fn new(max_per_session: usize, omission: Option<Omission>) -> Self {
        let max_per_session = max_per_session.try_into().expect("not zero");
        let leases = LeaseTable::new(LeaseSettings { duration: millis(LEASE), max_per_session });
        Self { leases, waiting: BTreeMap::new(), omission, responses: Vec::new(), proposals: VecDeque::new() }
    }

    pub(super) fn receive(
        &mut self,
        from: (SessionId, u64),
        sent: Millis,
        request: SimRequest,
        now: Millis,
        log: &mut Log,
    ) {
        let (session, connection) = from;
        self.leases.renew(session, millis(now));
        match request {
            SimRequest::Attach { claims } => {
                self.leases.attach(session, &claims, millis(now));
                self.responses.push((session, Some(connection), SimResponse::Attached { sent }));
                if self.omission == Some(Omission::ClaimsAreChecked) {
                    for notice in self.leases.take_notices() {
                        self.leases.acknowledge(notice.id, true);
                    }
                }
            }
            SimRequest::KeepAlive => self.responses.push((session, Some(connection), SimResponse::Alive { sent })),
            SimRequest::Acknowledge { notice, keeps } => self.leases.acknowledge(notice, keeps),
            SimRequest::Operation(operation) => {
                self.go_on(SimWork { session, connection, sent, operation, step: Step::Recall }, now, log);
            }
        }
        self.release(now, log);
    }

    pub(super) fn expire(&mut self, now: Millis, log: &mut Log) -> Vec<SessionId> {
        let expired = self.leases.expire(millis(now));
        self.release(now, log);
        expired
    }

    /// Applies a change whose entry is committed.
    pub(super) fn commit(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let place = log.apply(&work.operation);
        let wait = self.leases.changed(Some(work.session), &work.operation.inos);
        self.send_notices();
        let lease = work
            .operation
            .inos
            .iter()
            .map(|ino| self.leases.grant(work.session, *ino, Lease::Sole, millis(now)))
            .last();
        work.step = Step::Answer { place, lease: lease.flatten() };
        let wait = wait.filter(|_| self.omission != Some(Omission::ChangesWait));
        self.wait_or_go_on(wait, work, now, log);
        self.release(now, log);
    }

    fn go_on(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let (reader, inos) = (Some(work.session), work.operation.inos.clone());
        match work.step {
            Step::Answer { place, lease } => {
                let answer = SimResponse::Answer { operation: work.operation.id, sent: work.sent, place, lease };
                self.responses.push((work.session, Some(work.connection), answer));
            }
            Step::Recall if let Some(place) = log.replies.get(&work.operation.id).copied() => {
                work.step = Step::Answer { place, lease: None };
                let wait = self.leases.all_settled(reader);
                self.wait_or_go_on(wait, work, now, log);
            }
            Step::Recall => {
                let wait = self.leases.recall(reader, &inos);
                self.send_notices();
                match wait {
                    Some(wait) => drop(self.waiting.insert(wait, work)),
                    None if work.operation.writes => self.proposals.push_back(work),
                    None => self.read(work, now, log),
                }
            }
        }
    }

    fn read(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let ino = work.operation.inos[0];
        let place = log.place(ino);
        work.step = Step::Answer { place, lease: self.leases.grant(work.session, ino, Lease::Sole, millis(now)) };
        self.send_notices();
        let wait = self.leases.settled(Some(work.session), &[ino]);
        self.wait_or_go_on(wait.filter(|_| self.omission != Some(Omission::QueriesWait)), work, now, log);
    }

    fn wait_or_go_on(&mut self, wait: Option<WaitId>, work: SimWork, now: Millis, log: &mut Log) {
        match wait {
            Some(wait) => drop(self.waiting.insert(wait, work)),
            None => self.go_on(work, now, log),
        }
    }

    fn release(&mut self, now: Millis, log: &mut Log) {
        self.send_notices();
        loop {
            let released = self.leases.take_released();
            if released.is_empty() {
                return;
            }
            for wait in released {
                if let Some(work) = self.waiting.remove(&wait) {
                    self.go_on(work, now, log);
                }
            }
        }
    }

    fn send_notices(&mut self) {
        let notices = self.leases.take_notices().into_iter();
        self.responses.extend(notices.map(|notice| (notice.id.session, None, SimResponse::Notice(notice))));
    }
}
