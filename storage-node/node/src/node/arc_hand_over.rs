//! Sends a joined node the chunks of its arc, as the old call `notify_join_system` requests it.
//!
//! Repair copies them in any case; the call only answers once they are there.

use std::sync::Arc;

use chordfs_store::{Store, StoreError};
use chordfs_types::{
    chunk::{ChunkName, ChunkRef},
    chunk_api::{ChunkList, Durability, MAX_BATCH_CHUNKS},
    fs_error::FsError,
    ring_id::{NodeRef, RingArc},
};

use crate::{
    blocking::with_store,
    driver::RingHandle,
    replica::peer::{PeerError, Peers},
};

/// Chunks handed over in one request: as many as a put may carry even if all have the largest size.
const HAND_OVER_CHUNKS: usize = 48;

pub struct ArcHandOver {
    pub ring: RingHandle,
    pub store: Arc<Store>,
    pub peers: Peers,
}

impl ArcHandOver {
    /// A page of the chunks kept here with keys in the arc.
    pub async fn list(&self, arc: RingArc, from: u64) -> Result<ChunkList, FsError> {
        with_store(&self.store, move |store| store.list(arc, from, MAX_BATCH_CHUNKS)).await.map_err(internal)
    }

    async fn give(&self, to: &NodeRef, chunks: &[ChunkRef]) -> Result<(), FsError> {
        let failed = |error: PeerError| FsError::NoReplica { detail: error.to_string() };
        for batch in chunks.chunks(HAND_OVER_CHUNKS) {
            let has = self.peers.has(to, batch).await.map_err(failed)?;
            let missing: Vec<ChunkRef> =
                batch.iter().zip(has).filter(|(_, has)| !has).map(|(chunk, _)| chunk.clone()).collect();
            if missing.is_empty() {
                continue;
            }
            let records = with_store(&self.store, move |store| store.get(&missing)).await.map_err(internal)?;
            self.peers.put(to, records, Durability::Disk).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Sends the node the chunks of its arc that are stored here, and returns their names.
    pub async fn give_arc(&self, to: NodeRef) -> Result<Vec<ChunkName>, FsError> {
        let invalid = |reason: String| FsError::Invalid { reason };
        let neighbours = self
            .ring
            .neighbours_of(to)
            .await
            .map_err(|error| invalid(format!("{to} does not report its arc: {error}")))?;
        let mut names = Vec::new();
        let mut token = Some(0);
        while let Some(from) = token {
            let page = self.list(neighbours.arc(), from).await?;
            let chunks: Vec<ChunkRef> = page.chunks.into_iter().map(|listed| listed.chunk).collect();
            self.give(&to, &chunks).await?;
            names.extend(chunks.into_iter().map(|chunk| ChunkName { file: chunk.file, index: chunk.id.index }));
            token = page.next;
        }
        Ok(names)
    }
}

fn internal(error: StoreError) -> FsError {
    FsError::Internal { detail: error.to_string() }
}
