//! The batch calls from one node to another.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    chunk::{ChunkRef, ChunkRun},
    chunk_api::{ChunkList, encode_refs, encode_runs},
    http_pool::{HttpAnswer, HttpError, HttpPool},
    ring_id::{NodeRef, RingArc},
};
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Debug, Error)]
pub enum PeerError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{node} has no space left")]
    NoSpace { node: NodeRef },
    #[error("{node} answered {status}: {text}")]
    Refused { node: NodeRef, status: StatusCode, text: String },
    #[error("{node} sent an answer that does not decode: {reason}")]
    Answer { node: NodeRef, reason: String },
}

/// Count and order-independent digest of the chunks in an arc: equal means equal sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcDigest {
    pub count: u64,
    pub digest: u64,
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

    /// Stores records there and nowhere else.
    pub async fn put(&self, node: &NodeRef, records: Vec<Bytes>, durable: bool) -> Result<(), PeerError> {
        let path = if durable { "/chunks/put?copies=1&durable=true" } else { "/chunks/put?copies=1&durable=false" };
        self.post(node, path, records).await.map(drop)
    }

    /// The records that it has of these, one after the other.
    pub async fn get(&self, node: &NodeRef, chunks: &[ChunkRef]) -> Result<Bytes, PeerError> {
        Ok(self.post(node, "/chunks/get", vec![encode_refs(chunks)]).await?.body)
    }

    pub async fn has(&self, node: &NodeRef, chunks: &[ChunkRef]) -> Result<Vec<bool>, PeerError> {
        let body = self.post(node, "/chunks/has", vec![encode_refs(chunks)]).await?.body;
        if body.len() != chunks.len() {
            let reason = format!("{} answers to {} questions", body.len(), chunks.len());
            return Err(PeerError::Answer { node: *node, reason });
        }
        Ok(body.iter().map(|&byte| byte == 1).collect())
    }

    pub async fn delete(&self, node: &NodeRef, runs: &[ChunkRun]) -> Result<(), PeerError> {
        self.post(node, "/chunks/delete", vec![encode_runs(runs)]).await.map(drop)
    }

    /// Returns when all that it has acknowledged is on its disk.
    pub async fn sync(&self, node: &NodeRef) -> Result<(), PeerError> {
        self.post(node, "/chunks/sync", vec![]).await.map(drop)
    }

    pub async fn digest(&self, node: &NodeRef, arc: RingArc) -> Result<ArcDigest, PeerError> {
        let answer = self.get_path(node, &format!("/chunks/digest?after={}&upto={}", arc.after, arc.upto)).await?;
        decode(node, &answer.body)
    }

    /// All chunks that it has in the arc, page by page.
    pub async fn list(&self, node: &NodeRef, arc: RingArc, from: u64) -> Result<ChunkList, PeerError> {
        let path = format!("/chunks/list?after={}&upto={}&from={from}", arc.after, arc.upto);
        decode(node, &self.get_path(node, &path).await?.body)
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
        status => Err(PeerError::Refused { node: *node, status, text: answer.text() }),
    }
}

fn decode<T: for<'a> Deserialize<'a>>(node: &NodeRef, body: &[u8]) -> Result<T, PeerError> {
    postcard::from_bytes(body).map_err(|error| PeerError::Answer { node: *node, reason: error.to_string() })
}
