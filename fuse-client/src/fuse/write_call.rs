//! One write request of the kernel, at its offset or at the end of the file.

use chordfs_types::{fs_error::FsError, namespace::Ino};

use super::{callers::ThreadId, lock_calls::is_interrupted};
use crate::fs::FileSystem;

#[derive(Clone, Copy)]
pub(super) struct WriteCall {
    pub(super) ino: Ino,
    /// For an append the end of the file as the kernel knows it.
    pub(super) offset: u64,
    /// The handle was opened with O_APPEND.
    pub(super) appends: bool,
    pub(super) thread: ThreadId,
}

impl WriteCall {
    /// Writes without waiting. Otherwise [`Self::run`] does.
    pub(super) fn try_now(&self, fs: &FileSystem, bytes: &[u8]) -> Option<Result<(), FsError>> {
        if self.appends {
            fs.try_append(self.ino, self.offset, bytes)
        } else {
            fs.try_write(self.ino, self.offset, bytes)
        }
    }

    pub(super) async fn run(self, fs: &FileSystem, bytes: Vec<u8>) -> Result<(), FsError> {
        if self.appends {
            let is_interrupted = Box::new(move || is_interrupted(self.thread));
            fs.append(self.ino, self.offset, bytes, is_interrupted).await
        } else {
            fs.write(self.ino, self.offset, bytes).await
        }
    }
}
