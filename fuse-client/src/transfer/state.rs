//! The contents of one open inode as this mount's programs see them, in layers; upper layers win:
//!
//! ```text
//! dirty     written bytes
//! sealed    the bytes that were dirty when the commit under way began
//! uploads   whole chunks that are being sent to their holders; no chunk is in two uploads
//! newer     whole chunks that were stored since the commit under way began, and do not belong to it
//! stored    whole chunks that their holders have, not yet committed; the commit under way names exactly these
//! known     the committed state: extents and attributes, as the namespace last reported them
//! ```
//!
//! A chunk leaves `dirty` only while neither `sealed` nor an upload has it, so the order of the layers is always the
//! order in which their bytes were written. Pure: no network, no clock, no lock.
//!
//! | file | contents |
//! |---|---|
//! | here | the layers: writing, reading, the committed state |
//! | `under_way` | the commit under way: its beginning, its draft, its end |
//! | `uploads` | whole chunks whose upload starts, completes or fails |
//! | `unanswered` | a commit that got no answer |
//! | `discarded` | stored chunks that no commit will name |

mod discarded;
mod unanswered;
mod under_way;
mod uploads;

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, MAX_CHUNK_BYTES, Version},
    fs_error::FsError,
    namespace::{Attr, Extent, SetAttr, Time},
};

use self::{
    discarded::DiscardedChunks,
    unanswered::{SentTo, UnansweredCommit},
    under_way::CommitUnderWay,
    uploads::Upload,
};
pub(super) use self::{under_way::Merged, uploads::UploadOrder};
use super::{
    dirty::DirtyBytes,
    error_seq::ErrorSeq,
    extents::{ExtentMap, KnownExtents},
    read_ahead::Streams,
};

/// Stands for `sealed` while no commit is under way.
static NO_BYTES: DirtyBytes = DirtyBytes::new();

pub(super) struct FileState {
    attr: Attr,
    known: KnownExtents,
    /// Another mount may have changed the contents since the known state.
    stale: bool,
    /// The number of feed events that made the state stale.
    invalidations: u64,
    dirty: DirtyBytes,
    commit: Option<CommitUnderWay>,
    uploads: BTreeMap<u64, Upload>,
    next_upload: u64,
    newer: ExtentMap,
    stored: ExtentMap,
    discarded: DiscardedChunks,
    unanswered: Option<UnansweredCommit>,
    /// When the newest byte was written that is in `dirty`, or has left it for an upload.
    mtime: Option<Time>,
    /// Attributes set since the last commit began, which go with the next one. No truncation. An mtime is in `mtime` as
    /// well, and here only while no later write has replaced it.
    set: SetAttr,
    /// The failure of the last upload. No further upload starts until the next commit tries again.
    failure: Option<FsError>,
    /// Errors by which written data was discarded.
    pub errors: ErrorSeq,
    failed_commits: u32,
    /// The last commit has failed, and its data is kept for another attempt.
    awaits_repetition: bool,
    /// Size of `dirty` from which it is searched for whole runs again, in bytes.
    scan_at: u64,
    streams: Streams,
}

/// The bytes of one chunk below `sealed` and `dirty`, or where they are.
pub(super) enum ChunkContent {
    Zeros,
    InMemory(Bytes),
    Stored(ChunkId),
}

/// The bytes below a partly written chunk, with which it is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Hole,
    /// Stored by this mount, not yet committed.
    Own(Version),
    Committed(Version),
}

impl Base {
    pub(super) fn version(self) -> Option<Version> {
        match self {
            Self::Hole => None,
            Self::Own(version) | Self::Committed(version) => Some(version),
        }
    }
}

