//! Nodes with real HTTP and files, in a ring that the test simulates.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chordfs_net::{
    http_pool::HttpPool,
    rpc::{RpcLimits, RpcPeer, RpcService, Value, serve},
    transport::RemoteCaller,
};
use chordfs_types::{
    chunk::ChunkRun,
    fs_error::FsError,
    namespace::*,
    ring_id::{Neighbours, NodeRef, RingId},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Namespace, NamespaceConfig, NamespaceSettings, raft_types::admin_address, state::session_feed::FeedConnection,
};

/// The longest that a test waits for one event; the machine may be busy.
pub(super) const LONG: Duration = Duration::from_secs(40);

pub(super) struct Node {
    pub uid: u64,
    pub ring: SocketAddr,
    pub dir: Arc<TempDir>,
    pub namespace: Namespace,
    pub neighbours: watch::Sender<Neighbours>,
    pub deleted: Arc<Mutex<Vec<ChunkRun>>>,
    settings: NamespaceSettings,
    stop: CancellationToken,
    servers: TaskTracker,
}

/// The sockets of both planes.
type Listeners = (TcpListener, TcpListener);

impl Node {
    pub(super) async fn start(uid: u64, create: bool, settings: NamespaceSettings) -> Self {
        let (listeners, ring) = eventually("two ports are free", || async {
            let first = TcpListener::bind("127.0.0.1:0").await.ok()?;
            let ring = first.local_addr().ok()?;
            Some(((first, TcpListener::bind(admin_address(ring)).await.ok()?), ring))
        })
        .await;
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (neighbours, _) = watch::channel(alone(ring));
        Self::start_at(uid, ring, listeners, dir, neighbours, create, Vec::new(), settings).await
    }

    #[expect(clippy::too_many_arguments, reason = "all of them differ between the ways to start")]
    async fn start_at(
        uid: u64,
        ring: SocketAddr,
        listeners: Listeners,
        dir: Arc<TempDir>,
        neighbours: watch::Sender<Neighbours>,
        create: bool,
        join: Vec<SocketAddr>,
        settings: NamespaceSettings,
    ) -> Self {
        let deleted: Arc<Mutex<Vec<ChunkRun>>> = Arc::default();
        let log = deleted.clone();
        let config = NamespaceConfig {
            uid,
            renew_uid: Arc::new(move || Ok(uid + 1_000_000)),
            node: ring,
            dir: PathBuf::from(dir.path()),
            neighbours: neighbours.subscribe(),
            create,
            join,
            pool: Arc::new(HttpPool::new()),
            deleter: Arc::new(move |runs, _| {
                log.lock().extend(runs);
                Box::pin(async { Ok(Vec::new()) })
            }),
            placer: Arc::new(|_| Box::pin(async { Ok(()) })),
            settings: settings.clone(),
        };
        let namespace = Namespace::start(config).await.unwrap();
        let (stop, routes, servers) = (CancellationToken::new(), namespace.routes(), TaskTracker::new());
        let stopped = stop.clone().cancelled_owned();
        let (rpc, admin) = listeners;
        servers.spawn(async move { axum::serve(admin, routes).with_graceful_shutdown(stopped).await.unwrap() });
        servers.spawn(serve(rpc, Arc::new(MountService(namespace.clone())), RpcLimits::default(), stop.clone()));
        servers.close();
        Self { uid, ring, dir, namespace, neighbours, deleted, settings, stop, servers }
    }

    /// Stops the node and closes its ports; the folder stays.
    pub(super) async fn stop(self) -> StoppedNode {
        self.namespace.shutdown().await;
        self.stop.cancel();
        tokio::time::timeout(LONG, self.servers.wait()).await.unwrap();
        let uid = self.namespace.status().uid;
        let Self { ring, dir, neighbours, settings, .. } = self;
        StoppedNode { uid, ring, dir, neighbours, settings }
    }

