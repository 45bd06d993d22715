//! Sessions against a fake namespace behind the real RPC server: several nodes with one state, whose leader changes,
//! becomes unresponsive or loses answers as the tests request.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use chordfs_types::namespace::{FeedMessage, Granted, Ino, OpId, SessionRequests, calls, decode};
use parking_lot::Mutex;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::rpc::{RpcLimits, RpcPeer, RpcService, Value, serve};

const SOON: Duration = Duration::from_secs(20);

/// A fault that hits the next apply request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Applied, but the connection is closed before the answer.
    LoseAnswer,
    /// Applied, but the connection is closed, and another node leads from then on.
    LoseAnswerAndMove(SocketAddr),
    /// Applied, but the connection is closed, and all sessions expire.
    LoseAnswerAndSessions,
    NotApplied,
    AppliedButUnavailable,
    /// Never answered.
    Swallow,
}

#[derive(Default)]
struct World {
    leader: Option<SocketAddr>,
    /// Nodes that do not answer.
    unresponsive: BTreeSet<SocketAddr>,
    faults: VecDeque<Fault>,
    nonces: BTreeMap<u64, SessionId>,
    /// Whether each session that was opened may hold leases.
    may_hold_leases: Vec<bool>,
    sessions: BTreeMap<SessionId, BTreeMap<u64, Reply>>,
    answered_below: BTreeMap<SessionId, u64>,
    last_session: u64,
    last_version: u64,
    /// Every apply request that arrived.
    arrived: Vec<OpId>,
    /// Every change that was applied, except the opening of sessions.
    applied: Vec<OpId>,
    allocations: u32,
    attached: Vec<RpcPeer>,
    /// Sent to the querying session before the answer to the next query.
    feed_before_answer: Vec<FeedEvent>,
    /// Reported in answers to keepalives, and how much of the feed the keepalives reported as answered.
    log_applied: u64,
    answered: Vec<u64>,
    /// Also in answers to keepalives, and what the last keepalive reported.
    requests: SessionRequests,
    nothing_open: Option<SessionRequests>,
    reports: Vec<ClientReport>,
    acknowledged: Vec<(u64, bool)>,
    /// Queries are answered so that the session must not remember it.
    is_forgetful: bool,
}

fn remembered() -> Granted {
    Granted { remember: true, sole: Vec::new() }
}

impl World {
    fn apply(&mut self, op: NamespaceOp) -> Result<Reply, FsError> {
        let Some(id) = op.origin else { return self.open(op.change) };
        self.arrived.push(id);
        let replies = self.sessions.get(&id.session).ok_or(FsError::NoSession)?;
        if let Some(reply) = replies.get(&id.sequence) {
            return Ok(reply.clone());
        }
        let below = self.answered_below.entry(id.session).or_default();
        *below = id.answered_below.max(*below);
        if id.sequence < *below {
            return Err(FsError::OutOfOrder);
        }
        let reply = self.change(op.change);
        self.applied.push(id);
        if let Some(replies) = self.sessions.get_mut(&id.session) {
            replies.insert(id.sequence, reply.clone());
        }
        Ok(reply)
    }

    fn open(&mut self, change: Change) -> Result<Reply, FsError> {
        let Change::OpenSession { nonce, holds_leases, .. } = change else { panic!("{change:?} without an origin") };
        self.may_hold_leases.push(holds_leases);
        self.last_session += 1;
        let session = *self.nonces.entry(nonce).or_insert(SessionId(self.last_session));
        self.sessions.entry(session).or_default();
        Ok(Reply::Session { session, versions: self.versions(10) })
    }

    fn change(&mut self, change: Change) -> Reply {
        match change {
            Change::AllocateVersions { count } => {
                self.allocations += 1;
                return Reply::Versions(self.versions(count));
            }
            Change::CloseSession { session } => drop(self.sessions.remove(&session)),
            _ => {}
        }
        Reply::Done
    }

    fn versions(&mut self, count: u32) -> VersionBlock {
        let first = Version(self.last_version + 1);
        self.last_version += u64::from(count);
        VersionBlock { first, count }
    }

