//! Which nodes drain, this one included: read by the writer, by repair, and by the ring's calls.
//!
//! This is only a value behind locks: `drain::task` changes it, the other parts read it. While the node drains, every
//! chunk stored here is recorded, so that the end of the drain need not search the whole store again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use chordfs_replication::drain_progress::DrainProgress;
use chordfs_types::{
    admin::DrainStatus,
    chunk::{ChunkRef, FileName, RECORD_HEADER_BYTES, VerifiedBatch},
    chunk_api::ListedChunk,
    ring_id::{Neighbours, NodeRef},
};
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::mutual_exclusion::Claim;

/// A draining node repeats its announcement; a node that has not announced for this long no longer counts as draining.
pub const ANNOUNCED_FOR: Duration = Duration::from_secs(20);
/// If more chunks than this are stored during a drain, the whole store is searched again instead.
const MAX_FRESH: usize = 1 << 20;

/// Whether a node announces that it drains or that it serves, as before a drain that failed or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainState {
    Draining,
    Serving,
}

#[derive(Default)]
pub struct Departure {
    own: Mutex<Own>,
    /// Draining nodes by their ring addresses, each with the time of its last announcement.
    peers: Mutex<HashMap<SocketAddr, Instant>>,
    /// Held for reading by every put under way, for writing while the node leaves.
    puts: RwLock<()>,
    /// The progress of the drain under way, or of the last one that was tried.
    progress: Mutex<Option<DrainProgress>>,
    /// This node's claim in the mutual exclusion of drains.
    claim: Mutex<Claim>,
}

#[derive(Default)]
enum Own {
    #[default]
    Stays,
    Drains {
        fresh: Fresh,
    },
    /// The node has left for good. `successor` is the ring as the next node sees it.
    Left {
        successor: Neighbours,
    },
}

/// Chunks stored here since the drain began, or since the last [`Departure::take_fresh`].
#[derive(Default)]
pub struct Fresh {
    pub chunks: Vec<ListedChunk>,
    /// More chunks were stored than are recorded.
    pub incomplete: bool,
}

impl Departure {
    pub fn begin(&self) {
        *self.own.lock() = Own::Drains { fresh: Fresh::default() };
    }

    pub fn cancel(&self) {
        *self.own.lock() = Own::Stays;
    }

    pub fn leave(&self, successor: Neighbours) {
        *self.own.lock() = Own::Left { successor };
    }

    pub fn drains(&self) -> bool {
        !matches!(*self.own.lock(), Own::Stays)
    }

    /// The claim that this node reports to other nodes that want to drain.
    pub fn claim(&self) -> Claim {
        if self.drains() { Claim::Held } else { *self.claim.lock() }
    }

    pub fn set_claim(&self, claim: Claim) {
        *self.claim.lock() = claim;
    }

    /// Once the node has left: where to redirect requests that still arrive here.
    pub fn successor(&self) -> Option<Neighbours> {
        match &*self.own.lock() {
            Own::Left { successor } => Some(successor.clone()),
            _ => None,
        }
    }

    /// Returns a guard to hold during a put; waits while the node is about to leave. Once the node has left, the error
    /// says where to redirect the put.
    pub async fn admit(&self) -> Result<RwLockReadGuard<'_, ()>, Neighbours> {
        let admitted = self.puts.read().await;
        self.successor().map_or(Ok(admitted), Err)
    }

    /// Waits for the puts under way. New puts wait until the guard is dropped.
    pub async fn fence(&self) -> RwLockWriteGuard<'_, ()> {
        self.puts.write().await
    }

    /// Records that a batch was stored here, if the node drains.
    pub fn record_stored(&self, batch: &VerifiedBatch) {
        if let Own::Drains { fresh } = &mut *self.own.lock() {
            fresh.add(batch);
        }
    }

    pub fn take_fresh(&self) -> Fresh {
        match &mut *self.own.lock() {
            Own::Drains { fresh } => std::mem::take(fresh),
            _ => Fresh::default(),
        }
    }

    pub fn count_fresh(&self) -> usize {
        match &*self.own.lock() {
            Own::Drains { fresh } => fresh.chunks.len(),
            _ => 0,
        }
    }

    /// Records a peer's announcement.
    pub fn record_announcement(&self, peer: SocketAddr, announced: DrainState) {
        let mut peers = self.peers.lock();
        peers.retain(|_, at| at.elapsed() < ANNOUNCED_FOR);
        match announced {
            DrainState::Draining => peers.insert(peer, Instant::now()),
            DrainState::Serving => peers.remove(&peer),
        };
    }

    pub fn peer_drains(&self, node: &NodeRef) -> bool {
        self.peers.lock().get(&node.ring_address()).is_some_and(|at| at.elapsed() < ANNOUNCED_FOR)
    }

    /// Whether any peer hands its chunks over: copies that seem surplus may be needed in a moment.
    pub fn any_peer_drains(&self) -> bool {
        self.peers.lock().values().any(|at| at.elapsed() < ANNOUNCED_FOR)
    }

    pub fn status(&self) -> Option<DrainStatus> {
        self.progress.lock().as_ref().map(|progress| progress.status(Instant::now()))
    }

    /// The drain that the node's work shows: without one that was refused or cancelled long ago.
    pub fn shown_drain(&self) -> Option<DrainStatus> {
        let now = Instant::now();
        self.progress.lock().as_ref().filter(|progress| progress.is_shown(now)).map(|progress| progress.status(now))
    }

    pub fn set_progress(&self, progress: DrainProgress) {
        *self.progress.lock() = Some(progress);
    }

    pub fn change_progress(&self, change: impl FnOnce(&mut DrainProgress)) {
        if let Some(progress) = &mut *self.progress.lock() {
            change(progress);
        }
    }
}

