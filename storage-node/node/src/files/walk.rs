//! The paths of all files, folder by folder, for listings of the whole tree.
//!
//! A tree may have ten million files, so they come in batches, and one walk holds at most [`MAX_KEPT_PAGES`] pages of
//! entries: a folder above the lowest ones is read again from the name at which the walk left it. It is no snapshot:
//! files that are made, moved or removed during a walk may be missing.

use std::collections::VecDeque;

use chordfs_types::{
    fs_error::FsError,
    namespace::{DirEntry, EntryName, FileKind, Ino},
};

use super::FileService;

/// Folders on the way down whose entries are kept. Deeper trees are rare.
const MAX_KEPT_PAGES: usize = 8;

pub struct FileWalk {
    service: FileService,
    levels: Vec<WalkLevel>,
    /// The path of the lowest level, with a slash at its end; empty for the root.
    prefix: Vec<u8>,
}

struct WalkLevel {
    folder: Ino,
    /// The length of the prefix of the level above.
    parent_prefix_bytes: usize,
    entries: VecDeque<DirEntry>,
    after: Option<EntryName>,
    /// True if the folder has entries behind `entries`.
    more: bool,
}

impl FileService {
    /// Walks all regular files: in each folder in the order of the names' bytes, a subfolder in the place of its name.
    pub fn walk(&self) -> FileWalk {
        let mut walk = FileWalk { service: self.clone(), levels: Vec::new(), prefix: Vec::new() };
        walk.enter(Ino::ROOT, 0);
        walk
    }
}

impl FileWalk {
    /// Reads one page of a folder, and returns the paths of files up to the next page; `None` at the end. A batch may
    /// be empty.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Vec<u8>>>, FsError> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        if level.entries.is_empty() && level.more {
            level.load(&self.service).await?;
        }
        Ok(Some(self.take_files()))
    }

    /// Goes through the entries at hand, until a page has to be read.
    fn take_files(&mut self) -> Vec<Vec<u8>> {
        let mut files = Vec::new();
        while let Some(level) = self.levels.last_mut() {
            match level.entries.pop_front() {
                Some(entry) if entry.attr.kind == FileKind::File => {
                    files.push([&self.prefix[..], entry.name.as_bytes()].concat());
                }
                Some(entry) if entry.attr.kind == FileKind::Directory => {
                    self.descend(&entry);
                    break;
                }
                Some(_) => {}
                None if level.more => break,
                None => self.prefix.truncate(self.levels.pop().map_or(0, |level| level.parent_prefix_bytes)),
            }
        }
        files
    }

    fn descend(&mut self, entry: &DirEntry) {
        let kept = self.levels.len();
        if let Some(level) = self.levels.last_mut()
            && kept >= MAX_KEPT_PAGES
        {
            level.entries = VecDeque::new();
            level.after = Some(entry.name.clone());
            level.more = true;
        }
        let parent_prefix_bytes = self.prefix.len();
        self.prefix.extend_from_slice(entry.name.as_bytes());
        self.prefix.push(b'/');
        self.enter(entry.attr.ino, parent_prefix_bytes);
    }

    fn enter(&mut self, folder: Ino, parent_prefix_bytes: usize) {
        self.levels.push(WalkLevel { folder, parent_prefix_bytes, entries: VecDeque::new(), after: None, more: true });
    }
}

impl WalkLevel {
    /// Reads the next page. A folder that was removed meanwhile has no further entries.
    async fn load(&mut self, service: &FileService) -> Result<(), FsError> {
        match service.list(self.folder, self.after.take()).await {
            Ok(page) => {
                self.entries = page.entries.into();
                self.more = page.next.is_some();
                self.after = page.next;
            }
            Err(FsError::NoEntry | FsError::Stale { .. }) => self.more = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::files::{
        FileDefaults,
        fakes::{FakeChunks, FakeNamespace},
    };

    async fn walked(namespace: &Arc<FakeNamespace>) -> Vec<String> {
        let service = FileService::over(namespace.clone(), Arc::<FakeChunks>::default(), FileDefaults::default());
        let (mut walk, mut paths) = (service.walk(), Vec::new());
        while let Some(batch) = walk.next_batch().await.unwrap() {
            paths.extend(batch.into_iter().map(|path| String::from_utf8(path).unwrap()));
            let kept: usize = walk.levels.iter().filter(|level| !level.entries.is_empty()).count();
            assert!(kept <= MAX_KEPT_PAGES + 1, "{kept} pages are kept");
        }
        paths
    }

    #[tokio::test]
    async fn every_file_is_found_once_at_any_depth() {
        let namespace = Arc::<FakeNamespace>::default();
        let (mut folder, mut prefix, mut expected) = (Ino::ROOT, String::new(), Vec::new());
        for _ in 0..MAX_KEPT_PAGES * 2 {
            for name in ["a", "b", "c", "d", "e", "f", "y", "z"] {
                namespace.make(folder, name, FileKind::File, "");
                expected.push(format!("{prefix}{name}"));
            }
            namespace.make(folder, "g", FileKind::Fifo, "");
            namespace.make(folder, "link", FileKind::Symlink, "a");
            namespace.make(folder, "empty", FileKind::Directory, "");
            folder = namespace.make(folder, "sub", FileKind::Directory, "");
            prefix += "sub/";
        }
        let found = walked(&namespace).await;
        assert!(found.is_sorted(), "{found:?}");
        expected.sort();
        assert_eq!(found, expected);
    }
}
