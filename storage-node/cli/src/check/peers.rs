//! The questions a check puts: to the namespace, to any node about the ring, to every node about its chunks. All of them
//! only read. A node that does not answer within the deadline, or not in the right form, is noted and not asked again
//! for a while by whoever calls; the namespace is asked until it answers or its time is over.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chordfs_net::{
    http_pool::HttpPool,
    rpc::{RpcClient, Value},
};
use chordfs_types::{
    admin::RingStatus,
    chunk::ChunkRef,
    chunk_api::{ChunkList, HasQuery, ListQuery, encode_refs},
    fs_error::FsError,
    namespace::{Answer, Query, Request, Response, calls, decode, encode},
    ring_id::{NodeRef, RingId},
};
use futures_util::future::join_all;
use hyper::{HeaderMap, Method};
use tokio::time::sleep;
use tracing::debug;

use super::judge::{Copy, whole_circle};

/// One question to one node.
const DEADLINE: Duration = Duration::from_secs(30);
const TRY_DEADLINE: Duration = Duration::from_secs(5);
/// How long the namespace may be without a leader.
const NAMESPACE_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Chunks looked up in one request, and read in one.
const LOOK_UP: usize = 8192;
const READ: usize = 1024;

pub struct Peers {
    /// Ring address of the node that was named.
    node: SocketAddr,
    pool: HttpPool,
    leader: Option<(SocketAddr, RpcClient)>,
    /// Where to look for the leader, in turn.
    candidates: Vec<SocketAddr>,
    turn: usize,
}

impl Peers {
    pub fn new(node: SocketAddr) -> Self {
        Self { node, pool: HttpPool::new(), leader: None, candidates: vec![node], turn: 0 }
    }

    /// The ring as the named node sees it.
    pub async fn ring(&mut self) -> Result<RingStatus> {
        let admin = NodeRef { ip: self.node.ip(), port: self.node.port(), id: RingId(0) }.admin_address();
        let answer = self.pool.request(admin, Method::GET, "/ring", HeaderMap::new(), vec![], DEADLINE).await;
        let answer = answer.with_context(|| format!("no node answers at {}", self.node))?;
        if !answer.status.is_success() {
            bail!("{} answered {} when asked for the ring: {}", self.node, answer.status, answer.text());
        }
        let ring: RingStatus = serde_json::from_slice(&answer.body)
            .with_context(|| format!("what {} says of the ring does not read", self.node))?;
        self.candidates = std::iter::once(self.node).chain(ring.namespace.voters.iter().copied()).collect();
        Ok(ring)
    }

    /// The leader's answer; errors of the question itself are in it.
    pub async fn query(&mut self, query: &Query) -> Result<Result<Answer, FsError>> {
        let request = encode(&Request::Query(query.clone()));
        let end = Instant::now() + NAMESPACE_DEADLINE;
        loop {
            let reason = match self.query_once(&request).await {
                Ok(Response::Answered(answer)) => return Ok(answer),
                Ok(Response::NotLeader { leader: Some(leader) }) => {
                    self.connect(leader).await;
                    format!("the leader is said to be {leader}")
                }
                Ok(Response::Unavailable { reason }) => reason,
                Ok(_) => "no leader is known".to_owned(),
                Err(error) => {
                    self.leader = None;
                    format!("{error:#}")
                }
            };
            if Instant::now() > end {
                bail!("the namespace does not answer within {NAMESPACE_DEADLINE:?}: {reason}");
            }
            debug!(reason, "asking the namespace again");
            sleep(PAUSE).await;
        }
    }

    async fn query_once(&mut self, request: &[u8]) -> Result<Response> {
        if self.leader.is_none() {
            self.turn += 1;
            self.connect(self.candidates[self.turn % self.candidates.len()]).await;
        }
        let (address, client) = self.leader.as_ref().context("no node leads to the namespace")?;
        let answer = client.call(calls::NAMESPACE, vec![Value::Binary(request.to_vec())], TRY_DEADLINE).await?;
        let Value::Binary(bytes) = answer else { bail!("{address} answered something else than one binary") };
        decode(&bytes).with_context(|| format!("the answer of {address}"))
    }

    async fn connect(&mut self, address: SocketAddr) {
        if self.leader.as_ref().is_some_and(|(known, client)| *known == address && !client.is_closed()) {
            return;
        }
        self.leader = RpcClient::connect(address, TRY_DEADLINE, None).await.ok().map(|client| (address, client));
    }

    /// What each node has of the chunks that it is asked for, all nodes side by side.
    pub async fn copies(&self, asked: Vec<(NodeRef, Vec<ChunkRef>)>, verify: bool) -> Vec<(NodeRef, Vec<Copy>)> {
        join_all(asked.into_iter().map(|(node, chunks)| async move {
            let copies = self.copies_of(&node, &chunks, verify).await;
            (node, copies.unwrap_or_else(|| vec![Copy::Unknown; chunks.len()]))
        }))
        .await
    }

    async fn copies_of(&self, node: &NodeRef, chunks: &[ChunkRef], verify: bool) -> Option<Vec<Copy>> {
        let (size, target) = (if verify { READ } else { LOOK_UP }, HasQuery { verify }.target());
        let mut copies = Vec::with_capacity(chunks.len());
        for some in chunks.chunks(size) {
            let answer = self.pool.post(node.files_address(), &target, vec![encode_refs(some)], DEADLINE).await;
            let answer = answer.inspect_err(|error| debug!(%node, %error, "no answer")).ok()?;
            if !answer.status.is_success() || answer.body.len() != some.len() {
                debug!(%node, status = %answer.status, text = answer.text(), "not an answer to what was asked");
                return None;
            }
            copies.extend(answer.body.iter().map(|byte| Copy::of(*byte)));
        }
        Some(copies)
    }

    /// A page of all that a node stores.
    pub async fn stored(&self, node: &NodeRef, from: u64) -> Option<ChunkList> {
        let target = ListQuery::new(whole_circle(), from).target();
        let answer = self.pool.request(node.files_address(), Method::GET, &target, HeaderMap::new(), vec![], DEADLINE);
        let answer = answer.await.inspect_err(|error| debug!(%node, %error, "no list")).ok()?;
        postcard::from_bytes(&answer.body).ok().filter(|_| answer.status.is_success())
    }
}
