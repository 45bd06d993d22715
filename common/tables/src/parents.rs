//! In which directories an inode has names. It answers whether an inode lies below a folder, for callers who may see
//! that folder only.
//!
//! A directory has one parent, and most other inodes have one name; that parent stands in the inode. Only of an inode
//! with several names are the parents counted in a table. A file that has lost its last name keeps the directory of
//! that name: whoever could reach it then has it open.

use std::sync::Arc;

use chordfs_types::{
    chunk::{ChunkId, Version},
    identity::IdentityId,
    namespace::{EntryName, Ino, SessionId},
};
use imbl::OrdMap;

use super::{Body, DentryKey, Inode, Tables, Transaction};

/// How many names an inode has in a directory.
pub(super) type NameCounts = OrdMap<(Ino, Ino), u32>;

impl Inode {
    /// The parent in an inode that is no directory.
    fn single_parent(&mut self) -> Option<&mut Option<Ino>> {
        match &mut self.body {
            Body::Plain { parent } | Body::Symlink { parent, .. } => Some(parent),
            Body::Directory { .. } => None,
        }
    }
}

impl Tables {
    /// Notes a name of `ino` in `parent`. The parent of a directory is in the directory itself.
    pub(super) fn add_parent(&mut self, ino: Ino, parent: Ino) {
        if self.has_counts(ino) {
            return self.count_name(ino, parent);
        }
        let Some(single) = self.single_parent_mut(ino) else { return };
        if let Some(first) = single.take() {
            self.count_name(ino, first);
            self.count_name(ino, parent);
        } else {
            *single = Some(parent);
        }
    }

    /// Forgets a name of `ino` in `parent`.
    pub(super) fn remove_parent(&mut self, ino: Ino, parent: Ino) {
        if !self.has_counts(ino) {
            if let Some(single) = self.single_parent_mut(ino) {
                *single = None;
            }
            return;
        }
        match self.name_counts.get_mut(&(ino, parent)) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.name_counts.remove(&(ino, parent))),
        }
        let left: Vec<(Ino, u32)> = self.counts(ino).take(2).collect();
        if let [(last, 1)] = left[..] {
            self.name_counts.remove(&(ino, last));
            self.set_parent(ino, Some(last));
        }
    }

    /// Sets the only parent of an inode that is no directory: the last one of a file without a name, or none.
    pub(super) fn set_parent(&mut self, ino: Ino, parent: Option<Ino>) {
        if let Some(single) = self.single_parent_mut(ino) {
            *single = parent;
        }
    }

    /// Notes the parents of all inodes, for tables that were stored without them.
    pub(super) fn note_all_parents(&mut self) {
        for (DentryKey { parent, .. }, ino) in self.entries.clone() {
            self.add_parent(ino, parent);
        }
    }

    /// Whether `ino` is `root`, or has a name below it, or had its last name there.
    fn is_below(&self, root: Ino, ino: Ino) -> bool {
        let below = |directory: Ino| self.upwards(directory).any(|above| above.attr.ino == root);
        match self.inodes.get(&ino).map(|inode| &inode.body) {
            None => false,
            Some(Body::Directory { .. }) => below(ino),
            Some(Body::Plain { parent: Some(parent) } | Body::Symlink { parent: Some(parent), .. }) => below(*parent),
            Some(Body::Plain { .. } | Body::Symlink { .. }) => self.counts(ino).any(|(parent, _)| below(parent)),
        }
    }

    /// The directories in which an inode with several names has them.
    pub(super) fn parents(&self, ino: Ino) -> impl Iterator<Item = Ino> + '_ {
        self.counts(ino).map(|(parent, _)| parent)
    }

    fn has_counts(&self, ino: Ino) -> bool {
        self.counts(ino).next().is_some()
    }

    /// The directories in which an inode with several names has them, and how many in each.
    fn counts(&self, ino: Ino) -> impl Iterator<Item = (Ino, u32)> + '_ {
        let counts = self.name_counts.range((ino, Ino(0))..=(ino, Ino(u64::MAX)));
        counts.map(|((_, parent), count)| (*parent, *count))
    }

    fn count_name(&mut self, ino: Ino, parent: Ino) {
        *self.name_counts.entry((ino, parent)).or_insert(0) += 1;
    }

    fn single_parent_mut(&mut self, ino: Ino) -> Option<&mut Option<Ino>> {
        self.inodes.get_mut(&ino).map(Arc::make_mut)?.single_parent()
    }
}

