//! The chunk store: keeps this node's copies of chunks on its disk, and knows nothing of other nodes.
//!
//! Chunks are written once, so the store is a set: put adds, delete removes, nothing is changed in place. Records come
//! as they travel (`chordfs_types::chunk`) and are added to the end of a segment as they came, a batch with one write. An index
//! in memory says where each lies; it is rebuilt from the segments at every open, so there is only one truth on disk.
//!
//! | file | its idea |
//! |---|---|
//! | `folder` | the data folder: lock, format, node uid |
//! | `segment`, `segments` | one segment's files and accounts; all of them |
//! | `lane`, `put` | who fills which segment; adding a batch |
//! | `index` | key and id to place; digests of arcs |
//! | `dead`, `remove` | the list of dead records; delete, forget, and what was found damaged |
//! | `graves`, `age` | what was deleted lately; what has been here for long |
//! | `hint`, `scan`, `recovery` | opening: by short cut, by reading all, and what to believe |
//! | `read`, `list`, `verify` | get and scrub; the contents of an arc, page by page; looking at copies for `check` |
//! | `compare` | what two nodes need to become equal: sums and ids of arcs, confirmed copies |
//! | `catalog` | what lies in each segment, page by page |
//! | `relief`, `compaction` | which segments are worth rewriting, and when; doing it |
//!
//! All calls block and are meant for `spawn_blocking`. No call holds one lock while all bytes pass through it.

mod age;
mod catalog;
mod compaction;
mod compare;
mod dead;
pub mod folder;
mod graves;
mod hint;
mod index;
mod lane;
mod list;
mod put;
mod read;
mod recovery;
mod relief;
mod remove;
mod scan;
mod segment;
mod segments;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, VerifiedBatch},
    chunk_api::{ChunkList, Durability},
    ring_id::{RingArc, RingId},
};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

pub use self::{
    age::{HeldChunk, HeldRun, Part},
    compaction::Rewritten,
    folder::{DataFolder, FolderError},
    read::Scrubbed,
    remove::Damaged,
    verify::Copy,
};
use self::{
    catalog::Catalog,
    compaction::Compaction,
    graves::Graves,
    index::Index,
    lane::{Full, Lane},
    relief::{Account, worth_sealing},
    remove::Damage,
    segments::Segments,
};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A segment that would grow beyond this is sealed and the next begun. At most 2 GiB.
    pub segment_bytes: u64,
    /// Segments filled side by side.
    pub lanes: usize,
    /// A put that would leave less than this free on the disk is refused. Compaction and the lists of dead records
    /// live on it, so it should be no smaller than half a segment.
    pub reserve_bytes: u64,
    /// A put that would make the segments larger than this in all is refused.
    pub capacity_bytes: Option<u64>,
    /// A segment with more of it dead is rewritten; on a disk that fills, with less (`relief`).
    pub compact_dead_percent: u64,
    /// One in which nothing has died for this long is rewritten with still less.
    pub compact_quiet: Duration,
    /// Sealed segments kept open.
    pub max_open_files: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            lanes: 2,
            reserve_bytes: 64 << 20,
            capacity_bytes: None,
            compact_dead_percent: 50,
            compact_quiet: Duration::from_secs(60),
            max_open_files: 256,
        }
    }
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing was stored. Deleting still works.
    #[error("no space left for chunks in {}: {why}; delete files or give it a larger disk", path.display())]
    NoSpace { path: PathBuf, why: String },
    #[error("{step} {}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl StoreError {
    fn io(step: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), why: format!("{step}: {source}") }
            }
            _ => Self::Io { step, path: path.to_owned(), source },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    pub stored: usize,
    /// Were here before, or twice in the batch, or deleted lately.
    pub already: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub chunks: u64,
    /// Of records, headers included.
    pub live_bytes: u64,
    pub dead_bytes: u64,
    pub segments: u64,
    /// What puts may still take.
    pub free_bytes: u64,
    /// Damaged records met since the open, also those found by it.
    pub damaged: u64,
}

