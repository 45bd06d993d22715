//! All entries below a folder, folder by folder: for lists of the whole tree and for searches in a part of it.
//!
//! A tree may have ten million files, so entries come in batches, and one walk holds at most [`MAX_KEPT_PAGES`] pages
//! of them: a folder above the lowest ones is read again from the name at which the walk left it. A walk can begin
//! behind any path, also behind one that is gone. It is no snapshot: what is made, moved or removed during a walk may
//! be missing.

use std::collections::VecDeque;

use chordfs_types::{
    fs_error::FsError,
    namespace::{DirEntry, EntryName, FileKind, Ino},
};

use super::FileService;

/// Folders on the way down whose entries are kept. Deeper trees are rare.
const MAX_KEPT_PAGES: usize = 8;

pub struct TreeWalk {
    service: FileService,
    /// The names of the levels below the first one.
    path: Vec<EntryName>,
    levels: Vec<WalkLevel>,
    /// Folders with a longer path, counted with a slash behind each name, are not entered.
    max_folder_bytes: usize,
    pages_read: usize,
}

/// Consecutive entries of one folder.
#[derive(Default)]
pub struct WalkBatch {
    /// The path of the folder below the one in which the walk began.
    pub folder: Vec<EntryName>,
    pub entries: Vec<DirEntry>,
}

struct WalkLevel {
    folder: Ino,
    entries: VecDeque<DirEntry>,
    after: Option<EntryName>,
    /// True if the folder has entries behind `entries`.
    more: bool,
}

impl FileService {
    /// Walks everything below `folder`: in each folder in the order of the names' bytes, with the entries of a
    /// subfolder behind it. Symlinks are not followed.
    pub fn walk(&self, folder: Ino) -> TreeWalk {
        TreeWalk {
            service: self.clone(),
            path: Vec::new(),
            levels: vec![WalkLevel::begin(folder)],
            max_folder_bytes: usize::MAX,
            pages_read: 0,
        }
    }
}

impl TreeWalk {
    /// Enters no folder whose path has more bytes, counted with a slash behind each name.
    pub fn within(self, max_folder_bytes: usize) -> Self {
        Self { max_folder_bytes, ..self }
    }

