//! What the parts of a node have to know of drains, its own and others': the writer, the repair, the ring's calls.
//!
//! A value behind locks and nothing more: `task` changes it, the others ask. While the node drains, every chunk stored
//! here is noted, so that the end of the drain need not look through everything once more.

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

/// A node that drains says so again and again; who is silent for this long drains no more.
pub const ANNOUNCED_FOR: Duration = Duration::from_secs(20);
/// With more than this the store is looked through again instead.
const MAX_FRESH: usize = 1 << 20;

#[derive(Default)]
pub struct Departure {
    own: Mutex<Own>,
    /// Nodes that drain, by their ring addresses, and when they last said so.
    peers: Mutex<HashMap<SocketAddr, Instant>>,
    /// Held for reading by every put under way, for writing while the node leaves.
    puts: RwLock<()>,
    /// The progress of the drain under way, or of the last one that was tried.
    progress: Mutex<Option<DrainProgress>>,
    /// Whether this node waits for its turn to drain.
    claim: Mutex<Claim>,
}

#[derive(Default)]
enum Own {
    #[default]
    Stays,
    Drains {
        fresh: Fresh,
    },
    /// For good; what the next node on the ring knows.
    Left {
        successor: Neighbours,
    },
}

/// Stored here since the drain began or this was last taken.
#[derive(Default)]
pub struct Fresh {
    pub chunks: Vec<ListedChunk>,
    /// There were more than are remembered.
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

    /// What others who want to drain have to know.
    pub fn claim(&self) -> Claim {
        if self.drains() { Claim::Held } else { *self.claim.lock() }
    }

    pub fn set_claim(&self, claim: Claim) {
        *self.claim.lock() = claim;
    }

    /// Where to send who still comes here, once the node has left.
    pub fn successor(&self) -> Option<Neighbours> {
        match &*self.own.lock() {
            Own::Left { successor } => Some(successor.clone()),
            _ => None,
        }
    }

    /// To be held while a put is carried out; waits while the node is about to leave. The error says where to go
    /// instead.
    pub async fn admit(&self) -> Result<RwLockReadGuard<'_, ()>, Neighbours> {
        let admitted = self.puts.read().await;
        self.successor().map_or(Ok(admitted), Err)
    }

    /// Waits for the puts under way; others wait until the guard is gone.
    pub async fn fence(&self) -> RwLockWriteGuard<'_, ()> {
        self.puts.write().await
    }

    /// Something is stored here.
    pub fn note(&self, batch: &VerifiedBatch) {
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

    /// A peer says that it drains, or that it does no more.
    pub fn hear(&self, peer: SocketAddr, draining: bool) {
        let mut peers = self.peers.lock();
        peers.retain(|_, heard| heard.elapsed() < ANNOUNCED_FOR);
        if draining {
            peers.insert(peer, Instant::now())
        } else {
            peers.remove(&peer)
        };
    }

    pub fn peer_drains(&self, node: &NodeRef) -> bool {
        self.peers.lock().get(&node.ring_address()).is_some_and(|heard| heard.elapsed() < ANNOUNCED_FOR)
    }

    /// Whether any peer hands its chunks over: copies that seem surplus may be needed in a moment.
    pub fn any_peer_drains(&self) -> bool {
        self.peers.lock().values().any(|heard| heard.elapsed() < ANNOUNCED_FOR)
    }

    pub fn status(&self) -> Option<DrainStatus> {
        self.progress.lock().as_ref().map(|progress| progress.status(Instant::now()))
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
        // Neighbours in a batch are mostly of one file, and share its name here.
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

    /// What could not be handed over goes back.
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
    fn what_is_stored_during_a_drain_is_noted() {
        let departure = Departure::default();
        departure.note(&batch(&[("before", 1)]));
        departure.begin();
        departure.note(&batch(&[("a", 1), ("a", 2), ("b", 1)]));
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
    async fn who_comes_while_the_node_leaves_is_sent_on() {
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
    fn a_peer_drains_until_it_says_otherwise() {
        let departure = Departure::default();
        let node = NodeRef { ip: [127, 0, 0, 2].into(), port: 5057, id: RingId(7) };
        departure.hear(node.ring_address(), true);
        assert!(departure.peer_drains(&node) && departure.any_peer_drains() && !departure.drains());
        departure.hear(node.ring_address(), false);
        assert!(!departure.peer_drains(&node) && !departure.any_peer_drains());
    }
}
