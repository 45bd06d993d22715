//! What this mount holds alone of the namespace: directories whose names are all known, and the attributes of what they
//! lead to. It answers queries and applies changes by the namespace's own rules (`chordfs-tables`), or says that it
//! cannot.
//!
//! It knows nothing of leases itself: the caller passes a function that says which inodes no other session uses. An
//! inode that is known but not held alone counts as unknown.

use std::collections::HashMap;

use chordfs_tables::Tables;
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, Commit, DirEntry, EntryName, Extent, FileKind, Ino, Query, RenameMode, Reply, SetAttr,
        Time,
    },
};
use lru::LruCache;

/// When more inodes are known, the directories that were used least recently are forgotten. Each takes about 500 bytes.
/// What is created here besides is bounded by the number of leases, which the leader revokes beyond its own limit.
const MAX_INODES: usize = 49_152;

pub(super) struct Mirror {
    tables: Tables,
    /// Directories whose names are all known, by their last use.
    complete: LruCache<Ino, ()>,
    /// The contents of files of which they are known: few extents, in most cases none or one.
    contents: HashMap<Ino, Vec<Extent>>,
}

/// A file's contents are known only if they have so few extents.
const MAX_KNOWN_EXTENTS: usize = 8;

/// A directory as the namespace has it.
pub(super) struct ListedDirectory {
    pub(super) attr: Attr,
    /// `..`, and the directory's name in it.
    pub(super) up: Option<(Ino, EntryName)>,
    pub(super) entries: Vec<DirEntry>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { tables: Tables::empty_part(), complete: LruCache::unbounded(), contents: HashMap::new() }
    }
}

impl Mirror {
    /// The answer to a query, if it follows from what is known.
    pub(super) fn answer(&mut self, query: &Query, is_sole: &dyn Fn(Ino) -> bool) -> Option<Result<Answer, FsError>> {
        match query {
            Query::Lookup { parent, name } => self.look_up(*parent, name, is_sole),
            Query::GetAttr { ino } => self.attr(*ino, is_sole).map(|attr| Ok(Answer::Attr(attr.clone()))),
            Query::Open { ino } => {
                let (attr, extents) = (self.attr(*ino, is_sole)?.clone(), self.contents.get(ino)?.clone());
                Some(Ok(Answer::Open { attr, extents, more: false }))
            }
            Query::Extents { ino, from } => {
                self.attr(*ino, is_sole)?;
                let extents = self.contents.get(ino)?.iter().filter(|extent| extent.end() > u64::from(*from));
                Some(Ok(Answer::Extents { extents: extents.copied().collect(), more: false }))
            }
            Query::ReadDir { ino, .. } if self.knows_all_in(*ino, is_sole) => Some(self.tables.query(query)),
            Query::ReadLink { ino } => self.tables.known_target(*ino).map(|target| Ok(Answer::Target(target))),
            _ => None,
        }
    }

    /// The attributes of an inode that is known and held alone.
    pub(super) fn attr(&self, ino: Ino, is_sole: &dyn Fn(Ino) -> bool) -> Option<&Attr> {
        self.tables.known_attr(ino).filter(|_| is_sole(ino))
    }

    /// Whether everything is known on which the change depends, and all of it is held alone.
    pub(super) fn covers(&mut self, change: &Change, is_sole: &dyn Fn(Ino) -> bool) -> bool {
        match change {
            // Only the namespace knows the directory's list.
            Change::MakeNumbered { parent, name, .. } => {
                !self.has_acl(*parent) && self.covers_name(*parent, name, is_sole)
            }
            Change::Unlink { parent, name, .. } => self.covers_name(*parent, name, is_sole),
            Change::Rmdir { parent, name } => {
                self.covers_name(*parent, name, is_sole) && self.covers_contents(*parent, name, is_sole)
            }
            Change::Link { ino, parent, name } => {
                let is_named = self.attr(*ino, is_sole).is_some_and(|attr| attr.nlink > 0);
                is_named && self.covers_name(*parent, name, is_sole)
            }
            // What exchanges two directories, or moves one, may concern any of their ancestors.
            Change::Rename { mode: RenameMode::Exchange, .. } => false,
            Change::Rename { parent, name, new_parent, new_name, .. } => {
                self.covers_name(*parent, name, is_sole)
                    && self.covers_name(*new_parent, new_name, is_sole)
                    && self.covers_contents(*new_parent, new_name, is_sole)
                    && (parent == new_parent || !self.is_directory(*parent, name))
            }
            Change::SetAttr { ino, set } => {
                let changes_acl = set.mode.is_some() && self.has_acl(*ino);
                !cuts_a_chunk(set) && !changes_acl && self.attr(*ino, is_sole).is_some()
            }
            _ => false,
        }
    }

