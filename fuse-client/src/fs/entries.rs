//! Creating and removing names: files, directories, symlinks, links, special files.

use chordfs_types::{
    chunk::CHUNK_BYTES,
    fs_error::FsError,
    namespace::{Attr, Change, EntryName, FileKind, Ino, NewNode, Reply},
};

use super::{FileSystem, holds::Removal, unexpected};
use crate::cache::{Dentry, DirectoryUpdate, OwnChange, Stamp};

/// The user and group of the calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// The permissions that a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreationMode {
    pub bits: u16,
    /// Bits that the program's umask takes away. A default access control list takes its place.
    pub umask: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    pub kind: FileKind,
    pub mode: CreationMode,
    pub rdev: u32,
    /// Empty but for symlinks.
    pub target: Vec<u8>,
    /// If set, an existing entry is an error; otherwise it is returned unchanged.
    pub exclusive: bool,
}

impl FileSystem {
    /// Creates an entry. Returns its attributes, and whether it was created or existed already.
    pub async fn make(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewEntry,
        caller: Caller,
    ) -> Result<(Attr, bool), FsError> {
        let was_removed = self.removed.contains(parent);
        let directory = self.parent_attr(parent).await?;
        let stamp = self.cache.stamp();
        let _under_way = self.cache.begin_own_change(vec![(parent, name.clone())], vec![parent]);
        let (attr, created) = self.change_entry(creation(name, new, caller, &directory)).await.map_err(|error| {
            self.cache.drop_name(parent, name);
            self.removed.error_in(parent, was_removed, error)
        })?;
        let links = i32::from(attr.kind == FileKind::Directory);
        let update = created.then_some(DirectoryUpdate { at: attr.ctime, links });
        self.cache.changed_name(stamp, parent, name, Some(&attr), update);
        Ok((attr, created))
    }

    pub async fn link(&self, ino: Ino, parent: Ino, name: &EntryName) -> Result<Attr, FsError> {
        let stamp = self.cache.stamp();
        let _under_way = self.cache.begin_own_change(vec![(parent, name.clone())], vec![parent, ino]);
        let change = Change::Link { ino, parent, name: name.clone() };
        let (attr, _) = self.change_entry(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        let update = Some(DirectoryUpdate { at: attr.ctime, links: 0 });
        self.cache.changed_name(stamp, parent, name, Some(&attr), update);
        self.record_change(stamp, &attr);
        Ok(self.with_uncommitted(attr))
    }

    pub async fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let open = self.open_inode(parent, name).await;
        let removal = self.begin_removal(open);
        let _under_way = self.begin_own_removal(parent, name);
        let change = Change::Unlink { parent, name: name.clone(), hold: removal.holds() };
        let reply = self.namespace.apply(change).await.inspect_err(|error| {
            self.cache.drop_name(parent, name);
            self.removal_failed(&removal, error);
        })?;
        let Reply::Removed { attr } = reply else { return Err(unexpected("removing a name", &reply)) };
        let update = attr.as_ref().map(|attr| DirectoryUpdate { at: attr.ctime, links: 0 });
        self.cache.changed_name(stamp, parent, name, None, update);
        self.name_removed(stamp, attr, &removal);
        Ok(())
    }

    pub async fn rmdir(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let removed = match self.cache.name(parent, name) {
            Some(Dentry::Present(ino)) => self.cache.attr_maybe_touched(ino),
            Some(Dentry::Absent) | None => None,
        };
        let _under_way = self.begin_own_removal(parent, name);
        let change = Change::Rmdir { parent, name: name.clone() };
        self.namespace.apply(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        self.cache.changed_name(stamp, parent, name, None, None);
        if let Some(attr) = removed {
            self.note_removed_directory(attr);
        }
        Ok(())
    }

    /// A change that removes a name, and concerns the inode to which it leads.
    pub(super) fn begin_own_removal(&self, parent: Ino, name: &EntryName) -> OwnChange<'_> {
        let mut inos = vec![parent];
        if let Some(Dentry::Present(ino)) = self.cache.name(parent, name) {
            inos.push(ino);
        }
        self.cache.begin_own_change(vec![(parent, name.clone())], inos)
    }

