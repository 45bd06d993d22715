//! The chunk store: keeps this node's copies of chunks on its disk, and knows nothing of other nodes.
//!
//! Chunks are written once, so the store is a set: put adds, delete removes, nothing is changed in place. Records
//! arrive in their wire format (`chordfs_types::chunk`) and are appended to a segment unchanged, one write per batch.
//! An index in memory holds the location of each record. It is rebuilt from the segments at every open, so the segments
//! are the only truth on disk.
//!
//! [`Store`] is the façade over modules that each use only those above them in this table:
//!
//! | module | what lives there |
//! |---|---|
//! | `folder`, `error` | the data folder: lock, format, node uid; the errors of the store |
//! | `index` | key and id to location; digests of arcs |
//! | `segment` | one segment's files and accounts; the set of all; list of dead records, hint, full scan |
//! | `records` | segments and index together; removal, damage, tombstones |
//! | `cache` | hot records in memory |
//! | `reading` | records by their locations; the catalog of each segment; lists, verification, comparison with another node |
//! | `writing` | adding a batch; the segments being filled; the space limits |
//! | `maintenance` | recovery at the open, compaction and its policy, scrub, orphan candidates |
//!
//! All calls block. An asynchronous caller brings a thread that may wait, except for small calls that have been short
//! lately. No lock is held across all of the I/O of a call.

mod cache;
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
    chunk::{ChunkId, ChunkRef, ChunkRun, VerifiedBatch, Version},
    chunk_api::{ChunkList, Durability},
    compare_api::{ArcSum, ChunkAt, IdsPage, IdsRequest},
    disk_space::Disk,
    ring_config::CachePolicy,
    ring_id::{RingArc, RingId},
};
use parking_lot::Mutex;

pub use self::{
    cache::CacheStats,
    error::StoreError,
    folder::{DataFolder, FolderError},
    maintenance::{
        compaction::Rewritten,
        compaction_policy::CompactionReason,
        orphan_candidates::{AgeSpan, HeldChunk, HeldRun, VersionShare},
        scrub::Scrubbed,
    },
    reading::verify::CopyState,
    records::damage::DamagedChunk,
    writing::put::PutOutcome,
};
use self::{
    cache::RecordCache,
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
        space::{SpaceLimits, disk_id},
    },
};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A segment that would grow beyond this is sealed, and the next one is begun. At most 2 GiB.
    pub segment_bytes: u64,
    /// Segments filled side by side.
    pub segment_writers: usize,
    /// A put that would leave less than this free on the disk is refused. Compaction and the lists of dead records use
    /// this reserve, so it should be no smaller than half a segment.
    pub reserve_bytes: u64,
    /// A put that would make the total size of the segments larger than this is refused.
    pub capacity_bytes: Option<u64>,
    /// A segment with a larger dead part is rewritten. On a fuller disk a smaller part suffices (`compaction_policy`).
    pub compact_dead_percent: u64,
    /// For a segment in which no record has died for this long, a still smaller dead part suffices.
    pub compact_quiet: Duration,
    /// The most sealed segments whose files are kept open.
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
    /// How many bytes puts may still add.
    pub free_bytes: u64,
    /// The file system of the folder. `None` if it cannot be read.
    pub disk: Option<Disk>,
    /// Damaged records found since the open, including those found by the open itself.
    pub damaged: u64,
}

/// The chunk store, see the module. `Send + Sync`; used behind an `Arc`.
pub struct Store {
    table: RecordTable,
    cache: RecordCache,
    catalog: Catalog,
    writers: SegmentWriters,
    space: SpaceLimits,
    limits: CompactionLimits,
    /// Locked by the one caller that compacts.
    compaction: Mutex<Compaction>,
    opened: Instant,
    /// Keeps the lock of the data folder.
    _folder: DataFolder,
}

