//! The client against nodes that answer as told: over real sockets, without a ring behind them.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::SeqCst},
    },
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    chunk::{ChunkRef, VerifiedBatch, Version, encode_record, take_record},
    chunk_api::decode_batch,
    namespace::calls,
    ring_wire,
    rpc::{self, RpcLimits, RpcPeer, RpcService, Value},
};

/// How a node treats requests for chunks.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Takes requests and never answers.
    Silent,
    Full,
}

struct FakeNode {
    at: NodeRef,
    ring: Vec<NodeRef>,
    mood: Mutex<Mood>,
    chunks: Mutex<HashMap<ChunkId, (FileName, RingId, Bytes)>>,
    puts: AtomicU32,
    syncs: AtomicU32,
}

impl RpcService for FakeNode {
    async fn call(&self, _: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        match method.as_str() {
            "find_successor" => {
                let key = RingId(params[0].as_u64().expect("a key") as u32);
                let owner = self.ring.iter().min_by_key(|node| key.steps_to(node.id)).expect("a node");
                Ok(ring_wire::node_value(*owner))
            }
            calls::KEEPERS => Ok(ring_wire::neighbours_value(&self.neighbours())),
            _ => Err("no such call".into()),
        }
    }
}

impl FakeNode {
    fn neighbours(&self) -> Neighbours {
        let at = self.ring.iter().position(|node| *node == self.at).expect("the node is in its ring");
        let successors: Vec<_> = (1..self.ring.len()).map(|step| self.ring[(at + step) % self.ring.len()]).collect();
        Neighbours { predecessor: successors.last().copied(), node: self.at, successors }
    }

    async fn answer(&self, request: Request<Incoming>) -> (StatusCode, Bytes) {
        let mood = *self.mood.lock();
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        if mood == Mood::Silent {
            std::future::pending::<()>().await;
        }
        match path.as_str() {
            "/chunks/put" if mood == Mood::Full => (StatusCode::INSUFFICIENT_STORAGE, Bytes::new()),
            "/chunks/put" => {
                self.puts.fetch_add(1, SeqCst);
                self.store(VerifiedBatch::verify(body).expect("sound records"));
                (StatusCode::NO_CONTENT, Bytes::new())
            }
            "/chunks/sync" => {
                self.syncs.fetch_add(1, SeqCst);
                (StatusCode::NO_CONTENT, Bytes::new())
            }
            "/chunks/get" => (StatusCode::OK, self.records(&decode_batch(&body).expect("a batch"))),
            other => panic!("{other} was asked"),
        }
    }

    fn store(&self, mut batch: VerifiedBatch) {
        while !batch.bytes.is_empty() {
            let record = take_record(&mut batch.bytes).expect("it was verified");
            self.chunks.lock().insert(record.id, (record.file, record.key, record.data));
        }
    }

    fn records(&self, wanted: &[ChunkRef]) -> Bytes {
        let mut out = BytesMut::new();
        let chunks = self.chunks.lock();
        for chunk in wanted {
            if let Some((file, key, data)) = chunks.get(&chunk.id) {
                encode_record(&mut out, file, chunk.id, *key, data);
            }
        }
        out.freeze()
    }
}

struct World {
    nodes: Vec<Arc<FakeNode>>,
    client: ChunkClient,
    _stop: tokio_util::sync::DropGuard,
}

/// Three nodes at a quarter, a half and the top of the circle.
async fn world() -> World {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let network = [127, 230, (std::process::id() % 250) as u8 + 1];
    let first = NEXT.fetch_add(3, SeqCst);
    let ip = |at: u8| IpAddr::V4(Ipv4Addr::new(network[0], network[1], network[2], first + at));
    let ids = [1 << 30, 1 << 31, u32::MAX];
    let ring: Vec<NodeRef> =
        (0..3).map(|at| NodeRef { ip: ip(at), port: 5057, id: RingId(ids[usize::from(at)]) }).collect();
    let stop = CancellationToken::new();
    let mut nodes = Vec::new();
    for at in &ring {
        nodes.push(start(*at, ring.clone(), stop.clone()).await);
    }
    let router = Arc::new(Router::new(vec![ring[0].ring_address()], Duration::from_secs(2)));
    let client = ChunkClient::new(router, Arc::new(HttpPool::new()), Duration::from_secs(20));
    World { nodes, client, _stop: stop.drop_guard() }
}