    /// Applies a change that is covered. A refused one changes nothing.
    pub(super) fn apply(&mut self, now: Time, change: &Change) -> Result<Reply, FsError> {
        let at_names: Vec<Ino> =
            replaced_names(change).filter_map(|(parent, name)| self.known_name(parent, name)).collect();
        let reply = self.tables.apply_to_part(now, change)?;
        match (change, &reply) {
            (Change::MakeNumbered { .. }, Reply::Entry { attr, .. }) if attr.kind == FileKind::Directory => {
                self.complete.put(attr.ino, ());
            }
            (Change::MakeNumbered { .. }, Reply::Entry { attr, .. }) => {
                drop(self.contents.insert(attr.ino, Vec::new()))
            }
            (Change::SetAttr { ino, set }, _) if set.truncate.is_some() => drop(self.contents.insert(*ino, Vec::new())),
            _ => {}
        }
        for gone in at_names.into_iter().filter(|ino| self.tables.known_attr(*ino).is_none()) {
            self.complete.pop(&gone);
            self.contents.remove(&gone);
        }
        Ok(reply)
    }

    /// Takes over the attributes that a logged change has resulted in. Changes that are not logged yet stay: the caller
    /// says whether there are any.
    pub(super) fn note_logged(&mut self, attr: &Attr, has_unlogged: bool) {
        let Some(known) = self.tables.known_attr(attr.ino) else { return };
        let change = known.change.max(attr.change);
        let merged = if has_unlogged { Attr { change, ..known.clone() } } else { Attr { change, ..attr.clone() } };
        self.tables.learn(merged, None);
    }

    /// Takes over what a commit has changed. It is the only change of a file's size that is logged without being
    /// applied here before. Other changes that are not logged yet stay; `is_dated`: one of them sets the time of the
    /// last write.
    pub(super) fn note_committed(&mut self, attr: &Attr, has_unlogged: bool, is_dated: bool) {
        if !has_unlogged {
            return self.note_logged(attr, false);
        }
        let Some(known) = self.tables.known_attr(attr.ino).cloned() else { return };
        let mtime = if is_dated { known.mtime } else { known.mtime.max(attr.mtime) };
        let (ctime, change) = (known.ctime.max(attr.ctime), known.change.max(attr.change));
        let (size, chunk_bytes, holes) = (attr.size, attr.chunk_bytes, attr.holes);
        self.tables.learn(Attr { size, chunk_bytes, holes, mtime, ctime, change, ..known }, None);
    }

    /// Notes that a change of the contents is under way. Returns what they will be after it, if that follows from what
    /// is known: [`Self::learn_contents`] takes it when the change is logged.
    pub(super) fn begin_contents(&mut self, ino: Ino, change: &Change) -> Option<Vec<Extent>> {
        let former = self.contents.remove(&ino)?;
        let (_, commit) = change.as_commit()?;
        let Commit { restart: None, partial, extents, .. } = commit else { return None };
        (former.is_empty() && partial.is_empty() && extents.len() <= MAX_KNOWN_EXTENTS).then(|| extents.clone())
    }

    pub(super) fn learn_contents(&mut self, ino: Ino, extents: Vec<Extent>) {
        if self.tables.known_attr(ino).is_some() {
            self.contents.insert(ino, extents);
        }
    }

    /// Notes that the contents have changed in a way that is not known.
    pub(super) fn forget_contents(&mut self, ino: Ino) {
        self.contents.remove(&ino);
    }

    /// Learns a directory with all its names. Only of what is held alone it also learns the attributes. Those that are
    /// known already are newer: they may have been changed here while the list was on its way.
    pub(super) fn learn_directory(
        &mut self,
        listed: ListedDirectory,
        is_sole: &dyn Fn(Ino) -> bool,
        is_unlogged: &dyn Fn(Ino) -> bool,
    ) {
        let directory = listed.attr.ino;
        self.tables.forget_names(directory);
        if self.tables.known_attr(directory).is_none() {
            self.tables.learn(listed.attr, listed.up);
        }
        for DirEntry { name, attr } in listed.entries {
            let up = (attr.kind == FileKind::Directory).then(|| (directory, name.clone()));
            self.tables.learn_name(directory, name, attr.ino);
            if is_sole(attr.ino) && self.tables.known_attr(attr.ino).is_none() {
                self.tables.learn(attr, up);
            }
        }
        self.complete.put(directory, ());
        self.shrink(is_unlogged);
    }

    /// Where a known name leads.
    pub(super) fn known_name(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        self.tables.known_name(parent, name)
    }

