//! The chunk store: keeps this node's copies of chunks on its disk, and knows nothing of other nodes.
//!
//! Chunks are written once, so the store is a set: put adds, delete removes, nothing is changed in place. Records come
//! as they travel (`chordfs_types::chunk`) and are added to the end of a segment as they came, a batch with one write.
//! An index in memory says where each lies; it is rebuilt from the segments at every open, so there is only one truth
//! on disk.
//!
//! [`Store`] is the façade on top of rooms that each use only those above them in this table:
//!
//! | room | what lives there |
//! |---|---|
//! | `folder`, `error` | the data folder: lock, format, node uid; why a call fails |
//! | `index` | key and id to location; digests of arcs |
//! | `segment` | one segment's files and accounts; the set of all; list of dead records, hint, full scan |
//! | `records` | segments and index together; removal, damage, tombstones |
//! | `reading` | records by their locations; the catalog of each segment; lists, verification, comparison with another node |
//! | `writing` | adding a batch; the segments being filled; the space there is for it |
//! | `maintenance` | recovery at the open, compaction and its policy, scrub, candidates for orphans |
//!
//! All calls block and are meant for `spawn_blocking`. No call holds one lock while all bytes pass through it.

mod error;
pub mod folder;
mod index;
mod maintenance;
mod reading;
mod records;
mod segment;
#[cfg(test)]
mod tests;
mod writing;

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, VerifiedBatch},
    chunk_api::{ChunkList, Durability},
    compare_api::{ArcSum, ChunkAt, IdsPage, IdsRequest},
    ring_id::{RingArc, RingId},
};
use parking_lot::Mutex;

pub use self::{
    error::StoreError,
    folder::{DataFolder, FolderError},
    maintenance::{
        compaction::Rewritten,
        compaction_policy::CompactionReason,
        orphan_candidates::{HeldChunk, HeldRun, VersionShare},
        scrub::Scrubbed,
    },
    reading::verify::CopyState,
    records::damage::DamagedChunk,
    writing::put::PutOutcome,
};
use self::{
    maintenance::{
        compaction::{self, Compaction},
        compaction_policy::{CompactionLimits, worth_sealing},
        orphan_candidates, recovery, scrub,
    },
    reading::{catalog::Catalog, comparison, list, spans, verify},
    records::{RecordTable, removal},
    segment::{SegmentUsage, set::SegmentSet},
    writing::{
        put,
        segment_writer::{FilledSegment, SegmentWriters},
        space::SpaceLimits,
    },
};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A segment that would grow beyond this is sealed and the next begun. At most 2 GiB.
    pub segment_bytes: u64,
    /// Segments filled side by side.
    pub segment_writers: usize,
    /// A put that would leave less than this free on the disk is refused. Compaction and the lists of dead records
    /// live on it, so it should be no smaller than half a segment.
    pub reserve_bytes: u64,
    /// A put that would make the segments larger than this in all is refused.
    pub capacity_bytes: Option<u64>,
    /// A segment with more of it dead is rewritten; on a disk that fills, with less (`compaction_policy`).
    pub compact_dead_percent: u64,
    /// A segment in which nothing has died for this long is rewritten with still less.
    pub compact_quiet: Duration,
    /// Sealed segments kept open.
    pub max_open_files: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            segment_writers: 2,
            reserve_bytes: 64 << 20,
            capacity_bytes: None,
            compact_dead_percent: 50,
            compact_quiet: Duration::from_secs(60),
            max_open_files: 256,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub chunks: u64,
    /// Bytes of records, headers included.
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
    table: RecordTable,
    catalog: Catalog,
    writers: SegmentWriters,
    space: SpaceLimits,
    limits: CompactionLimits,
    /// Its holder is the one caller that compacts.
    compaction: Mutex<Compaction>,
    opened: Instant,
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

