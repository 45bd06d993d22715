//! Nodes with real HTTP and files, in a ring that the test makes up.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    chunk::ChunkRun,
    fs_error::FsError,
    http_pool::HttpPool,
    namespace::*,
    ring_id::{Neighbours, NodeRef, RingId},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::namespace::{Namespace, NamespaceConfig, Settings, feed::Connection};

/// No test waits longer for anything; the machine may be busy.
pub const LONG: Duration = Duration::from_secs(40);

pub struct Node {
    pub uid: u64,
    pub ring: SocketAddr,
    pub dir: Arc<TempDir>,
    pub namespace: Namespace,
    pub neighbours: watch::Sender<Neighbours>,
    pub deleted: Arc<Mutex<Vec<ChunkRun>>>,
    settings: Settings,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Node {
    pub async fn start(uid: u64, create: bool, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let ring = SocketAddr::new(admin.ip(), admin.port() - 2);
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (neighbours, _) = watch::channel(alone(ring));
        Self::start_at(uid, ring, listener, dir, neighbours, create, settings).await
    }

    async fn start_at(
        uid: u64,
        ring: SocketAddr,
        listener: TcpListener,
        dir: Arc<TempDir>,
        neighbours: watch::Sender<Neighbours>,
        create: bool,
        settings: Settings,
    ) -> Self {
        let deleted: Arc<Mutex<Vec<ChunkRun>>> = Arc::default();
        let log = deleted.clone();
        let config = NamespaceConfig {
            uid,
            node: ring,
            dir: PathBuf::from(dir.path()),
            neighbours: neighbours.subscribe(),
            create,
            pool: Arc::new(HttpPool::new()),
            deleter: Arc::new(move |runs| {
                log.lock().extend(runs);
                Box::pin(async { Ok(()) })
            }),
            settings: settings.clone(),
        };
        let namespace = Namespace::start(config).await.unwrap();
        let (stop, routes) = (CancellationToken::new(), namespace.routes());
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { uid, ring, dir, namespace, neighbours, deleted, settings, stop, server }
    }

    /// Gone, as far as the others can tell; the folder stays.
    pub async fn stop(self) -> Stopped {
        self.namespace.shutdown().await;
        self.stop.cancel();
        tokio::time::timeout(LONG, self.server).await.unwrap().unwrap();
        let Self { uid, ring, dir, neighbours, settings, .. } = self;
        Stopped { uid, ring, dir, neighbours, settings }
    }

    pub async fn ask(&self, peer: &Peer, request: Request) -> Response {
        let answer = self.namespace.handle_on(peer, &encode(&request)).await;
        decode(&answer).unwrap()
    }
}

pub struct Stopped {
    pub uid: u64,
    pub ring: SocketAddr,
    pub dir: Arc<TempDir>,
    neighbours: watch::Sender<Neighbours>,
    settings: Settings,
}

impl Stopped {
    pub async fn restart(self) -> Node {
        let listener = self.listen().await;
        Node::start_at(self.uid, self.ring, listener, self.dir, self.neighbours, false, self.settings).await
    }

    /// The same address, an empty disk, and so a new id.
    pub async fn restart_without_disk(self, uid: u64) -> Node {
        let (listener, dir) = (self.listen().await, Arc::new(tempfile::tempdir().unwrap()));
        Node::start_at(uid, self.ring, listener, dir, self.neighbours, false, self.settings).await
    }

