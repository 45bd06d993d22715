//! Chunks that go into the namespace's log with their commit, instead of to their holders first: few bytes for which a
//! program waits in `fsync`. That is one round trip and one write to disk less. The namespace's leader moves them to
//! their holders afterwards.
//!
//! A chunk is kept here from the moment in which it would have been stored until its commit is logged or it is given
//! up. Every commit that names it brings it along, also a repeated one.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{LocalChunks, NewChunk},
    clients::{ChunkTransport, FsResult},
};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Commit, Extent, LoggedChunk},
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long chunks are stored first after the log was full.
const FULL_FOR: Duration = Duration::from_secs(1);

/// The nodes, with the chunks that they do not have yet.
pub(super) struct LoggingTransport {
    nodes: Arc<dyn ChunkTransport>,
    kept: Mutex<BTreeMap<ChunkId, Bytes>>,
    full_until: Mutex<Option<Instant>>,
}

impl LoggingTransport {
    pub(super) fn new(nodes: Arc<dyn ChunkTransport>) -> Self {
        Self { nodes, kept: Mutex::default(), full_until: Mutex::default() }
    }

    /// Whether the log had room for data lately.
    pub(super) fn has_room(&self) -> bool {
        self.full_until.lock().is_none_or(|until| Instant::now() > until)
    }

    pub(super) fn keep(&self, chunks: impl IntoIterator<Item = (ChunkId, Bytes)>) {
        self.kept.lock().extend(chunks);
    }

    /// Stores chunks on their holders after all.
    pub(super) async fn store(&self, file: &FileName, chunks: Vec<LoggedChunk>) -> Result<(), FsError> {
        let new = chunks.iter().map(|chunk| NewChunk { file: file.clone(), id: chunk.id, data: chunk.data.clone() });
        self.nodes.put(new.collect(), Durability::Disk).await?;
        let mut kept = self.kept.lock();
        chunks.iter().for_each(|chunk| drop(kept.remove(&chunk.id)));
        Ok(())
    }

    /// Notes that the log has refused data.
    pub(super) fn note_full(&self) {
        *self.full_until.lock() = Some(Instant::now() + FULL_FOR);
    }

    /// Forgets chunks that are logged, or that no commit will name.
    pub(super) fn forget(&self, runs: impl IntoIterator<Item = Extent>) {
        let mut kept = self.kept.lock();
        if kept.is_empty() {
            return;
        }
        for run in runs {
            let ids: Vec<ChunkId> = kept.range(ids_of(&run)).map(|(id, _)| *id).collect();
            ids.iter().for_each(|id| drop(kept.remove(id)));
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.lock().is_empty()
    }

    /// The chunks of the commit that no node has.
    pub(super) fn chunks_of(&self, commit: &Commit) -> Vec<LoggedChunk> {
        let kept = self.kept.lock();
        if kept.is_empty() {
            return Vec::new();
        }
        let in_run = |run: Extent| kept.range(ids_of(&run)).map(|(id, data)| (*id, data.clone())).collect::<Vec<_>>();
        commit.runs().flat_map(in_run).map(|(id, data)| LoggedChunk { id, data }).collect()
    }
}

fn ids_of(run: &Extent) -> RangeInclusive<ChunkId> {
    let id = |index| ChunkId { version: run.version, index };
    id(run.first)..=id(run.first.saturating_add(run.count.saturating_sub(1)))
}

impl ChunkTransport for LoggingTransport {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> FsResult<'_, ()> {
        self.nodes.put(chunks, durability)
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> FsResult<'_, Vec<Bytes>> {
        let kept: HashMap<ChunkId, Bytes> = {
            let kept = self.kept.lock();
            chunks.iter().filter_map(|chunk| Some((chunk.id, kept.get(&chunk.id)?.clone()))).collect()
        };
        if kept.is_empty() {
            return self.nodes.get(chunks);
        }
        let rest: Vec<ChunkRef> = chunks.iter().filter(|chunk| !kept.contains_key(&chunk.id)).cloned().collect();
        Box::pin(async move {
            let found = if rest.is_empty() { Vec::new() } else { self.nodes.get(rest).await? };
            let mut found = found.into_iter();
            let in_order = chunks.iter().map(|chunk| kept.get(&chunk.id).cloned().or_else(|| found.next()));
            in_order
                .collect::<Option<_>>()
                .ok_or_else(|| FsError::Internal { detail: "too few chunks were found".into() })
        })
    }

    fn sync<'a>(&'a self, file: &'a FileName, local_copies: &'a dyn LocalChunks) -> FsResult<'a, ()> {
        self.nodes.sync(file, local_copies)
    }

    fn share_unsynced(&self, from: &FileName, to: &FileName) {
        self.nodes.share_unsynced(from, to);
    }
}
