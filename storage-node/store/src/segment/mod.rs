//! One segment: its files, how much of it is live, and how much of it is synced.
//!
//! `NNNNNNNN.seg` holds records one after the other and only ever grows; `NNNNNNNN.idx` (see `hint`) and
//! `NNNNNNNN.dead` (see `dead_list`) lie beside it. `scan` finds the records if there is no hint, and `set` has all
//! segments. The segment writers choose the segment to write to, and the index knows the location of each record.
//! Durable writers share one fdatasync: a caller that arrives while one is running waits for the next, which covers all
//! callers that arrived meanwhile.

pub(crate) mod dead_list;
pub(crate) mod hint;
pub(crate) mod scan;
pub(crate) mod set;

use chordfs_log::{error_limited, warn_limited};
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::dead_list::DeadList;
use crate::{
    error::StoreError,
    index::{IndexEntry, RecordLocation},
};

pub(crate) struct Segment {
    pub number: u32,
    files: SegmentFiles,
    handle: Mutex<Option<Arc<File>>>,
    written_bytes: AtomicU64,
    live_bytes: AtomicU64,
    live_chunks: AtomicU64,
    /// Records that could not be read. They do not count as live, but may again after the next open.
    unreadable: AtomicU64,
    sealed: AtomicBool,
    progress: Mutex<SyncState>,
    progressed: Condvar,
    dead: Mutex<DeadList>,
    /// The entries that were added, in order, until the hint is written.
    noted: Mutex<Option<Vec<IndexEntry>>>,
    opened: Instant,
    /// When a record of the segment last died, in milliseconds since `opened`.
    died_ms: AtomicU64,
}

/// The figures by which compaction decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentUsage {
    pub number: u32,
    pub sealed: bool,
    /// Whether a sync has failed.
    pub failed: bool,
    /// Whether it has records that could not be read, for whose sake it is kept.
    pub unreadable: bool,
    pub written_bytes: u64,
    pub live_bytes: u64,
    /// The time since a record of it last died, or since it was opened.
    pub quiet_for: Duration,
}

/// How much of the segment is synced.
struct SyncState {
    synced_bytes: u64,
    running: bool,
    /// The kernel may drop what it failed to write, so a failed sync is never tried again.
    failed: Option<io::ErrorKind>,
}

/// The paths of segment `number` in `folder`.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFiles {
    pub records: PathBuf,
    pub hint: PathBuf,
    pub dead: PathBuf,
}

impl SegmentFiles {
    pub(crate) fn new(folder: &Path, number: u32) -> Self {
        let path = |ending| folder.join(format!("{number:08}.{ending}"));
        Self { records: path("seg"), hint: path("idx"), dead: path("dead") }
    }

    /// Parses the name of a segment's file into the number and the extension.
    pub(crate) fn parse(file_name: &str) -> Option<(u32, &str)> {
        let (digits, ending) = file_name.split_once('.')?;
        let number = digits.parse().ok().filter(|number| format!("{number:08}") == digits)?;
        ["seg", "idx", "dead"].contains(&ending).then_some((number, ending))
    }
}

