//! The batch calls from one node to another.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chordfs_net::http_pool::{HttpAnswer, HttpClientError, HttpPool};
use chordfs_replication::arc_comparison::CopyAmount;
use chordfs_types::{
    chunk::{ChunkRef, ChunkRun},
    chunk_api::{
        ArcDigest, ChunkList, DigestQuery, Durability, ListQuery, OfferQuery, PutQuery, calls, encode_refs, encode_runs,
    },
    compare_api::{self, ArcSum, ChunkAt, IdsPage, IdsRequest, calls as compare_calls, check_page},
    ring_id::{NodeRef, RingArc, RingId},
};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use thiserror::Error;

#[derive(Clone, Debug, Error)]
pub enum PeerError {
    #[error(transparent)]
    Http(#[from] HttpClientError),
    #[error("{node} has no space left")]
    NoSpace { node: NodeRef },
    /// The node stores other bytes under the id of a chunk.
    #[error("{node} refused a chunk: {text}")]
    Conflict { node: NodeRef, text: String },
    #[error("{node} answered {status}: {text}")]
    Refused { node: NodeRef, status: StatusCode, text: String },
    #[error("{node} sent an answer that does not decode: {reason}")]
    Answer { node: NodeRef, reason: String },
}

/// The node that sends chunks, and how much it still has to send.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub node: RingId,
    pub left: CopyAmount,
}

impl Sender {
    fn query(&self) -> OfferQuery {
        OfferQuery { from: self.node, left: self.left.chunks, left_bytes: self.left.bytes }
    }
}

#[derive(Clone)]
pub struct Peers {
    pool: Arc<HttpPool>,
    deadline: Duration,
}

impl Peers {
    pub fn new(pool: Arc<HttpPool>, deadline: Duration) -> Self {
        Self { pool, deadline }
    }

    /// Stores records on that node only.
    pub async fn put(&self, node: &NodeRef, records: Vec<Bytes>, durability: Durability) -> Result<(), PeerError> {
        self.post(node, &PutQuery::local(durability).target(), records).await.map(drop)
    }

    /// Returns the records of those chunks that the node has, one after the other.
    pub async fn get(&self, node: &NodeRef, chunks: &[ChunkRef]) -> Result<Bytes, PeerError> {
        Ok(self.post(node, calls::GET, vec![encode_refs(chunks)]).await?.body)
    }

    pub async fn has(&self, node: &NodeRef, chunks: &[ChunkRef]) -> Result<Vec<bool>, PeerError> {
        let body = self.post(node, calls::HAS, vec![encode_refs(chunks)]).await?.body;
        if body.len() != chunks.len() {
            let reason = format!("{} answers to {} questions", body.len(), chunks.len());
            return Err(PeerError::Answer { node: *node, reason });
        }
        Ok(body.iter().map(|&byte| byte == 1).collect())
    }

    pub async fn delete(&self, node: &NodeRef, runs: &[ChunkRun]) -> Result<(), PeerError> {
        self.post(node, calls::DELETE, vec![encode_runs(runs)]).await.map(drop)
    }

    /// Returns when everything that the node has acknowledged is on its disk.
    pub async fn sync(&self, node: &NodeRef) -> Result<(), PeerError> {
        self.post(node, calls::SYNC, vec![]).await.map(drop)
    }

    pub async fn digest(&self, node: &NodeRef, arc: RingArc) -> Result<ArcDigest, PeerError> {
        let answer = self.get_path(node, &DigestQuery::new(arc).target()).await?;
        decode(node, &answer.body)
    }

    /// Returns a page of the chunks that the node has in the arc.
    pub async fn list(&self, node: &NodeRef, arc: RingArc, from: u64) -> Result<ChunkList, PeerError> {
        decode(node, &self.get_path(node, &ListQuery::new(arc, from).target()).await?.body)
    }

    /// Returns count, bytes and digest of the node's chunks in each arc.
    pub async fn sums(&self, node: &NodeRef, arcs: &[RingArc]) -> Result<Vec<ArcSum>, PeerError> {
        let answer = self.question(node, compare_calls::DIGESTS, compare_api::encode(&arcs)).await?;
        let sums: Vec<ArcSum> = decode(node, &answer)?;
        if sums.len() == arcs.len() {
            Ok(sums)
        } else {
            Err(wrong(node, format!("{} sums for {} arcs", sums.len(), arcs.len())))
        }
    }

