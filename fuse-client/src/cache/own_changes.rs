//! Changes by this mount that are under way. The namespace may have applied such a change and shown it to another mount
//! before this one has the answer, so what is remembered of the names and inodes that it concerns is not used.

use std::collections::HashMap;

use chordfs_types::namespace::{EntryName, Ino};

use super::MetaCache;

/// How many changes under way concern each.
#[derive(Default)]
pub(super) struct OwnChanges {
    names: HashMap<(Ino, EntryName), u32>,
    inos: HashMap<Ino, u32>,
}

/// A change under way, until this is dropped: after its result was stored.
pub struct OwnChange<'a> {
    cache: &'a MetaCache,
    names: Vec<(Ino, EntryName)>,
    inos: Vec<Ino>,
}

impl MetaCache {
    /// To be called before the change is sent, with all whose names or attributes it may change.
    pub fn begin_own_change(&self, names: Vec<(Ino, EntryName)>, inos: Vec<Ino>) -> OwnChange<'_> {
        let mut tables = self.inner.lock();
        names.iter().for_each(|name| *tables.changing.names.entry(name.clone()).or_default() += 1);
        inos.iter().for_each(|ino| *tables.changing.inos.entry(*ino).or_default() += 1);
        drop(tables);
        OwnChange { cache: self, names, inos }
    }
}

impl OwnChanges {
    pub(super) fn concern_name(&self, parent: Ino, name: &EntryName) -> bool {
        !self.names.is_empty() && self.names.contains_key(&(parent, name.clone()))
    }

    pub(super) fn concern(&self, ino: Ino) -> bool {
        self.inos.contains_key(&ino)
    }
}

impl Drop for OwnChange<'_> {
    fn drop(&mut self) {
        let mut tables = self.cache.inner.lock();
        self.names.iter().for_each(|name| count_down(&mut tables.changing.names, name));
        self.inos.iter().for_each(|ino| count_down(&mut tables.changing.inos, ino));
    }
}

fn count_down<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
