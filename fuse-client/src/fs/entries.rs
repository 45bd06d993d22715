//! Making and removing names: files, directories, symlinks, links, special files.

use chordfs_types::{
    chunk::CHUNK_BYTES,
    fs_error::FsError,
    namespace::{Attr, Change, EntryName, FileKind, Ino, NewNode, Reply},
};
use tracing::warn;

use super::{FileSystem, unexpected};
use crate::cache::{Dentry, Stamp, Touched};

const SET_GROUP_ID: u16 = 0o2000;

/// On whose behalf something is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    pub kind: FileKind,
    /// The umask has been applied.
    pub mode: u16,
    pub rdev: u32,
    /// Empty but for symlinks.
    pub target: Vec<u8>,
    /// An existing entry is an error; otherwise it is returned as it is.
    pub exclusive: bool,
}

impl FileSystem {
    /// The entry, and whether it was made now.
    pub async fn make(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewEntry,
        caller: Caller,
    ) -> Result<(Attr, bool), FsError> {
        let exclusive = new.exclusive;
        let node = new_node(new, caller, &self.parent_attr(parent).await?);
        let stamp = self.cache.stamp();
        let change = Change::Make { parent, name: name.clone(), node, exclusive };
        let (attr, created) = self.change_entry(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        let links = i32::from(attr.kind == FileKind::Directory);
        let touched = created.then_some(Touched { at: attr.ctime, links });
        self.cache.changed_name(stamp, parent, name, Some(&attr), touched);
        Ok((attr, created))
    }

    pub async fn link(&self, ino: Ino, parent: Ino, name: &EntryName) -> Result<Attr, FsError> {
        let stamp = self.cache.stamp();
        let change = Change::Link { ino, parent, name: name.clone() };
        let (attr, _) = self.change_entry(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        let touched = Some(Touched { at: attr.ctime, links: 0 });
        self.cache.changed_name(stamp, parent, name, Some(&attr), touched);
        self.changed(stamp, &attr);
        Ok(self.with_uncommitted(attr))
    }

    pub async fn unlink(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let hold = self.may_be_open(parent, name);
        let change = Change::Unlink { parent, name: name.clone(), hold };
        let reply = self.namespace.apply(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        let Reply::Removed { attr } = reply else { return Err(unexpected("removing a name", &reply)) };
        let touched = attr.as_ref().map(|attr| Touched { at: attr.ctime, links: 0 });
        self.cache.changed_name(stamp, parent, name, None, touched);
        self.lost_a_name(stamp, attr, hold).await;
        Ok(())
    }

    pub async fn rmdir(&self, parent: Ino, name: &EntryName) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let removed = self.cache.name(parent, name);
        let change = Change::Rmdir { parent, name: name.clone() };
        self.namespace.apply(change).await.inspect_err(|_| self.cache.drop_name(parent, name))?;
        self.cache.changed_name(stamp, parent, name, None, None);
        if let Some(Dentry::Present(ino)) = removed {
            self.cache.drop_attr(ino);
        }
        Ok(())
    }

    /// Whether what the name leads to may be open here: then the namespace shall keep its contents. A name that is not
    /// known may lead anywhere; if it turns out not to be open, the contents are released at once.
    pub(super) fn may_be_open(&self, parent: Ino, name: &EntryName) -> bool {
        match self.cache.name(parent, name) {
            Some(Dentry::Present(ino)) => self.opens.is_open(ino),
            Some(Dentry::Absent) | None => !self.opens.is_empty(),
        }
    }

    /// `attr` lost a name to a change of ours, in which the namespace was told to keep it (`hold`) or not.
    pub(super) async fn lost_a_name(&self, stamp: Stamp, attr: Option<Attr>, hold: bool) {
        let Some(attr) = attr else { return };
        let ino = attr.ino;
        self.changed(stamp, &attr);
        if attr.nlink > 0 || attr.kind == FileKind::Directory {
            return;
        }
        match (hold, self.opens.hold(ino)) {
            (true, false) => self.release_at_namespace(ino),
            (false, true) => self.hold_at_namespace(ino).await,
            (true, true) | (false, false) => {}
        }
    }

    /// Asks the namespace to keep a nameless file that is open here.
    pub(super) async fn hold_at_namespace(&self, ino: Ino) {
        if let Err(failure) = self.namespace.apply(Change::Hold { ino }).await {
            warn!(ino = ino.0, "an open file that was deleted may lose its contents: {failure}");
        }
        if !self.opens.is_open(ino) {
            self.release_at_namespace(ino);
        }
    }

    async fn parent_attr(&self, parent: Ino) -> Result<Attr, FsError> {
        match self.cache.attr_maybe_touched(parent) {
            Some(attr) => Ok(attr),
            None => self.attr(parent).await,
        }
    }
}

/// A directory with the set-group-id bit gives its group to what is made in it, and the bit to directories.
fn new_node(new: NewEntry, caller: Caller, parent: &Attr) -> NewNode {
    let inherits = parent.mode & SET_GROUP_ID != 0;
    let directory = new.kind == FileKind::Directory;
    NewNode {
        kind: new.kind,
        mode: if inherits && directory { new.mode | SET_GROUP_ID } else { new.mode },
        uid: caller.uid,
        gid: if inherits { parent.gid } else { caller.gid },
        rdev: new.rdev,
        chunk_bytes: CHUNK_BYTES,
        target: new.target.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test as sample;

    fn made_in(parent_mode: u16, kind: FileKind) -> (u16, u32) {
        let mut parent = sample::attr(1, 1);
        (parent.mode, parent.gid) = (parent_mode, 50);
        let new = NewEntry { kind, mode: 0o755, rdev: 0, target: Vec::new(), exclusive: true };
        let node = new_node(new, Caller { uid: 7, gid: 8 }, &parent);
        (node.mode, node.gid)
    }

    #[test]
    fn the_group_comes_from_the_caller() {
        assert_eq!(made_in(0o777, FileKind::File), (0o755, 8));
        assert_eq!(made_in(0o777, FileKind::Directory), (0o755, 8));
    }

    #[test]
    fn or_from_a_set_group_id_directory() {
        assert_eq!(made_in(0o2777, FileKind::File), (0o755, 50));
        assert_eq!(made_in(0o2777, FileKind::Directory), (0o2755, 50));
    }
}
