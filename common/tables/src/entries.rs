//! Creating and removing inodes: make, make unnamed, unlink, rmdir.

use std::sync::Arc;

use bytes::Bytes;
use chordfs_types::{
    chunk::{FileName, MAX_CHUNK_BYTES, NameError},
    fs_error::FsError,
    namespace::{Attr, EntryName, FileKind, Ino, InodeFlags, NewNode, Reply, permission::SET_GROUP_ID},
};

use super::{Body, DentryKey, Inode, MAX_LINKS, Transaction, invalid, numbers::ChosenNumber};

/// The longest target of a symlink.
const MAX_TARGET_BYTES: usize = 4095;

impl Transaction<'_> {
    pub(super) fn make(
        &mut self,
        parent: Ino,
        name: &EntryName,
        node: &NewNode,
        exclusive: bool,
    ) -> Result<Reply, FsError> {
        self.create(parent, name, node, exclusive, None)
    }

    /// Creates an entry under a number and a NAME that were chosen, or under the next number and the path.
    pub(super) fn create(
        &mut self,
        parent: Ino,
        name: &EntryName,
        node: &NewNode,
        exclusive: bool,
        chosen: Option<ChosenNumber>,
    ) -> Result<Reply, FsError> {
        let directory = self.tables.directory(parent)?.attr.clone();
        match self.tables.entry(parent, name) {
            Some(_) if exclusive => return Err(FsError::Exists),
            Some(found) => return Ok(Reply::Entry { attr: found.attr.clone(), created: false }),
            None => check_node(node)?,
        }
        let file = match chosen {
            Some(chosen) => chosen.file.clone(),
            None => self.tables.path_of(parent, name)?,
        };
        let is_directory = node.kind == FileKind::Directory;
        if is_directory && directory.nlink >= MAX_LINKS {
            return Err(FsError::TooManyLinks);
        }
        let body = match node.kind {
            FileKind::Directory => Body::Directory { up: Some((parent, name.clone())) },
            FileKind::Symlink => Body::Symlink { target: Bytes::copy_from_slice(&node.target), parent: None },
            _ => Body::Plain { parent: None },
        };
        let ino = chosen.map_or_else(|| self.next_ino(), |chosen| chosen.ino);
        let mut attr = self.new_attr(ino, node, file);
        attr.nlink = if is_directory { 2 } else { 1 };
        inherit_group(&mut attr, &directory);
        self.tables.inodes.insert(attr.ino, Arc::new(Inode { attr: attr.clone(), body }));
        self.add_name(parent, name, attr.ino, is_directory);
        self.inherit_acl(ino, parent, node.kind);
        Ok(Reply::Entry { attr: self.tables.inodes[&ino].attr.clone(), created: true })
    }

    pub(super) fn make_unnamed(&mut self, file: &FileName, node: &NewNode) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        check_node(node)?;
        if node.kind != FileKind::File {
            return Err(invalid("only a file can be without a name"));
        }
        let ino = self.next_ino();
        let attr = self.new_attr(ino, node, file.clone());
        self.tables.inodes.insert(attr.ino, Arc::new(Inode { attr: attr.clone(), body: Body::Plain { parent: None } }));
        self.orphan(attr.ino, Some(session));
        // No other session can know the inode.
        self.feed.clear();
        Ok(Reply::Entry { attr, created: true })
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &EntryName, hold: bool) -> Result<Reply, FsError> {
        self.tables.directory(parent)?;
        let inode = self.tables.entry(parent, name).ok_or(FsError::NoEntry)?;
        if inode.is_directory() {
            return Err(FsError::IsDirectory);
        }
        let ino = inode.attr.ino;
        self.remove_name(parent, name, false);
        Ok(Reply::Removed { attr: Some(self.drop_link(ino, parent, hold)) })
    }

    pub(super) fn rmdir(&mut self, parent: Ino, name: &EntryName) -> Result<Reply, FsError> {
        self.tables.directory(parent)?;
        let inode = self.tables.entry(parent, name).ok_or(FsError::NoEntry)?;
        let ino = inode.attr.ino;
        match inode.is_directory() {
            false => return Err(FsError::NotDirectory),
            true if !self.tables.is_empty(ino) => return Err(FsError::NotEmpty),
            true => {}
        }
        self.remove_name(parent, name, true);
        self.drop_directory(ino);
        Ok(Reply::Done)
    }

    /// Adds a free name for an inode.
    pub(super) fn add_name(&mut self, parent: Ino, name: &EntryName, ino: Ino, is_directory: bool) {
        self.tables.entries.insert(DentryKey { parent, name: name.clone() }, ino);
        self.note_parent(ino, parent);
        self.notify_entry(parent, name);
        self.touch_directory(parent);
        if is_directory {
            self.edit(parent, |inode| inode.attr.nlink += 1);
        }
    }

    /// Removes a name from a directory; the caller updates the inode.
    pub(super) fn remove_name(&mut self, parent: Ino, name: &EntryName, is_directory: bool) {
        if let Some(ino) = self.tables.entries.remove(&DentryKey { parent, name: name.clone() }) {
            self.forget_parent(ino, parent);
        }
        self.notify_entry(parent, name);
        self.touch_directory(parent);
        if is_directory {
            self.edit(parent, |inode| inode.attr.nlink -= 1);
        }
    }

    /// Drops one link of a non-directory, which was in `parent`. Without a name a file becomes an orphan, and anything
    /// else is removed.
    pub(super) fn drop_link(&mut self, ino: Ino, parent: Ino, hold: bool) -> Attr {
        let attr = self.edit(ino, |inode| inode.attr.nlink -= 1);
        if attr.nlink == 0 && attr.kind == FileKind::File {
            self.tables.set_parent(ino, Some(parent));
            self.orphan(ino, self.session.filter(|_| hold));
        } else if attr.nlink == 0 {
            self.tables.remove_inode(ino);
        }
        attr
    }

    pub(super) fn drop_directory(&mut self, ino: Ino) -> Attr {
        let attr = self.edit(ino, |inode| inode.attr.nlink = 0);
        self.tables.remove_inode(ino);
        attr
    }

    fn next_ino(&mut self) -> Ino {
        let ino = Ino(self.tables.next.ino);
        self.tables.next.ino += 1;
        ino
    }

    /// Creates attributes without links.
    fn new_attr(&self, ino: Ino, node: &NewNode, file: FileName) -> Attr {
        let is_device = matches!(node.kind, FileKind::CharDevice | FileKind::BlockDevice);
        Attr {
            ino,
            kind: node.kind,
            mode: node.mode & 0o7777,
            nlink: 0,
            uid: node.uid,
            gid: node.gid,
            rdev: if is_device { node.rdev } else { 0 },
            size: node.target.len() as u64,
            chunk_bytes: if node.kind == FileKind::File { node.chunk_bytes } else { 0 },
            holes: 0,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            change: self.index,
            flags: InodeFlags::default(),
            file,
        }
    }
}

