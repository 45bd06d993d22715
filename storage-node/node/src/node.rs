//! A node as its own planes see it: what the ring calls, the administration and the old join call ask of it.

use chordfs_net::clients::NamespaceClient;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use chordfs_namespace::Namespace;
use chordfs_net::{
    chunk_client::Registry,
    rpc::{RpcPeer, RpcService, Value},
    session::Session,
};
use chordfs_store::{Store, StoreError};
use chordfs_types::{
    admin::{NamespaceStatus, NodeState, NodeStatus, ScrubStatus, StoreStatus, Work},
    chunk::{ChunkName, ChunkRef, Version},
    chunk_api::{ChunkList, Durability, MAX_BATCH_CHUNKS, REPLICAS},
    fs_error::FsError,
    namespace::{Answer, Change, Extent, Query, Reply, calls},
    ring_id::{Neighbours, NodeRef, RingArc},
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    driver::{RingHandle, own, ring_call},
    http::admin::NodeAdmin,
    replica::{departure::Departure, peer::Peers, traffic::Traffic},
    scrub::{Scrub, unix_now},
};

/// Chunks handed over in one request: no more than a put may carry, were they all as large as chunks can be.
const HAND_OVER_CHUNKS: usize = 48;

/// The node's own session, opened in the background: a node serves chunks before the namespace is there.
#[derive(Clone)]
pub struct OwnSession {
    receiver: watch::Receiver<Option<Session>>,
    deadline: Duration,
}

impl OwnSession {
    pub fn new(receiver: watch::Receiver<Option<Session>>, deadline: Duration) -> Self {
        Self { receiver, deadline }
    }

    async fn get(&self) -> Result<Session, FsError> {
        let mut receiver = self.receiver.clone();
        let opened = tokio::time::timeout(self.deadline, receiver.wait_for(Option::is_some)).await;
        let missing = || FsError::NoQuorum { detail: "this node has not reached the namespace yet".into() };
        opened.ok().and_then(Result::ok).and_then(|session| session.clone()).ok_or_else(missing)
    }
}

impl NamespaceClient for OwnSession {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move { self.get().await?.apply(change).await })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move { self.get().await?.query(query).await })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move { self.get().await?.next_version().await })
    }
}

impl Registry for OwnSession {
    fn unreferenced(&self, runs: Vec<Extent>) -> BoxFuture<'_, Result<Vec<Extent>, FsError>> {
        Box::pin(async move { self.get().await?.unreferenced(runs).await })
    }
}

/// What is known of the node's life beside its parts.
#[derive(Default)]
pub struct Stage(AtomicU8);

impl Stage {
    const STAGES: [NodeState; 5] =
        [NodeState::Starting, NodeState::Joining, NodeState::Serving, NodeState::Draining, NodeState::Gone];

    pub fn set(&self, state: NodeState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    pub fn get(&self) -> NodeState {
        Self::STAGES[usize::from(self.0.load(Ordering::Relaxed))]
    }
}

pub struct Node {
    pub stage: Stage,
    pub ring: RingHandle,
    pub store: Arc<Store>,
    pub peers: Peers,
    pub session: OwnSession,
    /// What is copied between this node and others.
    pub traffic: Arc<Traffic>,
    /// Set once, before the planes are opened.
    pub namespace: OnceLock<Namespace>,
    /// The same.
    pub scrub: OnceLock<Scrub>,
    pub capacity_bytes: Option<u64>,
    pub departure: Arc<Departure>,
}

impl Node {
    pub(crate) fn namespace(&self) -> &Namespace {
        self.namespace.get().expect("the namespace is there before the planes are opened")
    }

    fn scrub_status(&self) -> ScrubStatus {
        self.scrub.get().map(Scrub::status).unwrap_or_default()
    }

    fn neighbours(&self) -> Neighbours {
        self.ring.neighbours()
    }

    /// The chunks kept here with keys in the arc, page by page.
    async fn list(&self, arc: RingArc, from: u64) -> Result<ChunkList, FsError> {
        let store = self.store.clone();
        blocking(move || store.list(arc, from, MAX_BATCH_CHUNKS)).await
    }

