//! Directory entries by parent and name: each is an inode, or known to be absent. Programs (compilers, interpreters,
//! git) look up absent names as often as existing ones, so both are cached.

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

    pub fn put(&mut self, parent: Ino, name: EntryName, dentry: Dentry) {
        self.entries.put((parent, name), dentry);
    }

    pub fn remove(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.entries.pop(&(parent, name.clone()))
    }

    /// Scans every entry; needed only in the rare case of an inode that no longer exists.
    pub fn drop_names_of(&mut self, ino: Ino) {
        self.entries.retain(|_, dentry| *dentry != Dentry::Present(ino));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
