//! What one open inode looks like to this mount's programs, as layers; the upper one wins:
//!
//! ```text
//! dirty     written, nothing else
//! sealed    what a commit that is under way found dirty when it began
//! uploads   whole chunks on their way to their holders; no chunk is in two of them
//! stored    whole chunks that their holders have, not yet committed
//! known     what the namespace has told: extents and attributes
//! ```
//!
//! A chunk leaves `dirty` only while neither `sealed` nor a upload has it, so the layers always stand in the order in
//! which their bytes were written. Pure: no network, no clock, no lock.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, MAX_CHUNK_BYTES, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Extent, SetAttr, Time},
};

use super::{
    dirty::DirtyBytes,
    error_seq::ErrorSeq,
    extents::{ExtentMap, KnownExtents, to_extents},
    read_ahead::Streams,
    unanswered::UnansweredCommit,
};

pub struct FileState {
    pub attr: Attr,
    pub known: KnownExtents,
    /// The feed said that contents changed elsewhere.
    pub stale: bool,
    /// How often the feed said so.
    pub invalidations: u64,
    pub dirty: DirtyBytes,
    pub sealed: DirtyBytes,
    pub committing: bool,
    /// Whole chunks of `sealed` may leave; afterwards all that is left in it is laid over its bases, and must stay.
    pub uploading: bool,
    /// What commits under way must wait for: uploads below this number, and those taken from `sealed`.
    pub barrier: u64,
    /// Asked of uploads out of `sealed`.
    pub durability: Durability,
    pub uploads: BTreeMap<u64, Upload>,
    pub next_upload: u64,
    pub stored: ExtentMap,
    /// What of `stored` upload_ended since the commit under way began and is not its own; meaningless without one.
    pub newer: ExtentMap,
    /// A commit of which nobody knows whether it was carried out.
    pub unanswered: Option<UnansweredCommit>,
    /// The chunks that the commit under way stores are of this size.
    pub sealed_chunk_bytes: u32,
    /// The commit under way has data, not attributes alone.
    pub carries_data: bool,
    /// When the newest byte of `dirty`, or of what left it for a upload, was written.
    pub mtime: Option<Time>,
    pub sealed_mtime: Option<Time>,
    /// Attributes set since, which go with the next commit; and those that go with the one under way. No truncation. An
    /// mtime is in `mtime` as well, and here only while no later write has replaced it.
    pub set: SetAttr,
    pub sealed_set: SetAttr,
    /// Why the last upload failed; no upload leaves by itself until a commit tries again.
    pub failure: Option<FsError>,
    /// Written data that was given up.
    pub errors: ErrorSeq,
    pub failed_commits: u32,
    /// Look for whole runs again when `dirty` holds this much.
    pub scan_at: u64,
    pub streams: Streams,
}

pub struct Upload {
    /// Ascending.
    pub chunks: Vec<(u32, Bytes)>,
    pub from_sealed: bool,
    pub chunk_bytes: u32,
}

impl Upload {
    fn get(&self, index: u32) -> Option<&Bytes> {
        let at = self.chunks.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(&self.chunks[at].1)
    }

    fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * u64::from(self.chunk_bytes)
    }
}

/// Where the bytes of one chunk below `sealed` and `dirty` are.
pub enum ChunkContent {
    Zeros,
    InMemory(Bytes),
    Stored(ChunkId),
}

/// What a partly written chunk is laid over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Hole,
    /// Stored by this mount, not yet committed.
    Own(Version),
    Committed(Version),
}

impl Base {
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Hole => None,
            Self::Own(version) | Self::Committed(version) => Some(version),
        }
    }
}

impl FileState {
    pub fn new(attr: Attr, extents: &[Extent], more: bool) -> Self {
        let mut known = KnownExtents::default();
        known.replace(extents, more);
        Self {
            attr: within_limits(&attr),
            known,
            stale: false,
            invalidations: 0,
            dirty: DirtyBytes::default(),
            sealed: DirtyBytes::default(),
            committing: false,
            uploading: false,
            barrier: 0,
            durability: Durability::Memory,
            uploads: BTreeMap::new(),
            next_upload: 0,
            stored: ExtentMap::default(),
            newer: ExtentMap::default(),
            unanswered: None,
            sealed_chunk_bytes: 0,
            carries_data: false,
            mtime: None,
            sealed_mtime: None,
            set: SetAttr::default(),
            sealed_set: SetAttr::default(),
            failure: None,
            errors: ErrorSeq::default(),
            failed_commits: 0,
            scan_at: 0,
            streams: Streams::default(),
        }
    }