    fn answer(&mut self, request: Request, peer: &RpcPeer) -> Response {
        match request {
            Request::Leader => panic!("sessions do not send this request"),
            Request::Attach { session, .. } if !self.sessions.contains_key(&session) => {
                Response::Applied(Err(FsError::NoSession), Granted::default())
            }
            Request::Attach { .. } => {
                self.attached.push(peer.clone());
                Response::Attached
            }
            Request::KeepAlive { answered, nothing_open } => {
                self.answered.push(answered);
                self.nothing_open = nothing_open;
                Response::Alive { applied: self.log_applied, requests: self.requests }
            }
            Request::Report(report) => {
                self.reports.push(report);
                Response::Reported
            }
            Request::Acknowledge { notice, keeps } => {
                self.acknowledged.push((notice, keeps));
                Response::Acknowledged
            }
            Request::Apply(op) => Response::Applied(self.apply(op), remembered()),
            Request::ApplyList(ops) => {
                Response::AppliedList(ops.into_iter().map(|op| self.apply(op)).collect(), remembered())
            }
            Request::Query(_) => {
                let events = std::mem::take(&mut self.feed_before_answer);
                if !events.is_empty() {
                    assert!(peer.notify(
                        calls::FEED,
                        vec![Value::Binary(encode(&FeedMessage { notice: None, events }).to_vec())]
                    ));
                }
                let granted = if self.is_forgetful { Granted::default() } else { remembered() };
                Response::Answered(Ok(Answer::StatFs { inodes: 1, bytes: 2 }), granted)
            }
        }
    }
}

struct Node {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
}

impl Node {
    /// Returns `None` if there will be no answer.
    fn handle(&self, request: Request, peer: &RpcPeer) -> Option<Response> {
        let mut world = self.world.lock();
        if world.unresponsive.contains(&self.address) {
            return None;
        }
        if world.leader != Some(self.address) {
            return Some(Response::NotLeader { leader: world.leader });
        }
        let fault =
            if matches!(request, Request::Apply(_) | Request::ApplyList(_)) { world.faults.pop_front() } else { None };
        let unavailable = Response::Unavailable { reason: "electing".to_owned() };
        match fault {
            Some(Fault::NotApplied) => return Some(unavailable),
            Some(Fault::Swallow) => return None,
            _ => {}
        }
        let response = world.answer(request, peer);
        match fault {
            Some(Fault::AppliedButUnavailable) => return Some(unavailable),
            Some(Fault::LoseAnswer) => {}
            Some(Fault::LoseAnswerAndSessions) => world.sessions.clear(),
            Some(Fault::LoseAnswerAndMove(leader)) => world.leader = Some(leader),
            _ => return Some(response),
        }
        peer.close();
        None
    }
}

impl RpcService for Node {
    async fn call(&self, peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        assert_eq!(method, calls::NAMESPACE);
        let [Value::Binary(bytes)] = &params[..] else { panic!("{params:?}") };
        match self.handle(decode(bytes).unwrap(), peer) {
            Some(response) => Ok(Value::Binary(encode(&response).to_vec())),
            None => pending().await,
        }
    }
}

struct FakeNamespace {
    world: Arc<Mutex<World>>,
    nodes: Vec<SocketAddr>,
    _stop: DropGuard,
}

/// The first node leads.
async fn fake(nodes: usize) -> FakeNamespace {
    let world = Arc::new(Mutex::new(World::default()));
    let stop = CancellationToken::new();
    let mut addresses = Vec::new();
    for _ in 0..nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Arc::new(Node { address, world: world.clone() });
        tokio::spawn(serve(listener, node, RpcLimits::default(), stop.clone()));
        addresses.push(address);
    }
    world.lock().leader = Some(addresses[0]);
    FakeNamespace { world, nodes: addresses, _stop: stop.drop_guard() }
}

type Events = mpsc::UnboundedReceiver<SessionEvent>;

impl FakeNamespace {
    async fn open(&self, nodes: &[SocketAddr]) -> (Session, Events) {
        let options = SessionOptions::new(nodes.to_vec(), "host:/mnt");
        timeout(SOON, Session::open(options)).await.unwrap().unwrap()
    }

    fn fault(&self, fault: Fault) {
        self.world.lock().faults.push_back(fault);
    }

    /// The sequence numbers of the operations that arrived, and of those applied.
    fn counts(&self) -> (Vec<u64>, Vec<u64>) {
        let world = self.world.lock();
        let sequences = |ops: &[OpId]| ops.iter().map(|op| op.sequence).collect();
        (sequences(&world.arrived), sequences(&world.applied))
    }
}

async fn apply(session: &Session) -> Result<Reply, FsError> {
    timeout(SOON, session.apply(Change::Hold { ino: Ino(5) })).await.expect("the operation hangs")
}

