//! The state that all copying of chunks between nodes shares: the rate limit, the claims on incoming chunks, the writes
//! on their way to other holders, and the progress. The values are pure (`chordfs-replication`); this file adds the
//! clock and the locks.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chordfs_replication::{
    arc_comparison::CopyAmount,
    incoming_claims::IncomingClaims,
    rate::Bucket,
    repair_progress::{Direction, RepairProgress},
};
use chordfs_store::Store;
use chordfs_types::{
    admin::RepairStatus,
    chunk::{ChunkId, VerifiedBatch},
    compare_api::{COMING, ChunkAt, GONE, HERE, SEND},
    rate_limit::RateLimit,
    ring_id::{NodeRef, RingId},
};
use parking_lot::Mutex;

/// The most memory, per peer, for late copies: those that are still on their way when their writer has its answer. The
/// largest batch fits, as does the backlog of a peer that is a second or two behind; an unresponsive peer costs no more
/// than this until the deadline.
const LATE_BYTES: u64 = 64 << 20;
/// Each late copy counts for at least this much: a small batch needs a task and a connection as well.
const LEAST_LATE_BYTES: u64 = 64 << 10;

pub struct CopyTraffic {
    bucket: Mutex<Bucket>,
    claims: Mutex<IncomingClaims>,
    progress: Mutex<RepairProgress>,
    /// Batches of writers on their way to other holders.
    replica_writes: Mutex<HashMap<SocketAddr, UnderWay>>,
    /// Nodes to which this node has announced more chunks than it has sent.
    expecting: Mutex<HashSet<NodeRef>>,
}

/// The writes on their way to one node.
#[derive(Default)]
struct UnderWay {
    batches: Vec<Arc<VerifiedBatch>>,
    /// Bytes of the batches whose writers have their answer.
    late_bytes: u64,
}

impl Default for CopyTraffic {
    fn default() -> Self {
        Self::new(RateLimit::default())
    }
}

