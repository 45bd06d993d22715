//! Groups chunks by the node they go to.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkRef, encode_record, record_bytes},
    chunk_api::MAX_BATCH_CHUNKS,
    ring_id::{NodeRef, RingId},
    route_table::Route,
};

use super::{ChunkClient, NewChunk};
use crate::buffer_pool::BufferPool;

/// Size at which a batch to one owner is cut: large enough that its round trip does not matter, and small enough that
/// several are in flight.
const BATCH_BYTES: usize = 4 << 20;

/// Bodies of batches. About as many bytes are on their way at the same time when one large file is written.
static BODIES: BufferPool = BufferPool::new(8 << 20);

pub(super) type KeyedChunk = (RingId, NewChunk);
pub(super) type KeyedRef = (RingId, ChunkRef);

/// Chunks for one owner, in one request.
pub(super) struct OwnerBatch {
    pub route: Arc<Route>,
    pub chunks: Vec<KeyedChunk>,
    bytes: usize,
}

impl OwnerBatch {
    fn new(route: Arc<Route>, first: KeyedChunk) -> Self {
        let mut batch = Self { route, chunks: Vec::new(), bytes: 0 };
        batch.push(first);
        batch
    }

    fn has_room(&self, (_, chunk): &KeyedChunk) -> bool {
        self.chunks.len() < MAX_BATCH_CHUNKS && self.bytes + record_bytes(&chunk.file, chunk.data.len()) <= BATCH_BYTES
    }

    fn push(&mut self, keyed: KeyedChunk) {
        self.bytes += record_bytes(&keyed.1.file, keyed.1.data.len());
        self.chunks.push(keyed);
    }

    pub(super) fn encode(&self) -> Bytes {
        BODIES.fill(self.bytes, |body| {
            for (key, chunk) in &self.chunks {
                encode_record(body, &chunk.file, chunk.id, *key, &chunk.data);
            }
        })
    }
}

impl ChunkClient {
    /// Returns batches that each go to one owner, and the chunks that have no route yet.
    pub(super) async fn group_by_owner(&self, chunks: Vec<KeyedChunk>) -> (Vec<OwnerBatch>, Vec<KeyedChunk>) {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let mut batches: HashMap<NodeRef, Vec<OwnerBatch>> = HashMap::new();
        let mut unrouted = Vec::new();
        for (keyed, route) in chunks.into_iter().zip(routes) {
            let Some(route) = route else {
                unrouted.push(keyed);
                continue;
            };
            let to_owner = batches.entry(*route.owner()).or_default();
            match to_owner.last_mut().filter(|batch| batch.has_room(&keyed)) {
                Some(batch) => batch.push(keyed),
                None => to_owner.push(OwnerBatch::new(route, keyed)),
            }
        }
        (batches.into_values().flatten().collect(), unrouted)
    }

    /// Groups chunks by their first holder that was not `tried` yet: the owner, its successor, and so on; unresponsive
    /// nodes come last. Also returns the chunks whose holders were all tried, and those without a route.
    pub(super) async fn group_by_holder(
        &self,
        chunks: Vec<KeyedRef>,
        tried: &[NodeRef],
    ) -> (Vec<(NodeRef, Vec<KeyedRef>)>, Vec<KeyedRef>, Vec<KeyedRef>) {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let unresponsive = self.router.unresponsive();
        let mut groups: HashMap<NodeRef, Vec<KeyedRef>> = HashMap::new();
        let (mut exhausted, mut unrouted) = (Vec::new(), Vec::new());
        for (chunk, route) in chunks.into_iter().zip(routes) {
            let Some(route) = route else {
                unrouted.push(chunk);
                continue;
            };
            let untried = || route.holders.iter().filter(|node| !tried.contains(node));
            let responsive = untried().find(|node| !unresponsive.contains(&node.ring_address()));
            match responsive.or_else(|| untried().next()) {
                Some(node) => groups.entry(*node).or_default().push(chunk),
                None => exhausted.push(chunk),
            }
        }
        let batches = groups.into_iter().flat_map(|(node, group)| {
            let batches: Vec<_> = group.chunks(MAX_BATCH_CHUNKS).map(|batch| (node, batch.to_vec())).collect();
            batches
        });
        (batches.collect(), exhausted, unrouted)
    }
}
