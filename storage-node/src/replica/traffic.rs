//! What everything that copies chunks between nodes shares: the rate, who is bringing what here, what is on its way from
//! here, and how far it all is. The values are pure; here are the clock and the locks.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    chunk::{ChunkId, VerifiedBatch},
    compare_api::{COMING, ChunkAt, GONE, HERE, SEND},
    ring_id::{NodeRef, RingId},
};
use parking_lot::Mutex;

use super::{
    claims::Claims,
    descent::Left,
    progress::{Direction, Progress, RepairStatus},
    rate::{Bucket, RateLimit},
};
use crate::store::Store;

pub struct Traffic {
    bucket: Mutex<Bucket>,
    claims: Mutex<Claims>,
    progress: Mutex<Progress>,
    /// Batches of writers on their way to other holders.
    flights: Mutex<HashMap<SocketAddr, Vec<Arc<VerifiedBatch>>>>,
    /// Those that were told of more than has been brought to them.
    expecting: Mutex<HashSet<NodeRef>>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(RateLimit::default())
    }
}

impl Traffic {
    pub fn new(limit: RateLimit) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(limit, Instant::now())),
            claims: Mutex::default(),
            progress: Mutex::default(),
            flights: Mutex::default(),
            expecting: Mutex::default(),
        }
    }

    /// For the status and the metrics.
    pub fn status(&self) -> RepairStatus {
        let limit = self.limit().0;
        self.progress.lock().status(limit, Instant::now())
    }

    pub fn limit(&self) -> RateLimit {
        self.bucket.lock().limit()
    }

    /// Takes `bytes` out of what may go, and says how long to wait before they do.
    pub fn take(&self, bytes: u64) -> Duration {
        self.bucket.lock().take(bytes, Instant::now())
    }

    /// Waits until `bytes` may go.
    pub async fn spend(&self, bytes: u64) {
        let wait = self.take(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Some of what was spent did not go after all.
    pub fn refund(&self, bytes: u64) {
        self.bucket.lock().put_back(bytes);
    }

    /// Answers an offer of `from`: what it is to send is from now on expected from it, and what is here or comes from
    /// another is not, as `from` may never speak of it again.
    pub fn answer_offer(&self, store: &Store, from: RingId, left: Left, chunks: &[ChunkAt]) -> Vec<u8> {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        let answer = |chunk: &ChunkAt| match store.is_here(chunk) {
            true => HERE,
            false if store.is_buried(chunk) => GONE,
            false if claims.take(chunk, from, now) => SEND,
            false => COMING,
        };
        let answers: Vec<u8> = chunks.iter().map(answer).collect();
        drop(claims);
        let refused = chunks.iter().zip(&answers).filter(|(_, answer)| **answer != SEND).map(|(chunk, _)| *chunk);
        self.progress.lock().announce(from, left.without(Left::of(&refused.collect::<Vec<_>>())), now);
        answers
    }

    /// `node` was told that `left` is still to be brought to it.
    pub fn told(&self, node: &NodeRef, left: Left) {
        match left == Left::default() {
            true => self.expecting.lock().remove(node),
            false => self.expecting.lock().insert(*node),
        };
    }

    /// Those that still expect something of this node.
    pub fn expecting(&self) -> Vec<NodeRef> {
        self.expecting.lock().iter().copied().collect()
    }

    /// What `from` brought has been stored, or refused.
    pub fn brought(&self, from: RingId, left: Left, batch: &VerifiedBatch, stored: bool) {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        for (header, _) in &batch.records {
            claims.end(header.key, header.id, from);
        }
        drop(claims);
        let moved = Left { chunks: batch.records.len() as u64, bytes: batch.bytes.len() as u64 };
        let mut progress = self.progress.lock();
        progress.announce(from, left, now);
        if stored {
            progress.moved(Direction::Incoming, moved, now);
        }
    }

    /// Those of `chunks` that are not here and that nobody brings: from now on `me` does, until the claim is dropped.
    pub fn claim(self: &Arc<Self>, store: &Store, me: RingId, chunks: &[ChunkAt]) -> Claimed {
        let (now, mut claims) = (Instant::now(), self.claims.lock());
        // A claim of one's own is another task's: two holders have the chunk, and one copy is enough.
        let free = |chunk: &&ChunkAt| !store.is_here(chunk) && claims.take_first(chunk, me, now);
        let chunks = chunks.iter().filter(free).copied().collect();
        Claimed { traffic: self.clone(), me, chunks }
    }

    pub fn plan(&self, holder: &NodeRef, (fetch, send): (Left, Left)) {
        self.progress.lock().plan(holder.id, fetch, send);
    }

    pub fn holders_are(&self, holders: &[NodeRef]) {
        self.progress.lock().holders_are(holders.iter().map(|holder| holder.id).collect());
    }

    /// What differs from this holder is known from now on.
    pub fn compared_with(&self, holder: &NodeRef, left: (Left, Left)) {
        let mut progress = self.progress.lock();
        progress.plan(holder.id, left.0, left.1);
        progress.compared_with(holder.id);
    }

    pub fn neighbours_changed(&self) {
        self.progress.lock().forget_comparisons();
    }

    /// Everything kept here that others hold now was given away.
    pub fn surplus_is_gone(&self) {
        self.progress.lock().surplus_is_gone();
    }

    /// The same, and nothing has changed since.
    pub fn keeps_no_surplus(&self) -> bool {
        self.progress.lock().keeps_no_surplus()
    }

    pub fn moved(&self, direction: Direction, moved: Left) {
        self.progress.lock().moved(direction, moved, Instant::now());
    }

    /// A writer's batch is on its way to `node` until the guard is dropped.
    pub fn depart(self: &Arc<Self>, node: &NodeRef, batch: VerifiedBatch) -> Flight {
        let (to, batch) = (node.ring_address(), Arc::new(batch));
        self.flights.lock().entry(to).or_default().push(batch.clone());
        Flight { traffic: self.clone(), to, batch }
    }

    /// `chunks` without those that a writer's batch is bringing to `node` at this moment.
    pub fn without_flights(&self, node: &NodeRef, chunks: &[ChunkAt]) -> Vec<ChunkAt> {
        let under_way = self.flights.lock().get(&node.ring_address()).cloned().unwrap_or_default();
        let headers = under_way.iter().flat_map(|batch| &batch.records).map(|(header, _)| header);
        let names: HashSet<(RingId, ChunkId)> = headers.map(|header| (header.key, header.id)).collect();
        chunks.iter().filter(|chunk| !names.contains(&(chunk.key, chunk.id))).copied().collect()
    }
}

/// Chunks that this node is fetching.
pub struct Claimed {
    traffic: Arc<Traffic>,
    me: RingId,
    pub chunks: Vec<ChunkAt>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut claims = self.traffic.claims.lock();
        self.chunks.iter().for_each(|chunk| claims.end(chunk.key, chunk.id, self.me));
    }
}

/// A batch on its way.
pub struct Flight {
    traffic: Arc<Traffic>,
    to: SocketAddr,
    batch: Arc<VerifiedBatch>,
}

impl Flight {
    pub fn bytes(&self) -> bytes::Bytes {
        self.batch.bytes.clone()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.traffic.flights.lock();
        if let Some(batches) = flights.get_mut(&self.to) {
            batches.retain(|batch| !Arc::ptr_eq(batch, &self.batch));
            if batches.is_empty() {
                flights.remove(&self.to);
            }
        }
    }
}
