//! Directories that were removed while a program has them open or works in them. The namespace forgets such an inode
//! at once, while programs expect what a local file system does: no links, no entries, and ENOENT for a new one.

use std::num::NonZeroUsize;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, FileKind, Ino},
};
use lru::LruCache;
use parking_lot::Mutex;

const MAX_DIRECTORIES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

pub(super) struct RemovedDirectories {
    last_known: Mutex<LruCache<Ino, LastKnown>>,
}

struct LastKnown {
    attr: Attr,
    removed: bool,
}

impl Default for RemovedDirectories {
    fn default() -> Self {
        Self { last_known: Mutex::new(LruCache::new(MAX_DIRECTORIES)) }
    }
}

impl RemovedDirectories {
    /// Remembers the attributes of a directory that is open, or that may be removed. Other inodes are ignored.
    pub(super) fn remember(&self, attr: Option<Attr>) {
        let Some(attr) = attr.filter(|attr| attr.kind == FileKind::Directory) else { return };
        let mut last_known = self.last_known.lock();
        if !last_known.peek(&attr.ino).is_some_and(|known| known.removed) {
            last_known.put(attr.ino, LastKnown { attr, removed: false });
        }
    }

    /// Records that the inode no longer exists. Returns the attributes of a removed directory; `None` if the inode is
    /// not known to be a directory.
    pub(super) fn mark(&self, ino: Ino) -> Option<Attr> {
        let mut last_known = self.last_known.lock();
        let known = last_known.get_mut(&ino)?;
        (known.removed, known.attr.nlink) = (true, 0);
        Some(known.attr.clone())
    }

    /// The attributes of a directory that is known to be removed. Inode numbers are never used again.
    pub(super) fn get(&self, ino: Ino) -> Option<Attr> {
        let last_known = self.last_known.lock();
        last_known.peek(&ino).filter(|known| known.removed).map(|known| known.attr.clone())
    }

    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.last_known.lock().peek(&ino).is_some_and(|known| known.removed)
    }

    /// The error of an operation in `directory`, which was known to be removed before it if `was_removed` is set. When
    /// it is found to be gone, the error is ESTALE once more: the kernel then resolves the path again, which may lead
    /// to another directory by now.
    pub(super) fn error_in(&self, directory: Ino, was_removed: bool, error: FsError) -> FsError {
        match error {
            FsError::Stale { ino } if ino == directory => {
                self.mark(directory);
                if was_removed { FsError::NoEntry } else { error }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::attr;

    const GONE: FsError = FsError::Stale { ino: Ino(5) };

    #[test]
    fn a_removed_directory_keeps_its_attributes_and_has_no_links() {
        let directories = RemovedDirectories::default();
        directories.remember(Some(Attr { kind: FileKind::Directory, ..attr(5, 1) }));
        directories.remember(Some(attr(6, 1)));
        assert_eq!(directories.get(Ino(5)), None, "it still exists");
        assert_eq!(directories.mark(Ino(5)).map(|attr| attr.nlink), Some(0));
        assert_eq!(directories.get(Ino(5)).map(|attr| attr.mode), Some(0o644));
        assert_eq!(directories.mark(Ino(6)), None, "a file");
    }

    #[test]
    fn an_operation_in_it_is_resolved_again_once() {
        let directories = RemovedDirectories::default();
        directories.remember(Some(Attr { kind: FileKind::Directory, ..attr(5, 1) }));
        let error = |directories: &RemovedDirectories| {
            let was_removed = directories.contains(Ino(5));
            directories.error_in(Ino(5), was_removed, GONE)
        };
        assert_eq!((error(&directories), error(&directories)), (GONE, FsError::NoEntry));
    }
}
