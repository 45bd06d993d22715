//! Nodes over real sockets, each with its own store and without a ring. The tests count what is copied between them.

mod hostile;
mod late;
mod reconcile;
mod surplus;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{extract::Request, http::StatusCode, middleware::Next, response::IntoResponse};
use bytes::BytesMut;
use chordfs_net::{http_pool::HttpPool, router::Router};
use chordfs_store::{DataFolder, Store, StoreOptions};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName, VerifiedBatch, Version, encode_record},
    compare_api::{ChunkAt, IdsRequest},
    rate_limit::RateLimit,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{copy_traffic::CopyTraffic, peer::Peers, repair::Repair, write::Writer};
use crate::http::{
    chunks::{ChunkPlane, routes},
    server::{ServerOptions, serve},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// The requests that a node has received, by path without the query.
#[derive(Default)]
struct Asked {
    requests: Mutex<HashMap<String, usize>>,
    /// How many more puts are answered before the node behaves as if it had gone.
    puts_left: AtomicI64,
}

impl Asked {
    fn count(&self, path: &str) -> usize {
        self.requests.lock().get(path).copied().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.requests.lock().values().sum()
    }
}

struct TestNode {
    dir: Arc<TempDir>,
    node: NodeRef,
    store: Arc<Store>,
    traffic: Arc<CopyTraffic>,
    asked: Arc<Asked>,
    _server: AbortOnDropHandle<()>,
}

impl TestNode {
    async fn start(id: u32) -> Self {
        Self::start_in(id, Arc::new(tempfile::tempdir().unwrap()), RateLimit(None)).await
    }

    async fn start_in(id: u32, dir: Arc<TempDir>, limit: RateLimit) -> Self {
        let options = StoreOptions { segment_writers: 1, reserve_bytes: 0, ..StoreOptions::default() };
        let store = Arc::new(Store::open(&DataFolder::open(dir.path()).unwrap(), options).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = NodeRef { ip: address.ip(), port: address.port() - 1, id: RingId(id) };
        let traffic = Arc::new(CopyTraffic::new(limit));
        let (_, neighbours) = watch::channel(Neighbours { predecessor: None, node, successors: vec![] });
        let writer = Writer {
            store: store.clone(),
            peers: peers(),
            neighbours,
            floor: Arc::new(|| 1),
            repair: Arc::new(Notify::new()),
            traffic: traffic.clone(),
            deadline: DEADLINE,
            departure: Arc::default(),
            small_puts: Default::default(),
        };
        let plane = ChunkPlane::new(store.clone(), Arc::new(writer), traffic.clone());
        let asked = Arc::new(Asked { puts_left: AtomicI64::new(i64::MAX), ..Asked::default() });
        let counted = axum::middleware::from_fn({
            let asked = asked.clone();
            move |request: Request, next: Next| count(asked.clone(), request, next)
        });
        let stop = CancellationToken::new().cancelled_owned();
        let router = routes(plane).layer(counted);
        let server = tokio::spawn(async move { serve(listener, router, ServerOptions::default(), stop).await });
        Self { dir, node, store, traffic, asked, _server: AbortOnDropHandle::new(server) }
    }

    /// Starts a new process on the same data.
    async fn restart(self) -> Self {
        let (id, dir) = (self.node.id.0, self.dir.clone());
        let weak = Arc::downgrade(&self.store);
        drop(self);
        let end = tokio::time::Instant::now() + DEADLINE;
        while weak.strong_count() > 0 {
            assert!(tokio::time::Instant::now() < end, "the store is still in use");
            tokio::task::yield_now().await;
        }
        Self::start_in(id, dir, RateLimit(None)).await
    }

    fn repair(&self) -> Repair {
        let (_, neighbours) = watch::channel(self.view(RingId(0)));
        Repair {
            store: self.store.clone(),
            peers: peers(),
            router: Arc::new(Router::new(vec![], DEADLINE)),
            neighbours,
            wake: Arc::new(Notify::new()),
            traffic: self.traffic.clone(),
            period: DEADLINE,
            restart_grace: DEADLINE,
            is_foreign: Arc::new(|_| false),
            departure: Arc::default(),
        }
    }

    /// The view of this node as the owner of `(after, self]`.
    fn view(&self, after: RingId) -> Neighbours {
        let predecessor = NodeRef { id: after, ..self.node };
        Neighbours { predecessor: Some(predecessor), node: self.node, successors: vec![] }
    }

    fn put(&self, chunks: &[ChunkRef]) {
        for part in chunks.chunks(1024) {
            self.store.put(&batch(part), chordfs_types::chunk_api::Durability::Memory).unwrap();
        }
    }

    fn ids(&self, arc: RingArc) -> Vec<ChunkAt> {
        self.store.ids(&IdsRequest { arcs: vec![arc], after: None }, usize::MAX / 4).chunks
    }

    fn all(&self) -> Vec<ChunkAt> {
        self.ids(RingArc::new(RingId(0), RingId(0)))
    }
}

async fn count(asked: Arc<Asked>, request: Request, next: Next) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let is_put = path == "/chunks/put";
    *asked.requests.lock().entry(path).or_default() += 1;
    if is_put && asked.puts_left.fetch_sub(1, SeqCst) <= 0 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    next.run(request).await
}

fn peers() -> Peers {
    Peers::new(Arc::new(HttpPool::new()), DEADLINE)
}

fn chunks(indexes: impl IntoIterator<Item = u32>) -> Vec<ChunkRef> {
    let file = FileName::new("f").unwrap();
    let chunk = |index| ChunkRef { file: file.clone(), id: ChunkId { version: Version(7), index } };
    indexes.into_iter().map(chunk).collect()
}

fn batch(chunks: &[ChunkRef]) -> VerifiedBatch {
    let mut out = BytesMut::new();
    for chunk in chunks {
        encode_record(&mut out, &chunk.file, chunk.id, chunk.key(), &[chunk.id.index as u8; 100]);
    }
    VerifiedBatch::verify(out.freeze()).unwrap()
}

fn whole() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}