/// See the module. `Send + Sync`; used behind an `Arc`.
pub struct Store {
    shared: Shared,
    lanes: Box<[Mutex<Lane>]>,
    next_lane: AtomicUsize,
    /// Whoever holds it is the one that compacts.
    compaction: Mutex<Compaction>,
    /// Keeps the lock of the data folder.
    _folder: DataFolder,
}

/// What a node has of a chunk after a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secured {
    Absent,
    OnDisk,
    /// Deleted lately.
    Deleted,
}

/// What every part of the store works on.
struct Shared {
    options: StoreOptions,
    index: Index,
    segments: Segments,
    catalog: Catalog,
    damage: Damage,
    graves: Graves,
    /// Compaction holds it for writing while it moves a piece, and what removes chunks for reading: so a chunk is never
    /// deleted between its being copied and the index pointing at the copy.
    moving: RwLock<()>,
    opened: Instant,
}

impl Store {
    /// Opens the chunks in `folder`, after a crash as after a clean end; takes time in proportion to the number of
    /// chunks, not of bytes.
    pub fn open(folder: &DataFolder, options: StoreOptions) -> Result<Self, StoreError> {
        let options = StoreOptions { segment_bytes: options.segment_bytes.clamp(1, 2 << 30), ..options };
        let shared = Shared {
            index: Index::default(),
            segments: Segments::new(folder.subfolder("chunks")?, options.max_open_files.max(1)),
            catalog: Catalog::default(),
            damage: Damage::default(),
            graves: Graves::default(),
            moving: RwLock::new(()),
            opened: Instant::now(),
            options,
        };
        recovery::recover(&shared)?;
        let lanes = (0..shared.options.lanes.max(1)).map(|_| Mutex::default()).collect();
        Ok(Self {
            shared,
            lanes,
            next_lane: AtomicUsize::new(0),
            compaction: Mutex::default(),
            _folder: folder.clone(),
        })
    }

    /// Adds the chunks of `batch` that are not here yet. With [`Durability::Disk`] it returns when all
    /// of them are on the disk, also those that were here. On an error none was added, or, when syncing failed, nothing is promised of any.
    pub fn put(&self, batch: &VerifiedBatch, durability: Durability) -> Result<PutOutcome, StoreError> {
        put::put(self, batch, durability)
    }

    /// The records of the wanted chunks that are here and sound: pieces of one or more whole records, in no order.
    pub fn get(&self, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
        read::get(&self.shared, wanted)
    }

    /// For each, whether it is here. Asks the index alone: damage shows when it is read.
    pub fn has(&self, wanted: &[ChunkRef]) -> Vec<bool> {
        wanted.iter().map(|chunk| self.shared.index.get(chunk.key(), chunk.id).is_some()).collect()
    }

    /// The same by reading every record: slow, and the only way to see damage before somebody needs the chunk.
    pub fn verify(&self, wanted: &[ChunkRef]) -> Result<Vec<Copy>, StoreError> {
        verify::verify(&self.shared, wanted)
    }

    /// Deletes the chunks of `runs` that are here, for good; says how many those were. Works on a full disk. A deletion may be
    /// undone by a power cut until the next [`Store::sync`].
    pub fn delete(&self, runs: &[ChunkRun]) -> Result<u64, StoreError> {
        Ok(remove::delete(&self.shared, runs))
    }

    /// Drops this node's copies; says how many there were.
    pub fn forget(&self, chunks: &[ChunkRef]) -> Result<u64, StoreError> {
        Ok(remove::forget(&self.shared, chunks))
    }

    /// At most `limit` chunks with keys in `arc`, from `token` on: 0, and then each page's `next`. A chunk that is here
    /// from the first page to the last is listed, whatever else happens meanwhile; one that compaction moves may come twice.
    pub fn list(&self, arc: RingArc, token: u64, limit: usize) -> Result<ChunkList, StoreError> {
        list::list(&self.shared, arc, token, limit)
    }

    /// How many chunks have keys in `arc`, and a sum over them that is equal on two nodes when the sets are. Cheap.
    pub fn digest(&self, arc: RingArc) -> (u64, u64) {
        self.shared.index.digest(arc)
    }

    /// Chunks found damaged that have not been put again since: what wants repair. The newest few thousand.
    pub fn damaged(&self) -> Vec<(RingId, ChunkId)> {
        self.shared.damage.list()
    }

