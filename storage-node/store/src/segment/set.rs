//! All segments of a store: their numbers, the space they take, and their open files.
//!
//! Numbers only grow, so a later segment has a greater number. A sealed segment's file is opened when it is read, and
//! closed again when too many are open, so the process's limit on open files does not bound the size of a store.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use chordfs_files::sync_folder;
use chordfs_log::warn_limited;
use parking_lot::{Mutex, RwLock};

use super::Segment;
use crate::{error::StoreError, index::RecordLocation};

pub(crate) struct SegmentSet {
    pub folder: PathBuf,
    table: RwLock<BTreeMap<u32, Arc<Segment>>>,
    next_number: AtomicU32,
    /// Sealed segments in the order in which they were opened.
    opened: Mutex<VecDeque<Arc<Segment>>>,
    /// A segment that would grow beyond this is sealed and the next begun.
    pub segment_bytes: u64,
    max_open_files: usize,
    /// Bytes of all segments, and bytes reserved by puts under way.
    used_bytes: AtomicU64,
    /// Held while a segment is removed.
    removing: Mutex<()>,
    /// How often segments were removed or lists of dead records created, and how many of these changes are on the disk.
    name_changes: AtomicU64,
    synced_name_changes: AtomicU64,
}

impl SegmentSet {
    pub(crate) fn new(folder: PathBuf, segment_bytes: u64, max_open_files: usize) -> Self {
        Self {
            folder,
            table: RwLock::default(),
            next_number: AtomicU32::new(1),
            opened: Mutex::default(),
            segment_bytes,
            max_open_files,
            used_bytes: AtomicU64::new(0),
            removing: Mutex::default(),
            name_changes: AtomicU64::new(0),
            synced_name_changes: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.table.read().get(&number).cloned()
    }

    /// Lowest number first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.table.read().values().cloned().collect()
    }

    /// The segment with the lowest number from `number` on.
    pub(crate) fn first_from(&self, number: u32) -> Option<Arc<Segment>> {
        self.table.read().range(number..).next().map(|(_, segment)| segment.clone())
    }

    /// Takes in a segment found on disk.
    pub(crate) fn adopt(&self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        self.next_number.fetch_max(segment.number + 1, Relaxed);
        self.used_bytes.fetch_add(segment.written_bytes(), Relaxed);
        self.table.write().insert(segment.number, segment.clone());
        segment
    }

    /// Creates the next segment. Its name is on the disk when this returns.
    pub(crate) fn create(&self) -> Result<Arc<Segment>, StoreError> {
        let number = self.next_number.fetch_add(1, Relaxed);
        let segment = Arc::new(Segment::create(&self.folder, number)?);
        self.sync_folder()?;
        self.table.write().insert(number, segment.clone());
        Ok(segment)
    }

    pub(crate) fn sync_folder(&self) -> Result<(), StoreError> {
        let changes = self.name_changes.load(Acquire);
        sync_folder(&self.folder).map_err(|source| StoreError::io("sync", &self.folder, source))?;
        self.synced_name_changes.fetch_max(changes, AcqRel);
        Ok(())
    }

    /// Records that the folder has to be synced: a file was created or removed.
    pub(crate) fn note_name_change(&self) {
        self.name_changes.fetch_add(1, AcqRel);
    }

    /// Waits until a segment that is neither in the set nor removed is one of the two.
    pub(crate) fn wait_for_removals(&self) {
        drop(self.removing.lock());
    }

    /// Syncs the folder if a power cut might bring a removed segment back, or lose a list of dead records.
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        self.wait_for_removals();
        let is_synced = self.synced_name_changes.load(Acquire) >= self.name_changes.load(Acquire);
        if is_synced { Ok(()) } else { self.sync_folder() }
    }

    /// Unlinks a sealed segment without live records, unless it has unreadable ones that may become readable again. If
    /// that fails, compaction tries again.
    pub(crate) fn drop_if_dead(&self, segment: &Arc<Segment>) {
        let _removing = self.removing.lock();
        let needed = !segment.is_sealed() || segment.live_chunks() > 0 || segment.has_unreadable();
        if needed || self.table.write().remove(&segment.number).is_none() {
            return;
        }
        self.opened.lock().retain(|open| open.number != segment.number);
        self.used_bytes.fetch_sub(segment.written_bytes(), Relaxed);
        let unlinked = segment.unlink();
        self.note_name_change();
        if let Err(error) = unlinked {
            warn_limited!(path = %segment.path().display(), %error, "dead segment not removed; compaction tries again");
            self.used_bytes.fetch_add(segment.written_bytes(), Relaxed);
            self.table.write().insert(segment.number, segment.clone());
        }
    }

    /// The open file of `segment`.
    pub(crate) fn file(&self, segment: &Arc<Segment>) -> io::Result<Arc<File>> {
        let (file, was_closed) = segment.file()?;
        if was_closed {
            let mut opened = self.opened.lock();
            opened.push_back(segment.clone());
            if opened.len() > self.max_open_files
                && let Some(oldest) = opened.pop_front()
            {
                oldest.close();
            }
        }
        Ok(file)
    }

    /// Returns when the records at `locations` are on the disk. A record that has moved since was synced by the move.
    pub(crate) fn wait_durable(&self, mut locations: Vec<RecordLocation>) -> Result<(), StoreError> {
        locations.sort_unstable();
        for group in locations.chunk_by(|a, b| a.segment == b.segment) {
            let end = group.iter().map(RecordLocation::end).max().unwrap_or(0);
            if let Some(segment) = self.get(group[0].segment) {
                segment.wait_durable(end)?;
            }
        }
        Ok(())
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    /// Counts `bytes` as used unless that would exceed `limit_bytes`.
    pub(crate) fn take_space(&self, bytes: u64, limit_bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit_bytes);
        self.used_bytes.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    /// Undoes a [`SegmentSet::take_space`] whose write failed.
    pub(crate) fn return_space(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Relaxed);
    }
}
