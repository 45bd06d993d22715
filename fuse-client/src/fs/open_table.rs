//! Which inodes this mount has open, how often, and what belongs to each while it is open.
//!
//! The count goes up before the namespace is asked for the file, so that a file which loses its last name meanwhile is
//! either refused by that answer or found open when the news comes. What is written belongs to the inode, not to a
//! handle: the kernel writes mapped pages back through whichever handle it likes. `handles` has the rest.

use std::{collections::HashMap, sync::Arc};

use chordfs_types::namespace::Ino;
use parking_lot::RwLock;

pub(super) struct OpenTable<F> {
    entries: RwLock<HashMap<Ino, OpenInode<F>>>,
}

struct OpenInode<F> {
    count: u64,
    /// The namespace keeps the nameless file for us until we release it.
    held: bool,
    file: Option<Arc<F>>,
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
    pub(super) fn enter(&self, ino: Ino) {
        let mut entries = self.entries.write();
        entries.entry(ino).or_insert(OpenInode { count: 0, held: false, file: None }).count += 1;
    }

    /// What belongs to the open inode, made now if this is the first; true if it was. The caller has entered it.
    pub(super) fn attach(&self, ino: Ino, make: impl FnOnce() -> F) -> (Arc<F>, bool) {
        let mut entries = self.entries.write();
        let entry = entries.entry(ino).or_insert(OpenInode { count: 1, held: false, file: None });
        match &entry.file {
            Some(file) => (file.clone(), false),
            None => (entry.file.insert(Arc::new(make())).clone(), true),
        }
    }

    pub(super) fn leave(&self, ino: Ino) -> CloseOutcome {
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

    /// Notes that the namespace keeps the file for us. False if it is not open here (any more).
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
    fn the_last_leaver_is_told() {
        let table = OpenTable::<&str>::default();
        table.enter(FILE);
        table.enter(FILE);
        assert_eq!(table.leave(FILE), CloseOutcome::StillOpen);
        assert!(table.is_open(FILE));
        assert_eq!(table.leave(FILE), CloseOutcome::Last { held: false });
        assert!(table.is_empty());
    }

    #[test]
    fn all_handles_share_what_the_first_attached() {
        let table = OpenTable::default();
        table.enter(FILE);
        assert!(table.get(FILE).is_none(), "entered, not attached yet");
        table.enter(FILE);
        assert_eq!(table.attach(FILE, || "first"), (Arc::new("first"), true));
        assert_eq!(table.attach(FILE, || "second"), (Arc::new("first"), false));
        assert_eq!(table.get(FILE), Some(Arc::new("first")));
        assert_eq!(table.files(), [(FILE, Arc::new("first"))]);
    }

    #[test]
    fn a_held_file_is_released_once_by_the_last_leaver() {
        let table = OpenTable::<&str>::default();
        assert!(!table.hold(FILE), "not open here");
        table.enter(FILE);
        table.enter(FILE);
        assert!(table.hold(FILE));
        assert_eq!(table.leave(FILE), CloseOutcome::StillOpen);
        assert_eq!(table.leave(FILE), CloseOutcome::Last { held: true });
        table.enter(FILE);
        assert_eq!(table.leave(FILE), CloseOutcome::Last { held: false });
    }

    #[test]
    fn leaving_what_was_never_entered_does_no_harm() {
        assert_eq!(OpenTable::<&str>::default().leave(FILE), CloseOutcome::Last { held: false });
    }
}
