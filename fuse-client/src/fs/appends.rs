//! Appends: what is written through a handle with O_APPEND goes to the end that the file has in this moment, whichever
//! mount has made it.
//!
//! A mount that is alone with a file knows its end. Otherwise an append is under a lock of its own kind, which excludes
//! the appends of other mounts: under it the mount asks for the end, writes, and commits. So the bytes of one request
//! lie together, and nothing is lost. The lock rather than a commit that is refused when the end has moved: who waits
//! for a lock gets it in turn, and bytes that programs of this mount may have read already never move.

use std::time::Duration;

use chordfs_net::{operation, session::EventAcknowledgement};
use chordfs_types::{
    fs_error::FsError,
    namespace::{FileLock, Ino, LockKind, LockSpace},
};
use tokio::time::Instant;

use super::{FileSystem, IsInterrupted, OpenFile, locks::whole};

/// No handle of a program: an append lasts no longer than its request.
const NO_HANDLE: u64 = 0;
/// How long an append waits for those of other mounts, at most: a mount that has died loses its locks before.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

impl FileSystem {
    /// Appends without waiting, if this mount is alone with the file and knows its end. Otherwise [`Self::append`]
    /// does. `expected` is the end as the kernel knows it.
    pub fn try_append(&self, ino: Ino, expected: u64, bytes: &[u8]) -> Option<Result<(), FsError>> {
        let file = self.open_data(ino).ok()?;
        let mut written = None;
        let append = || {
            if !needs_current_size(&file, expected) {
                let offset = self.end_of(ino, &file, expected);
                file.count_write();
                written = file.data.try_write(offset, bytes);
            }
        };
        self.do_alone(ino, append);
        written
    }

    /// Appends, and waits for other mounts that do.
    pub async fn append(
        &self,
        ino: Ino,
        expected: u64,
        bytes: Vec<u8>,
        is_interrupted: IsInterrupted,
    ) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        let range = whole(self.new_lock_owner(), LockSpace::Appends);
        let lock = FileLock { range, kind: LockKind::Exclusive, pid: 0 };
        let end = Instant::now() + LONGEST_WAIT;
        let is_over: IsInterrupted =
            Box::new(move || is_interrupted() || operation::is_over() || Instant::now() >= end);
        self.lock(ino, NO_HANDLE, lock, Some(is_over)).await?;
        let appended = self.append_locked(ino, &file, expected, bytes).await.and_then(|()| {
            let is_kept = self.holds_lock(ino, &range);
            let lost =
                || FsError::Lost { detail: "this mount was silent for so long that others have appended".into() };
            is_kept.then_some(()).ok_or_else(lost)
        });
        // Commits first, if other mounts may be waiting.
        let ended = self.unlock(ino, range).await;
        appended.and(ended)
    }

    async fn append_locked(&self, ino: Ino, file: &OpenFile, expected: u64, bytes: Vec<u8>) -> Result<(), FsError> {
        if !self.is_alone(ino) || needs_current_size(file, expected) {
            self.refresh_open_file(ino, file).await?;
        }
        let offset = self.end_of(ino, file, expected);
        file.count_write();
        file.data.write(offset, bytes).await
    }

    /// The end of the file as this mount knows it. Where the kernel expects another one, its page may hold the appended
    /// bytes at the wrong offset, and is dropped.
    fn end_of(&self, ino: Ino, file: &OpenFile, expected: u64) -> u64 {
        let end = file.size();
        if end != expected {
            self.pages.invalidate(ino);
            self.notices.pages(ino, EventAcknowledgement::none());
        }
        end
    }
}

/// Whether the size has to be queried before an append, because another mount may have changed it. If the kernel's size
/// exceeds the one known here, one of the two is outdated.
fn needs_current_size(file: &OpenFile, expected: u64) -> bool {
    file.is_outdated() || expected > file.size()
}
