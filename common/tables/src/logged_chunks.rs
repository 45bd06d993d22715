//! Chunks whose data is in the log, because a program waited for it to be durable: the commit that made them current
//! brought their data along. The leader stores them on their holders a little later, and then they are forgotten here.
//!
//! A chunk that is replaced or removed before that is never stored, so a small range that is rewritten again and again
//! (a database's journal) reaches the nodes only now and then. Its data stays for as long as that of any dead chunk,
//! for readers that have just looked its version up, unless the space is needed. All of it is part of each snapshot.

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRun, FileName},
    fs_error::FsError,
    namespace::{Answer, Attr, Commit, Extent, Ino, LoggedChunk, MAX_COMMIT_DATA, MAX_COMMIT_RUNS, PAGE_ITEMS, Reply},
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
    /// Those that were replaced or removed since, in the order in which that happened. Only readers may need them.
    #[serde(with = "map")]
    replaced: OrdMap<(u64, ChunkId), ()>,
    /// What the chunks that were not replaced take.
    bytes: u64,
    /// What those take that were.
    replaced_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeptChunk {
    /// NAME from which its key is computed.
    file: FileName,
    data: Bytes,
    /// Its place in the log.
    since: u64,
    /// The place in the log at which it was replaced or removed.
    replaced: Option<u64>,
}

impl KeptChunk {
    fn bytes(&self) -> u64 {
        self.data.len() as u64 + OVERHEAD
    }
}

impl LoggedChunks {
    fn insert(&mut self, id: ChunkId, kept: KeptChunk) {
        self.remove(&id);
        self.bytes += kept.bytes();
        self.chunks.insert(id, kept);
        work::count(1);
    }

    fn remove(&mut self, id: &ChunkId) {
        let Some(kept) = self.chunks.remove(id) else { return };
        work::count(1);
        match kept.replaced {
            Some(at) => {
                self.replaced.remove(&(at, *id));
                self.replaced_bytes -= kept.bytes();
            }
            None => self.bytes -= kept.bytes(),
        }
    }

    /// Removes the data of replaced chunks, the oldest first, until so many bytes fit.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes + self.replaced_bytes + bytes > MAX_LOGGED_BYTES {
            let Some(((_, id), ())) = self.replaced.get_min().copied() else { return };
            self.remove(&id);
        }
    }

    #[cfg(test)]
    pub(super) fn replaced_ids(&self) -> impl Iterator<Item = ChunkId> {
        self.replaced.keys().map(|(_, id)| *id)
    }

    fn ids_in(&self, run: &ChunkRun) -> Vec<ChunkId> {
        if self.chunks.is_empty() {
            return Vec::new();
        }
        let id = |index| ChunkId { version: run.version, index };
        let range = id(run.first)..=id(Extent::from(run).last());
        self.chunks.range::<_, ChunkId>(range).map(|(id, _)| *id).collect()
    }

    /// Notes that the chunks of a run were replaced or removed at this place in the log.
    pub(super) fn note_replaced(&mut self, run: &ChunkRun, at: u64) {
        for id in self.ids_in(run) {
            let kept = self.chunks.get_mut(&id).expect("it was just found");
            if kept.replaced.replace(at).is_none() {
                let bytes = kept.bytes();
                self.bytes -= bytes;
                self.replaced_bytes += bytes;
                self.replaced.insert((at, id), ());
                work::count(1);
            }
        }
    }

    /// Forgets the chunks of a run that no reader needs any more.
    pub(super) fn forget_run(&mut self, run: &ChunkRun) {
        self.ids_in(run).iter().for_each(|id| self.remove(id));
    }
}

impl Transaction<'_> {
    pub(super) fn commit_with_data(
        &mut self,
        ino: Ino,
        commit: &Commit,
        chunks: &[LoggedChunk],
    ) -> Result<Reply, FsError> {
        let before = self.tables.file(ino)?;
        let bytes = data_bytes(chunks) as u64 + OVERHEAD * chunks.len() as u64;
        if self.tables.logged_chunks.bytes + bytes > MAX_LOGGED_BYTES {
            return Err(FsError::LogFull);
        }
        check_data(before, commit, chunks)?;
        let reply = self.commit(ino, commit)?;
        // A part of the namespace only answers what a mount does itself, and the mount has the data.
        if !self.is_part {
            let file = self.tables.inodes[&ino].attr.file.clone();
            self.tables.logged_chunks.make_room(bytes);
            for LoggedChunk { id, data } in chunks {
                let kept = KeptChunk { file: file.clone(), data: data.clone(), since: self.index, replaced: None };
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
    /// How many chunks have to be stored on their holders, and the bytes that they take.
    pub fn logged_totals(&self) -> (usize, u64) {
        let LoggedChunks { chunks, replaced, bytes, .. } = &self.logged_chunks;
        (chunks.len() - replaced.len(), *bytes)
    }

    /// The chunks that have to be stored on their holders and were logged before the place `before`.
    pub fn chunks_to_place(&self, before: u64) -> impl Iterator<Item = (ChunkId, &FileName, &Bytes)> {
        let is_due = move |kept: &KeptChunk| kept.replaced.is_none() && kept.since < before;
        let due = self.logged_chunks.chunks.iter().filter(move |(_, kept)| is_due(kept));
        due.map(|(id, kept)| (*id, &kept.file, &kept.data))
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
    if chunks.len() > MAX_COMMIT_RUNS {
        return Err(invalid(format!("a commit with data of {} chunks; at most {MAX_COMMIT_RUNS}", chunks.len())));
    }
    if bytes > MAX_COMMIT_DATA {
        return Err(invalid(format!("a commit with {bytes} bytes of data; at most {MAX_COMMIT_DATA} are allowed")));
    }
    let chunk_bytes = commit.restart.unwrap_or(before.chunk_bytes) as usize;
    let runs: Vec<Extent> = commit.runs().collect();
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