impl Transaction<'_> {
    /// See [`Tables::add_parent`]. A part of the namespace does not know all names.
    pub(super) fn note_parent(&mut self, ino: Ino, parent: Ino) {
        if !self.is_part {
            self.tables.add_parent(ino, parent);
        }
    }

    /// See [`Tables::remove_parent`].
    pub(super) fn forget_parent(&mut self, ino: Ino, parent: Ino) {
        if !self.is_part {
            self.tables.remove_parent(ino, parent);
        }
    }
}

/// What a caller may see who is bound to a folder.
#[derive(Clone, Copy, Debug)]
pub struct BoundView<'a> {
    tables: &'a Tables,
    path: &'a [EntryName],
    root: Ino,
    owner: IdentityId,
}

impl Tables {
    /// The view of the identity `owner`, which is bound to the folder `path`. `None` if there is nothing at that path.
    pub fn bound_view<'a>(&'a self, owner: IdentityId, path: &'a [EntryName]) -> Option<BoundView<'a>> {
        let along = self.along(path);
        let root = *along.last()?;
        (along.len() == path.len() + 1).then_some(BoundView { tables: self, path, root, owner })
    }
}

impl BoundView<'_> {
    /// The folder to which the caller is bound.
    pub fn root(&self) -> Ino {
        self.root
    }

    /// Whether the caller may name the inode: it lies in the folder, or is a file without a name that a session of the
    /// caller holds, or is yet to be created under a number that a session of the caller has.
    pub fn reaches(&self, ino: Ino) -> bool {
        let BoundView { tables, root, .. } = *self;
        tables.is_below(root, ino) || self.holds(ino) || self.may_create(ino)
    }

    /// Whether the inode is gone, so that whoever names it names nothing.
    pub fn is_gone(&self, ino: Ino) -> bool {
        !self.tables.inodes.contains_key(&ino)
    }

    /// Whether the caller may look `name` up in `parent` on the way from the root to the folder.
    pub fn is_on_the_way(&self, parent: Ino, name: &EntryName) -> bool {
        let along = self.tables.along(self.path);
        along.into_iter().zip(self.path).any(|(at, next)| at == parent && next == name)
    }

    /// Whether the caller may read and store chunks of the version: a file that it reaches has them, or they are for a
    /// file that one of its sessions writes.
    pub fn reaches_version(&self, version: Version) -> bool {
        let used_by = self.tables.versions.get(&version).map(|used| used.ino);
        used_by.is_some_and(|ino| self.reaches(ino)) || self.owns(version)
    }

    /// Whether a file that the caller reaches has the chunk by a clone.
    pub fn reaches_by_clone(&self, id: ChunkId) -> bool {
        self.tables.cloned_into(id).any(|ino| self.reaches(ino))
    }

    /// Whether a session of the caller has the version to write with.
    pub(super) fn owns(&self, version: Version) -> bool {
        self.sessions().any(|session| self.tables.owns(session, version))
    }

    /// Whether the inode is a file without a name that a session of the caller holds.
    pub(super) fn holds(&self, ino: Ino) -> bool {
        let orphan = self.tables.orphans.get(&ino);
        orphan.is_some_and(|orphan| self.sessions().any(|session| orphan.holders.contains(&session)))
    }

    fn may_create(&self, ino: Ino) -> bool {
        !self.tables.inodes.contains_key(&ino) && self.sessions().any(|session| self.tables.is_number_of(session, ino))
    }

    fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        let owners = self.tables.session_owners.iter();
        owners.filter(|(_, owner)| **owner == self.owner).map(|(session, _)| *session)
    }
}