    /// Returns a page of the chunks that the node has in the arcs; checks their order.
    pub async fn ids(&self, node: &NodeRef, request: &IdsRequest) -> Result<IdsPage, PeerError> {
        let page: IdsPage =
            decode(node, &self.question(node, compare_calls::IDS, compare_api::encode(request)).await?)?;
        check_page(request, &page).map_err(|reason| wrong(node, reason))?;
        Ok(page)
    }

    /// Offers chunks. Returns one of [`compare_api::HERE`], [`compare_api::SEND`], [`compare_api::COMING`],
    /// [`compare_api::GONE`] for each.
    pub async fn offer(&self, node: &NodeRef, from: &Sender, chunks: &[ChunkAt]) -> Result<Vec<u8>, PeerError> {
        self.byte_each(node, &format!("{}?{}", compare_calls::OFFER, from.query()), chunks).await
    }

    /// Like [`Peers::put`], for chunks that the node has accepted from an offer.
    pub async fn put_accepted(&self, node: &NodeRef, from: &Sender, records: Vec<Bytes>) -> Result<(), PeerError> {
        self.post(node, &PutQuery::accepted(from.query()).target(), records).await.map(drop)
    }

    /// Like [`Peers::get`], for chunks known by key and id.
    pub async fn fetch(&self, node: &NodeRef, chunks: &[ChunkAt]) -> Result<Bytes, PeerError> {
        self.question(node, compare_calls::FETCH, compare_api::encode(&chunks)).await
    }

    /// Reports that these chunks were deleted for good.
    pub async fn report_deleted(&self, node: &NodeRef, chunks: &[ChunkAt]) -> Result<(), PeerError> {
        self.question(node, compare_calls::GONE, compare_api::encode(&chunks)).await.map(drop)
    }

    /// Returns for each chunk whether the node has it on its disk and has just read it back sound.
    pub async fn confirm(&self, node: &NodeRef, chunks: &[ChunkAt]) -> Result<Vec<bool>, PeerError> {
        let answer = self.byte_each(node, compare_calls::CONFIRM, chunks).await?;
        Ok(answer.into_iter().map(|byte| byte == 1).collect())
    }

    async fn byte_each(&self, node: &NodeRef, path: &str, chunks: &[ChunkAt]) -> Result<Vec<u8>, PeerError> {
        let answer = self.question(node, path, compare_api::encode(&chunks)).await?;
        if answer.len() == chunks.len() {
            Ok(answer.to_vec())
        } else {
            Err(wrong(node, format!("{} answers to {} questions", answer.len(), chunks.len())))
        }
    }

    async fn question(&self, node: &NodeRef, path: &str, body: Vec<u8>) -> Result<Bytes, PeerError> {
        Ok(self.post(node, path, vec![body.into()]).await?.body)
    }

    async fn post(&self, node: &NodeRef, path: &str, body: Vec<Bytes>) -> Result<HttpAnswer, PeerError> {
        let answer = self.pool.post(node.files_address(), path, body, self.deadline).await?;
        check(node, answer)
    }

    async fn get_path(&self, node: &NodeRef, path: &str) -> Result<HttpAnswer, PeerError> {
        let address = node.files_address();
        let answer = self.pool.request(address, Method::GET, path, HeaderMap::new(), vec![], self.deadline).await?;
        check(node, answer)
    }
}

fn check(node: &NodeRef, answer: HttpAnswer) -> Result<HttpAnswer, PeerError> {
    match answer.status {
        status if status.is_success() => Ok(answer),
        StatusCode::INSUFFICIENT_STORAGE => Err(PeerError::NoSpace { node: *node }),
        StatusCode::CONFLICT => Err(PeerError::Conflict { node: *node, text: answer.text() }),
        status => Err(PeerError::Refused { node: *node, status, text: answer.text() }),
    }
}

fn wrong(node: &NodeRef, reason: String) -> PeerError {
    PeerError::Answer { node: *node, reason }
}

fn decode<T: for<'a> Deserialize<'a>>(node: &NodeRef, body: &[u8]) -> Result<T, PeerError> {
    postcard::from_bytes(body).map_err(|error| PeerError::Answer { node: *node, reason: error.to_string() })
}
