//! Chunks grouped by where they go.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use chordfs_types::{
    chunk::{ChunkRef, encode_record, record_bytes},
    chunk_api::MAX_BATCH_CHUNKS,
    ring_id::{NodeRef, RingId},
    route_table::Route,
};

use super::{ChunkClient, NewChunk};

/// A batch to one owner is cut at this size: large enough that its round trip does not count, small enough that several
/// are under way.
const BATCH_BYTES: usize = 4 << 20;

pub type Keyed = (RingId, NewChunk);
pub type Wanted = (RingId, ChunkRef);

/// Chunks for one owner, in one request.
pub struct Batch {
    pub route: Arc<Route>,
    pub chunks: Vec<Keyed>,
    bytes: usize,
}

impl Batch {
    fn new(route: Arc<Route>, first: Keyed) -> Self {
        let mut batch = Self { route, chunks: Vec::new(), bytes: 0 };
        batch.push(first);
        batch
    }

    fn has_room(&self, (_, chunk): &Keyed) -> bool {
        self.chunks.len() < MAX_BATCH_CHUNKS && self.bytes + record_bytes(&chunk.file, chunk.data.len()) <= BATCH_BYTES
    }

    fn push(&mut self, keyed: Keyed) {
        self.bytes += record_bytes(&keyed.1.file, keyed.1.data.len());
        self.chunks.push(keyed);
    }

    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes);
        for (key, chunk) in &self.chunks {
            encode_record(&mut body, &chunk.file, chunk.id, *key, &chunk.data);
        }
        body.freeze()
    }
}

impl ChunkClient {
    /// Batches that each go to one owner; what has no route yet comes back.
    pub(super) async fn group_by_owner(&self, chunks: Vec<Keyed>) -> (Vec<Batch>, Vec<Keyed>) {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let mut batches: HashMap<NodeRef, Vec<Batch>> = HashMap::new();
        let mut unrouted = Vec::new();
        for (keyed, route) in chunks.into_iter().zip(routes) {
            let Some(route) = route else {
                unrouted.push(keyed);
                continue;
            };
            let to_owner = batches.entry(*route.owner()).or_default();
            match to_owner.last_mut().filter(|batch| batch.has_room(&keyed)) {
                Some(batch) => batch.push(keyed),
                None => to_owner.push(Batch::new(route, keyed)),
            }
        }
        (batches.into_values().flatten().collect(), unrouted)
    }

    /// Groups by the first holder that was not `tried` yet: the owner, the node after it, and so on; quiet ones come last.
    /// Chunks whose holders were all tried come back as the second part, those without a route as the third.
    pub(super) async fn group_by_holder(
        &self,
        chunks: Vec<Wanted>,
        tried: &[NodeRef],
    ) -> (Vec<(NodeRef, Vec<Wanted>)>, Vec<Wanted>, Vec<Wanted>) {
        let routes = self.routes(chunks.iter().map(|(key, _)| *key)).await;
        let quiet = self.router.quiet();
        let mut groups: HashMap<NodeRef, Vec<Wanted>> = HashMap::new();
        let (mut exhausted, mut unrouted) = (Vec::new(), Vec::new());
        for (chunk, route) in chunks.into_iter().zip(routes) {
            let Some(route) = route else {
                unrouted.push(chunk);
                continue;
            };
            let left = || route.holders.iter().filter(|node| !tried.contains(node));
            let heard = left().find(|node| !quiet.contains(&node.ring_address()));
            match heard.or_else(|| left().next()) {
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