    pub(super) async fn ask(&self, peer: &Peer, request: Request) -> Response {
        let services = self.namespace.services();
        let answer = services.requests.handle(peer, &RemoteCaller::Unchecked, &encode(&request)).await;
        decode(&answer).unwrap()
    }
}

pub(super) struct StoppedNode {
    pub uid: u64,
    pub ring: SocketAddr,
    pub dir: Arc<TempDir>,
    neighbours: watch::Sender<Neighbours>,
    settings: NamespaceSettings,
}

impl StoppedNode {
    pub(super) async fn restart(self) -> Node {
        let listeners = self.listen().await;
        Node::start_at(self.uid, self.ring, listeners, self.dir, self.neighbours, false, Vec::new(), self.settings)
            .await
    }

    /// Starts again and knows `node` of the ring, as a node that has been in it does.
    pub(super) async fn restart_in_ring(self, node: SocketAddr) -> Node {
        let (listeners, join) = (self.listen().await, vec![node]);
        Node::start_at(self.uid, self.ring, listeners, self.dir, self.neighbours, false, join, self.settings).await
    }

    /// Starts again with the command line of a ring's first node and an empty disk, and so with a new id.
    pub(super) async fn restart_as_first_node(self, uid: u64) -> Node {
        let (listeners, dir) = (self.listen().await, Arc::new(tempfile::tempdir().unwrap()));
        Node::start_at(uid, self.ring, listeners, dir, self.neighbours, true, Vec::new(), self.settings).await
    }

    /// Starts again at the same address with an empty disk, and so with a new id.
    pub(super) async fn restart_without_disk(self, uid: u64) -> Node {
        let (listeners, dir) = (self.listen().await, Arc::new(tempfile::tempdir().unwrap()));
        Node::start_at(uid, self.ring, listeners, dir, self.neighbours, false, Vec::new(), self.settings).await
    }

    async fn listen(&self) -> Listeners {
        eventually("the ports are free", || async {
            let rpc = TcpListener::bind(self.ring).await.ok()?;
            Some((rpc, TcpListener::bind(admin_address(self.ring)).await.ok()?))
        })
        .await
    }
}

/// The RPC plane with the call of the namespace only.
struct MountService(Namespace);

impl RpcService for MountService {
    async fn call(&self, peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        match &params[..] {
            [Value::Binary(request)] if method == calls::NAMESPACE => {
                Ok(Value::Binary(self.0.handle(peer, request).await))
            }
            _ => Err("not served here".into()),
        }
    }
}

fn node_ref(ring: SocketAddr) -> NodeRef {
    NodeRef { ip: ring.ip(), port: ring.port(), id: RingId::of_address(ring) }
}

fn alone(ring: SocketAddr) -> Neighbours {
    Neighbours { predecessor: None, node: node_ref(ring), successors: Vec::new() }
}

/// Makes `nodes` the ring, in this order.
pub(super) fn connect(nodes: &[&Node]) {
    for (at, node) in nodes.iter().enumerate() {
        let others: Vec<NodeRef> =
            (1..nodes.len()).map(|step| node_ref(nodes[(at + step) % nodes.len()].ring)).collect();
        let predecessor = others.last().copied();
        node.neighbours.send_replace(Neighbours { predecessor, node: node_ref(node.ring), successors: others });
    }
}

/// Starts a ring of `count` nodes, of which the first founds the namespace. Returns when all voters are chosen.
pub(super) async fn cluster(count: u64, settings: NamespaceSettings) -> Vec<Node> {
    let mut nodes = Vec::new();
    for uid in 1..=count {
        nodes.push(Node::start(uid * 111, uid == 1, settings.clone()).await);
    }
    connect(&nodes.iter().collect::<Vec<_>>());
    let voters = (count as usize).min(3);
    eventually("all voters are chosen", || async {
        let leader = nodes.iter().find(|node| node.namespace.is_leader())?;
        let complete = nodes.iter().filter(|node| node.namespace.is_voter()).count() == voters;
        (complete && leader.namespace.status().voters.len() == voters).then_some(())
    })
    .await;
    nodes
}