/// Refuses a chunk size outside the allowed range.
pub(super) fn check_chunk_bytes(chunk_bytes: u32) -> Result<(), FsError> {
    match chunk_bytes {
        1..=MAX_CHUNK_BYTES => Ok(()),
        _ => Err(invalid(format!("a chunk size of {chunk_bytes} bytes; allowed are 1 to {MAX_CHUNK_BYTES}"))),
    }
}

fn check_node(node: &NewNode) -> Result<(), FsError> {
    match node.kind {
        FileKind::Symlink => return check_target(&node.target).map_err(FsError::Name),
        FileKind::File => check_chunk_bytes(node.chunk_bytes)?,
        _ => {}
    }
    if node.target.is_empty() { Ok(()) } else { Err(invalid("only a symlink has a target")) }
}

fn check_target(target: &[u8]) -> Result<(), NameError> {
    match target.len() {
        0 => Err(NameError::Empty),
        len if len > MAX_TARGET_BYTES => Err(NameError::TooLong { len, limit: MAX_TARGET_BYTES }),
        _ if target.contains(&0) => Err(NameError::Nul),
        _ => Ok(()),
    }
}

/// Gives a new inode the group of a set-gid directory, and a new directory the set-gid bit too.
fn inherit_group(attr: &mut Attr, directory: &Attr) {
    if directory.mode & SET_GROUP_ID != 0 {
        attr.gid = directory.gid;
        if attr.kind == FileKind::Directory {
            attr.mode |= SET_GROUP_ID;
        }
    }
}