    async fn give(&self, to: &NodeRef, chunks: &[ChunkRef]) -> Result<(), FsError> {
        let failed = |error: crate::replica::peer::PeerError| FsError::NoReplica { detail: error.to_string() };
        for batch in chunks.chunks(HAND_OVER_CHUNKS) {
            let has = self.peers.has(to, batch).await.map_err(failed)?;
            let missing: Vec<ChunkRef> =
                batch.iter().zip(has).filter(|(_, has)| !has).map(|(chunk, _)| chunk.clone()).collect();
            if missing.is_empty() {
                continue;
            }
            let store = self.store.clone();
            let records = blocking(move || store.get(&missing)).await?;
            self.peers.put(to, records, Durability::Disk).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Out of the ring this node knows nothing of it any more, so who asks for an owner is answered by the next node.
    async fn call_after_leaving(&self, method: &str, params: &[Value]) -> Option<Result<Value, Value>> {
        let heir = self.departure.heir()?.node;
        match method {
            "find_successor" => Some(self.ring.ask_heir(heir, method, params.to_vec()).await),
            own::ROUTE => Some(Err("this node has left the ring".into())),
            _ => None,
        }
    }

    /// Gives a node that has joined the chunks of its arc, as far as they are here.
    async fn give_arc(&self, to: NodeRef) -> Result<Vec<ChunkName>, FsError> {
        let invalid = |reason: String| FsError::Invalid { reason };
        let neighbours = self
            .ring
            .neighbours_of(to)
            .await
            .map_err(|error| invalid(format!("{to} does not say what it owns: {error}")))?;
        let mut names = Vec::new();
        let mut token = Some(0);
        while let Some(from) = token {
            let page = self.list(neighbours.arc(), from).await?;
            let chunks: Vec<ChunkRef> = page.chunks.into_iter().map(|listed| listed.chunk).collect();
            self.give(&to, &chunks).await?;
            names.extend(chunks.into_iter().map(|chunk| ChunkName { file: chunk.file, index: chunk.id.index }));
            token = page.next;
        }
        Ok(names)
    }
}

impl NodeAdmin for Node {
    fn status(&self) -> NodeStatus {
        let (store, namespace) = (self.store.stats(), self.namespace().status());
        let (repair, drain) = (self.traffic.status(), self.departure.status());
        NodeStatus {
            state: self.stage.get(),
            neighbours: Some(self.neighbours()),
            store: StoreStatus {
                chunks: store.chunks,
                data_bytes: store.live_bytes,
                free_bytes: store.free_bytes,
                capacity_bytes: self.capacity_bytes.unwrap_or(store.live_bytes + store.dead_bytes + store.free_bytes),
            },
            namespace: NamespaceStatus {
                voter: namespace.voter,
                leader: self.namespace().leader(),
                voters: self.namespace().voters(),
            },
            work: Work::of(&repair, drain.as_ref(), &self.scrub_status(), unix_now()),
            repair,
            drain,
        }
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.stage.get() != NodeState::Serving {
                return Err(format!("the node is {:?}", self.stage.get()).to_lowercase());
            }
            let asked = NamespaceClient::query(&self.session, Query::StatFs).await;
            asked.map(drop).map_err(|error| error.to_string())
        })
    }

    fn local_chunks(&self, from: Option<u64>) -> BoxFuture<'_, Result<ChunkList, FsError>> {
        let own = self.neighbours().node.id;
        Box::pin(self.list(RingArc::new(own, own), from.unwrap_or(0)))
    }

    fn hand_over(&self, to: NodeRef) -> BoxFuture<'_, Result<Vec<ChunkName>, FsError>> {
        Box::pin(self.give_arc(to))
    }
}

/// The calls on 5057: the ring's, and the namespace's.
impl RpcService for Node {
    async fn call(&self, peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        if method == calls::NAMESPACE {
            let [Value::Binary(request)] = &params[..] else {
                return Err(format!("{method} takes one binary").into());
            };
            return Ok(Value::Binary(self.namespace().handle(peer, request).await));
        }
        if let Some(answer) = self.call_after_leaving(&method, &params).await {
            return answer;
        }
        match ring_call(&self.ring, &method, &params).await {
            Some(answer) => answer,
            None => Err(format!("there is no call {method:?} here").into()),
        }
    }
}

/// How many copies must be there before anything is acknowledged, whatever the ring looks like at the moment: a node
/// that is known to be one of several waits for the others after a restart.
pub fn copies_floor(namespace: &Namespace) -> usize {
    match namespace.voters().len() {
        1 if namespace.is_voter() => 1,
        _ => REPLICAS.min(2),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FsError> {
    let done = tokio::task::spawn_blocking(work).await;
    let internal = |detail: String| FsError::Internal { detail };
    done.map_err(|error| internal(error.to_string()))?.map_err(|error| internal(error.to_string()))
}