async fn start(at: NodeRef, ring: Vec<NodeRef>, stop: CancellationToken) -> Arc<FakeNode> {
    let node = Arc::new(FakeNode {
        at,
        ring,
        mood: Mutex::new(Mood::Well),
        chunks: Mutex::default(),
        puts: AtomicU32::new(0),
        syncs: AtomicU32::new(0),
    });
    let ring_plane = TcpListener::bind(at.ring_address()).await.expect("a free address");
    tokio::spawn(rpc::serve(ring_plane, node.clone(), RpcLimits::default(), stop.clone()));
    let files = TcpListener::bind(at.files_address()).await.expect("a free address");
    tokio::spawn(serve_files(files, node.clone(), stop));
    node
}

async fn serve_files(listener: TcpListener, node: Arc<FakeNode>, stop: CancellationToken) {
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        let node = node.clone();
        let service = service_fn(move |request| {
            let node = node.clone();
            async move {
                let (status, body) = node.answer(request).await;
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn chunks(count: u32) -> Vec<NewChunk> {
    let file = FileName::new("f").expect("a name");
    let chunk = |index| NewChunk {
        file: file.clone(),
        id: ChunkId { version: Version(1), index },
        data: Bytes::from(vec![index as u8; 4096]),
    };
    (1..=count).map(chunk).collect()
}

fn refs(chunks: &[NewChunk]) -> Vec<ChunkRef> {
    chunks.iter().map(|chunk| ChunkRef { file: chunk.file.clone(), id: chunk.id }).collect()
}

#[tokio::test]
async fn many_chunks_go_in_one_batch_an_owner_and_come_back_in_order() {
    let world = world().await;
    let written = chunks(300);
    world.client.put(written.clone(), false).await.expect("stored");
    let puts: Vec<u32> = world.nodes.iter().map(|node| node.puts.load(SeqCst)).collect();
    assert_eq!(puts, [1, 1, 1]);
    let back = world.client.get(&refs(&written)).await.expect("found");
    assert!(back.iter().zip(&written).all(|(back, written)| *back == written.data));
}

/// Of nodes that have just joined the holders may have nothing yet, while another member has.
#[tokio::test]
async fn what_the_owner_lacks_is_found_elsewhere() {
    let world = world().await;
    let written = chunks(30);
    world.client.put(written.clone(), false).await.expect("stored");
    let moved: HashMap<_, _> = std::mem::take(&mut *world.nodes[1].chunks.lock());
    assert!(!moved.is_empty());
    world.nodes[0].chunks.lock().extend(moved);
    assert_eq!(world.client.get(&refs(&written)).await.expect("found").len(), 30);
}

#[tokio::test]
async fn what_nobody_has_is_said_before_the_deadline() {
    let world = world().await;
    let error = world.client.get(&refs(&chunks(3))).await.expect_err("nobody has them");
    assert!(matches!(&error, FsError::NoReplica { detail } if detail.contains("f_chunk_")), "{error}");
}

#[tokio::test]
async fn a_full_owner_is_no_space() {
    let world = world().await;
    *world.nodes[2].mood.lock() = Mood::Full;
    assert_eq!(world.client.put(chunks(50), false).await, Err(FsError::NoSpace));
}

/// A put that is still on its way when a sync runs used to be noted before, and the sync took the note away.
#[tokio::test]
async fn every_put_is_synced_by_the_next_sync_and_only_by_that() {
    let world = world().await;
    let syncs = || world.nodes.iter().map(|node| node.syncs.load(SeqCst)).collect::<Vec<_>>();
    world.client.put(chunks(50), true).await.expect("stored");
    world.client.sync().await.expect("synced");
    assert_eq!(syncs(), [0, 0, 0], "what is durable needs no sync");
    world.client.put(chunks(50), false).await.expect("stored");
    world.client.sync().await.expect("synced");
    assert_eq!(syncs(), [1, 1, 1]);
    world.client.sync().await.expect("synced");
    assert_eq!(syncs(), [1, 1, 1], "nothing is new");
}

/// A stopped node used to fail every fsync from then on.
#[tokio::test]
async fn a_sync_goes_on_without_one_silent_holder() {
    let world = world().await;
    world.client.put(chunks(50), false).await.expect("stored");
    *world.nodes[1].mood.lock() = Mood::Silent;
    world.client.sync().await.expect("two of three have it on disk");
}
