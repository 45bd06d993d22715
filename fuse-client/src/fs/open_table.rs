//! The inodes that this mount has open: how often, and the data attached to each while it is open.
//!
//! The count is incremented before the namespace is queried for the file. A file that loses its last name meanwhile is
//! then either refused by the reply or found open when the event arrives. Written data belongs to the inode, not to a
//! handle, since the kernel writes mapped pages back through any handle. `handles` has the state of each handle.

use std::{collections::HashMap, sync::Arc};

use chordfs_types::namespace::Ino;
use parking_lot::RwLock;

pub(super) struct OpenTable<F> {
    entries: RwLock<HashMap<Ino, OpenInode<F>>>,
}

struct OpenInode<F> {
    count: u64,
    /// The namespace keeps the nameless file for this mount until it is released.
    held: bool,
    /// How many changes of the contents by other mounts were reported since the first opening.
    changes: u64,
    file: Option<Arc<F>>,
}

impl<F> OpenInode<F> {
    fn new() -> Self {
        Self { count: 0, held: false, changes: 0, file: None }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum CloseOutcome {
    StillOpen,
    /// The last opening was closed; `held` means the namespace waits for a release.
    Last {
        held: bool,
    },
}

impl<F> Default for OpenTable<F> {
    fn default() -> Self {
        Self { entries: RwLock::default() }
    }
}

impl<F> OpenTable<F> {
    /// Counts one more opening. Returns the number of changes reported so far: an answer that is requested from now on
    /// may be older than the changes reported before it arrives.
    pub(super) fn acquire(&self, ino: Ino) -> u64 {
        let mut entries = self.entries.write();
        let entry = entries.entry(ino).or_insert_with(OpenInode::new);
        entry.count += 1;
        entry.changes
    }

    /// Records that another mount has changed the contents, and returns the data, if attached.
    pub(super) fn note_changed(&self, ino: Ino) -> Option<Arc<F>> {
        let mut entries = self.entries.write();
        let entry = entries.get_mut(&ino)?;
        entry.changes += 1;
        entry.file.clone()
    }

    /// Records that each inode may have been changed.
    pub(super) fn note_all_changed(&self) {
        self.entries.write().values_mut().for_each(|entry| entry.changes += 1);
    }

    pub(super) fn changes(&self, ino: Ino) -> u64 {
        self.entries.read().get(&ino).map_or(0, |entry| entry.changes)
    }

    /// Returns the data of an open inode, created by `make` at the first call, and whether this was the first call. The
    /// caller has acquired the inode.
    pub(super) fn attach(&self, ino: Ino, make: impl FnOnce() -> F) -> (Arc<F>, bool) {
        let mut entries = self.entries.write();
        let entry = entries.entry(ino).or_insert_with(OpenInode::new);
        match &entry.file {
            Some(file) => (file.clone(), false),
            None => (entry.file.insert(Arc::new(make())).clone(), true),
        }
    }

    /// Ends one opening.
    pub(super) fn release(&self, ino: Ino) -> CloseOutcome {
        let mut entries = self.entries.write();
        let Some(entry) = entries.get_mut(&ino) else { return CloseOutcome::Last { held: false } };
        entry.count = entry.count.saturating_sub(1);
        if entry.count > 0 {
            return CloseOutcome::StillOpen;
        }
        let held = entry.held;
        entries.remove(&ino);
        CloseOutcome::Last { held }
    }

    /// Records that the namespace keeps the file for this mount. Returns false if it is not open here.
    pub(super) fn hold(&self, ino: Ino) -> bool {
        self.entries.write().get_mut(&ino).map(|entry| entry.held = true).is_some()
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<F>> {
        self.entries.read().get(&ino)?.file.clone()
    }

    pub(super) fn is_open(&self, ino: Ino) -> bool {
        self.entries.read().contains_key(&ino)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.read().is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.entries.read().len()
    }

    /// All inodes, also those that are being opened and have no data yet.
    pub(super) fn inos(&self) -> Vec<Ino> {
        self.entries.read().keys().copied().collect()
    }

    pub(super) fn files(&self) -> Vec<(Ino, Arc<F>)> {
        let entries = self.entries.read();
        entries.iter().filter_map(|(&ino, entry)| Some((ino, entry.file.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(5);

    #[test]
    fn the_last_release_is_reported() {
        let table = OpenTable::<&str>::default();
        table.acquire(FILE);
        table.acquire(FILE);
        assert_eq!(table.release(FILE), CloseOutcome::StillOpen);
        assert!(table.is_open(FILE));
        assert_eq!(table.release(FILE), CloseOutcome::Last { held: false });
        assert!(table.is_empty());
    }

    #[test]
    fn all_openings_share_the_data_attached_first() {
        let table = OpenTable::default();
        table.acquire(FILE);
        assert!(table.get(FILE).is_none(), "acquired, not attached yet");
        table.acquire(FILE);
        assert_eq!(table.attach(FILE, || "first"), (Arc::new("first"), true));
        assert_eq!(table.attach(FILE, || "second"), (Arc::new("first"), false));
        assert_eq!(table.get(FILE), Some(Arc::new("first")));
        assert_eq!(table.files(), [(FILE, Arc::new("first"))]);
    }

    #[test]
    fn changes_are_counted_before_there_is_data() {
        let table = OpenTable::default();
        assert_eq!(table.note_changed(FILE), None, "not open here");
        let before = table.acquire(FILE);
        assert_eq!(table.note_changed(FILE), None);
        assert_eq!(table.changes(FILE), before + 1);
        table.attach(FILE, || "data");
        assert_eq!(table.note_changed(FILE), Some(Arc::new("data")));
        table.note_all_changed();
        assert_eq!((table.changes(FILE), table.inos()), (before + 3, vec![FILE]));
    }

    #[test]
    fn a_held_file_is_reported_once_by_the_last_release() {
        let table = OpenTable::<&str>::default();
        assert!(!table.hold(FILE), "not open here");
        table.acquire(FILE);
        table.acquire(FILE);
        assert!(table.hold(FILE));
        assert_eq!(table.release(FILE), CloseOutcome::StillOpen);
        assert_eq!(table.release(FILE), CloseOutcome::Last { held: true });
        table.acquire(FILE);
        assert_eq!(table.release(FILE), CloseOutcome::Last { held: false });
    }

    #[test]
    fn releasing_an_inode_that_is_not_open_is_harmless() {
        assert_eq!(OpenTable::<&str>::default().release(FILE), CloseOutcome::Last { held: false });
    }
}
