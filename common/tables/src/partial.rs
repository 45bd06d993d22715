//! Tables that know a part of the namespace. A mount keeps in such tables what no other session uses, and applies its
//! changes to them before they are logged. So its answers follow the rules that the log's replicas follow.
//!
//! A part has no extents, no sessions and no counters of its own: only names and attributes. The caller makes sure that
//! it knows whatever a change depends on; see [`Tables::affected`].

use std::sync::Arc;

use bytes::Bytes;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Change, EntryName, FileKind, Ino, Reply, Time},
};

use super::{Body, DentryKey, Inode, Tables, Transaction, detached::STEP, orphan_inodes::OrphanInode};

impl Tables {
    /// Knows nothing, not even the root.
    pub fn empty_part() -> Self {
        let mut tables = Self::new();
        tables.inodes.remove(&Ino::ROOT);
        tables
    }

    /// Applies a change to a part that knows all that [`Self::affected`] names. Its place in the log is not known yet,
    /// so that the change counters of the inodes are lower than they will be.
    pub fn apply_to_part(&mut self, now: Time, change: &Change) -> Result<Reply, FsError> {
        let mut transaction = Transaction {
            tables: self,
            index: 0,
            logged: now,
            now,
            session: None,
            feed: Vec::new(),
            removals_left: STEP,
            is_part: true,
            is_squashed: false,
            gained: 0,
        };
        transaction.change(change)
    }

    /// Records an inode as the namespace has it. `up` is the directory in which a directory is, and its name there.
    pub fn learn(&mut self, attr: Attr, up: Option<(Ino, EntryName)>) {
        let body = match attr.kind {
            FileKind::Directory => Body::Directory { up: up.or_else(|| self.up_of(attr.ino)) },
            FileKind::Symlink => {
                Body::Symlink { target: self.known_target(attr.ino).unwrap_or_default(), parent: None }
            }
            _ => Body::Plain { parent: None },
        };
        self.inodes.insert(attr.ino, Arc::new(Inode { attr, body }));
    }

    pub fn learn_name(&mut self, parent: Ino, name: EntryName, ino: Ino) {
        self.entries.insert(DentryKey { parent, name }, ino);
    }

    /// Forgets an inode. Names that lead to it remain, and those in it go with [`Self::forget_names`].
    pub fn forget(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
        if let Some(OrphanInode { since, .. }) = self.orphans.remove(&ino) {
            self.unheld.remove(&(since, ino));
        }
    }

    /// Forgets all names in a directory.
    pub fn forget_names(&mut self, parent: Ino) {
        let names: Vec<EntryName> = self.names_in(parent, None).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.entries.remove(&DentryKey { parent, name });
        }
    }

    /// The attributes of a known inode.
    pub fn known_attr(&self, ino: Ino) -> Option<&Attr> {
        self.inodes.get(&ino).map(|inode| &inode.attr)
    }

    /// Where a known name leads.
    pub fn known_name(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        self.entries.get(&DentryKey { parent, name: name.clone() }).copied()
    }

    /// The target of a symlink that was made here.
    pub fn known_target(&self, ino: Ino) -> Option<Bytes> {
        match &self.inodes.get(&ino)?.body {
            Body::Symlink { target, .. } if !target.is_empty() => Some(target.clone()),
            _ => None,
        }
    }

    /// Where the known names in a directory lead.
    pub fn known_children(&self, directory: Ino) -> impl Iterator<Item = Ino> {
        self.names_in(directory, None).map(|(_, ino)| ino)
    }

    /// How many inodes are known.
    pub fn known_inodes(&self) -> usize {
        self.inodes.len()
    }

    fn up_of(&self, ino: Ino) -> Option<(Ino, EntryName)> {
        self.inodes.get(&ino)?.up().cloned()
    }
}
