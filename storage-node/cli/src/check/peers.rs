//! The requests of a check: to the namespace, to one node about the ring, to every node about its chunks. All of them
//! only read. A node that sends no valid answer within the deadline counts as unresponsive; requests to the namespace
//! are retried until it answers or its deadline has passed.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chordfs_net::{
    admin_client::AdminClient,
    http_pool::HttpPool,
    rpc::{RpcClient, Value},
    transport::Connector,
};
use chordfs_types::{
    admin::RingStatus,
    chunk::ChunkRef,
    chunk_api::{ChunkList, HasQuery, ListQuery, encode_refs},
    fs_error::FsError,
    namespace::{Answer, Query, Request, Response, calls, decode, encode},
    ring_id::{NodeAddress, NodeRef},
};
use futures_util::future::join_all;
use hyper::{HeaderMap, Method};
use tokio::time::sleep;
use tracing::debug;

use super::judge::{CopyFinding, whole_circle};
use crate::progress::ProgressBar;

/// The deadline of one request to one node.
const DEADLINE: Duration = Duration::from_secs(30);
const TRY_DEADLINE: Duration = Duration::from_secs(5);
/// How long the namespace may be without a leader.
const NAMESPACE_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Chunks in one request that looks them up, and in one that makes the node read them.
const LOOK_UP_CHUNKS: usize = 8192;
const READ_CHUNKS: usize = 1024;

pub(super) struct CheckPeers {
    node: NodeAddress,
    connector: Connector,
    pool: Arc<HttpPool>,
    leader: Option<(SocketAddr, RpcClient)>,
    /// Nodes that may know the leader, asked in turn.
    leader_candidates: Vec<SocketAddr>,
    turn: usize,
    /// Counts the copies that were looked up or read.
    bar: ProgressBar,
}

impl CheckPeers {
    /// `node`: any member of the ring.
    pub(super) fn new(node: NodeAddress, connector: Connector, bar: ProgressBar) -> Self {
        let pool = Arc::new(HttpPool::over(connector.clone()));
        Self { node, connector, pool, leader: None, leader_candidates: vec![node.ring()], turn: 0, bar }
    }

    /// The ring as the named node sees it.
    pub(super) async fn ring(&mut self) -> Result<RingStatus> {
        let ring = AdminClient::new(self.pool.clone(), DEADLINE).ring(self.node).await?;
        self.leader_candidates =
            std::iter::once(self.node.ring()).chain(ring.namespace.voters.iter().copied()).collect();
        if let Some(copies) = ring.nodes.iter().filter_map(|node| node.chunks).reduce(u64::saturating_add) {
            self.bar.set_length(copies);
        }
        Ok(ring)
    }

    /// The leader's answer. The inner error is the leader's own answer to the query.
    pub(super) async fn query(&mut self, query: &Query) -> Result<Result<Answer, FsError>> {
        let request = encode(&Request::Query(query.clone()));
        let end = Instant::now() + NAMESPACE_DEADLINE;
        loop {
            let reason = match self.query_once(&request).await {
                Ok(Response::Answered(answer, _)) => return Ok(answer),
                Ok(Response::NotLeader { leader: Some(leader) }) => {
                    self.connect(leader).await;
                    format!("{leader} was named as the leader")
                }
                Ok(Response::Unavailable { reason }) => reason,
                Ok(_) => "no leader is known".to_owned(),
                Err(error) => {
                    self.leader = None;
                    format!("{error:#}")
                }
            };
            if Instant::now() > end {
                bail!("the namespace does not answer within {} s: {reason}", NAMESPACE_DEADLINE.as_secs());
            }
            debug!(reason, "asking the namespace again");
            sleep(PAUSE).await;
        }
    }

    async fn query_once(&mut self, request: &[u8]) -> Result<Response> {
        if self.leader.is_none() {
            self.turn += 1;
            self.connect(self.leader_candidates[self.turn % self.leader_candidates.len()]).await;
        }
        let (address, client) = self.leader.as_ref().context("no node of the ring can be reached")?;
        let answer = client.call(calls::NAMESPACE, vec![Value::Binary(request.to_vec())], TRY_DEADLINE).await?;
        let Value::Binary(bytes) = answer else { bail!("{address} did not answer with one binary value") };
        decode(&bytes).with_context(|| format!("the answer of {address}"))
    }

    async fn connect(&mut self, address: SocketAddr) {
        if self.leader.as_ref().is_some_and(|(known, client)| *known == address && !client.is_closed()) {
            return;
        }
        let client = RpcClient::dial(&self.connector, address, TRY_DEADLINE).await;
        self.leader = client.ok().map(|client| (address, client));
    }

    /// Each node's copies of the chunks listed for it; all nodes are asked at the same time.
    pub(super) async fn copies(
        &self,
        asked: Vec<(NodeRef, Vec<ChunkRef>)>,
        verify: bool,
    ) -> Vec<(NodeRef, Vec<CopyFinding>)> {
        join_all(asked.into_iter().map(|(node, chunks)| async move {
            let copies = self.copies_of(&node, &chunks, verify).await;
            (node, copies.unwrap_or_else(|| vec![CopyFinding::Unknown; chunks.len()]))
        }))
        .await
    }

    async fn copies_of(&self, node: &NodeRef, chunks: &[ChunkRef], verify: bool) -> Option<Vec<CopyFinding>> {
        let (size, target) = (if verify { READ_CHUNKS } else { LOOK_UP_CHUNKS }, HasQuery { verify }.target());
        let mut copies = Vec::with_capacity(chunks.len());
        for some in chunks.chunks(size) {
            let answer = self.pool.post(node.files_address(), &target, vec![encode_refs(some)], DEADLINE).await;
            let answer = answer.inspect_err(|error| debug!(%node, %error, "no answer")).ok()?;
            if !answer.status.is_success() || answer.body.len() != some.len() {
                debug!(%node, status = %answer.status, text = answer.text(), "unexpected answer");
                return None;
            }
            self.bar.inc(some.len() as u64);
            copies.extend(answer.body.iter().map(|byte| CopyFinding::from_byte(*byte)));
        }
        Some(copies)
    }

    /// A page of all chunks that a node stores.
    pub(super) async fn stored(&self, node: &NodeRef, from: u64) -> Option<ChunkList> {
        let target = ListQuery::new(whole_circle(), from).target();
        let answer = self.pool.request(node.files_address(), Method::GET, &target, HeaderMap::new(), vec![], DEADLINE);
        let answer = answer.await.inspect_err(|error| debug!(%node, %error, "no list")).ok()?;
        postcard::from_bytes(&answer.body).ok().filter(|_| answer.status.is_success())
    }
}