impl CopyTraffic {
    pub fn new(limit: RateLimit) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(limit, Instant::now())),
            claims: Mutex::default(),
            progress: Mutex::default(),
            replica_writes: Mutex::default(),
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

    /// Takes `bytes` out of the bucket and returns how long to wait before they may be sent.
    pub fn take(&self, bytes: u64) -> Duration {
        self.bucket.lock().take(bytes, Instant::now())
    }

    /// Takes `bytes` out of the bucket and waits until they may be sent.
    pub async fn spend(&self, bytes: u64) {
        let wait = self.take(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns bytes to the bucket that were spent but not sent.
    pub fn refund(&self, bytes: u64) {
        self.bucket.lock().put_back(bytes);
    }

    /// Answers an offer of `from`. The chunks that it is to send are expected from it from now on. Chunks that are here
    /// or come from another node are not, as `from` may never mention them again.
    pub fn answer_offer(&self, store: &Store, from: RingId, left: CopyAmount, chunks: &[ChunkAt]) -> Vec<u8> {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        let answer = |chunk: &ChunkAt| match store.is_here(chunk) {
            true => HERE,
            false if store.has_tombstone(chunk) => GONE,
            false if claims.take(chunk, from, now) => SEND,
            false => COMING,
        };
        let answers: Vec<u8> = chunks.iter().map(answer).collect();
        drop(claims);
        let refused = chunks.iter().zip(&answers).filter(|(_, answer)| **answer != SEND).map(|(chunk, _)| *chunk);
        self.progress.lock().announce(from, left.without(CopyAmount::of(&refused.collect::<Vec<_>>())), now);
        answers
    }

    /// Records that this node has announced to `node` that `left` is still to be sent.
    pub fn set_announced(&self, node: &NodeRef, left: CopyAmount) {
        if left == CopyAmount::default() {
            self.expecting.lock().remove(node)
        } else {
            self.expecting.lock().insert(*node)
        };
    }

    /// Nodes that still expect chunks from this node.
    pub fn expecting_peers(&self) -> Vec<NodeRef> {
        self.expecting.lock().iter().copied().collect()
    }

    /// Ends the claims on a batch that `from` has sent and that was stored or refused.
    pub fn finish_incoming(&self, from: RingId, left: CopyAmount, batch: &VerifiedBatch, stored: bool) {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        for (header, _) in &batch.records {
            claims.end(header.key, header.id, from);
        }
        drop(claims);
        let moved = CopyAmount { chunks: batch.records.len() as u64, bytes: batch.bytes.len() as u64 };
        let mut progress = self.progress.lock();
        progress.announce(from, left, now);
        if stored {
            progress.moved(Direction::Incoming, moved, now);
        }
    }

    /// Claims for `me` those of `chunks` that are not here and that no other node is sending. The claim lasts until it
    /// is dropped.
    pub fn claim(self: &Arc<Self>, store: &Store, me: RingId, chunks: &[ChunkAt]) -> Claimed {
        let (now, mut claims) = (Instant::now(), self.claims.lock());
        // An existing claim of `me` belongs to another task: two holders have the chunk, and one copy is enough.
        let free = |chunk: &&ChunkAt| !store.is_here(chunk) && claims.take_if_unclaimed(chunk, me, now);
        let chunks = chunks.iter().filter(free).copied().collect();
        Claimed { traffic: self.clone(), me, chunks }
    }

    pub fn plan(&self, holder: &NodeRef, (fetch, send): (CopyAmount, CopyAmount)) {
        self.progress.lock().plan(holder.id, fetch, send);
    }

    pub fn set_holders(&self, holders: &[NodeRef]) {
        self.progress.lock().set_holders(holders.iter().map(|holder| holder.id).collect());
    }

    /// Records that the arc was compared with this holder, and what is left to fetch and to send.
    pub fn compared_with(&self, holder: &NodeRef, left: (CopyAmount, CopyAmount)) {
        let mut progress = self.progress.lock();
        progress.plan(holder.id, left.0, left.1);
        progress.compared_with(holder.id);
    }

    pub fn neighbours_changed(&self) {
        self.progress.lock().forget_comparisons();
    }

    /// Records that every surplus copy was handed on.
    pub fn record_no_surplus(&self) {
        self.progress.lock().record_no_surplus();
    }

    /// Whether all surplus copies were handed on and the neighbours have not changed since.
    pub fn has_no_surplus(&self) -> bool {
        self.progress.lock().has_no_surplus()
    }

    pub fn moved(&self, direction: Direction, moved: CopyAmount) {
        self.progress.lock().moved(direction, moved, Instant::now());
    }

    /// Records that a writer's batch is on its way to `node`, until the guard is dropped.
    pub fn begin_write(self: &Arc<Self>, node: &NodeRef, batch: VerifiedBatch) -> ReplicaWrite {
        let (to, batch) = (node.ring_address(), Arc::new(batch));
        self.replica_writes.lock().entry(to).or_default().batches.push(batch.clone());
        ReplicaWrite { traffic: self.clone(), to, batch, late: AtomicBool::new(false) }
    }

    /// Returns `chunks` without those that a writer's batch is bringing to `node` at this moment.
    pub fn without_replica_writes(&self, node: &NodeRef, chunks: &[ChunkAt]) -> Vec<ChunkAt> {
        let under_way = self.replica_writes.lock().get(&node.ring_address()).map(|there| there.batches.clone());
        let under_way = under_way.unwrap_or_default();
        let headers = under_way.iter().flat_map(|batch| &batch.records).map(|(header, _)| header);
        let names: HashSet<(RingId, ChunkId)> = headers.map(|header| (header.key, header.id)).collect();
        chunks.iter().filter(|chunk| !names.contains(&(chunk.key, chunk.id))).copied().collect()
    }
}

/// Chunks that this node is fetching.
pub struct Claimed {
    traffic: Arc<CopyTraffic>,
    me: RingId,
    pub chunks: Vec<ChunkAt>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut claims = self.traffic.claims.lock();
        self.chunks.iter().for_each(|chunk| claims.end(chunk.key, chunk.id, self.me));
    }
}

/// A writer's batch on its way to one holder.
pub struct ReplicaWrite {
    traffic: Arc<CopyTraffic>,
    to: SocketAddr,
    batch: Arc<VerifiedBatch>,
    /// Whether this copy counts as late. Changes only under the lock of `CopyTraffic::replica_writes`.
    late: AtomicBool,
}

impl ReplicaWrite {
    pub fn bytes(&self) -> bytes::Bytes {
        self.batch.bytes.clone()
    }

    /// Counts this copy as late from now on, as its writer has an answer. Returns false if there is too much late data
    /// for its node: then the caller aborts the copy, and repair no longer counts it as under way.
    pub fn continue_late(&self) -> bool {
        let mut replica_writes = self.traffic.replica_writes.lock();
        let there = replica_writes.entry(self.to).or_default();
        let late_bytes = there.late_bytes + self.late_bytes();
        let fits = late_bytes <= LATE_BYTES;
        if fits {
            there.late_bytes = late_bytes;
            self.late.store(true, Relaxed);
        } else {
            self.end(&mut replica_writes);
        }
        fits
    }

    fn late_bytes(&self) -> u64 {
        (self.batch.bytes.len() as u64).max(LEAST_LATE_BYTES)
    }

    /// Idempotent.
    fn end(&self, replica_writes: &mut HashMap<SocketAddr, UnderWay>) {
        let Some(there) = replica_writes.get_mut(&self.to) else { return };
        there.batches.retain(|batch| !Arc::ptr_eq(batch, &self.batch));
        if self.late.swap(false, Relaxed) {
            there.late_bytes -= self.late_bytes();
        }
        if there.batches.is_empty() {
            replica_writes.remove(&self.to);
        }
    }
}

impl Drop for ReplicaWrite {
    fn drop(&mut self) {
        self.end(&mut self.traffic.replica_writes.lock());
    }
}