    pub fn chunk_bytes(&self) -> u64 {
        u64::from(self.attr.chunk_bytes)
    }

    /// No file is longer.
    pub fn max_bytes(&self) -> u64 {
        max_bytes(self.attr.chunk_bytes)
    }

    pub fn size(&self) -> u64 {
        self.attr.size.max(self.uncommitted_end())
    }

    /// Where what is written and not committed ends.
    pub fn uncommitted_end(&self) -> u64 {
        let flown = self.uploads.values().filter_map(|upload| upload.chunks.last()).map(|(index, _)| *index).max();
        let whole = u64::from(flown.unwrap_or(0).max(self.stored.last_index())) * self.chunk_bytes();
        whole.max(self.dirty.end()).max(self.sealed.end())
    }

    pub fn is_dirty(&self) -> bool {
        self.has_data() || !self.set.is_empty() || !self.sealed_set.is_empty()
    }

    fn has_data(&self) -> bool {
        !(self.dirty.is_empty() && self.sealed.is_empty() && self.uploads.is_empty() && self.stored.is_empty())
    }

    pub fn write(&mut self, offset: u64, data: &[u8], now: Time) {
        self.dirty.write(offset, data, self.attr.chunk_bytes);
        (self.mtime, self.set.mtime) = (Some(now), None);
    }

    /// Keeps attributes for the commit that has to come anyway: a program that writes a file and then sets its times,
    /// owner and mode costs one operation. False where they must be sent by themselves.
    pub fn defer(&mut self, set: &SetAttr) -> bool {
        if self.committing || !self.is_dirty() || set.truncate.is_some() {
            return false;
        }
        self.mtime = set.mtime.or(self.mtime);
        self.set = set.clone().over(std::mem::take(&mut self.set));
        true
    }

    /// Attributes that did not get through go with the next commit, below those set since.
    pub fn put_back_set(&mut self, mut older: SetAttr) {
        if self.mtime.is_some() && self.mtime != older.mtime {
            // Something was written meanwhile.
            older.mtime = None;
        }
        self.set = std::mem::take(&mut self.set).over(older);
    }

    /// What is set and not committed, over what the namespace says.
    pub fn show_uncommitted(&self, attr: &mut Attr) {
        self.sealed_set.apply_to(attr);
        self.set.apply_to(attr);
        attr.mtime = self.mtime.or(self.sealed_mtime).unwrap_or(attr.mtime);
    }

    /// Memory under the ceiling.
    pub fn held_bytes(&self) -> u64 {
        let flown: u64 = self.uploads.values().map(Upload::bytes).sum();
        self.dirty.held_bytes() + self.sealed.held_bytes() + flown
    }

    /// The chunks that the bytes `range` touch; chunks count from 1.
    pub fn chunks_of(&self, range: Range<u64>) -> Range<u64> {
        range.start / self.chunk_bytes() + 1..range.end.div_ceil(self.chunk_bytes()).saturating_add(1)
    }

    pub fn bytes_of(&self, index: u32) -> Range<u64> {
        let start = u64::from(index - 1) * self.chunk_bytes();
        start..start + self.chunk_bytes()
    }

    /// The first of these chunks whose committed version is not known. Beyond the committed end all are holes.
    pub fn first_unknown(&self, chunks: Range<u64>) -> Option<u32> {
        let committed = self.attr.size.div_ceil(self.chunk_bytes()) + 1;
        self.known.first_unknown(chunks.start..chunks.end.min(committed))
    }

    /// Whether a whole chunk that is stored and not committed takes the place of a committed one, as far as can be told.
    pub fn replaces_committed(&self) -> bool {
        self.stored.iter().any(|extent| {
            let range = extent.range();
            self.known.map.overlaps(range.clone()) || self.first_unknown(range).is_some()
        })
    }

