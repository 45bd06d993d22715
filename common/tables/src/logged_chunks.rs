//! Chunks whose data is in the log, because a program waited for it to be durable: the commit that made them current
//! brought their data along. The leader stores them on their holders a little later, and then they are forgotten here.
//!
//! A chunk that is replaced or removed before that is forgotten at once, so a small range that is rewritten again and
//! again (a database's journal) reaches the nodes only now and then. What is kept here is current in one file, except
//! for contents that are still to be taken apart (`detached`), and is part of each snapshot: a reader whom no holder
//! can answer asks for it here.

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRun, FileName},
    fs_error::FsError,
    namespace::{Answer, Attr, Commit, Extent, Ino, LoggedChunk, MAX_COMMIT_DATA, PAGE_ITEMS, Reply},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Tables, Transaction, extents::ExtentMath, invalid, map, work};

/// Beyond so many bytes, commits have to store their data on the nodes first. Every voter keeps them in memory, each
/// with [`OVERHEAD`].
pub(super) const MAX_LOGGED_BYTES: u64 = if cfg!(test) { 2 << 10 } else { 32 << 20 };
/// What a chunk takes beside its data: names and places in the table.
const OVERHEAD: u64 = 256;
/// The most data of one answer.
const ANSWER_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LoggedChunks {
    #[serde(with = "map")]
    chunks: OrdMap<ChunkId, KeptChunk>,
    /// What all of them take.
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptChunk {
    /// NAME from which its key is computed.
    file: FileName,
    data: Bytes,
    /// Its place in the log.
    since: u64,
}

impl KeptChunk {
    fn bytes(&self) -> u64 {
        self.data.len() as u64 + OVERHEAD
    }
}

/// A chunk that is to be stored on its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkToPlace {
    pub file: FileName,
    pub chunk: LoggedChunk,
}

impl LoggedChunks {
    fn insert(&mut self, id: ChunkId, kept: KeptChunk) {
        self.bytes += kept.bytes();
        if let Some(former) = self.chunks.insert(id, kept) {
            self.bytes -= former.bytes();
        }
        work::count(1);
    }

    fn remove(&mut self, id: &ChunkId) {
        if let Some(kept) = self.chunks.remove(id) {
            self.bytes -= kept.bytes();
            work::count(1);
        }
    }

    /// Forgets the chunks of a run that is no longer current.
    pub(super) fn remove_run(&mut self, run: &ChunkRun) {
        if self.chunks.is_empty() {
            return;
        }
        let id = |index| ChunkId { version: run.version, index };
        let range = id(run.first)..=id(Extent::from(run).last());
        let dead: Vec<ChunkId> = self.chunks.range::<_, ChunkId>(range).map(|(id, _)| *id).collect();
        dead.iter().for_each(|id| self.remove(id));
    }
}

impl Transaction<'_> {
    pub(super) fn commit_with_data(
        &mut self,
        ino: Ino,
        commit: &Commit,
        chunks: &[LoggedChunk],
    ) -> Result<Reply, FsError> {
        check_data(self.tables.file(ino)?, commit, chunks)?;
        if self.tables.logged_chunks.bytes + data_bytes(chunks) as u64 + OVERHEAD * chunks.len() as u64
            > MAX_LOGGED_BYTES
        {
            return Err(FsError::LogFull);
        }
        let reply = self.commit(ino, commit)?;
        // A part of the namespace only answers what a mount does itself, and the mount has the data.
        if !self.is_part {
            let file = self.tables.inodes[&ino].attr.file.clone();
            for LoggedChunk { id, data } in chunks {
                let kept = KeptChunk { file: file.clone(), data: data.clone(), since: self.index };
                self.tables.logged_chunks.insert(*id, kept);
            }
        }
        Ok(reply)
    }

    pub(super) fn forget_logged(&mut self, chunks: &[ChunkId]) -> Reply {
        chunks.iter().for_each(|id| self.tables.logged_chunks.remove(id));
        Reply::Done
    }
}

impl Tables {
    /// How many chunks the log keeps, and the bytes that they take.
    pub fn logged_totals(&self) -> (usize, u64) {
        (self.logged_chunks.chunks.len(), self.logged_chunks.bytes)
    }

    /// Chunks to store on their holders: those after the chunk `after`, that were logged before the place `before`, at
    /// most `limit`.
    pub fn chunks_to_place(&self, after: Option<ChunkId>, before: u64, limit: usize) -> Vec<ChunkToPlace> {
        use std::ops::Bound::{Excluded, Unbounded};
        let rest = self.logged_chunks.chunks.range((after.map_or(Unbounded, Excluded), Unbounded));
        let old = rest.filter(|(_, kept)| kept.since < before);
        let to_place = |(id, kept): (&ChunkId, &KeptChunk)| {
            let chunk = LoggedChunk { id: *id, data: kept.data.clone() };
            ChunkToPlace { file: kept.file.clone(), chunk }
        };
        old.take(limit).map(to_place).collect()
    }

    pub(super) fn logged_data(&self, ids: &[ChunkId]) -> Answer {
        let mut bytes = 0;
        let kept = ids.iter().take(PAGE_ITEMS as usize).filter_map(|id| {
            let data = self.logged_chunks.chunks.get(id)?.data.clone();
            Some(LoggedChunk { id: *id, data })
        });
        let fits = |chunk: &LoggedChunk| {
            bytes += chunk.data.len();
            bytes <= ANSWER_BYTES
        };
        Answer::LoggedChunks(kept.take_while(fits).collect())
    }
}

/// Refuses data of chunks that the commit does not make current, or that no node would store.
fn check_data(before: &Attr, commit: &Commit, chunks: &[LoggedChunk]) -> Result<(), FsError> {
    let bytes = data_bytes(chunks);
    if bytes > MAX_COMMIT_DATA {
        return Err(invalid(format!("a commit with {bytes} bytes of data; at most {MAX_COMMIT_DATA} are allowed")));
    }
    let chunk_bytes = commit.restart.unwrap_or(before.chunk_bytes) as usize;
    let partial = commit.partial.iter().map(|write| write.extent());
    let runs: Vec<Extent> = commit.extents.iter().copied().chain(partial).collect();
    for LoggedChunk { id, data } in chunks {
        if data.len() > chunk_bytes {
            return Err(invalid(format!("a chunk of {} bytes in a file with chunks of {chunk_bytes}", data.len())));
        }
        if !runs.iter().any(|run| run.version == id.version && run.contains(id.index)) {
            return Err(invalid(format!("the commit does not name chunk {} of version {}", id.index, id.version.0)));
        }
    }
    Ok(())
}

fn data_bytes(chunks: &[LoggedChunk]) -> usize {
    chunks.iter().map(|chunk| chunk.data.len()).sum()
}
