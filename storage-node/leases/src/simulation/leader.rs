//! The leader: requests wait in it as long as the lease table says. The log and what was applied survive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chordfs_types::namespace::{EntryName, Ino, SessionId};

use super::{
    DIRECTORY, LEASE, Millis, OUTSIDER, Omission,
    history::{Place, SimValue},
    millis,
};
use crate::{ChangeKey, IntentId, Lease, LeaseNotice, LeaseSettings, LeaseTable, NoticeId, WaitId};

/// What mounts send.
#[derive(Clone, Debug)]
pub(super) enum SimRequest {
    Attach {
        claims: Vec<Ino>,
    },
    KeepAlive,
    Read(SimOperation),
    /// The changes of one entry. Several were all answered before.
    Changes(Vec<SimOperation>),
    Acknowledge {
        notice: NoticeId,
        keeps: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct SimOperation {
    /// It stays when the operation is sent again.
    pub(super) id: u64,
    /// What the mount knows that it may concern.
    pub(super) inos: Vec<Ino>,
    pub(super) kind: SimKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimKind {
    Read,
    Write,
    /// Changes the directory, and the inode to which the name in it leads when this is applied.
    Follow,
    /// Lets the name lead to another inode.
    Move(Ino),
}

/// What an answer tells of inodes, and the leases on them.
pub(super) type Seen = BTreeMap<Ino, (SimValue, Option<Lease>)>;

/// What mounts receive.
#[derive(Clone, Debug)]
pub(super) enum SimResponse {
    Attached { sent: Millis },
    Alive { sent: Millis },
    Answer { operations: Vec<u64>, sent: Millis, seen: Seen },
    Notice(LeaseNotice),
}

/// Applied changes. They survive every leader.
pub(super) struct Log {
    last: Place,
    values: BTreeMap<Ino, SimValue>,
    /// Where in the log each change is, and which inodes it has changed.
    applied: BTreeMap<SimValue, (Place, Vec<Ino>)>,
    /// Where the name leads.
    target: Ino,
}

impl Default for Log {
    fn default() -> Self {
        Self { last: 0, values: BTreeMap::new(), applied: BTreeMap::new(), target: Ino(1) }
    }
}

impl Log {
    /// Its place, and what it has changed; `None` if it is not applied.
    pub(super) fn applied(&self, change: SimValue) -> Option<&(Place, Vec<Ino>)> {
        self.applied.get(&change)
    }

    fn value(&self, ino: Ino) -> SimValue {
        self.values.get(&ino).copied().unwrap_or_default()
    }

    /// What changes are about, by what is applied now.
    pub(super) fn concerned(&self, operations: &[SimOperation]) -> Vec<Ino> {
        let inos = operations.iter().flat_map(|operation| match operation.kind {
            SimKind::Follow => vec![DIRECTORY, self.target],
            SimKind::Move(to) => vec![DIRECTORY, self.target, to],
            SimKind::Read | SimKind::Write => operation.inos.clone(),
        });
        inos.collect::<BTreeSet<Ino>>().into_iter().collect()
    }

    /// A change that arrived twice is applied once.
    fn apply(&mut self, operation: &SimOperation) {
        if self.applied.contains_key(&operation.id) {
            return;
        }
        self.last += 1;
        let inos = self.concerned(std::slice::from_ref(operation));
        if let SimKind::Move(to) = operation.kind {
            self.target = to;
        }
        self.values.extend(inos.iter().map(|ino| (*ino, operation.id)));
        self.applied.insert(operation.id, (self.last, inos));
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

/// A request under way at the leader.
#[derive(Clone, Debug)]
pub(super) struct SimWork {
    pub(super) session: SessionId,
    connection: u64,
    sent: Millis,
    pub(super) operations: Vec<SimOperation>,
    intent: Option<IntentId>,
    asked: BTreeSet<SessionId>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Recall,
    Answer(Seen),
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
            SimRequest::Attach { claims } => self.attach(from, sent, &claims, now),
            SimRequest::KeepAlive => self.responses.push((session, Some(connection), SimResponse::Alive { sent })),
            SimRequest::Acknowledge { notice, keeps } => self.leases.acknowledge(notice, keeps),
            SimRequest::Read(operation) => self.begin(from, sent, vec![operation], now, log),
            SimRequest::Changes(operations) => self.begin(from, sent, operations, now, log),
        }
        self.release(now, log);
    }

    fn attach(&mut self, (session, connection): (SessionId, u64), sent: Millis, claims: &[Ino], now: Millis) {
        let claims = if self.omission == Some(Omission::ClaimsAreKept) { &[] } else { claims };
        if self.omission == Some(Omission::LateClaimsAreRefused) {
            // A late session is treated as one that was waited for.
            self.leases.await_claims_of(session, millis(now));
        }
        self.leases.attach(session, claims, |_| true, millis(now));
        self.send_notices();
        self.responses.push((session, Some(connection), SimResponse::Attached { sent }));
    }

    fn begin(
        &mut self,
        (session, connection): (SessionId, u64),
        sent: Millis,
        operations: Vec<SimOperation>,
        now: Millis,
        log: &mut Log,
    ) {
        let (asked, step) = (BTreeSet::new(), Step::Recall);
        self.go_on(SimWork { session, connection, sent, operations, intent: None, asked, step }, now, log);
    }

    pub(super) fn expire(&mut self, now: Millis, log: &mut Log) -> Vec<SessionId> {
        let expired = self.leases.expire(millis(now));
        self.release(now, log);
        expired
    }

    /// Applies changes whose entry is committed.
    pub(super) fn commit(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let is_repeated = work.operations.iter().any(|operation| log.applied.contains_key(&operation.id));
        work.operations.iter().for_each(|operation| log.apply(operation));
        let changed = work.operations.iter().filter_map(|operation| log.applied.get(&operation.id));
        let inos: BTreeSet<Ino> = changed.flat_map(|(_, inos)| inos.iter().copied()).collect();
        let inos: Vec<Ino> = inos.into_iter().collect();
        let mut wait = self.leases.changed(Some(work.session), &inos);
        self.send_notices();
        let mut tell = |ino: &Ino| (*ino, (log.value(*ino), self.leases.grant(work.session, *ino, millis(now))));
        work.step = Step::Answer(inos.iter().map(&mut tell).collect());
        if is_repeated {
            work.step = Step::Answer(Seen::new());
            wait = self.leases.all_settled(Some(work.session));
        }
        if let Some(intent) = work.intent.take() {
            self.leases.end_change(intent);
        }
        let wait = wait.filter(|_| self.omission != Some(Omission::ChangesWait));
        self.wait_or_go_on(wait, work, now, log);
        self.release(now, log);
    }

    fn go_on(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let reader = Some(work.session);
        match work.step.clone() {
            Step::Answer(seen) => {
                let operations = work.operations.iter().map(|operation| operation.id).collect();
                let answer = SimResponse::Answer { operations, sent: work.sent, seen };
                self.responses.push((work.session, Some(work.connection), answer));
            }
            Step::Recall if work.operations.iter().all(|operation| log.applied.contains_key(&operation.id)) => {
                work.step = Step::Answer(Seen::new());
                let wait = self.leases.all_settled(reader);
                self.wait_or_go_on(wait, work, now, log);
            }
            Step::Recall if work.operations[0].kind == SimKind::Read => {
                let inos = work.operations[0].inos.clone();
                let wait = match work.session {
                    OUTSIDER if self.omission == Some(Omission::Wanted) => None,
                    OUTSIDER => self.leases.want(reader, &inos, &mut work.asked),
                    _ => self.leases.recall(reader, &inos),
                };
                self.send_notices();
                match wait {
                    Some(wait) => drop(self.waiting.insert(wait, work)),
                    None => self.read(work, now, log),
                }
            }
            Step::Recall => self.prepare(work, now, log),
        }
    }

    fn prepare(&mut self, mut work: SimWork, now: Millis, log: &Log) {
        let inos = log.concerned(&work.operations);
        let name = ChangeKey::Name(DIRECTORY, EntryName::new("name").expect("it has no slash"));
        let has_name =
            work.operations.iter().any(|operation| matches!(operation.kind, SimKind::Follow | SimKind::Move(_)));
        let is_ordered = has_name && self.omission != Some(Omission::NamesAreOrdered);
        let keys = if is_ordered { vec![name] } else { Vec::new() };
        let (intent, wait) = self.leases.prepare_change(work.intent, Some(work.session), &inos, keys, millis(now));
        self.send_notices();
        work.intent = Some(intent);
        if self.omission == Some(Omission::Intents) {
            self.leases.end_change(intent);
        }
        match wait.filter(|_| self.omission != Some(Omission::RecallsBeforeChanges)) {
            Some(wait) => drop(self.waiting.insert(wait, work)),
            None => self.proposals.push_back(work),
        }
    }

    fn read(&mut self, mut work: SimWork, now: Millis, log: &mut Log) {
        let ino = work.operations[0].inos[0];
        let lease = self.leases.grant(work.session, ino, millis(now));
        work.step = Step::Answer(Seen::from([(ino, (log.value(ino), lease))]));
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