pub(super) fn leader_at(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(|node| node.namespace.is_leader())
}

/// Starts the nodes again, in this order.
pub(super) async fn restart_all(stopped: Vec<StoppedNode>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for node in stopped {
        nodes.push(node.restart().await);
    }
    nodes
}

pub(super) async fn wait_for_equal_tables(nodes: &[Node]) {
    eventually("all have the same tables", || async {
        let tables: Vec<_> = nodes.iter().map(|node| node.namespace.services().raft.state().tables()).collect();
        tables.iter().all(|table| *table == tables[0]).then_some(())
    })
    .await;
}

/// Repeats `check` until it returns a value; panics after [`LONG`].
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A mount's connection that records the events pushed to it.
#[derive(Clone)]
pub(super) struct Peer {
    id: u64,
    pub received: Arc<Mutex<Vec<FeedEvent>>>,
    /// Those that are still to be acknowledged.
    notices: Arc<Mutex<Vec<u64>>>,
    closed: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            received: Arc::default(),
            notices: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// Takes the notices that it has received and not acknowledged.
    pub(super) fn take_notices(&self) -> Vec<u64> {
        std::mem::take(&mut self.notices.lock())
    }

    /// Whether the node has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl FeedConnection for Peer {
    fn id(&self) -> u64 {
        self.id
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn push(&self, events: Bytes) -> bool {
        let message = decode::<FeedMessage>(&events).unwrap();
        self.received.lock().extend(message.events);
        self.notices.lock().extend(message.notice);
        true
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// Sends the operation to the leader of `nodes` until it is answered.
pub(super) async fn apply(nodes: &[Node], op: &NamespaceOp) -> Result<Reply, FsError> {
    let peer = Peer::new();
    eventually("the operation is answered", || async {
        let leader = &nodes[leader_at(nodes)?];
        match leader.ask(&peer, Request::Apply(op.clone())).await {
            Response::Applied(result, _) => Some(result),
            _ => None,
        }
    })
    .await
}

pub(super) async fn query(nodes: &[Node], query: Query) -> Result<Answer, FsError> {
    let peer = Peer::new();
    eventually("the query is answered", || async {
        let leader = &nodes[leader_at(nodes)?];
        match leader.ask(&peer, Request::Query(query.clone())).await {
            Response::Answered(result, _) => Some(result),
            _ => None,
        }
    })
    .await
}

pub(super) async fn open_session(nodes: &[Node], nonce: u64) -> SessionId {
    open_session_that(false, nodes, nonce).await
}

pub(super) async fn open_session_that(holds_leases: bool, nodes: &[Node], nonce: u64) -> SessionId {
    let change = Change::OpenSession { nonce, client: "test".into(), holds_leases };
    match apply(nodes, &NamespaceOp { origin: None, now: Time::default(), change }).await.unwrap() {
        Reply::Session { session, .. } => session,
        other => panic!("{other:?}"),
    }
}

pub(super) fn name(text: &str) -> EntryName {
    EntryName::new(text.to_owned()).unwrap()
}

/// Creates a file in the root directory.
pub(super) fn make(session: SessionId, sequence: u64, file: &str) -> NamespaceOp {
    let node =
        NewNode { kind: FileKind::File, mode: 0o644, uid: 1, gid: 1, rdev: 0, chunk_bytes: 4096, target: Bytes::new() };
    by(session, sequence, Change::Make { parent: Ino::ROOT, name: name(file), node, exclusive: true })
}

pub(super) fn by(session: SessionId, sequence: u64, change: Change) -> NamespaceOp {
    let origin = Some(OpId { session, sequence, answered_below: 0 });
    NamespaceOp { origin, now: chordfs_types::namespace::Time::now(), change }
}

pub(super) fn lookup(file: &str) -> Query {
    Query::Lookup { parent: Ino::ROOT, name: name(file) }
}
