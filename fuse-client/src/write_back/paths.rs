//! Where this mount has seen directories: in which directory, and under which name. The NAME of a new file follows from
//! it, and which directory a change concerns when the names around it are not known.

use std::{collections::HashMap, num::NonZeroUsize};

use chordfs_types::{
    chunk::FileName,
    namespace::{EntryName, Ino},
};
use lru::LruCache;

/// How many directories are remembered.
const MAX_PATHS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

pub(super) struct DirectoryPaths {
    up: LruCache<Ino, (Ino, EntryName)>,
    /// The other way round.
    at: HashMap<(Ino, EntryName), Ino>,
}

impl Default for DirectoryPaths {
    fn default() -> Self {
        Self { up: LruCache::new(MAX_PATHS), at: HashMap::new() }
    }
}

impl DirectoryPaths {
    /// Returns the directory that had to make room.
    pub(super) fn put(&mut self, directory: Ino, parent: Ino, name: EntryName) -> Option<Ino> {
        self.at.insert((parent, name.clone()), directory);
        let (former, place) = self.up.push(directory, (parent, name))?;
        if self.at.get(&place) == Some(&former) && self.up.peek(&former) != Some(&place) {
            self.at.remove(&place);
        }
        (former != directory).then_some(former)
    }

    /// The directory above, and the name in it.
    pub(super) fn up(&mut self, directory: Ino) -> Option<&(Ino, EntryName)> {
        self.up.get(&directory)
    }

    /// The directory that was seen last under this name.
    pub(super) fn at(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        self.at.get(&(parent, name.clone())).copied()
    }

    /// The NAME of what is created at this place now: its path, as far as this mount has seen where its directories
    /// are.
    pub(super) fn name_at(&mut self, parent: Ino, name: &EntryName) -> Option<FileName> {
        FileName::of_path(self.joined(parent, vec![name.clone()])?).ok()
    }

    /// Where a directory was seen last, for people.
    pub(super) fn path(&mut self, directory: Ino) -> Option<String> {
        let path = self.joined(directory, Vec::new())?;
        Some(format!("/{}", String::from_utf8_lossy(&path)))
    }

    /// The names from the root to `at`, and behind them `parts`, last one first.
    fn joined(&mut self, mut at: Ino, mut parts: Vec<EntryName>) -> Option<Vec<u8>> {
        while at != Ino::ROOT {
            let (above, name) = self.up(at)?.clone();
            // What was seen at different times may not be a tree.
            if parts.len() > MAX_DEPTH {
                return None;
            }
            parts.push(name);
            at = above;
        }
        parts.reverse();
        let parts: Vec<&[u8]> = parts.iter().map(EntryName::as_bytes).collect();
        Some(parts.join(&b'/'))
    }
}

/// A longer path is longer than any NAME.
const MAX_DEPTH: usize = chordfs_types::chunk::MAX_FILE_NAME_BYTES / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::name;

    #[test]
    fn a_directory_is_found_where_it_was_seen_last() {
        let mut paths = DirectoryPaths::default();
        paths.put(Ino(5), Ino::ROOT, name("a"));
        paths.put(Ino(6), Ino(5), name("b"));
        assert_eq!(paths.name_at(Ino(6), &name("c")).map(|name| name.to_string()).as_deref(), Some("a/b/c"));
        assert_eq!((paths.path(Ino(6)).as_deref(), paths.path(Ino::ROOT).as_deref()), (Some("/a/b"), Some("/")));
        paths.put(Ino(5), Ino::ROOT, name("d"));
        assert_eq!((paths.at(Ino::ROOT, &name("a")), paths.at(Ino::ROOT, &name("d"))), (None, Some(Ino(5))));
        assert_eq!(paths.name_at(Ino(7), &name("c")), None, "it is not known where 7 is");
        paths.put(Ino(5), Ino(6), name("x"));
        assert_eq!(paths.name_at(Ino(6), &name("c")), None, "a loop");
    }
}
