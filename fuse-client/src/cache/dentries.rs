//! What a name in a directory is known to mean: an inode, or that there is no such name. Programs ask for names that do
//! not exist as often as for those that do (compilers, interpreters, git), so absence is worth as much.

use std::num::NonZeroUsize;

use chordfs_types::namespace::{EntryName, Ino};
use lru::LruCache;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dentry {
    Present(Ino),
    Absent,
}

pub struct Dentries {
    entries: LruCache<(Ino, EntryName), Dentry>,
}

impl Dentries {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: LruCache::new(capacity) }
    }

    pub fn get(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.entries.get(&(parent, name.clone())).copied()
    }

    pub fn put(&mut self, parent: Ino, name: EntryName, known: Dentry) {
        self.entries.put((parent, name), known);
    }

    pub fn drop_one(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.entries.pop(&(parent, name.clone()))
    }

    /// Looks at every entry: for the rare case of an inode that turned out to be gone.
    pub fn drop_names_of(&mut self, ino: Ino) {
        self.entries.retain(|_, known| *known != Dentry::Present(ino));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