impl FileState {
    pub(super) fn new(attr: Attr, extents: &[Extent], more: bool) -> Self {
        let mut known = KnownExtents::default();
        known.replace(extents, more);
        Self {
            attr: clamp(&attr),
            known,
            stale: false,
            invalidations: 0,
            dirty: DirtyBytes::default(),
            commit: None,
            uploads: BTreeMap::new(),
            next_upload: 0,
            newer: ExtentMap::default(),
            stored: ExtentMap::default(),
            discarded: DiscardedChunks::default(),
            unanswered: None,
            mtime: None,
            set: SetAttr::default(),
            failure: None,
            errors: ErrorSeq::default(),
            failed_commits: 0,
            awaits_repetition: false,
            scan_at: 0,
            streams: Streams::default(),
        }
    }

    /// The newest committed attributes that are known.
    pub(super) fn attr(&self) -> &Attr {
        &self.attr
    }

    pub(super) fn chunk_bytes(&self) -> u64 {
        u64::from(self.attr.chunk_bytes)
    }

    /// The largest size of a file with this chunk size.
    pub(super) fn max_bytes(&self) -> u64 {
        max_bytes(self.attr.chunk_bytes)
    }

    pub(super) fn size(&self) -> u64 {
        self.attr.size.max(self.uncommitted_end())
    }

    /// The end of the uncommitted data.
    pub(super) fn uncommitted_end(&self) -> u64 {
        let uploading = self.uploads.values().filter_map(Upload::last_index).max();
        let stored = self.stored.last_index().max(self.newer.last_index());
        let whole = u64::from(uploading.unwrap_or(0).max(stored)) * self.chunk_bytes();
        whole.max(self.dirty.end()).max(self.sealed().end())
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.has_data() || !self.set.is_empty() || self.commit.as_ref().is_some_and(CommitUnderWay::has_attributes)
    }

    fn has_data(&self) -> bool {
        let in_memory = !(self.dirty.is_empty() && self.sealed().is_empty() && self.uploads.is_empty());
        in_memory || self.has_stored()
    }

    fn has_stored(&self) -> bool {
        !(self.stored.is_empty() && self.newer.is_empty())
    }

