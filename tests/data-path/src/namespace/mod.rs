//! The simulated namespace: the real tables behind one log, and a leader that may change.
//!
//! As in `chordfs-namespace`: the feed of an operation is queued on all other sessions' connections while it is
//! applied, an answer only later; a session lives while its lease is renewed; a leader that changes closes all
//! connections. The voters' consensus is not simulated: an operation is applied or not, and its sender may never learn.

mod duties;
mod voter;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use chordfs_net::rpc::{RpcPeer, Value};
use chordfs_tables::{AppliedOp, Tables};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Change, FeedEvent, FeedMessage, NamespaceOp, Query, Reply, SessionId, Time, calls, encode},
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use self::voter::Voter;
use crate::{oracle::Oracle, plane::Plane, world::World};

pub(crate) const VOTERS: usize = 3;
const PORT: u16 = 5057;

pub(crate) struct Namespace {
    pub(crate) world: Arc<World>,
    oracle: Arc<Oracle>,
    plane: Arc<Plane>,
    leader: Mutex<Leader>,
}

struct Leader {
    tables: Tables,
    /// Place of the last operation in the log.
    index: u64,
    /// The voter that leads; none during an election.
    voter: Option<usize>,
    term: u64,
    /// How far the leader's wall clock is off, in seconds.
    clock_offset: i64,
    sessions: BTreeMap<SessionId, Lease>,
    connections: BTreeMap<u64, Connection>,
    /// Out of a hundred operations, those that are late.
    late_percent: u64,
    /// When the log was how long.
    history: Vec<(Instant, u64)>,
}

struct Lease {
    last_heard: Instant,
    /// The session holds what it has open and what lost its name up to this place in the log.
    answered: u64,
}

struct Connection {
    session: SessionId,
    mount: usize,
    peer: RpcPeer,
}

pub(crate) fn voter_address(voter: usize) -> SocketAddr {
    ([10, 0, 0, voter as u8 + 1], PORT).into()
}

pub(crate) fn voter_at(address: SocketAddr) -> Option<usize> {
    (0..VOTERS).find(|voter| voter_address(*voter) == address)
}

impl Namespace {
    pub(crate) fn new(world: Arc<World>, oracle: Arc<Oracle>, plane: Arc<Plane>) -> Arc<Self> {
        let leader = Leader {
            tables: Tables::new(),
            index: 0,
            voter: Some(0),
            term: 1,
            clock_offset: 0,
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            late_percent: 0,
            history: Vec::new(),
        };
        Arc::new(Self { world, oracle, plane, leader: Mutex::new(leader) })
    }

    pub(crate) fn query(&self, query: &Query) -> Result<Answer, FsError> {
        self.leader.lock().tables.query(query)
    }

    /// A change of the leader itself; `None` while there is no leader.
    fn propose(&self, change: Change) -> Option<Result<Reply, FsError>> {
        let mut leader = self.leader.lock();
        leader.voter?;
        let op = NamespaceOp { origin: None, now: leader.now(), change };
        Some(self.apply(&mut leader, &op).reply)
    }

    /// The next entry of the log.
    fn apply(&self, leader: &mut Leader, op: &NamespaceOp) -> AppliedOp {
        leader.index += 1;
        let logged = leader.now();
        let applied = leader.tables.apply(leader.index, logged, op);
        self.plane.note_logged(&leader.tables);
        let mount = applied.origin.and_then(|session| leader.mount_of(session));
        self.oracle.applied(leader.index, mount, op, &applied, &leader.tables, &self.plane);
        leader.push(applied.origin, &applied.feed, &self.oracle);
        applied
    }

    /// The leader vanishes for `outage`; answers that were not sent yet are lost.
    pub(crate) async fn change_leader(&self, outage: Duration, clock_offset: i64) {
        let next = {
            let mut leader = self.leader.lock();
            let Some(voter) = leader.voter.take() else { return };
            leader.term += 1;
            leader.close_connections();
            (voter + 1 + self.world.random(|random| random.below(VOTERS as u64 - 1)) as usize) % VOTERS
        };
        self.world.note(format!("the leader is lost; the next one serves in {outage:?}"));
        tokio::time::sleep(outage).await;
        let mut leader = self.leader.lock();
        leader.voter = Some(next);
        leader.clock_offset = clock_offset;
        let now = Instant::now();
        // A new leader has heard no answers.
        leader.sessions.values_mut().for_each(|lease| *lease = Lease { last_heard: now, answered: 0 });
        self.world.note(format!("voter {next} leads, its clock is {clock_offset} s off"));
    }

    /// From now on so many operations out of a hundred are logged or answered late, while others overtake them.
    pub(crate) fn set_late(&self, percent: u64) {
        self.leader.lock().late_percent = percent;
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.leader.lock().voter.is_some()
    }

    /// Runs `look` on the tables as they are.
    pub(crate) fn with_tables<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.leader.lock().tables)
    }
}

impl Leader {
    fn now(&self) -> Time {
        let now = Time::now();
        Time { secs: now.secs + self.clock_offset, nanos: now.nanos }
    }

    fn mount_of(&self, session: SessionId) -> Option<usize> {
        self.tables.sessions().find(|(id, _)| *id == session).and_then(|(_, client)| mount_number(client))
    }

    fn has_session(&self, session: SessionId) -> bool {
        self.tables.sessions().any(|(id, _)| id == session)
    }

    /// The length that the log had reached `age` ago.
    fn index_before(&self, age: Duration) -> u64 {
        let old = self.history.iter().rev().find(|(at, _)| at.elapsed() >= age);
        old.map_or(0, |(_, index)| *index)
    }

    /// The place in the log up to which every open session has answered.
    fn answered_by_all(&self) -> u64 {
        let answered = self.tables.sessions().map(|(id, _)| self.sessions.get(&id).map_or(0, |lease| lease.answered));
        answered.min().unwrap_or(self.index)
    }

    fn close_connections(&mut self) {
        std::mem::take(&mut self.connections).values().for_each(|connection| connection.peer.close());
    }

    fn push(&mut self, origin: Option<SessionId>, events: &[FeedEvent], oracle: &Oracle) {
        if events.is_empty() {
            return;
        }
        let bytes = encode(&FeedMessage { notice: None, events: events.to_vec() }).to_vec();
        let mut gone = Vec::new();
        for (id, connection) in self.connections.iter().filter(|(_, it)| Some(it.session) != origin) {
            if connection.peer.notify(calls::FEED, vec![Value::Binary(bytes.clone())]) {
                oracle.pushed(connection.mount, *id, self.index, events);
            } else {
                gone.push(*id);
            }
        }
        gone.iter().for_each(|id| drop(self.connections.remove(id)));
    }
}

/// A mount's description of itself to the namespace.
pub(crate) fn client_name(mount: usize) -> String {
    format!("mount {mount}")
}

fn mount_number(client: &str) -> Option<usize> {
    client.strip_prefix("mount ")?.parse().ok()
}