    async fn listen(&self) -> TcpListener {
        let admin = SocketAddr::new(self.ring.ip(), self.ring.port() + 2);
        eventually("the port is free", || async { TcpListener::bind(admin).await.ok() }).await
    }
}

fn node_ref(ring: SocketAddr) -> NodeRef {
    NodeRef { ip: ring.ip(), port: ring.port(), id: RingId::of_address(ring) }
}

fn alone(ring: SocketAddr) -> Neighbours {
    Neighbours { predecessor: None, node: node_ref(ring), successors: Vec::new() }
}

/// Tells `nodes` that they are the ring, in this order.
pub fn connect(nodes: &[&Node]) {
    for (at, node) in nodes.iter().enumerate() {
        let others: Vec<NodeRef> =
            (1..nodes.len()).map(|step| node_ref(nodes[(at + step) % nodes.len()].ring)).collect();
        let predecessor = others.last().copied();
        node.neighbours.send_replace(Neighbours { predecessor, node: node_ref(node.ring), successors: others });
    }
}

/// A ring of `count` nodes, of which the first began the namespace; ready when as many vote as should.
pub async fn cluster(count: u64, settings: Settings) -> Vec<Node> {
    let mut nodes = Vec::new();
    for uid in 1..=count {
        nodes.push(Node::start(uid * 111, uid == 1, settings.clone()).await);
    }
    connect(&nodes.iter().collect::<Vec<_>>());
    let voters = (count as usize).min(3);
    eventually("all seats are taken", || async {
        let leader = nodes.iter().find(|node| node.namespace.is_leader())?;
        let settled = nodes.iter().filter(|node| node.namespace.is_voter()).count() == voters;
        (settled && leader.namespace.status().voters.len() == voters).then_some(())
    })
    .await;
    nodes
}

pub fn leader_at(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(|node| node.namespace.is_leader())
}

/// The first thing that `look` finds, within [`LONG`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A mount's connection that remembers what it was pushed.
#[derive(Clone)]
pub struct Peer {
    id: u64,
    pub got: Arc<Mutex<Vec<FeedEvent>>>,
}

impl Peer {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), got: Arc::default() }
    }
}

impl Connection for Peer {
    fn id(&self) -> u64 {
        self.id
    }

    fn push(&self, events: Bytes) -> bool {
        self.got.lock().extend(decode::<Vec<FeedEvent>>(&events).unwrap());
        true
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// Applies at whichever of `nodes` leads, sending again until it is answered.
pub async fn apply(nodes: &[Node], op: &NamespaceOp) -> Result<Reply, FsError> {
    let peer = Peer::new();
    eventually("the operation is answered", || async {
        let leader = &nodes[leader_at(nodes)?];
        match leader.ask(&peer, Request::Apply(op.clone())).await {
            Response::Applied(result) => Some(result),
            _ => None,
        }
    })
    .await
}

pub async fn query(nodes: &[Node], query: Query) -> Result<Answer, FsError> {
    let peer = Peer::new();
    eventually("the query is answered", || async {
        let leader = &nodes[leader_at(nodes)?];
        match leader.ask(&peer, Request::Query(query.clone())).await {
            Response::Answered(result) => Some(result),
            _ => None,
        }
    })
    .await
}

pub async fn open_session(nodes: &[Node], nonce: u64) -> SessionId {
    let change = Change::OpenSession { nonce, client: "test".into() };
    match apply(nodes, &NamespaceOp { origin: None, now: Time::default(), change }).await.unwrap() {
        Reply::Session { session, .. } => session,
        other => panic!("{other:?}"),
    }
}

pub fn name(text: &str) -> EntryName {
    EntryName::new(text.to_owned()).unwrap()
}

/// Creates a file in the root directory.
pub fn make(session: SessionId, sequence: u64, file: &str) -> NamespaceOp {
    let node =
        NewNode { kind: FileKind::File, mode: 0o644, uid: 1, gid: 1, rdev: 0, chunk_bytes: 4096, target: Bytes::new() };
    by(session, sequence, Change::Make { parent: Ino::ROOT, name: name(file), node, exclusive: true })
}

pub fn by(session: SessionId, sequence: u64, change: Change) -> NamespaceOp {
    let origin = Some(OpId { session, sequence, answered_below: 0 });
    NamespaceOp { origin, now: crate::namespace::time_now(), change }
}

pub fn lookup(file: &str) -> Query {
    Query::Lookup { parent: Ino::ROOT, name: name(file) }
}
