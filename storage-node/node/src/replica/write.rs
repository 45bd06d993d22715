//! The write path at the owner: a batch goes into the local store and to the next holders at the same time, and is
//! acknowledged when enough of them have it. Copies still on their way then continue in the background, up to a bound
//! per holder; repair is woken for copies that fail or exceed the bound.
//!
//! The owner is only one of three holders. If its own disk is full or broken, the next node takes its place, so a write
//! fails only when too few nodes of the ring can store it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use chordfs_log::warn_limited;
use chordfs_replication::{
    drain::forward_count,
    plan::{PutVerdict, judge_put},
};
use chordfs_store::{Store, StoreError};
use chordfs_types::{
    chunk::VerifiedBatch,
    chunk_api::Durability,
    ring_id::{Neighbours, NodeRef},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, yield_now},
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    copy_traffic::{CopyTraffic, ReplicaWrite},
    peer::{PeerError, Peers},
};
use crate::{
    blocking::{ShortCalls, with_store},
    replica::departure::Departure,
};

#[derive(Debug, Error)]
pub enum PutError {
    #[error("this node does not own all keys of the batch")]
    Misdirected { neighbours: Neighbours },
    #[error("no space left on enough holders")]
    NoSpace,
    /// A holder stores other bytes under the id of a chunk, and may give them to readers.
    #[error("{reason}")]
    Conflict { reason: String },
    #[error("only {stored} of {required} holders have the batch: {reason}")]
    NoQuorum { stored: usize, required: usize, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A put of at most this many bytes takes some tens of microseconds as long as nothing waits for the disk.
const SMALL_BYTES: u64 = 64 << 10;

/// Returns the number of copies below which no write is acknowledged at this moment; see [`judge_put`].
pub type Floor = Arc<dyn Fn() -> usize + Send + Sync>;

pub struct Writer {
    pub store: Arc<Store>,
    pub peers: Peers,
    pub neighbours: watch::Receiver<Neighbours>,
    pub floor: Floor,
    /// Wakes repair when a holder was skipped.
    pub repair: Arc<Notify>,
    pub traffic: Arc<CopyTraffic>,
    pub deadline: Duration,
    pub departure: Arc<Departure>,
    pub small_puts: SmallPuts,
}

/// How long puts of few bytes take, in memory and on disk.
#[derive(Default)]
pub struct SmallPuts {
    in_memory: ShortCalls,
    on_disk: ShortCalls,
}

impl SmallPuts {
    fn of(&self, durability: Durability) -> &ShortCalls {
        if durability.is_disk() { &self.on_disk } else { &self.in_memory }
    }
}

impl Writer {
    /// The ring as this node sees it; after it has left, as its successor does.
    pub fn neighbours(&self) -> Neighbours {
        self.departure.successor().unwrap_or_else(|| self.neighbours.borrow().clone())
    }

    /// Stores a batch on this node only.
    pub async fn put_local(&self, batch: VerifiedBatch, durability: Durability) -> Result<(), PutError> {
        let admitted = self.departure.admit().await;
        let _admitted = admitted.map_err(|neighbours| PutError::Misdirected { neighbours })?;
        Ok(self.store_here(batch, durability).await?)
    }

    async fn store_here(&self, batch: VerifiedBatch, durability: Durability) -> Result<(), StoreError> {
        let departure = self.departure.clone();
        let bytes = batch.bytes.len() as u64;
        let is_small = bytes <= SMALL_BYTES && self.store.takes_at_once(bytes);
        let put = move |store: &Store| {
            store.put(&batch, durability)?;
            departure.record_stored(&batch);
            Ok(())
        };
        if is_small {
            self.small_puts.of(durability).run(&self.store, put).await
        } else {
            with_store(&self.store, put).await
        }
    }

    /// Stores a batch as its owner. Returns the nodes that have it so far.
    pub async fn put(&self, batch: VerifiedBatch, durability: Durability) -> Result<Vec<NodeRef>, PutError> {
        let admitted = self.departure.admit().await;
        let _admitted = admitted.map_err(|neighbours| PutError::Misdirected { neighbours })?;
        let neighbours = self.neighbours();
        let floor = (self.floor)();
        match judge_put(&neighbours, batch.keys(), floor) {
            PutVerdict::Misdirected => Err(PutError::Misdirected { neighbours }),
            PutVerdict::TooFewNodes { required } => {
                Err(PutError::NoQuorum { stored: 0, required, reason: "the ring is still coming together".into() })
            }
            PutVerdict::Own { others, required } => {
                self.put_to_holders(batch, neighbours.node, others, required, durability).await
            }
        }
    }

    /// Stores the batch here and on some of `others`. Returns the nodes that have it as soon as they are enough.
    async fn put_to_holders(
        &self,
        batch: VerifiedBatch,
        me: NodeRef,
        others: Vec<NodeRef>,
        required: usize,
        durability: Durability,
    ) -> Result<Vec<NodeRef>, PutError> {
        let mut progress = PutProgress::new(self.repair.clone());
        let wanted = forward_count(&others, |node| self.departure.peer_drains(node), self.departure.drains());
        let mut others = others.into_iter();
        for node in others.by_ref().take(wanted) {
            self.forward(&mut progress, node, batch.clone(), durability);
        }
        // The copies leave before this thread stores its own.
        yield_now().await;
        match self.store_here(batch.clone(), durability).await {
            Ok(()) => progress.stored.push(me),
            Err(error @ StoreError::Conflict { .. }) => return Err(error.into()),
            Err(error) => {
                debug!(%error, "the owner cannot store a batch; the next node takes its place");
                let no_space = matches!(error, StoreError::NoSpace { .. });
                progress.record_failure(
                    if no_space { CopyFailure::NoSpace } else { CopyFailure::Other },
                    error.to_string(),
                );
                if let Some(node) = others.next() {
                    self.forward(&mut progress, node, batch.clone(), durability);
                }
            }
        }
        let end = Instant::now() + self.deadline;
        while progress.stored.len() < required {
            if progress.open == 0 {
                // A holder has failed: the next node takes its place.
                let Some(node) = others.next() else { return Err(progress.failure(required)) };
                self.forward(&mut progress, node, batch.clone(), durability);
            }
            match timeout_at(end, progress.arrived.recv()).await {
                Ok(Some(Err(error @ PeerError::Conflict { .. }))) => {
                    return Err(PutError::Conflict { reason: error.to_string() });
                }
                Ok(Some(result)) => progress.count(result),
                _ => {
                    progress.record_failure(CopyFailure::Other, format!("no answer within {:?}", self.deadline));
                    return Err(progress.failure(required));
                }
            }
        }
        Ok(progress.stored)
    }

    /// Sends the batch to one more node. The copy may continue after the acknowledgement, within the bounds of
    /// [`PendingCopies`]: the third copy is late, not dropped.
    fn forward(&self, progress: &mut PutProgress, node: NodeRef, batch: VerifiedBatch, durability: Durability) {
        let (peers, repair, copies) = (self.peers.clone(), self.repair.clone(), progress.copies.clone());
        let replica_write = Arc::new(self.traffic.begin_write(&node, batch));
        let under_way = Arc::downgrade(&replica_write);
        let task = tokio::spawn(async move {
            let result = peers.put(&node, vec![replica_write.bytes()], durability).await;
            drop(replica_write);
            if let Err(error @ PeerError::Conflict { .. }) = &result {
                warn_limited!(%error, "a holder has other bytes under the id of a chunk; `check --verify` finds the wrong copy");
            } else if let Err(error) = &result {
                debug!(peer = %node, %error, "a holder has not stored its copy; repair will send it");
                // An immediate retry would not help a full disk.
                if !matches!(error, PeerError::NoSpace { .. }) {
                    repair.notify_one();
                }
            }
            // No caller waits for a copy beyond the quorum.
            let _ = copies.send(result.map(|()| node));
        });
        progress.open += 1;
        progress.pending.copies.push((node, under_way, task.abort_handle()));
    }
}

/// Why one copy failed.
enum CopyFailure {
    NoSpace,
    /// A later retry may succeed.
    Other,
}

/// The copies of one batch: stored, failed, and under way.
struct PutProgress {
    copies: mpsc::UnboundedSender<Result<NodeRef, PeerError>>,
    arrived: mpsc::UnboundedReceiver<Result<NodeRef, PeerError>>,
    pending: PendingCopies,
    stored: Vec<NodeRef>,
    /// How many nodes have no space left.
    full: usize,
    /// How many nodes failed for another reason, which may pass.
    failed: usize,
    open: usize,
    /// Why the last copy failed.
    reason: String,
}

impl PutProgress {
    fn new(repair: Arc<Notify>) -> Self {
        let (copies, arrived) = mpsc::unbounded_channel();
        let pending = PendingCopies { copies: Vec::new(), repair };
        Self { copies, arrived, pending, stored: Vec::new(), full: 0, failed: 0, open: 0, reason: String::new() }
    }

    fn count(&mut self, result: Result<NodeRef, PeerError>) {
        self.open -= 1;
        match result {
            Ok(node) => self.stored.push(node),
            Err(error @ PeerError::NoSpace { .. }) => self.record_failure(CopyFailure::NoSpace, error.to_string()),
            Err(error) => self.record_failure(CopyFailure::Other, error.to_string()),
        }
    }

    fn record_failure(&mut self, failure: CopyFailure, reason: String) {
        match failure {
            CopyFailure::NoSpace => self.full += 1,
            CopyFailure::Other => self.failed += 1,
        }
        self.reason = reason;
    }

    /// The ring counts as full only if the failed nodes could not complete the quorum: a node that is just restarting
    /// may store the batch on a retry.
    fn failure(self, required: usize) -> PutError {
        let stored = self.stored.len();
        if self.full > 0 && stored + self.failed < required {
            return PutError::NoSpace;
        }
        warn_limited!(stored, required, reason = self.reason, "a batch has too few copies");
        PutError::NoQuorum { stored, required, reason: self.reason }
    }
}

/// The copies of one batch that were begun. Dropped when the writer has its answer or has gone, so no copy that a
/// quorum waits for is aborted here: from then on no caller waits for those still under way, and they continue only as
/// far as [`ReplicaWrite::continue_late`] allows.
struct PendingCopies {
    /// The `ReplicaWrite` is gone when its copy has arrived or failed.
    copies: Vec<(NodeRef, Weak<ReplicaWrite>, AbortHandle)>,
    repair: Arc<Notify>,
}

impl Drop for PendingCopies {
    fn drop(&mut self) {
        for (node, replica_write, task) in &self.copies {
            if replica_write.upgrade().is_none_or(|replica_write| replica_write.continue_late()) {
                continue;
            }
            debug!(peer = %node, "a late copy is dropped, as too many are under way to its holder; repair will send it");
            task.abort();
            self.repair.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_full_only_if_a_retry_could_not_complete_the_quorum() {
        let node = |id| NodeRef { ip: [127, 0, 0, 1].into(), port: 5057, id: chordfs_types::ring_id::RingId(id) };
        let failure = |stored: u32, full, failed| {
            let stored = (0..stored).map(node).collect();
            PutProgress { stored, full, failed, ..PutProgress::new(Arc::default()) }.failure(2)
        };
        assert!(matches!(failure(1, 2, 0), PutError::NoSpace));
        assert!(matches!(failure(0, 2, 1), PutError::NoSpace), "the unresponsive node would not be enough");
        assert!(matches!(failure(1, 1, 1), PutError::NoQuorum { stored: 1, required: 2, .. }));
        assert!(matches!(failure(1, 0, 2), PutError::NoQuorum { .. }));
    }
}
