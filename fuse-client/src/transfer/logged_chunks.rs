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
    namespace::{Change, Commit, Extent, Ino, LoggedChunk, MAX_COMMIT_DATA},
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

    /// The change that carries the commit out, with the data of its chunks that no node has.
    pub(super) fn change(&self, ino: Ino, commit: Commit) -> Change {
        let chunks = self.chunks_of(&commit);
        if chunks.is_empty() { Change::Commit { ino, commit } } else { Change::CommitWithData { ino, commit, chunks } }
    }

    /// Whether the commit has too many bytes with it. That happens if earlier commits of the same chunks have failed.
    pub(super) fn is_too_large(&self, commit: &Commit) -> bool {
        self.chunks_of(commit).iter().map(|chunk| chunk.data.len()).sum::<usize>() > MAX_COMMIT_DATA
    }

    /// Stores the commit's chunks on their holders after all.
    pub(super) async fn store(&self, file: &FileName, commit: &Commit) -> Result<(), FsError> {
        let new = self.chunks_of(commit).into_iter().map(|LoggedChunk { id, data }| NewChunk {
            file: file.clone(),
            id,
            data,
        });
        self.nodes.put(new.collect(), Durability::Disk).await?;
        self.forget(&runs_of(commit));
        Ok(())
    }

    /// Notes that the log has refused data.
    pub(super) fn note_full(&self) {
        *self.full_until.lock() = Some(Instant::now() + FULL_FOR);
    }

    /// Forgets chunks that are logged, or that no commit will name.
    pub(super) fn forget<'a>(&self, runs: impl IntoIterator<Item = &'a Extent>) {
        let mut kept = self.kept.lock();
        for run in runs {
            let ids: Vec<ChunkId> = kept.range(ids_of(run)).map(|(id, _)| *id).collect();
            ids.iter().for_each(|id| drop(kept.remove(id)));
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.lock().is_empty()
    }

    fn chunks_of(&self, commit: &Commit) -> Vec<LoggedChunk> {
        let kept = self.kept.lock();
        let in_run = |run: &Extent| kept.range(ids_of(run)).map(|(id, data)| (*id, data.clone())).collect::<Vec<_>>();
        runs_of(commit).iter().flat_map(in_run).map(|(id, data)| LoggedChunk { id, data }).collect()
    }
}

fn ids_of(run: &Extent) -> RangeInclusive<ChunkId> {
    let id = |index| ChunkId { version: run.version, index };
    id(run.first)..=id(run.first.saturating_add(run.count.saturating_sub(1)))
}

/// All chunks that the commit makes current.
pub(super) fn runs_of(commit: &Commit) -> Vec<Extent> {
    commit.extents.iter().copied().chain(commit.partial.iter().map(|write| write.extent())).collect()
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
}