impl Segment {
    /// Makes a new, empty segment. The caller syncs the folder before it acknowledges anything written here.
    pub(crate) fn create(folder: &Path, number: u32) -> Result<Self, StoreError> {
        let files = SegmentFiles::new(folder, number);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&files.records);
        let file = file.map_err(|source| StoreError::io("make segment", &files.records, source))?;
        let dead = DeadList::new(files.dead.clone(), number);
        let this = Self::new(number, files, 0, dead);
        *this.handle.lock() = Some(Arc::new(file));
        *this.noted.lock() = Some(Vec::new());
        Ok(this)
    }

    /// A segment found at the open: sealed and synced.
    pub(crate) fn found(number: u32, files: SegmentFiles, bytes: u64, dead: DeadList) -> Self {
        let this = Self::new(number, files, bytes, dead);
        this.set_sealed();
        this
    }

    fn new(number: u32, files: SegmentFiles, bytes: u64, dead: DeadList) -> Self {
        Self {
            number,
            files,
            handle: Mutex::new(None),
            written_bytes: AtomicU64::new(bytes),
            live_bytes: AtomicU64::new(0),
            live_chunks: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            progress: Mutex::new(SyncState { synced_bytes: bytes, running: false, failed: None }),
            progressed: Condvar::new(),
            dead: Mutex::new(dead),
            noted: Mutex::new(None),
            opened: Instant::now(),
            died_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.files.records
    }

    pub(crate) fn hint_path(&self) -> &Path {
        &self.files.hint
    }

    /// Returns the open file, and whether this call has opened it.
    pub(crate) fn file(&self) -> io::Result<(Arc<File>, bool)> {
        let mut handle = self.handle.lock();
        if let Some(file) = &*handle {
            return Ok((file.clone(), false));
        }
        let file = Arc::new(File::open(&self.files.records)?);
        *handle = Some(file.clone());
        Ok((file, true))
    }

    /// Closes the file of a sealed segment; the next use opens it again.
    pub(crate) fn close(&self) {
        if self.is_sealed() {
            *self.handle.lock() = None;
        }
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Acquire)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Acquire)
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.written_bytes().saturating_sub(self.live_bytes())
    }

    pub(crate) fn live_chunks(&self) -> u64 {
        self.live_chunks.load(Acquire)
    }

    pub(crate) fn usage(&self) -> SegmentUsage {
        let died = Duration::from_millis(self.died_ms.load(Relaxed));
        SegmentUsage {
            number: self.number,
            sealed: self.is_sealed(),
            failed: self.has_failed(),
            unreadable: self.has_unreadable(),
            written_bytes: self.written_bytes(),
            live_bytes: self.live_bytes(),
            quiet_for: self.opened.elapsed().saturating_sub(died),
        }
    }

    /// Records that these entries were added, after all those noted before.
    pub(crate) fn note(&self, entries: &[IndexEntry]) {
        if let Some(noted) = &mut *self.noted.lock() {
            noted.extend_from_slice(entries);
        }
    }

    /// Returns at most `limit` of the entries added at `offset` or after it; `None` once the hint is written.
    pub(crate) fn noted_from(&self, offset: u32, limit: usize) -> Option<Vec<IndexEntry>> {
        let noted = self.noted.lock();
        let noted = noted.as_ref()?;
        let first = noted.partition_point(|entry| entry.location.offset < offset);
        Some(noted[first..].iter().take(limit).copied().collect())
    }

    /// Writes the hint of a segment that ends at `end` and no longer grows. If that fails, the noted entries are kept.
    pub(crate) fn write_hint(&self, end: u64) -> Result<(), StoreError> {
        let mut noted = self.noted.lock();
        if let Some(entries) = &*noted {
            hint::write(&self.files.hint, self.number, end, entries)
                .map_err(|source| StoreError::io("write hint", &self.files.hint, source))?;
        }
        *noted = None;
        Ok(())
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Acquire)
    }

    /// Seals the segment: no record is added from now on, so it may be removed once it is wholly dead.
    pub(crate) fn set_sealed(&self) {
        self.sealed.store(true, Release);
    }

    /// Records that the segment writer has written up to `end`.
    pub(crate) fn set_written(&self, end: u64) {
        self.written_bytes.store(end, Release);
    }

    pub(crate) fn count_live(&self, location: &RecordLocation) {
        self.live_bytes.fetch_add(u64::from(location.bytes), AcqRel);
        self.live_chunks.fetch_add(1, AcqRel);
    }

    pub(crate) fn discount_live(&self, location: &RecordLocation) {
        self.live_bytes.fetch_sub(u64::from(location.bytes), AcqRel);
        self.live_chunks.fetch_sub(1, AcqRel);
    }

    /// Discounts a record that could not be read. It is not listed as dead, so the segment is kept as long as this
    /// process runs.
    pub(crate) fn discount_unreadable(&self, location: &RecordLocation) {
        // In this order, so that a thread that finds no live record sees this count.
        self.unreadable.fetch_add(1, AcqRel);
        self.discount_live(location);
    }

    pub(crate) fn has_unreadable(&self) -> bool {
        self.unreadable.load(Acquire) > 0
    }

    /// Lists records as dead. If the list cannot be written now, the entries are written with the next call or sync.
    pub(crate) fn mark_dead(&self, offsets: &[u32]) {
        if !offsets.is_empty() {
            self.died_ms.store(self.opened.elapsed().as_millis() as u64, Relaxed);
        }
        let mut dead = self.dead.lock();
        if let Err(error) = dead.add(offsets) {
            warn_limited!(path = %dead.path().display(), %error, "dead records will be listed later");
        }
    }

    /// Returns when everything up to `end` is on the disk.
    pub(crate) fn wait_durable(&self, end: u64) -> Result<(), StoreError> {
        let mut progress = self.progress.lock();
        while progress.synced_bytes < end {
            if let Some(kind) = progress.failed {
                return Err(StoreError::io("sync segment", self.path(), kind.into()));
            }
            if progress.running {
                self.progressed.wait(&mut progress);
            } else {
                self.sync_once(&mut progress);
            }
        }
        Ok(())
    }

    fn sync_once(&self, progress: &mut MutexGuard<'_, SyncState>) {
        let end = self.written_bytes();
        progress.running = true;
        let result = MutexGuard::unlocked(progress, || self.file()?.0.sync_data());
        progress.running = false;
        match result {
            Ok(()) => progress.synced_bytes = end,
            Err(error) => {
                error_limited!(path = %self.path().display(), %error, "the segment cannot be synced; its live records will be moved to another segment");
                progress.failed = Some(error.kind());
            }
        }
        self.progressed.notify_all();
    }

    /// Whether a sync has failed, so that no more records should be written here.
    pub(crate) fn has_failed(&self) -> bool {
        self.progress.lock().failed.is_some()
    }

    /// Behaves as if a sync had failed.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.progress.lock().failed = Some(io::ErrorKind::Other);
    }

    /// Syncs all records, unless all of them are dead, and the list of dead records if there is space for it. Returns
    /// true if the folder has to be synced as well.
    pub(crate) fn sync(&self) -> Result<bool, StoreError> {
        let synced = self.wait_durable(self.written_bytes());
        if self.live_chunks() > 0 {
            synced?;
        }
        let mut dead = self.dead.lock();
        // A dead record that becomes live again only costs space; that must not make an fsync fail.
        let new = dead.sync().inspect_err(|error| {
            warn_limited!(path = %dead.path().display(), %error, "dead records will be listed later");
        });
        Ok(new.unwrap_or(false))
    }

    /// Removes the files. The records go first, on the disk too: if a power cut brought them back without their list of
    /// dead records, deleted chunks would return.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        remove_if_there(&self.files.records)?;
        if self.files.dead.exists() {
            chordfs_files::sync_name(&self.files.records)?;
        }
        for path in [&self.files.hint, &self.files.dead] {
            remove_if_there(path)?;
        }
        Ok(())
    }
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