    fn note_removed_directory(&self, attr: Attr) {
        let ino = attr.ino;
        self.cache.drop_attr(ino);
        self.removed.remember(Some(attr));
        self.removed.mark(ino);
    }

    /// The inode under this name if it is open here: the namespace then has to keep its contents. A name that is not
    /// cached is looked up, which is rare, because the kernel has looked it up just before.
    pub(super) async fn open_inode(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        if self.opens.is_empty() {
            return None;
        }
        let ino = match self.cache.name(parent, name) {
            Some(Dentry::Present(ino)) => ino,
            Some(Dentry::Absent) | None => self.lookup(parent, name).await.ok()?.ino,
        };
        self.opens.is_open(ino).then_some(ino)
    }

    /// Handles an inode that lost a name through a change by this mount.
    pub(super) fn name_removed(&self, stamp: Stamp, attr: Option<Attr>, removal: &Removal) {
        let Some(attr) = attr else { return };
        let ino = attr.ino;
        self.record_change(stamp, &attr);
        if attr.nlink > 0 {
            return;
        }
        if attr.kind == FileKind::Directory {
            return self.note_removed_directory(attr);
        }
        match &removal.receipt {
            None => self.note_held(ino),
            Some(receipt) if self.opens.hold(ino) => self.hold_at_namespace(vec![ino], Some(receipt.clone())),
            // A program of this mount may be creating it: the answer to that may be on its way still.
            Some(receipt) => self.creations.note_event(Some(ino), receipt),
        }
    }

    async fn parent_attr(&self, parent: Ino) -> Result<Attr, FsError> {
        match self.cache.attr_maybe_touched(parent) {
            Some(attr) => Ok(attr),
            None => self.attr(parent).await,
        }
    }
}

fn creation(name: &EntryName, new: NewEntry, caller: Caller, directory: &Attr) -> Change {
    let (parent, name, exclusive) = (directory.ino, name.clone(), new.exclusive);
    let (umask, has_acl) = (new.mode.umask, directory.flags.has_acl);
    let mut node = new_node(new, caller);
    if has_acl {
        return Change::MakeMasked { parent, name, node, umask, exclusive };
    }
    node.mode &= !(umask & 0o777);
    Change::Make { parent, name, node, exclusive }
}

/// The namespace gives what is created in a set-group-id directory the group of that directory.
fn new_node(new: NewEntry, caller: Caller) -> NewNode {
    NewNode {
        kind: new.kind,
        mode: new.mode.bits,
        uid: caller.uid,
        gid: caller.gid,
        rdev: new.rdev,
        chunk_bytes: CHUNK_BYTES,
        target: new.target.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test as sample;

    fn change_in(directory: &Attr) -> Change {
        let mode = CreationMode { bits: 0o2777, umask: 0o7027 };
        let new = NewEntry { kind: FileKind::File, mode, rdev: 0, target: Vec::new(), exclusive: true };
        creation(&sample::name("f"), new, Caller { uid: 7, gid: 8 }, directory)
    }

    #[test]
    fn the_umask_is_applied_here_unless_the_directory_has_a_list() {
        let mut directory = sample::attr(1, 1);
        match change_in(&directory) {
            Change::Make { node, .. } => assert_eq!((node.mode, node.uid, node.gid), (0o2750, 7, 8)),
            other => panic!("{other:?}"),
        }
        directory.flags.has_acl = true;
        match change_in(&directory) {
            Change::MakeMasked { node, umask, .. } => assert_eq!((node.mode, umask), (0o2777, 0o7027)),
            other => panic!("{other:?}"),
        }
    }
}