    /// The same, and where each of them lay.
    pub fn damaged_records(&self) -> Vec<Damaged> {
        self.shared.damage.records()
    }

    /// These are repaired no more: nobody has them, or nobody needs them.
    pub fn forget_damage(&self, chunks: &[(RingId, ChunkId)]) {
        self.shared.damage.forget(chunks);
    }

    /// The shares of all versions in which to look for what is old.
    pub fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        age::parts(&self.shared)
    }

    /// The chunks here of versions of which all that is here was stored before `before`, ascending.
    pub fn old_chunks(&self, part: Part, before: SystemTime) -> Result<Vec<HeldChunk>, StoreError> {
        age::old_chunks(&self.shared, part, before)
    }

    /// These runs by name, in no order; without those whose first chunk cannot be read any more.
    pub fn named(&self, runs: &[HeldRun]) -> Result<Vec<ChunkRun>, StoreError> {
        age::named(&self.shared, runs)
    }

    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            free_bytes: put::free_bytes(&self.shared),
            damaged: self.shared.damage.count(),
            ..StoreStats::default()
        };
        for segment in self.shared.segments.all() {
            stats.chunks += segment.live_chunks();
            stats.live_bytes += segment.live_bytes();
            stats.dead_bytes += segment.dead_bytes();
            stats.segments += 1;
        }
        stats
    }

    /// When this returns, all that was put or deleted before it was called is on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync()
    }

    /// Since it was opened. What was put before that may have been cut off with the tail of a segment.
    pub fn open_for(&self) -> Duration {
        self.shared.opened.elapsed()
    }

    /// Which of `wanted` are here, on the disk.
    pub fn secure(&self, wanted: &[ChunkRef]) -> Result<Vec<Secured>, StoreError> {
        let look = |chunk: &ChunkRef| match self.shared.index.get(chunk.key(), chunk.id) {
            Some(_) => Secured::OnDisk,
            None if self.shared.graves.holds(chunk.id) => Secured::Deleted,
            None => Secured::Absent,
        };
        // In this order: what comes between the two is on the disk and not said to be.
        let here = wanted.iter().map(look).collect();
        self.sync()?;
        Ok(here)
    }

    /// Rewrites a piece of a segment that is worth it, and removes what is wholly dead; `None` if there was nothing to
    /// rewrite. One caller at a time; others wait.
    pub fn compact(&self) -> Result<Option<Rewritten>, StoreError> {
        let mut compaction = self.compaction.lock();
        let (disk, limits) = (put::disk(&self.shared)?, compaction::limits(&self.shared));
        let worth = |account: &Account| worth_sealing(account, disk, limits);
        let filled = self.lanes.iter().filter_map(|lane| lane.lock().take_if(worth));
        let worn: Vec<Full> = filled.chain(compaction.lane.take_if(worth)).collect();
        worn.into_iter().for_each(|worn| worn.seal(&self.shared));
        compaction::step(&self.shared, &mut compaction)
    }

    /// Reads about `bytes` of records from `token` on, from the disk itself, and checks them: 0, and then each answer's
    /// `next`.
    pub fn scrub_step(&self, token: u64, bytes: u64) -> Result<Scrubbed, StoreError> {
        read::scrub_step(&self.shared, token, bytes)
    }

    /// A lane for one append: a free one if there is any.
    fn lane(&self) -> parking_lot::MutexGuard<'_, Lane> {
        let first = self.next_lane.fetch_add(1, Relaxed);
        let lane = |at: usize| &self.lanes[(first.wrapping_add(at)) % self.lanes.len()];
        (0..self.lanes.len()).find_map(|at| lane(at).try_lock()).unwrap_or_else(|| lane(0).lock())
    }
}

impl Shared {
    fn sync(&self) -> Result<(), StoreError> {
        let mut new_names = false;
        for segment in self.segments.all() {
            match segment.sync() {
                Ok(new) => new_names |= new,
                // One that was removed meanwhile has nothing left to sync, nor has one that nothing lives in any more.
                Err(_) if segment.live_chunks() == 0 || self.segments.get(segment.number).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        if new_names { self.segments.sync_folder() } else { Ok(()) }
    }
}