    /// `part`: the bytes that are wanted of this chunk.
    pub fn content(&self, index: u32, part: Range<u64>) -> ChunkContent {
        if self.dirty.covers(part.clone()) || self.sealed.covers(part) {
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

    pub fn base(&self, index: u32) -> Base {
        if let Some(version) = self.stored.get(index) {
            return Base::Own(version);
        }
        if self.bytes_of(index).start >= self.attr.size {
            return Base::Hole;
        }
        self.known.map.get(index).map_or(Base::Hole, Base::Committed)
    }

    /// Are bytes of the base needed to make a chunk of `sealed` whole? The size is no help: a page of extents may be
    /// newer than the attributes, and then the base holds bytes beyond the end as it is known.
    pub fn needs_base(&self, index: u32) -> bool {
        self.base(index) != Base::Hole && !self.sealed.covers(self.bytes_of(index))
    }

    /// The chunk of `sealed` over what was there.
    pub fn merge_over(&self, index: u32, base: &[u8]) -> Bytes {
        let range = self.bytes_of(index);
        let end = self.sealed.end_within(range.clone()).unwrap_or(range.start);
        let mut whole = Vec::with_capacity(base.len().max((end - range.start) as usize));
        whole.extend_from_slice(&base[..base.len().min(self.chunk_bytes() as usize)]);
        whole.resize(whole.len().max((end - range.start) as usize), 0);
        self.sealed.overlay(range.start, &mut whole);
        whole.into()
    }

    /// Begins a commit: what is dirty now is what it must store.
    pub fn begin_commit(&mut self, durability: Durability) {
        (self.carries_data, self.newer) = (self.has_data(), ExtentMap::default());
        self.sealed_chunk_bytes = self.attr.chunk_bytes;
        let older = std::mem::take(&mut self.sealed);
        self.sealed = std::mem::take(&mut self.dirty);
        self.sealed.merge_under(older, self.attr.chunk_bytes);
        self.sealed_mtime = self.mtime.take().or(self.sealed_mtime);
        self.sealed_set = std::mem::take(&mut self.set).over(std::mem::take(&mut self.sealed_set));
        self.barrier = self.next_upload;
        (self.committing, self.uploading, self.durability) = (true, true, durability);
        (self.failure, self.scan_at) = (None, 0);
    }

    /// Ends a commit; what it did not manage is dirty again.
    pub fn end_commit(&mut self) {
        let older = std::mem::take(&mut self.sealed);
        self.dirty.merge_under(older, self.attr.chunk_bytes);
        let set = std::mem::take(&mut self.sealed_set);
        self.put_back_set(set);
        self.mtime = self.mtime.or(self.sealed_mtime.take());
        (self.committing, self.uploading, self.scan_at) = (false, false, 0);
    }

    /// Gives up what the commit under way was to store, and nothing that was written since it began: that may be
    /// another program's, which would not be told. Attributes may still get through without the data that they were to
    /// go with; they are given up when they fail alone.
    pub fn give_up(&mut self) {
        if !self.carries_data {
            self.sealed_set = SetAttr::default();
        }
        self.sealed = DirtyBytes::default();
        self.keep_newer();
        (self.sealed_mtime, self.failure, self.failed_commits) = (self.sealed_set.mtime, None, 0);
    }

    /// Leaves of `stored` only what of it is `newer`; part of that may be current already, and then is neither.
    fn keep_newer(&mut self) {
        let (mut gone, older) = (self.newer.clone(), std::mem::take(&mut self.stored));
        older.iter().for_each(|extent| gone.remove_if_same(extent));
        self.stored = std::mem::take(&mut self.newer);
        gone.iter().for_each(|extent| self.stored.remove_if_same(extent));
    }

    pub fn awaits_uploads(&self) -> bool {
        self.uploads.iter().any(|(number, upload)| self.is_awaited(*number, upload))
    }

    fn is_awaited(&self, number: u64, upload: &Upload) -> bool {
        number < self.barrier || upload.from_sealed
    }

    /// Takes the next run of whole chunks out of `sealed`, or else at least `least` bytes out of `dirty`.
    pub fn take_upload(&mut self, least: u64, most: u64) -> Option<u64> {
        if self.failure.is_some() {
            return None;
        }
        let size = self.attr.chunk_bytes;
        let uploads = &self.uploads;
        let flying = |index: u32| uploads.values().any(|upload| upload.get(index).is_some());
        let mut chunks = Vec::new();
        let mut from_sealed = false;
        if self.uploading && !self.sealed.is_empty() {
            chunks = self.sealed.take_whole(size, 1, most, flying);
            from_sealed = !chunks.is_empty();
        }
        if chunks.is_empty() && self.dirty.held_bytes() >= least.max(self.scan_at) {
            let sealed = &self.sealed;
            let in_sealed = |index: u32| {
                let start = u64::from(index - 1) * u64::from(size);
                sealed.touches(start..start + u64::from(size))
            };
            chunks = self.dirty.take_whole(size, least, most, |index| flying(index) || in_sealed(index));
            self.scan_at = if chunks.is_empty() { self.dirty.held_bytes() + most / 4 } else { 0 };
        }
        if chunks.is_empty() {
            return None;
        }
        let number = self.next_upload;
        self.next_upload += 1;
        self.uploads.insert(number, Upload { chunks, from_sealed, chunk_bytes: size });
        Some(number)
    }

    /// The upload's chunks are stored as `version`.
    pub fn complete_upload(&mut self, number: u64, version: Version) {
        let Some(upload) = self.uploads.remove(&number) else { return };
        if upload.chunk_bytes != self.attr.chunk_bytes {
            return self.put_back(number, upload);
        }
        let newer = self.committing && !self.is_awaited(number, &upload);
        for extent in to_extents(upload.chunks.iter().map(|(index, _)| (*index, version))).iter() {
            self.stored.insert(extent);
            if newer {
                self.newer.insert(extent);
            }
        }
    }

    pub fn fail_upload(&mut self, number: u64, error: FsError) {
        if let Some(upload) = self.uploads.remove(&number) {
            self.put_back(number, upload);
        }
        self.failure = Some(error);
    }

    /// The bytes of a upload that a commit under way waits for go back below `sealed`, all others below `dirty`.
    fn put_back(&mut self, number: u64, upload: Upload) {
        let size = upload.chunk_bytes;
        let awaited = self.committing && self.is_awaited(number, &upload);
        let layer = if awaited { &mut self.sealed } else { &mut self.dirty };
        for (index, data) in upload.chunks {
            layer.put_under(u64::from(index - 1) * u64::from(size), &data, size);
        }
    }

    /// The newest committed state, from an answer of the namespace. Older than what is known: ignored, and false.
    pub fn refresh(&mut self, attr: &Attr, extents: &[Extent], more: bool) -> bool {
        if attr.change < self.attr.change {
            return false;
        }
        let attr = within_limits(attr);
        if attr.chunk_bytes != self.attr.chunk_bytes && !self.stored.is_empty() {
            // The file started anew with other chunks while this mount was writing it: what was stored fits no more.
            self.stored = ExtentMap::default();
            self.errors.add(FsError::Stale { ino: attr.ino });
        }
        self.known.replace(extents, more);
        self.attr = attr;
        true
    }

    /// Attributes after an operation of our own, by which the size should be `size` now. Another size means that
    /// somebody else's came between, whose extents are not known; until the feed tells, nothing else shows it.
    pub fn adopt(&mut self, attr: &Attr, size: u64) {
        if attr.change >= self.attr.change {
            self.stale |= attr.size != size;
            self.attr = within_limits(attr);
        }
    }
}

/// Within the limits that all arithmetic here relies on, whatever the namespace answered.
fn within_limits(attr: &Attr) -> Attr {
    let chunk_bytes = attr.chunk_bytes.clamp(1, MAX_CHUNK_BYTES);
    Attr { chunk_bytes, size: attr.size.min(max_bytes(chunk_bytes)), ..attr.clone() }
}

/// Of a file with as many chunks as there are indexes.
fn max_bytes(chunk_bytes: u32) -> u64 {
    u64::from(u32::MAX) * u64::from(chunk_bytes)
}
