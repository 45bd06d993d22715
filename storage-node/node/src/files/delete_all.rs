//! Deletes everything in the ring: all files and folders below the root, folder by folder.
//!
//! It goes once through each folder in the order of its names, so it ends even if others go on writing; what they add
//! behind its back stays, and is counted. The memory for it is one page of names for each level of folders. The chunks
//! are deleted as those of any other removed file.

use std::sync::Arc;

use chordfs_log::{info_limited, warn_limited};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, DirEntry, EntryName, FileKind, Ino},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::FileService;

/// Removals that are under way at a time. The namespace logs them together.
const REMOVED_AT_ONCE: usize = 32;

/// How far the deletion is; as JSON in `GET /delete-all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeletionStatus {
    /// Whether one is under way on this node.
    pub running: bool,
    /// Files and folders that the last one has removed so far.
    pub removed: u64,
    /// Folders that it left because others had put something into them meanwhile.
    pub left: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

/// The deletion that a node carries out for an operator; one at a time. Cheap to clone.
#[derive(Clone)]
pub struct DeleteAll {
    files: FileService,
    status: Arc<Mutex<DeletionStatus>>,
    stop: CancellationToken,
}

/// A folder whose entries are being removed.
struct FolderInDeletion {
    ino: Ino,
    /// Its own name in its parent; `None` for the root.
    place: Option<(Ino, EntryName)>,
    after: Option<EntryName>,
    is_read: bool,
}

impl DeleteAll {
    /// A deletion under way ends at `stop`.
    pub fn new(files: FileService, stop: CancellationToken) -> Self {
        Self { files, status: Arc::default(), stop }
    }

    pub fn status(&self) -> DeletionStatus {
        self.status.lock().clone()
    }

    /// Begins in the background. False if one is under way already.
    pub fn begin(&self) -> bool {
        {
            let mut status = self.status.lock();
            if status.running {
                return false;
            }
            *status = DeletionStatus { running: true, ..DeletionStatus::default() };
        }
        let this = self.clone();
        tokio::spawn(async move {
            let ended = this.stop.run_until_cancelled(this.remove_everything()).await;
            this.end(ended.unwrap_or_else(|| {
                Err(FsError::Internal { detail: "this node stopped before everything was deleted".into() })
            }));
        });
        true
    }

    fn end(&self, ended: Result<(), FsError>) {
        let mut status = self.status.lock();
        status.running = false;
        status.error = ended.err().map(|error| error.to_string());
        let (removed, left) = (status.removed, status.left);
        match &status.error {
            None => info_limited!(removed, left, "an operator has deleted all files"),
            Some(error) => warn_limited!(removed, left, error, "the deletion of all files ended early"),
        }
    }

    async fn remove_everything(&self) -> Result<(), FsError> {
        let mut open = vec![FolderInDeletion { ino: Ino::ROOT, place: None, after: None, is_read: false }];
        while let Some(folder) = open.last_mut() {
            if folder.is_read {
                self.remove_folder(open.pop().and_then(|folder| folder.place)).await?;
                continue;
            }
            let page = self.page(folder).await?;
            let parent = folder.ino;
            let (folders, files): (Vec<DirEntry>, Vec<DirEntry>) =
                page.into_iter().partition(|entry| entry.attr.kind == FileKind::Directory);
            self.remove_files(parent, files).await?;
            open.extend(folders.into_iter().map(|entry| FolderInDeletion {
                ino: entry.attr.ino,
                place: Some((parent, entry.name)),
                after: None,
                is_read: false,
            }));
        }
        Ok(())
    }

    /// The next entries of the folder. One that was removed meanwhile has none.
    async fn page(&self, folder: &mut FolderInDeletion) -> Result<Vec<DirEntry>, FsError> {
        match self.files.list(folder.ino, folder.after.take()).await {
            Ok(page) => {
                folder.is_read = page.next.is_none();
                folder.after = page.next;
                Ok(page.entries)
            }
            Err(FsError::NoEntry | FsError::Stale { .. }) => {
                folder.is_read = true;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn remove_files(&self, parent: Ino, files: Vec<DirEntry>) -> Result<(), FsError> {
        let removals = files.into_iter().map(|entry| async move {
            match self.files.unlink(parent, &entry.name).await {
                Ok(()) => self.status.lock().removed += 1,
                // Another client has removed it, or has put a folder in its place.
                Err(FsError::NoEntry | FsError::Stale { .. } | FsError::IsDirectory) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        });
        stream::iter(removals).buffer_unordered(REMOVED_AT_ONCE).try_collect().await
    }

    async fn remove_folder(&self, place: Option<(Ino, EntryName)>) -> Result<(), FsError> {
        let Some((parent, name)) = place else { return Ok(()) };
        match self.files.namespace.apply(Change::Rmdir { parent, name }).await {
            Ok(_) => self.status.lock().removed += 1,
            Err(FsError::NotEmpty) => self.status.lock().left += 1,
            Err(FsError::NoEntry | FsError::Stale { .. } | FsError::NotDirectory) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::files::{
        FileDefaults,
        fakes::{FakeChunks, FakeNamespace},
    };

    async fn deleted(namespace: &Arc<FakeNamespace>) -> DeletionStatus {
        let files = FileService::over(namespace.clone(), Arc::<FakeChunks>::default(), FileDefaults::default());
        let deletion = DeleteAll::new(files, CancellationToken::new());
        assert!(deletion.begin() && !deletion.begin(), "one at a time");
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while deletion.status().running {
            assert!(tokio::time::Instant::now() < end, "{:?}", deletion.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        deletion.status()
    }

    #[tokio::test]
    async fn everything_goes_at_any_depth_and_width() {
        let namespace = Arc::<FakeNamespace>::default();
        let mut folder = Ino::ROOT;
        for _ in 0..20 {
            for number in 0..25 {
                namespace.make(folder, &format!("file-{number}"), FileKind::File, "");
            }
            namespace.make(folder, "link", FileKind::Symlink, "/nowhere");
            namespace.make(folder, "empty", FileKind::Directory, "");
            namespace.make(folder, "pipe", FileKind::Fifo, "");
            folder = namespace.make(folder, "down", FileKind::Directory, "");
        }
        let status = deleted(&namespace).await;
        assert_eq!(status, DeletionStatus { removed: 20 * 29, ..DeletionStatus::default() });
        assert_eq!(namespace.inode_count(), 0);
        assert_eq!(deleted(&namespace).await.removed, 0, "an empty ring stays as it is");
    }

    #[tokio::test]
    async fn a_namespace_that_fails_ends_it_with_the_reason() {
        let namespace = Arc::<FakeNamespace>::default();
        namespace.make(Ino::ROOT, "a", FileKind::File, "");
        namespace.fail(Some(FsError::NoQuorum { detail: "no majority".into() }));
        let status = deleted(&namespace).await;
        assert!(status.error.is_some_and(|error| error.contains("no majority")) && status.removed == 0);
        namespace.fail(None);
        assert_eq!(deleted(&namespace).await, DeletionStatus { removed: 1, ..DeletionStatus::default() });
    }
}
