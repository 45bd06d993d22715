//! [`FileData`]: the data of one inode, shared by all its handles. This file has its creation and end, updates from the
//! namespace, and writing. `upload`, `commit`, `merge`, `set_attr` and `read` add the other operations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Extent, Ino, SetAttr, Time},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::{
    Transfer, commit_later::CommitSlots, dirty::DirtyBytes, error_seq::ErrorCursor, progress::CommitProgress,
    state::FileState,
};

pub struct FileData {
    pub(super) ino: Ino,
    pub(super) transfer: Arc<Transfer>,
    pub(super) state: Mutex<FileState>,
    /// Serializes commits and changes of attributes.
    pub(super) commit_lock: tokio::sync::Mutex<()>,
    /// Counts the uploads that have ended.
    pub(super) upload_ended: watch::Sender<u64>,
    /// Error cursor of operations that belong to no handle.
    pub(super) own_cursor: ErrorCursor,
    /// The bytes that the ceiling counts for this file.
    held: AtomicU64,
    dirty_since: Mutex<Option<Instant>>,
    pub(super) slots: Mutex<CommitSlots>,
    pub(super) progress: CommitProgress,
}

impl FileData {
    pub(super) fn new(transfer: Arc<Transfer>, attr: Attr, extents: &[Extent], more: bool) -> Self {
        Self {
            ino: attr.ino,
            transfer,
            state: Mutex::new(FileState::new(attr, extents, more)),
            commit_lock: tokio::sync::Mutex::default(),
            upload_ended: watch::Sender::new(0),
            own_cursor: ErrorCursor::default(),
            held: AtomicU64::new(0),
            dirty_since: Mutex::default(),
            slots: Mutex::default(),
            progress: CommitProgress::default(),
        }
    }

    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Takes over a committed state that the namespace returned, below the uncommitted data. A state older than the
    /// known one is ignored.
    pub fn refresh(&self, attr: &Attr, extents: Vec<Extent>, more: bool) {
        self.state.lock().refresh(attr, &extents, more);
    }

    /// Handles a feed event about contents changed by another mount: the extents are re-fetched before the next read.
    pub fn invalidate(&self) {
        self.state.lock().invalidate();
    }

    /// Puts the uncommitted size, times, owner and mode over `attr`, as this mount's programs must see them.
    pub fn overlay(&self, attr: &mut Attr) {
        let state = self.state.lock();
        if state.attr().change > attr.change {
            (attr.size, attr.mtime) = (state.attr().size, state.attr().mtime);
        }
        attr.size = attr.size.max(state.uncommitted_end());
        state.overlay_attributes(attr);
    }

    /// Defers attributes to the next commit, if one is due; see [`FileState::defer`].
    pub fn defer(&self, set: &SetAttr) -> bool {
        let set = SetAttr { ctime: set.ctime.or_else(|| Some(Time::now())), ..set.clone() };
        self.state.lock().defer(&set)
    }

    /// The mode as this mount knows it, including what is set with the next commit.
    pub fn mode(&self) -> u16 {
        let state = self.state.lock();
        let mut attr = state.attr().clone();
        state.overlay_attributes(&mut attr);
        attr.mode
    }

    /// How many bytes of the file each chunk has.
    pub fn chunk_bytes(&self) -> u64 {
        self.state.lock().chunk_bytes()
    }

    /// Whether attributes wait for the next commit.
    pub fn has_deferred(&self) -> bool {
        self.state.lock().has_deferred()
    }

    /// The error cursor of a handle that is opened now.
    pub fn error_cursor(&self) -> ErrorCursor {
        self.state.lock().errors.new_cursor()
    }

    /// Whether written data was discarded and this handle has not received the error yet. Its next commit returns it.
    pub fn has_unreported_error(&self, cursor: &ErrorCursor) -> bool {
        self.state.lock().errors.has_unreported(cursor)
    }

    pub fn is_dirty(&self) -> bool {
        self.state.lock().is_dirty()
    }

    /// Writes without waiting. Returns `None` if the memory ceiling is reached; use [`Self::write`] then. An error
    /// means that no byte was written.
    pub fn try_write(self: &Arc<Self>, offset: u64, data: &[u8]) -> Option<Result<(), FsError>> {
        if data.is_empty() {
            return Some(Ok(()));
        }
        let cost = DirtyBytes::cost_of(data.len());
        if !self.transfer.ceiling.try_reserve(cost) {
            return None;
        }
        let mut state = self.state.lock();
        let refusal = check_write(&state, offset, data.len()).err();
        if refusal.is_none() {
            state.write(offset, data, Time::now());
            self.mark_dirty();
            self.start_uploads(&mut state, self.transfer.settings.flush_run_bytes);
        }
        self.account_memory(&state, cost);
        Some(refusal.map_or(Ok(()), Err))
    }

    /// Like [`Self::try_write`], but waits at the ceiling. Fails if no memory becomes free within the deadline.
    pub async fn write(self: &Arc<Self>, offset: u64, data: Vec<u8>) -> Result<(), FsError> {
        let _waits = self.transfer.urgency.wait();
        let mut freed = self.transfer.ceiling.watch();
        loop {
            if let Some(outcome) = self.try_write(offset, &data) {
                return outcome;
            }
            self.transfer.free_space();
            if let Some(outcome) = self.try_write(offset, &data) {
                return outcome;
            }
            let deadline = self.transfer.settings.deadline;
            if tokio::time::timeout(deadline, freed.changed()).await.is_err() {
                let detail = format!("the write buffer is full and nothing could be stored for {deadline:?}");
                return Err(FsError::NoReplica { detail });
            }
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.dirty_since.lock().is_some_and(|since| since.elapsed() >= age)
    }

    /// Updates the ceiling to the memory that the file holds now; `reserved` bytes were reserved for it beforehand.
    pub(super) fn account_memory(&self, state: &MutexGuard<'_, FileState>, reserved: u64) {
        let now = state.held_bytes();
        let before = self.held.swap(now, Ordering::AcqRel);
        self.transfer.ceiling.adjust(before + reserved, now);
    }

    fn mark_dirty(self: &Arc<Self>) {
        let mut since = self.dirty_since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            self.transfer.dirty.lock().insert(self.ino, self.clone());
        }
    }

    /// Restarts the age of the uncommitted data after a commit, or removes the file from the dirty ones if none is
    /// left.
    pub(super) fn note_committed(&self, state: &MutexGuard<'_, FileState>) {
        let mut since = self.dirty_since.lock();
        *since = state.is_dirty().then(Instant::now);
        if since.is_none() {
            // Dropped after the map is unlocked. It is not the last reference: the caller has one.
            let entry = self.transfer.dirty.lock().remove(&self.ino);
            drop(entry);
        }
    }
}

impl Drop for FileData {
    fn drop(&mut self) {
        let mut files = self.transfer.files.lock();
        if files.get(&self.ino).is_some_and(|file| file.strong_count() == 0) {
            files.remove(&self.ino);
        }
    }
}

fn check_write(state: &FileState, offset: u64, len: usize) -> Result<(), FsError> {
    if let Some(lost) = state.errors.unreported() {
        return Err(lost.clone());
    }
    let end = offset.checked_add(len as u64).filter(|end| *end <= state.max_bytes());
    end.map(drop).ok_or(FsError::FileTooLarge)
}
