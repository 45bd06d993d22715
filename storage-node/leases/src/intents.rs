//! Changes that are about to be logged, from the moment at which their sole leases are recalled until they are applied.
//!
//! Until then nobody else is granted a sole lease on what they change: its holder would answer changes of its own that
//! come after this one in the log. A change that still waits holds nobody up but by that. One that may be logged also
//! holds up those that name the same entry, because it decides to which inode the name leads them.

use std::collections::HashMap;

use chordfs_types::namespace::{EntryName, Ino, SessionId};

use crate::WaitId;

/// A change that is about to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IntentId(u64);

/// What changes have to agree on by their order, because it decides which inodes they concern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKey {
    /// An entry of a directory.
    Name(Ino, EntryName),
    /// Which directory lies in which one.
    Tree,
}

#[derive(Debug, Default)]
pub(crate) struct Intents {
    last: u64,
    /// None of the three maps is ever iterated, so their order does not matter.
    intents: HashMap<IntentId, Intent>,
    by_ino: HashMap<Ino, Vec<IntentId>>,
    /// Only changes that may be logged.
    by_key: HashMap<ChangeKey, Vec<IntentId>>,
}

#[derive(Debug, Default)]
struct Intent {
    origin: Option<SessionId>,
    inos: Vec<Ino>,
    /// Empty while it waits.
    keys: Vec<ChangeKey>,
    /// Changes that wait until this one has ended.
    waits: Vec<WaitId>,
}

impl Intents {
    /// Notes what a change is about, by what is known now. `former` is its id if it was noted before.
    pub(crate) fn note(&mut self, former: Option<IntentId>, origin: Option<SessionId>, inos: &[Ino]) -> IntentId {
        let known = former.filter(|id| self.intents.contains_key(id));
        let id = known.unwrap_or_else(|| {
            self.last += 1;
            IntentId(self.last)
        });
        let intent = self.intents.entry(id).or_default();
        intent.origin = origin;
        let former_inos = std::mem::replace(&mut intent.inos, inos.to_vec());
        former_inos.iter().for_each(|ino| unlist(&mut self.by_ino, ino, id));
        inos.iter().for_each(|ino| self.by_ino.entry(*ino).or_default().push(id));
        id
    }

    /// Another change that is about to be logged and has one of the keys.
    pub(crate) fn holder_of(&self, keys: &[ChangeKey], except: IntentId) -> Option<IntentId> {
        let holders = keys.iter().filter_map(|key| self.by_key.get(key)).flatten();
        holders.copied().find(|holder| *holder != except)
    }

    pub(crate) fn add_wait(&mut self, id: IntentId, wait: WaitId) {
        if let Some(intent) = self.intents.get_mut(&id) {
            intent.waits.push(wait);
        }
    }

    /// Notes that the change may be logged.
    pub(crate) fn pass(&mut self, id: IntentId, keys: Vec<ChangeKey>) {
        let Some(intent) = self.intents.get_mut(&id) else { return };
        keys.iter().for_each(|key| self.by_key.entry(key.clone()).or_default().push(id));
        intent.keys = keys;
    }

    /// Returns those who waited for it.
    pub(crate) fn end(&mut self, id: IntentId) -> Vec<WaitId> {
        let Some(intent) = self.intents.remove(&id) else { return Vec::new() };
        intent.inos.iter().for_each(|ino| unlist(&mut self.by_ino, ino, id));
        intent.keys.iter().for_each(|key| unlist(&mut self.by_key, key, id));
        intent.waits
    }

    pub(crate) fn inos(&self, id: IntentId) -> &[Ino] {
        self.intents.get(&id).map_or(&[], |intent| &intent.inos)
    }

    pub(crate) fn origin(&self, id: IntentId) -> Option<SessionId> {
        self.intents.get(&id).and_then(|intent| intent.origin)
    }

    /// Whether anybody else is about to change the inode.
    pub(crate) fn has_others(&self, ino: Ino, session: SessionId) -> bool {
        let ids = self.by_ino.get(&ino).into_iter().flatten();
        ids.filter_map(|id| self.intents.get(id)).any(|intent| intent.origin != Some(session))
    }

    /// Ids are not used again.
    pub(crate) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }
}

fn unlist<K: std::hash::Hash + Eq>(lists: &mut HashMap<K, Vec<IntentId>>, key: &K, id: IntentId) {
    let Some(ids) = lists.get_mut(key) else { return };
    if let Some(place) = ids.iter().position(|listed| *listed == id) {
        ids.swap_remove(place);
    }
    if ids.is_empty() {
        lists.remove(key);
    }
}