    fn sealed(&self) -> &DirtyBytes {
        self.commit.as_ref().map_or(&NO_BYTES, CommitUnderWay::bytes)
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8], now: Time) {
        if !self.is_dirty() {
            // The commits that failed were those of other data, which is gone.
            self.failed_commits = 0;
        }
        self.dirty.write(offset, data, self.attr.chunk_bytes);
        (self.mtime, self.set.mtime) = (Some(now), None);
    }

    /// Defers attributes to the commit that is due anyway, so that a program which writes a file and then sets its
    /// times, owner and mode causes one operation. False if they must be sent by themselves.
    pub(super) fn defer(&mut self, set: &SetAttr) -> bool {
        if self.is_committing() || !self.is_dirty() || set.truncate.is_some() {
            return false;
        }
        self.mtime = set.mtime.or(self.mtime);
        self.set = set.clone().over(std::mem::take(&mut self.set));
        true
    }

    pub(super) fn has_deferred(&self) -> bool {
        !self.set.is_empty()
    }

    pub(super) fn take_deferred(&mut self) -> SetAttr {
        std::mem::take(&mut self.set)
    }

    /// Defers attributes that could not be sent to the next commit. Attributes set since then win.
    pub(super) fn put_back_deferred(&mut self, mut older: SetAttr) {
        if self.mtime.is_some() && self.mtime != older.mtime {
            // A later write has replaced the time.
            older.mtime = None;
        }
        self.set = std::mem::take(&mut self.set).over(older);
    }

    /// The times of the newest write above the commit under way, and of the newest write in it.
    pub(super) fn write_times(&self) -> (Option<Time>, Option<Time>) {
        (self.mtime, self.commit.as_ref().and_then(CommitUnderWay::mtime))
    }

    /// Puts uncommitted attributes over the namespace's.
    pub(super) fn overlay_attributes(&self, attr: &mut Attr) {
        let mut changed = attr.ctime;
        if let Some(commit) = &self.commit {
            commit.attributes().apply_to(attr);
            changed = changed.max(commit.change_time().unwrap_or(changed));
        }
        self.set.apply_to(attr);
        let (newest, sealed) = self.write_times();
        attr.mtime = newest.or(sealed).unwrap_or(attr.mtime);
        attr.ctime = changed.max(change_time(self.mtime, &self.set).unwrap_or(changed));
    }

    /// The memory that counts under the ceiling.
    pub(super) fn held_bytes(&self) -> u64 {
        let uploading: u64 = self.uploads.values().map(Upload::bytes).sum();
        self.dirty.held_bytes() + self.sealed().held_bytes() + uploading
    }

    /// The chunks that overlap the bytes of `range`; chunks count from 1.
    pub(super) fn chunks_of(&self, range: Range<u64>) -> Range<u64> {
        range.start / self.chunk_bytes() + 1..range.end.div_ceil(self.chunk_bytes()).saturating_add(1)
    }

    pub(super) fn bytes_of(&self, index: u32) -> Range<u64> {
        let start = u64::from(index - 1) * self.chunk_bytes();
        start..start + self.chunk_bytes()
    }

    /// The first of these chunks whose committed version is not known. All chunks beyond the committed end are holes.
    pub(super) fn first_unknown(&self, chunks: Range<u64>) -> Option<u32> {
        let committed = self.attr.size.div_ceil(self.chunk_bytes()) + 1;
        self.known.first_unknown(chunks.start..chunks.end.min(committed))
    }

    /// Whether it is known which version of this chunk lies below the bytes in memory.
    pub(super) fn is_base_known(&self, index: u32) -> bool {
        self.is_stored(index) || self.first_unknown(u64::from(index)..u64::from(index) + 1).is_none()
    }

    /// Whether the whole chunk is stored and not committed.
    pub(super) fn is_stored(&self, index: u32) -> bool {
        self.own_version(index).is_some()
    }

    fn own_version(&self, index: u32) -> Option<Version> {
        self.newer.get(index).or_else(|| self.stored.get(index))
    }

    pub(super) fn committed_version(&self, index: u32) -> Option<Version> {
        self.known.map.get(index)
    }

    /// Whether a whole chunk of the commit under way replaces a committed one, or may do so: in a stale state any chunk
    /// may be one that another mount has written and fsynced.
    pub(super) fn replaces_committed(&self) -> bool {
        self.stored.iter().any(|extent| {
            let range = extent.range();
            self.stale || self.known.map.overlaps(range.clone()) || self.first_unknown(range).is_some()
        })
    }

    /// The content of a chunk; `part` is the range of file bytes that is needed of it.
    pub(super) fn content(&self, index: u32, part: Range<u64>) -> ChunkContent {
        if self.dirty.covers(part.clone()) || self.sealed().covers(part) {
            return ChunkContent::Zeros;
        }
        if let Some(data) = self.uploads.values().find_map(|upload| upload.get(index)) {
            return ChunkContent::InMemory(data.clone());
        }
        match self.base(index).version() {
            Some(version) => ChunkContent::Stored(ChunkId { version, index }),
            None => ChunkContent::Zeros,
        }
    }

    /// Whether any of these bytes are in `sealed` or `dirty`.
    pub(super) fn touches(&self, range: Range<u64>) -> bool {
        self.dirty.touches(range.clone()) || self.sealed().touches(range)
    }

    /// Puts `sealed` and `dirty` over `bytes`, which begin at `offset`.
    pub(super) fn overlay(&self, offset: u64, bytes: &mut [u8]) {
        self.sealed().overlay(offset, bytes);
        self.dirty.overlay(offset, bytes);
    }

    pub(super) fn base(&self, index: u32) -> Base {
        if let Some(version) = self.own_version(index) {
            return Base::Own(version);
        }
        if self.bytes_of(index).start >= self.attr.size {
            return Base::Hole;
        }
        self.known.map.get(index).map_or(Base::Hole, Base::Committed)
    }

    /// Notes that a program reads `range`. Returns the range to fetch ahead, at most `max_window` bytes and within the
    /// file.
    pub(super) fn note_read(&mut self, range: Range<u64>, max_window: u64) -> Range<u64> {
        let ahead = self.streams.note(range, max_window);
        ahead.start..ahead.end.min(self.attr.size)
    }

    /// Whether the committed state must be fetched again before the next read.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Notes a feed event about contents changed by another mount.
    pub(super) fn invalidate(&mut self) {
        self.stale = true;
        self.invalidations += 1;
    }

    pub(super) fn invalidations(&self) -> u64 {
        self.invalidations
    }

    /// Takes over a committed state that the namespace returned. Returns false, and ignores it, if it is older than the
    /// known one.
    pub(super) fn refresh(&mut self, attr: &Attr, extents: &[Extent], more: bool) -> bool {
        if attr.change < self.attr.change {
            return false;
        }
        let attr = clamp(attr);
        if attr.chunk_bytes != self.attr.chunk_bytes && self.has_stored() {
            // The file was restarted with another chunk size while this mount wrote it, so the stored chunks do not
            // fit.
            self.merge_newer();
            self.discard_stored();
            self.errors.add(FsError::Stale { ino: attr.ino });
        }
        self.known.replace(extents, more);
        self.attr = attr;
        true
    }

    /// Like [`Self::refresh`], with the answer to a query that was sent when `invalidations` had this value. The state
    /// is no longer stale, unless another feed event arrived in between.
    pub(super) fn refresh_from_query(
        &mut self,
        attr: &Attr,
        extents: &[Extent],
        more: bool,
        invalidations: u64,
    ) -> bool {
        let is_newest = self.refresh(attr, extents, more);
        self.stale &= !is_newest || self.invalidations != invalidations;
        is_newest
    }

    /// Notes that a change of this mount to the size got no answer. The feed does not report a session's own changes.
    pub(super) fn note_unanswered_truncation(&mut self) {
        self.stale = true;
    }

    /// Adds a page of the committed extents; see [`KnownExtents::add_page`].
    pub(super) fn add_page(&mut self, from: u32, page: &[Extent], more: bool) -> bool {
        self.known.add_page(from, page, more)
    }

    /// Takes over the attributes after an operation of this mount, by which the size should be `size` now. Another size
    /// means that another mount's operation was applied in between, whose extents are not known. Until the feed reports
    /// that operation, the size is the only sign of it.
    pub(super) fn adopt(&mut self, attr: &Attr, size: u64) {
        if attr.change >= self.attr.change {
            self.stale |= attr.size != size;
            self.attr = clamp(attr);
        }
    }

    /// Takes over `attr` after a truncation of this mount to `size`, for which `tail` was stored as the last chunk.
    pub(super) fn adopt_truncation(&mut self, size: u64, tail: Option<Extent>, attr: &Attr) {
        if attr.change < self.attr.change {
            self.stale = true;
            return;
        }
        let beyond = size.div_ceil(self.chunk_bytes()) + 1;
        self.known.map.remove(beyond..u64::from(u32::MAX) + 1);
        if let Some(tail) = tail {
            self.known.set(tail);
        }
        self.adopt(attr, size);
    }

    /// The failure that keeps uploads from starting.
    pub(super) fn failure(&self) -> Option<&FsError> {
        self.failure.as_ref()
    }
}

/// The ctime of a file whose newest write has this mtime, with these attributes set since: the later of both. An mtime
/// that a program has set says nothing about it.
fn change_time(mtime: Option<Time>, set: &SetAttr) -> Option<Time> {
    mtime.filter(|_| set.mtime.is_none()).max(set.ctime)
}

/// Clamps values from the namespace to the limits that all arithmetic here relies on.
fn clamp(attr: &Attr) -> Attr {
    let chunk_bytes = attr.chunk_bytes.clamp(1, MAX_CHUNK_BYTES);
    Attr { chunk_bytes, size: attr.size.min(max_bytes(chunk_bytes)), ..attr.clone() }
}

/// The size of a file that uses every chunk index.
fn max_bytes(chunk_bytes: u32) -> u64 {
    u64::from(u32::MAX) * u64::from(chunk_bytes)
}
