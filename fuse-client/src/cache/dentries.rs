//! Directory entries by parent and name: each is an inode, or known to be absent. Programs (compilers, interpreters,
//! git) look up absent names as often as existing ones, so both are cached.

use std::{collections::HashMap, num::NonZeroUsize};

use chordfs_types::namespace::{EntryName, Ino};
use lru::LruCache;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dentry {
    Present(Ino),
    Absent,
}

pub struct Dentries {
    entries: LruCache<(Ino, EntryName), Dentry>,
    /// How many entries each directory has here. To scan them all for those of one is then rare.
    counts: HashMap<Ino, u32>,
}

impl Dentries {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: LruCache::new(capacity), counts: HashMap::new() }
    }

    pub fn get(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.entries.get(&(parent, name.clone())).copied()
    }

    pub fn contains(&self, parent: Ino, name: &EntryName) -> bool {
        self.entries.contains(&(parent, name.clone()))
    }

    pub fn put(&mut self, parent: Ino, name: EntryName, dentry: Dentry) {
        *self.counts.entry(parent).or_default() += 1;
        // The former entry of this name, or the one that had to make room.
        if let Some(((former, _), _)) = self.entries.push((parent, name), dentry) {
            self.count_down(former);
        }
    }

    pub fn remove(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        let removed = self.entries.pop(&(parent, name.clone()))?;
        self.count_down(parent);
        Some(removed)
    }

    /// Scans every entry; needed only in the rare case of an inode that no longer exists.
    pub fn drop_names_of(&mut self, ino: Ino) {
        self.remove_all(|_, dentry| dentry == Dentry::Present(ino));
    }

    pub fn drop_names_in(&mut self, parent: Ino) {
        if self.counts.contains_key(&parent) {
            self.remove_all(|ino, _| ino == parent);
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.counts.clear();
    }

    fn remove_all(&mut self, is_meant: impl Fn(Ino, Dentry) -> bool) {
        let meant = self.entries.iter().filter(|((parent, _), dentry)| is_meant(*parent, **dentry));
        let keys: Vec<(Ino, EntryName)> = meant.map(|(key, _)| key.clone()).collect();
        for (parent, name) in keys {
            self.remove(parent, &name);
        }
    }

    fn count_down(&mut self, parent: Ino) {
        if let Some(count) = self.counts.get_mut(&parent) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::name;

    #[test]
    fn the_entries_of_each_directory_are_counted() {
        let mut dentries = Dentries::new(NonZeroUsize::new(3).expect("three"));
        for (parent, text) in [(1, "a"), (1, "b"), (1, "b"), (2, "c"), (2, "d")] {
            dentries.put(Ino(parent), name(text), Dentry::Present(Ino(9)));
        }
        assert_eq!(dentries.counts, HashMap::from([(Ino(1), 1), (Ino(2), 2)]), "a had to make room");
        dentries.drop_names_in(Ino(2));
        assert_eq!(dentries.counts, HashMap::from([(Ino(1), 1)]));
        dentries.drop_names_of(Ino(9));
        assert!(dentries.counts.is_empty() && dentries.entries.is_empty());
    }
}