    /// Whether it is known that the directory has no such name.
    pub(super) fn is_known_absent(&self, parent: Ino, name: &EntryName) -> bool {
        self.complete.contains(&parent) && self.tables.known_name(parent, name).is_none()
    }

    /// Whether all names in the directory are known.
    pub(super) fn is_complete(&self, directory: Ino) -> bool {
        self.complete.contains(&directory)
    }

    /// Notes when inodes were read last, as far as they are known.
    pub(super) fn touch(&mut self, atimes: &[(Ino, Time)]) {
        self.tables.touch(atimes);
    }

    /// Forgets the inode, and if it is a directory all names in it.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.tables.forget(ino);
        self.tables.forget_names(ino);
        self.contents.remove(&ino);
        self.complete.pop(&ino);
    }

    fn look_up(
        &mut self,
        parent: Ino,
        name: &EntryName,
        is_sole: &dyn Fn(Ino) -> bool,
    ) -> Option<Result<Answer, FsError>> {
        self.attr(parent, is_sole)?;
        match self.tables.known_name(parent, name) {
            Some(ino) => self.attr(ino, is_sole).map(|attr| Ok(Answer::Attr(attr.clone()))),
            None => self.complete.get(&parent).map(|()| Err(FsError::NoEntry)),
        }
    }

    /// Whether it is known where the name leads, also if that is nowhere, and the inode there.
    fn covers_name(&mut self, parent: Ino, name: &EntryName, is_sole: &dyn Fn(Ino) -> bool) -> bool {
        if self.attr(parent, is_sole).is_none() || self.complete.get(&parent).is_none() {
            return false;
        }
        self.tables.known_name(parent, name).is_none_or(|ino| self.attr(ino, is_sole).is_some())
    }

    /// Whether it is known if the directory to which the name leads is empty. True if it leads to anything else.
    fn covers_contents(&self, parent: Ino, name: &EntryName, is_sole: &dyn Fn(Ino) -> bool) -> bool {
        let directory = self.tables.known_name(parent, name).filter(|_| self.is_directory(parent, name));
        // The tables take a name whose inode they do not know for none.
        let knows_all = |ino| self.tables.known_children(ino).all(|child| self.tables.known_attr(child).is_some());
        directory.is_none_or(|ino| self.complete.contains(&ino) && is_sole(ino) && knows_all(ino))
    }

    fn is_directory(&self, parent: Ino, name: &EntryName) -> bool {
        let attr = self.tables.known_name(parent, name).and_then(|ino| self.tables.known_attr(ino));
        attr.is_some_and(|attr| attr.kind == FileKind::Directory)
    }

    fn has_acl(&self, ino: Ino) -> bool {
        self.tables.known_attr(ino).is_some_and(|attr| attr.flags.has_acl)
    }

    fn knows_all_in(&mut self, directory: Ino, is_sole: &dyn Fn(Ino) -> bool) -> bool {
        let is_complete = self.attr(directory, is_sole).is_some() && self.complete.get(&directory).is_some();
        is_complete && self.tables.known_children(directory).all(|ino| self.attr(ino, is_sole).is_some())
    }

    /// Forgets directories until few enough inodes are known. Those with changes that are not logged stay.
    fn shrink(&mut self, is_unlogged: &dyn Fn(Ino) -> bool) {
        let mut tries = self.complete.len();
        while self.tables.known_inodes() > MAX_INODES && tries > 0 {
            tries -= 1;
            let Some((directory, ())) = self.complete.pop_lru() else { return };
            let children: Vec<Ino> = self.tables.known_children(directory).collect();
            if is_unlogged(directory) || children.iter().any(|ino| is_unlogged(*ino)) {
                self.complete.put(directory, ());
                continue;
            }
            self.tables.forget_names(directory);
            children.into_iter().chain([directory]).filter(|ino| !self.complete.contains(ino)).for_each(|ino| {
                self.tables.forget(ino);
                self.contents.remove(&ino);
            });
        }
    }
}

/// The names by whose change an inode may come to its end.
fn replaced_names(change: &Change) -> impl Iterator<Item = (Ino, &EntryName)> {
    let name = match change {
        Change::Unlink { parent, name, .. } | Change::Rmdir { parent, name } => Some((*parent, name)),
        Change::Rename { new_parent, new_name, .. } => Some((*new_parent, new_name)),
        _ => None,
    };
    name.into_iter()
}

/// Whether a change of the size needs the contents of a chunk, which only the nodes have.
fn cuts_a_chunk(set: &SetAttr) -> bool {
    set.truncate.as_ref().is_some_and(|truncate| truncate.size > 0)
}