    /// Lets a walk that has not begun begin behind the entry at `path`. If that is gone, or is no folder any longer,
    /// the walk begins at what follows its place.
    pub async fn skip_past(&mut self, path: &[EntryName]) -> Result<(), FsError> {
        for name in path {
            let Some(level) = self.levels.last_mut() else { break };
            level.after = Some(name.clone());
            match self.service.lookup(level.folder, name).await {
                Ok(Some(attr)) if attr.kind == FileKind::Directory && self.may_enter(name) => {
                    self.enter(attr.ino, name.clone());
                }
                Ok(_) | Err(FsError::Stale { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many pages of folders were read so far.
    pub fn pages_read(&self) -> usize {
        self.pages_read
    }

    /// Reads one page of a folder at most, and returns entries up to the next page or subfolder; `None` at the end. A
    /// batch may be empty.
    pub async fn next_batch(&mut self) -> Result<Option<WalkBatch>, FsError> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        if level.entries.is_empty() && level.more {
            self.pages_read += 1;
            level.load(&self.service).await?;
        }
        Ok(Some(WalkBatch { folder: self.path.clone(), entries: self.take_entries() }))
    }

    /// Takes the entries at hand up to a folder, which is entered. A folder without any is left.
    fn take_entries(&mut self) -> Vec<DirEntry> {
        let mut taken = Vec::new();
        while let Some(entry) = self.levels.last_mut().and_then(|level| level.entries.pop_front()) {
            let entered = entry.attr.kind == FileKind::Directory && self.may_enter(&entry.name);
            taken.push(entry.clone());
            if entered {
                self.descend(&entry);
                return taken;
            }
        }
        if self.levels.last().is_some_and(|level| !level.more) {
            self.levels.pop();
            self.path.pop();
        }
        taken
    }

    fn may_enter(&self, name: &EntryName) -> bool {
        let names = self.path.iter().chain([name]);
        names.map(|name| name.as_bytes().len() + 1).sum::<usize>() <= self.max_folder_bytes
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
        self.enter(entry.attr.ino, entry.name.clone());
    }

    fn enter(&mut self, folder: Ino, name: EntryName) {
        self.path.push(name);
        self.levels.push(WalkLevel::begin(folder));
    }
}

impl WalkLevel {
    fn begin(folder: Ino) -> Self {
        Self { folder, entries: VecDeque::new(), after: None, more: true }
    }

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
    use crate::files::fakes::{FakeNamespace, service};

    fn names(path: &str) -> Vec<EntryName> {
        path.split('/').map(|name| EntryName::new(name.to_owned()).unwrap()).collect()
    }

    async fn walked(mut walk: TreeWalk) -> Vec<String> {
        let mut paths = Vec::new();
        while let Some(batch) = walk.next_batch().await.unwrap() {
            let prefix: String = batch.folder.iter().map(|name| format!("{name}/")).collect();
            paths.extend(batch.entries.iter().map(|entry| format!("{prefix}{}", entry.name)));
            let kept: usize = walk.levels.iter().filter(|level| !level.entries.is_empty()).count();
            assert!(kept <= MAX_KEPT_PAGES + 1, "{kept} pages are kept");
        }
        paths
    }

    /// Makes folders in folders, each with entries of several kinds, and returns all paths in the order of a walk.
    fn deep_tree(namespace: &FakeNamespace) -> Vec<String> {
        let (mut folder, mut prefix, mut paths) = (Ino::ROOT, String::new(), Vec::new());
        for _ in 0..MAX_KEPT_PAGES * 2 {
            for name in ["a", "b", "c", "d", "e", "f", "y", "z"] {
                namespace.make(folder, name, FileKind::File, "");
            }
            namespace.make(folder, "g", FileKind::Fifo, "");
            namespace.make(folder, "link", FileKind::Symlink, "a");
            namespace.make(folder, "empty", FileKind::Directory, "");
            folder = namespace.make(folder, "sub", FileKind::Directory, "");
            let names = ["a", "b", "c", "d", "e", "empty", "f", "g", "link", "sub", "y", "z"];
            paths.extend(names.map(|name| format!("{prefix}{name}")));
            prefix += "sub/";
        }
        paths.sort();
        paths
    }

    #[tokio::test]
    async fn every_entry_is_found_once_at_any_depth() {
        let namespace = Arc::<FakeNamespace>::default();
        let expected = deep_tree(&namespace);
        assert_eq!(walked(service(&namespace).walk(Ino::ROOT)).await, expected);
    }

    #[tokio::test]
    async fn a_walk_begins_behind_any_path() {
        let namespace = Arc::<FakeNamespace>::default();
        let all = deep_tree(&namespace);
        for (at, path) in all.iter().enumerate() {
            let mut walk = service(&namespace).walk(Ino::ROOT);
            walk.skip_past(&names(path)).await.unwrap();
            assert_eq!(walked(walk).await, all[at + 1..], "behind {path}");
        }
    }

    #[tokio::test]
    async fn behind_a_path_that_is_gone_the_walk_begins_at_what_followed_it() {
        let namespace = Arc::<FakeNamespace>::default();
        for name in ["a", "file", "z"] {
            namespace.make(Ino::ROOT, name, FileKind::File, "");
        }
        let folder = namespace.make(Ino::ROOT, "folder", FileKind::Directory, "");
        for name in ["a", "z"] {
            namespace.make(folder, name, FileKind::File, "");
        }
        for (behind, expected) in [
            ("folder/m", &["folder/z", "z"][..]),
            ("folder/m/n/o", &["folder/z", "z"]),
            ("file/was/a/folder", &["folder", "folder/a", "folder/z", "z"]),
            ("gone/x", &["z"]),
            ("zz", &[]),
        ] {
            let mut walk = service(&namespace).walk(Ino::ROOT);
            walk.skip_past(&names(behind)).await.unwrap();
            assert_eq!(walked(walk).await, expected, "behind {behind}");
        }
    }

    #[tokio::test]
    async fn folders_with_too_long_a_path_are_listed_and_not_entered() {
        let namespace = Arc::<FakeNamespace>::default();
        let outer = namespace.make(Ino::ROOT, "outer", FileKind::Directory, "");
        let inner = namespace.make(outer, "inner", FileKind::Directory, "");
        namespace.make(inner, "file", FileKind::File, "");
        let longest = "outer/inner/".len();
        let walk = || service(&namespace).walk(Ino::ROOT);
        assert_eq!(walked(walk().within(longest)).await, ["outer", "outer/inner", "outer/inner/file"]);
        assert_eq!(walked(walk().within(longest - 1)).await, ["outer", "outer/inner"]);
        let mut behind = walk().within(longest - 1);
        behind.skip_past(&names("outer/inner/a")).await.unwrap();
        assert_eq!(walked(behind).await, [""; 0]);
    }
}