impl Store {
    /// Opens the chunks in `folder`, after a crash as after a clean end; takes time in proportion to the number of
    /// chunks, not of bytes.
    pub fn open(folder: &DataFolder, options: StoreOptions) -> Result<Self, StoreError> {
        let segment_bytes = options.segment_bytes.clamp(1, 2 << 30);
        let segments = SegmentSet::new(folder.subfolder("chunks")?, segment_bytes, options.max_open_files.max(1));
        let opened = Instant::now();
        let table = RecordTable::new(segments);
        recovery::recover(&table)?;
        Ok(Self {
            table,
            catalog: Catalog::default(),
            writers: SegmentWriters::new(options.segment_writers.max(1)),
            space: SpaceLimits { reserve_bytes: options.reserve_bytes, capacity_bytes: options.capacity_bytes },
            limits: CompactionLimits {
                dead_percent: options.compact_dead_percent,
                segment_bytes,
                quiet: options.compact_quiet,
            },
            compaction: Mutex::default(),
            opened,
            _folder: folder.clone(),
        })
    }

    /// Adds the chunks of `batch` that are not here yet. With [`Durability::Disk`] it returns when all
    /// of them are on the disk, also those that were here. On an error none was added, or, when syncing failed, nothing
    /// is promised of any.
    pub fn put(&self, batch: &VerifiedBatch, durability: Durability) -> Result<PutOutcome, StoreError> {
        put::put(&self.table, &self.writers, self.space, batch, durability)
    }

    /// The records of the wanted chunks that are here and sound: pieces of one or more whole records, in no order.
    pub fn get(&self, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
        spans::get(&self.table, wanted)
    }

    /// For each, whether it is here. Asks the index alone: damage shows when it is read.
    pub fn has(&self, wanted: &[ChunkRef]) -> Vec<bool> {
        wanted.iter().map(|chunk| self.table.index.get(chunk.key(), chunk.id).is_some()).collect()
    }

    /// Like [`Store::has`], by reading every record: slow, and the only way to see damage before the chunk is needed.
    pub fn verify(&self, wanted: &[ChunkRef]) -> Result<Vec<CopyState>, StoreError> {
        verify::verify(&self.table, wanted)
    }

    /// Deletes the chunks of `runs` that are here, for good; returns how many those were. Works on a full disk. A
    /// deletion may be undone by a power cut until the next [`Store::sync`].
    pub fn delete(&self, runs: &[ChunkRun]) -> Result<u64, StoreError> {
        Ok(removal::delete(&self.table, runs))
    }

    /// Deletes chunks for good that another node knows to be deleted; returns how many were here.
    pub fn delete_at(&self, chunks: &[ChunkAt]) -> u64 {
        removal::delete_at(&self.table, chunks)
    }

    /// Drops this node's copies; returns how many there were.
    pub fn forget(&self, chunks: &[ChunkRef]) -> Result<u64, StoreError> {
        Ok(removal::forget(&self.table, chunks))
    }

    /// Like [`Store::forget`], for chunks known by key and id.
    pub fn drop_copies(&self, chunks: &[ChunkAt]) -> u64 {
        removal::drop_copies(&self.table, chunks)
    }

    /// At most `limit` chunks with keys in `arc`, from `token` on: 0, and then each page's `next`. A chunk that is here
    /// from the first page to the last is listed, whatever else happens meanwhile; one that compaction moves may come
    /// twice.
    pub fn list(&self, arc: RingArc, token: u64, limit: usize) -> Result<ChunkList, StoreError> {
        list::list(&self.table, &self.catalog, arc, token, limit)
    }

    /// How many chunks have keys in `arc`, and a sum over them that is equal on two nodes when the sets are. Cheap.
    pub fn digest(&self, arc: RingArc) -> (u64, u64) {
        self.table.index.digest(arc)
    }

    /// Count, bytes and digest of the chunks in each arc; the arcs do not overlap. From running sums, and the entries
    /// of the index near the arcs' ends.
    pub fn sums(&self, arcs: &[RingArc]) -> Vec<ArcSum> {
        self.table.index.sums(arcs).0
    }

    /// The next chunks of the arcs, at most `limit`. Reads no record. A chunk that is here from the first page to the
    /// last is on one of them, once.
    pub fn ids(&self, request: &IdsRequest, limit: usize) -> IdsPage {
        comparison::ids(&self.table.index, request, limit)
    }

    pub fn is_here(&self, chunk: &ChunkAt) -> bool {
        self.table.index.get(chunk.key, chunk.id).is_some()
    }

    /// Whether it was deleted here lately, for good.
    pub fn has_tombstone(&self, chunk: &ChunkAt) -> bool {
        self.table.tombstones.holds(chunk.id)
    }