impl Fresh {
    fn add(&mut self, batch: &VerifiedBatch) {
        // Adjacent records of a batch mostly belong to one file; they share its name here.
        let mut last: Option<FileName> = None;
        for (header, offset) in &batch.records {
            if self.chunks.len() >= MAX_FRESH {
                self.incomplete = true;
                return;
            }
            let start = *offset as usize + RECORD_HEADER_BYTES;
            let name = &batch.bytes[start..start + usize::from(header.name_bytes)];
            let file = last.take().filter(|last| last.as_bytes() == name);
            let file = file.unwrap_or_else(|| FileName::new(name.to_vec()).expect("the batch was verified"));
            last = Some(file.clone());
            let chunk = ChunkRef { file, id: header.id };
            self.chunks.push(ListedChunk { chunk, data_bytes: header.data_bytes });
        }
    }

    /// Returns chunks that could not be handed over.
    pub fn put_back(self, departure: &Departure) {
        if let Own::Drains { fresh } = &mut *departure.own.lock() {
            fresh.chunks.extend(self.chunks);
            fresh.incomplete |= self.incomplete;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use chordfs_types::{
        chunk::{ChunkId, Version, chunk_key, encode_record},
        ring_id::RingId,
    };
    use futures_util::FutureExt;

    use super::*;

    fn batch(files: &[(&'static str, u32)]) -> VerifiedBatch {
        let mut out = BytesMut::new();
        for (name, index) in files {
            let file = FileName::new(*name).unwrap();
            let id = ChunkId { version: Version(3), index: *index };
            encode_record(&mut out, &file, id, chunk_key(&file, *index), b"data");
        }
        VerifiedBatch::verify(out.freeze()).unwrap()
    }

    #[test]
    fn chunks_stored_during_a_drain_are_recorded() {
        let departure = Departure::default();
        departure.record_stored(&batch(&[("before", 1)]));
        departure.begin();
        departure.record_stored(&batch(&[("a", 1), ("a", 2), ("b", 1)]));
        let fresh = departure.take_fresh();
        let named: Vec<_> =
            fresh.chunks.iter().map(|listed| (listed.chunk.file.to_string(), listed.chunk.id.index)).collect();
        assert_eq!(named, [("a".into(), 1), ("a".into(), 2), ("b".into(), 1)]);
        assert_eq!(departure.count_fresh(), 0);
        fresh.put_back(&departure);
        assert_eq!(departure.count_fresh(), 3);
        departure.cancel();
        assert_eq!(departure.count_fresh(), 0);
    }

    #[tokio::test]
    async fn a_put_that_arrives_while_the_node_leaves_is_redirected() {
        let departure = Departure::default();
        departure.begin();
        let running = departure.admit().await.expect("it has not left");
        assert!(departure.fence().now_or_never().is_none(), "a put is under way");
        drop(running);
        let fence = departure.fence().await;
        let late = departure.admit();
        tokio::pin!(late);
        assert!(late.as_mut().now_or_never().is_none());
        let node = NodeRef { ip: [127, 0, 0, 1].into(), port: 5057, id: RingId(7) };
        let successor = Neighbours { predecessor: None, node, successors: vec![] };
        departure.leave(successor.clone());
        drop(fence);
        assert_eq!(late.await.err(), Some(successor));
    }

    #[test]
    fn a_peer_drains_until_it_announces_that_it_serves() {
        let departure = Departure::default();
        let node = NodeRef { ip: [127, 0, 0, 2].into(), port: 5057, id: RingId(7) };
        departure.record_announcement(node.ring_address(), DrainState::Draining);
        assert!(departure.peer_drains(&node) && departure.any_peer_drains() && !departure.drains());
        departure.record_announcement(node.ring_address(), DrainState::Serving);
        assert!(!departure.peer_drains(&node) && !departure.any_peer_drains());
    }
}