/// The state of a chunk on this node after a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secured {
    Absent,
    OnDisk,
    /// Deleted recently: it has a tombstone.
    Deleted,
}

impl Store {
    /// Opens the chunks in `folder`, after a crash as after a clean shutdown. Takes time in proportion to the number of
    /// chunks, not of bytes, unless segments have no hint.
    pub fn open(folder: &DataFolder, options: StoreOptions) -> Result<Self, StoreError> {
        let segment_bytes = options.segment_bytes.clamp(1, 2 << 30);
        let segments = SegmentSet::new(folder.subfolder("chunks")?, segment_bytes, options.max_open_files.max(1));
        let opened = Instant::now();
        let table = RecordTable::new(segments);
        recovery::recover(&table)?;
        Ok(Self {
            table,
            cache: RecordCache::default(),
            catalog: Catalog::default(),
            writers: SegmentWriters::new(options.segment_writers.max(1)),
            space: SpaceLimits {
                reserve_bytes: options.reserve_bytes,
                capacity_bytes: options.capacity_bytes,
                disk: disk_id(folder.path()),
            },
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

    /// Adds the chunks of `batch` that are not here yet. With [`Durability::Disk`] it returns when all of them are on
    /// the disk, including those that were here before. After an error no chunk was added; after a failed sync, chunks
    /// may have been added but may not survive a crash.
    pub fn put(&self, batch: &VerifiedBatch, durability: Durability) -> Result<PutOutcome, StoreError> {
        put::put(&self.table, &self.writers, self.space, batch, durability)
    }

    /// Whether a put of `bytes` has nothing to do but to write them: no segment is to be created or sealed, and no
    /// other put is under way.
    pub fn takes_at_once(&self, bytes: u64) -> bool {
        self.writers.have_room(&self.table.segments, bytes)
    }

    /// The bytes of the wanted records that are here.
    pub fn record_bytes(&self, wanted: &[ChunkRef]) -> u64 {
        let bytes = |chunk: &ChunkRef| self.table.index.get(chunk.key(), chunk.id).map(|it| u64::from(it.bytes));
        wanted.iter().filter_map(bytes).sum()
    }

    /// Returns the records of the wanted chunks that are here and sound: pieces of one or more whole records, in no
    /// order. Reads the disk and leaves the cache as it is, for copies that are made for other nodes.
    pub fn get(&self, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
        spans::get(&self.table, wanted, |_, _| ())
    }

    /// Returns the records of those wanted chunks that the cache has, and removes these from `wanted`. Never waits for
    /// the disk.
    pub fn take_cached(&self, wanted: &mut Vec<ChunkRef>) -> Vec<Bytes> {
        if !self.cache.is_on() {
            return Vec::new();
        }
        spans::take_cached(&self.table, &self.cache, wanted)
    }

    /// Like [`Store::get`], for readers of files: what is read may enter the cache.
    pub fn read(&self, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
        spans::get(&self.table, wanted, |entry, record| self.cache.offer(entry, record))
    }

    /// Changes the cache, which is off at first; records that fit stay in it. A capacity of 0 switches it off.
    pub fn configure_cache(&self, capacity_bytes: u64, policy: CachePolicy) {
        self.cache.configure(capacity_bytes, policy);
    }

    pub fn clear_cache(&self) {
        self.cache.clear();
    }

    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Returns for each chunk whether it is here. Only the index is consulted, so damage is not noticed.
    pub fn has(&self, wanted: &[ChunkRef]) -> Vec<bool> {
        wanted.iter().map(|chunk| self.table.index.get(chunk.key(), chunk.id).is_some()).collect()
    }

    /// Like [`Store::has`], but reads every record: slow, and able to find damage before the chunk is needed.
    pub fn verify(&self, wanted: &[ChunkRef]) -> Result<Vec<CopyState>, StoreError> {
        verify::verify(&self.table, wanted)
    }

    /// Deletes the chunks of `runs` that are here, for good; returns how many there were. Works on a full disk. Until
    /// the next [`Store::sync`] a power cut may undo a deletion.
    pub fn delete(&self, runs: &[ChunkRun]) -> Result<u64, StoreError> {
        Ok(removal::delete(&self.table, runs))
    }

    /// Deletes chunks for good that another node reports as deleted; returns how many were here.
    pub fn delete_at(&self, chunks: &[ChunkAt]) -> u64 {
        removal::delete_at(&self.table, chunks)
    }

    /// Drops this node's copies, without tombstones; returns how many there were.
    pub fn forget(&self, chunks: &[ChunkRef]) -> Result<u64, StoreError> {
        Ok(removal::forget(&self.table, chunks))
    }

    /// Like [`Store::forget`], for chunks known by key and id.
    pub fn drop_copies(&self, chunks: &[ChunkAt]) -> u64 {
        removal::drop_copies(&self.table, chunks)
    }

    /// Lists at most `limit` chunks with keys in `arc`. `token` is 0 for the first page, and then the previous page's
    /// `next`. A chunk that is here from the first page to the last is listed; if compaction moves it, possibly twice.
    pub fn list(&self, arc: RingArc, token: u64, limit: usize) -> Result<ChunkList, StoreError> {
        list::list(&self.table, &self.catalog, arc, token, limit)
    }

    /// Returns how many chunks have keys in `arc`, and a sum over them that is equal on two nodes with equal sets.
    /// Cheap.
    pub fn digest(&self, arc: RingArc) -> (u64, u64) {
        self.table.index.digest(arc)
    }

    /// Returns count, bytes and digest of the chunks in each arc; the arcs must not overlap. They are computed from
    /// running sums and from the index entries near the arcs' ends.
    pub fn sums(&self, arcs: &[RingArc]) -> Vec<ArcSum> {
        self.table.index.sums(arcs).0
    }

    /// Returns the next chunks of the arcs, at most `limit`, without reading records. A chunk that is here from the
    /// first page to the last is on exactly one of them.
    pub fn ids(&self, request: &IdsRequest, limit: usize) -> IdsPage {
        comparison::ids(&self.table.index, request, limit)
    }

    pub fn is_here(&self, chunk: &ChunkAt) -> bool {
        self.table.index.get(chunk.key, chunk.id).is_some()
    }

    /// Whether the chunk was recently deleted here for good.
    pub fn has_tombstone(&self, chunk: &ChunkAt) -> bool {
        self.table.tombstones.holds(chunk.id)
    }

    /// Returns the records of these chunks that are here and sound, up to about `limit_bytes` in total.
    pub fn records_at(&self, chunks: &[ChunkAt], limit_bytes: u64) -> Result<Vec<Bytes>, StoreError> {
        comparison::records_at(&self.table, chunks, limit_bytes)
    }

    /// Returns for each chunk whether it is on the disk and its record was read back sound.
    pub fn confirm(&self, chunks: &[ChunkAt]) -> Result<Vec<bool>, StoreError> {
        comparison::confirm(&self.table, chunks)
    }

    /// Returns the chunks that were found damaged and not put again since, so that repair is due: the newest few
    /// thousand.
    pub fn damaged(&self) -> Vec<(RingId, ChunkId)> {
        self.table.damage.list()
    }

    /// Like [`Store::damaged`], with the location of each damaged record.
    pub fn damaged_records(&self) -> Vec<DamagedChunk> {
        self.table.damage.records()
    }

    /// Removes these from the list of damaged chunks: they have been repaired or are obsolete.
    pub fn forget_damage(&self, chunks: &[(RingId, ChunkId)]) {
        self.table.damage.forget(chunks);
    }

    /// Returns shares of the versions with chunks that were stored in `span`, to be searched one by one.
    pub fn version_shares(&self, span: AgeSpan) -> Result<Vec<VersionShare>, StoreError> {
        orphan_candidates::version_shares(&self.table, span)
    }

    /// Returns the chunks, ascending, of those versions of which every chunk here was stored before the end of `span`
    /// and at least one in `span`.
    pub fn old_chunks(&self, share: VersionShare, span: AgeSpan) -> Result<Vec<HeldChunk>, StoreError> {
        orphan_candidates::old_chunks(&self.table, share, span)
    }

    /// Like [`Store::old_chunks`], for these versions and those of a share, whenever they were stored.
    pub fn old_chunks_of(
        &self,
        versions: &[Version],
        share: VersionShare,
        before: SystemTime,
    ) -> Result<Vec<HeldChunk>, StoreError> {
        orphan_candidates::old_chunks_of(&self.table, versions, share, before)
    }

    /// Returns these runs with their file names, in no order, without those whose first chunk can no longer be read.
    pub fn named(&self, runs: &[HeldRun]) -> Result<Vec<ChunkRun>, StoreError> {
        orphan_candidates::named(&self.table, runs)
    }

    pub fn stats(&self) -> StoreStats {
        let (free_bytes, disk) = self.space.free_bytes_and_disk(&self.table.segments);
        let mut stats = StoreStats { free_bytes, disk, damaged: self.table.damage.count(), ..StoreStats::default() };
        for segment in self.table.segments.all() {
            stats.chunks += segment.live_chunks();
            stats.live_bytes += segment.live_bytes();
            stats.dead_bytes += segment.dead_bytes();
            stats.segments += 1;
        }
        stats
    }

    /// Returns when everything that was put or deleted before the call is on the disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.table.sync()
    }

    /// The time since the store was opened. A chunk put before that without a sync may have been cut off with a torn
    /// tail.
    pub fn open_for(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Syncs, and returns for each of `wanted` whether it is on the disk.
    pub fn secure(&self, wanted: &[ChunkRef]) -> Result<Vec<Secured>, StoreError> {
        let look = |chunk: &ChunkRef| match self.table.index.get(chunk.key(), chunk.id) {
            Some(_) => Secured::OnDisk,
            None if self.table.tombstones.holds(chunk.id) => Secured::Deleted,
            None => Secured::Absent,
        };
        // The lookup precedes the sync, so that the sync covers every chunk that is reported as on the disk. It is
        // repeated after it, as records that an earlier sync failed to write may have been found damaged meanwhile.
        let before: Vec<Secured> = wanted.iter().map(look).collect();
        self.sync()?;
        let after = wanted.iter().map(look);
        Ok(before
            .into_iter()
            .zip(after)
            .map(|(before, after)| if before == Secured::OnDisk { after } else { before })
            .collect())
    }

    /// Rewrites a piece of a segment that is worth rewriting, and removes wholly dead segments. Returns `None` if there
    /// was nothing to rewrite. One caller compacts at a time; others wait.
    pub fn compact(&self) -> Result<Option<Rewritten>, StoreError> {
        let mut compaction = self.compaction.lock();
        let disk = self.space.disk_usage(&self.table.segments)?;
        let worth = |usage: &SegmentUsage| worth_sealing(usage, disk, self.limits);
        let filled = self.writers.iter().filter_map(|writer| writer.lock().take_if(worth));
        let to_seal: Vec<FilledSegment> = filled.chain(compaction.writer.take_if(worth)).collect();
        to_seal.into_iter().for_each(|segment| segment.seal(&self.table.segments));
        compaction::step(&self.table, &self.catalog, self.space, self.limits, &mut compaction)
    }

    /// Reads about `bytes` of records from the disk, bypassing the page cache, and checks them. `token` is 0 for the
    /// first step, and then the previous step's `next`.
    pub fn scrub_step(&self, token: u64, bytes: u64) -> Result<Scrubbed, StoreError> {
        scrub::scrub_step(&self.table, &self.catalog, token, bytes)
    }
}