async fn next(events: &mut Events) -> SessionEvent {
    timeout(SOON, events.recv()).await.expect("no event").expect("no more events")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_redirects_to_the_leader() {
    let fake = fake(3).await;
    let (session, mut events) = fake.open(&fake.nodes[2..]).await;
    assert_eq!(session.id(), SessionId(1));
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_eq!(session.query(Query::StatFs).await, Ok(Answer::StatFs { inodes: 1, bytes: 2 }));
    assert!(events.try_recv().is_err(), "nothing was interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_applied_once_across_a_leader_change() {
    let fake = fake(3).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    fake.fault(Fault::LoseAnswerAndMove(fake.nodes[1]));
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_eq!(fake.counts(), (vec![1, 1], vec![1]));
    assert_eq!(next(&mut events).await, SessionEvent::Reset);
    assert_eq!(session.id(), SessionId(1));
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_eq!(fake.world.lock().arrived.last().unwrap().answered_below, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_continues_when_its_leader_steps_down() {
    let fake = fake(2).await;
    let (session, _events) = fake.open(&fake.nodes[..1]).await;
    fake.world.lock().leader = Some(fake.nodes[1]);
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_eq!(fake.counts(), (vec![1], vec![1]), "a node that does not lead must not apply it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_without_a_definite_answer_is_sent_again() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    for fault in [Fault::LoseAnswer, Fault::NotApplied, Fault::AppliedButUnavailable] {
        fake.fault(fault);
        assert_eq!(apply(&session).await, Ok(Reply::Done), "{fault:?}");
    }
    assert_eq!(fake.counts(), (vec![1, 1, 2, 3, 3], vec![1, 2, 3]));
}

/// The connection is healthy, so the operation is sent again on it, and nothing is reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_operation_is_sent_again_on_its_connection() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    fake.fault(Fault::Swallow);
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_eq!(fake.counts().1, [1]);
    assert!(events.try_recv().is_err());
}

/// Bug: a mount that was asleep while every node that it knew was replaced never found its ring again, although the
/// name from which it had the nodes led to the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_finds_a_ring_of_which_it_knows_no_node_any_longer() {
    let fake = fake(2).await;
    let (session, _events) = fake.open(&fake.nodes[..1]).await;
    assert!(session.is_attached() && session.leader() == Some(fake.nodes[0]));
    {
        let mut world = fake.world.lock();
        world.unresponsive.insert(fake.nodes[0]);
        world.leader = Some(fake.nodes[1]);
        world.attached.drain(..).for_each(|peer| peer.close());
    }
    let operation = tokio::spawn({
        let session = session.clone();
        async move { apply(&session).await }
    });
    session.replace_nodes(Vec::new());
    session.replace_nodes(fake.nodes[1..].to_vec());
    assert_eq!(operation.await.unwrap(), Ok(Reply::Done));
    assert_eq!((session.leader(), session.id()), (Some(fake.nodes[1]), SessionId(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_leader_is_replaced() {
    let fake = fake(3).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    {
        let mut world = fake.world.lock();
        world.unresponsive.insert(fake.nodes[0]);
        world.leader = Some(fake.nodes[2]);
    }
    let begun = Instant::now();
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(next(&mut events).await, SessionEvent::Reset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalives_report_only_events_that_have_been_handled() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    fake.world.lock().log_applied = 70;
    fake.world.lock().feed_before_answer = vec![FeedEvent::Orphaned { ino: Ino(5) }];
    session.query(Query::StatFs).await.unwrap();
    next(&mut events).await;
    let receipt = session.event_receipt();
    let three = async || {
        let count = fake.world.lock().answered.len() + 3;
        while fake.world.lock().answered.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        *fake.world.lock().answered.last().unwrap()
    };
    assert_eq!(timeout(SOON, three()).await.unwrap(), 0, "the event is still being handled");
    // This used to count as an event that is never handled.
    fake.world.lock().is_forgetful = true;
    session.query(Query::StatFs).await.unwrap();
    drop(receipt);
    assert_eq!(timeout(SOON, three()).await.unwrap(), 70);
}

/// A count is repeated only by a keepalive that is made after it was received: an opening that it includes has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalives_report_that_nothing_is_open_after_the_requests_that_the_leader_counted() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let open = Arc::new(AtomicBool::new(false));
    let next = async || {
        let count = fake.world.lock().answered.len() + 1;
        while fake.world.lock().answered.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fake.world.lock().nothing_open
    };
    let next = async || timeout(SOON, next()).await.expect("no keepalive");
    assert_eq!([next().await, next().await], [None, None], "the session does not know what is open");
    let files = open.clone();
    session.report_nothing_open(move || !files.load(Ordering::SeqCst));
    let counted = |count| SessionRequests { term: 4, count };
    fake.world.lock().requests = counted(8);
    next().await;
    assert_eq!(next().await, Some(counted(8)));
    open.store(true, Ordering::SeqCst);
    assert_eq!(next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_receives_the_clients_report_once_for_each_change() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let dirty = Arc::new(AtomicU64::new(5));
    let bytes = dirty.clone();
    session.report_state(move || ClientReport {
        dirty_bytes: bytes.load(Ordering::SeqCst),
        open_files: 1,
        ..ClientReport::default()
    });
    let received = async |count: usize| {
        while fake.world.lock().reports.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, received(1)).await.expect("no report");
    let keepalives = fake.world.lock().answered.len() + 2;
    let two_more = async || {
        while fake.world.lock().answered.len() < keepalives {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, two_more()).await.expect("no keepalive");
    dirty.store(7, Ordering::SeqCst);
    timeout(SOON, received(2)).await.expect("no second report");
    let reported: Vec<u64> = fake.world.lock().reports.iter().map(|report| report.dirty_bytes).collect();
    assert_eq!(reported, [5, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_opening_a_session_opens_no_second_one() {
    let fake = fake(1).await;
    fake.fault(Fault::LoseAnswer);
    let (session, _events) = fake.open(&fake.nodes).await;
    assert_eq!(fake.world.lock().sessions.keys().copied().collect::<Vec<_>>(), [session.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_are_applied_once_each() {
    let fake = fake(2).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let operations: Vec<_> = (0..1000)
        .map(|n| {
            if n % 50 == 0 {
                fake.fault([Fault::LoseAnswer, Fault::AppliedButUnavailable, Fault::NotApplied][n / 50 % 3]);
            }
            let session = session.clone();
            tokio::spawn(async move { apply(&session).await })
        })
        .collect();
    for operation in operations {
        assert_eq!(operation.await.unwrap(), Ok(Reply::Done));
    }
    let mut applied = fake.counts().1;
    applied.sort_unstable();
    assert_eq!(applied, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_events_are_delivered_before_a_later_answer() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    for round in 0..100 {
        let sent = vec![FeedEvent::Inode { ino: Ino(round), contents: true }, FeedEvent::Orphaned { ino: Ino(2) }];
        fake.world.lock().feed_before_answer = sent.clone();
        let before = session.feed_epoch();
        session.query(Query::StatFs).await.unwrap();
        assert_eq!(session.feed_epoch(), before + 1, "the answer overtook the feed");
        assert_eq!(events.try_recv(), Ok(SessionEvent::Feed(sent, EventAcknowledgement::none())));
        session.query(Query::StatFs).await.unwrap();
        assert_eq!(session.feed_epoch(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_event_that_cannot_be_decoded_causes_a_reset() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    let before = session.feed_epoch();
    let peer = fake.world.lock().attached[0].clone();
    assert!(peer.notify(calls::FEED, vec![Value::Binary(vec![250, 1, 2])]));
    assert_eq!(next(&mut events).await, SessionEvent::Reset);
    assert!(session.feed_epoch() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_causes_a_reset_and_the_session_continues() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    let (id, epoch) = (session.id(), session.feed_epoch());
    fake.world.lock().attached[0].close();
    assert_eq!(next(&mut events).await, SessionEvent::Reset);
    assert!(session.feed_epoch() > epoch);
    session.query(Query::StatFs).await.unwrap();
    assert_eq!((session.id(), fake.world.lock().attached.len()), (id, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_replaced_by_a_new_one() {
    let fake = fake(1).await;
    let (session, mut events) = fake.open(&fake.nodes).await;
    let former = session.id();
    fake.world.lock().sessions.clear();
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    assert_ne!(session.id(), former);
    assert_eq!(next(&mut events).await, SessionEvent::Reset);
    assert_eq!(next(&mut events).await, SessionEvent::Reset, "a second one, once the new session has its id");
    assert_eq!(fake.world.lock().arrived.last().unwrap().sequence, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_session_of_a_client_says_whether_it_may_hold_leases() {
    let fake = fake(1).await;
    let options = SessionOptions { holds_leases: true, ..SessionOptions::new(fake.nodes.clone(), "host:/mnt") };
    let (session, _events) = timeout(SOON, Session::open(options)).await.unwrap().unwrap();
    fake.world.lock().sessions.clear();
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    let _default = fake.open(&fake.nodes).await;
    assert_eq!(fake.world.lock().may_hold_leases, [true, true, false], "the second takes the place of the first");
}

/// Such an operation may have been applied or not, so it is not repeated under the next session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_with_unknown_outcome_fails_when_its_session_expires() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    fake.fault(Fault::LoseAnswerAndSessions);
    assert_eq!(apply(&session).await, Err(FsError::NoSession));
    assert_eq!(fake.world.lock().applied.len(), 1);
    assert_eq!(apply(&session).await, Ok(Reply::Done));
}

/// An operation that had waited for its turn while the session expired was taken for one that may have been applied,
/// and failed, although it was never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_was_never_sent_is_applied_by_the_next_session() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let former = session.id();
    let all = session.0.in_flight.acquire_many(MAX_IN_FLIGHT as u32).await.unwrap();
    let (waiting, operation) = (session.clone(), session.clone());
    let operation = tokio::spawn(async move { apply(&operation).await });
    sleep(Duration::from_millis(50)).await;
    {
        let mut world = fake.world.lock();
        world.sessions.clear();
        world.attached[0].close();
    }
    let replaced = async {
        while waiting.id() == former {
            sleep(Duration::from_millis(10)).await
        }
    };
    timeout(SOON, replaced).await.unwrap();
    drop(all);
    assert_eq!(operation.await.unwrap(), Ok(Reply::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expired_while_disconnected_is_replaced() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let former = session.id();
    {
        let mut world = fake.world.lock();
        world.sessions.clear();
        world.attached[0].close();
    }
    while apply(&session).await.is_err() {}
    assert_ne!(session.id(), former);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_is_allocated_once_and_mostly_from_memory() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    let mut taken = BTreeSet::new();
    for _ in 0..5000 {
        assert!(taken.insert(session.next_version().await.unwrap().0), "a version was allocated twice");
    }
    let allocations = fake.world.lock().allocations;
    assert!((5..=7).contains(&allocations), "{allocations} allocations");
    fake.world.lock().sessions.clear();
    assert_eq!(apply(&session).await, Ok(Reply::Done));
    for _ in 0..2000 {
        assert!(taken.insert(timeout(SOON, session.next_version()).await.unwrap().unwrap().0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_the_session_and_opens_no_new_one() {
    let fake = fake(1).await;
    let (session, _events) = fake.open(&fake.nodes).await;
    fake.fault(Fault::LoseAnswer);
    timeout(SOON, session.close()).await.unwrap().unwrap();
    assert!(fake.world.lock().sessions.is_empty());
    assert_eq!(apply(&session).await, Err(FsError::NoSession));
    assert_eq!(timeout(SOON, session.close()).await.unwrap(), Ok(()));
    assert_eq!(fake.world.lock().last_session, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_clone_closes_the_connection() {
    let fake = fake(1).await;
    let (session, events) = fake.open(&fake.nodes).await;
    let peer = fake.world.lock().attached[0].clone();
    drop(session.clone());
    assert!(!peer.is_closed());
    drop((session, events));
    timeout(SOON, peer.closed()).await.expect("the connection outlives the session");
}

/// Each request waited for the whole deadline, so that an operation of several requests took a multiple of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_of_several_requests_fails_at_its_deadline() {
    let fake = fake(1).await;
    let deadline = Duration::from_millis(1000);
    let options = SessionOptions { deadline, ..SessionOptions::new(fake.nodes.clone(), "host:/mnt") };
    let (session, _events) = Session::open(options).await.unwrap();
    fake.world.lock().leader = None;
    let requests = async {
        assert!(session.query(Query::StatFs).await.is_err());
        assert!(session.apply(Change::Hold { ino: Ino(5) }).await.is_err());
        assert!(session.query(Query::StatFs).await.is_err());
    };
    let begun = Instant::now();
    operation::run(deadline, deadline, || {}, requests).await;
    assert!(begun.elapsed() < 2 * deadline, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_operation_fails_at_its_deadline() {
    let fake = fake(2).await;
    let deadline = Duration::from_millis(400);
    let options = SessionOptions { deadline, ..SessionOptions::new(fake.nodes.clone(), "host:/mnt") };
    let (session, _events) = Session::open(options.clone()).await.unwrap();
    fake.world.lock().leader = None;
    let begun = Instant::now();
    let result = apply(&session).await;
    assert!(matches!(&result, Err(FsError::NoQuorum { detail }) if detail.contains("leader")), "{result:?}");
    assert!(begun.elapsed() < 3 * deadline, "{:?}", begun.elapsed());
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for nodes in [fake.nodes.clone(), vec![dead]] {
        let result = Session::open(SessionOptions { nodes, ..options.clone() }).await.err();
        assert!(matches!(result, Some(FsError::NoQuorum { .. })), "{result:?}");
    }
    let result = Session::open(SessionOptions { nodes: vec![], ..options }).await.err();
    assert!(matches!(result, Some(FsError::Invalid { .. })), "{result:?}");
    fake.world.lock().leader = Some(fake.nodes[1]);
    while apply(&session).await.is_err() {}
}