    /// The records of these chunks that are here and sound, as long as they sum to no more than about `limit_bytes`.
    pub fn records_at(&self, chunks: &[ChunkAt], limit_bytes: u64) -> Result<Vec<Bytes>, StoreError> {
        comparison::records_at(&self.table, chunks, limit_bytes)
    }

    /// For each, whether it is on the disk and its record was read back sound.
    pub fn confirm(&self, chunks: &[ChunkAt]) -> Result<Vec<bool>, StoreError> {
        comparison::confirm(&self.table, chunks)
    }

    /// Chunks found damaged that have not been put again since: what wants repair. The newest few thousand.
    pub fn damaged(&self) -> Vec<(RingId, ChunkId)> {
        self.table.damage.list()
    }

    /// Like [`Store::damaged`], with the place where each record lay.
    pub fn damaged_records(&self) -> Vec<DamagedChunk> {
        self.table.damage.records()
    }

    /// Takes these off the list of damaged chunks: they have been repaired, or are obsolete.
    pub fn forget_damage(&self, chunks: &[(RingId, ChunkId)]) {
        self.table.damage.forget(chunks);
    }

    /// The shares of all versions, to be searched for old chunks one by one.
    pub fn version_shares(&self) -> impl Iterator<Item = VersionShare> + use<> {
        orphan_candidates::version_shares(&self.table.index)
    }

    /// The chunks here of versions of which all that is here was stored before `before`, ascending.
    pub fn old_chunks(&self, share: VersionShare, before: SystemTime) -> Result<Vec<HeldChunk>, StoreError> {
        orphan_candidates::old_chunks(&self.table, share, before)
    }

    /// These runs by name, in no order; without those whose first chunk can no longer be read.
    pub fn named(&self, runs: &[HeldRun]) -> Result<Vec<ChunkRun>, StoreError> {
        orphan_candidates::named(&self.table, runs)
    }

    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            free_bytes: self.space.free_bytes(&self.table.segments),
            damaged: self.table.damage.count(),
            ..StoreStats::default()
        };
        for segment in self.table.segments.all() {
            stats.chunks += segment.live_chunks();
            stats.live_bytes += segment.live_bytes();
            stats.dead_bytes += segment.dead_bytes();
            stats.segments += 1;
        }
        stats
    }

    /// When this returns, all that was put or deleted before it was called is on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.table.sync()
    }

    /// The time since it was opened. What was put before that may have been cut off with the tail of a segment.
    pub fn open_for(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Which of `wanted` are here, on the disk.
    pub fn secure(&self, wanted: &[ChunkRef]) -> Result<Vec<Secured>, StoreError> {
        let look = |chunk: &ChunkRef| match self.table.index.get(chunk.key(), chunk.id) {
            Some(_) => Secured::OnDisk,
            None if self.table.tombstones.holds(chunk.id) => Secured::Deleted,
            None => Secured::Absent,
        };
        // In this order: what is stored between the two steps is on the disk and not reported.
        let here = wanted.iter().map(look).collect();
        self.sync()?;
        Ok(here)
    }

    /// Rewrites a piece of a segment that is worth it, and removes what is wholly dead; `None` if there was nothing to
    /// rewrite. One caller at a time; others wait.
    pub fn compact(&self) -> Result<Option<Rewritten>, StoreError> {
        let mut compaction = self.compaction.lock();
        let disk = self.space.disk_usage(&self.table.segments)?;
        let worth = |usage: &SegmentUsage| worth_sealing(usage, disk, self.limits);
        let filled = self.writers.iter().filter_map(|writer| writer.lock().take_if(worth));
        let worn: Vec<FilledSegment> = filled.chain(compaction.writer.take_if(worth)).collect();
        worn.into_iter().for_each(|worn| worn.seal(&self.table.segments));
        compaction::step(&self.table, &self.catalog, self.space, self.limits, &mut compaction)
    }

    /// Reads about `bytes` of records from `token` on, from the disk itself, and checks them: 0, and then each answer's
    /// `next`.
    pub fn scrub_step(&self, token: u64, bytes: u64) -> Result<Scrubbed, StoreError> {
        scrub::scrub_step(&self.table, &self.catalog, token, bytes)
    }
}
