//! Closing a file without waiting for its contents to be stored. Until they are, the file counts as open here, so that
//! its attributes are those that its programs expect.

use std::sync::{Arc, atomic::Ordering};

use chordfs_types::namespace::Ino;

use super::{FileSystem, handle::OpenFile};

impl FileSystem {
    /// Returns a task that commits what was written, if the program need not wait for it. To be spawned at once.
    pub fn close_later(self: &Arc<Self>, ino: Ino, handle: u64) -> Option<impl Future<Output = ()> + use<>> {
        let (handle, file) = (self.handles.get(handle), self.opens.get(ino)?);
        if file.data.has_unreported_error(&handle.errors) || !file.data.reserve_commit() {
            return None;
        }
        let writes = file.begin_late_commit();
        let open = StillOpen::acquire(self.clone(), ino);
        Some(async move {
            let fs = &open.fs;
            if fs.finish_commit(ino, &file, file.data.commit_later()).await.is_err() {
                // The data is kept for the next attempt, and the failure is logged. A close that follows waits for it.
                file.end_late_commit(writes);
            }
        })
    }
}

impl OpenFile {
    /// Notes that the writes so far are being committed. Returns how many there are.
    fn begin_late_commit(&self) -> u64 {
        let writes = self.writes.load(Ordering::Acquire);
        self.late_writes.fetch_max(writes, Ordering::AcqRel);
        writes
    }

    fn end_late_commit(&self, writes: u64) {
        let _ = self.late_writes.compare_exchange(writes, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether all writes are being committed already, if they are not yet.
    pub(super) fn is_being_committed(&self) -> bool {
        let late = self.late_writes.load(Ordering::Acquire);
        late > 0 && self.writes.load(Ordering::Acquire) <= late
    }
}

/// One opening of an inode by the mount itself, until this is dropped.
struct StillOpen {
    fs: Arc<FileSystem>,
    ino: Ino,
}

impl StillOpen {
    fn acquire(fs: Arc<FileSystem>, ino: Ino) -> Self {
        fs.opens.acquire(ino);
        Self { fs, ino }
    }
}

impl Drop for StillOpen {
    fn drop(&mut self) {
        self.fs.release_inode(self.ino);
    }
}
