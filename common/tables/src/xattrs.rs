//! Extended attributes, and what the access control lists among them have to do with the permission bits.
//!
//! They are in a table of their own, so that the many inodes without any take no space for them. The flags of an inode
//! tell mounts whether there are any.

use std::sync::Arc;

use bytes::Bytes;
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Answer, Attr, EntryName, FileKind, Ino, InodeFlags, MAX_XATTR_VALUE_BYTES, MAX_XATTRS_BYTES, NewNode, Reply,
        SetAttr, XattrMode, XattrName, Xattrs,
    },
};

use super::{
    Tables, Transaction,
    acl::{ACCESS_ACL, Acl, DEFAULT_ACL},
    invalid,
};

const PERMISSIONS: u16 = 0o777;
/// Whatever is in none of these is unknown, apart from the lists.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

impl Transaction<'_> {
    pub(super) fn set_xattr(
        &mut self,
        ino: Ino,
        name: &XattrName,
        value: &Bytes,
        mode: XattrMode,
    ) -> Result<Reply, FsError> {
        self.tables.inode(ino)?;
        match (mode, self.tables.has_xattr(ino, name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoXattr),
            _ => {}
        }
        match name.as_bytes() {
            ACCESS_ACL => return self.set_access_acl(ino, name, value),
            DEFAULT_ACL => return self.set_default_acl(ino, name, value),
            other if !NAMESPACES.iter().any(|namespace| other.starts_with(namespace)) => {
                return Err(FsError::Unsupported { what: format!("the extended attribute {name}") });
            }
            _ => {}
        }
        self.tables.check_room_for(ino, name, value)?;
        Ok(self.edit_xattrs(ino, |xattrs| drop(xattrs.insert(name.clone(), Bytes::copy_from_slice(value)))))
    }

    pub(super) fn remove_xattr(&mut self, ino: Ino, name: &XattrName) -> Result<Reply, FsError> {
        self.tables.inode(ino)?;
        if !self.tables.has_xattr(ino, name) {
            return Err(FsError::NoXattr);
        }
        Ok(self.edit_xattrs(ino, |xattrs| drop(xattrs.remove(name))))
    }

    pub(super) fn make_masked(
        &mut self,
        parent: Ino,
        name: &EntryName,
        node: &NewNode,
        umask: u16,
        exclusive: bool,
    ) -> Result<Reply, FsError> {
        let is_masked = node.kind != FileKind::Symlink && self.tables.acl(parent, DEFAULT_ACL).is_none();
        let mode = if is_masked { node.mode & !(umask & PERMISSIONS) } else { node.mode };
        self.make(parent, name, &NewNode { mode, ..node.clone() }, exclusive)
    }

    /// Gives what was just created in a directory the lists that it begins with.
    pub(super) fn inherit_acl(&mut self, ino: Ino, parent: Ino, kind: FileKind) {
        if kind == FileKind::Symlink {
            return;
        }
        let Some(default) = self.tables.acl(parent, DEFAULT_ACL) else { return };
        let mode = self.tables.inodes[&ino].attr.mode;
        let access = default.clone().masked(mode);
        let flags = self.tables.change_xattrs(ino, |xattrs| {
            if !access.is_only_mode() {
                xattrs.insert(name_of(ACCESS_ACL), access.encode());
            }
            if kind == FileKind::Directory {
                xattrs.insert(name_of(DEFAULT_ACL), default.encode());
            }
        });
        let attr = self.attr_mut(ino);
        (attr.mode, attr.flags) = (mode & !PERMISSIONS | access.mode(), flags);
    }

    /// Sets attributes other than the size, and with the permission bits the list of the inode.
    pub(super) fn apply_set(&mut self, ino: Ino, set: &SetAttr) {
        self.edit(ino, |inode| set.apply_to(&mut inode.attr));
        if let (Some(mode), Some(acl)) = (set.mode, self.tables.acl(ino, ACCESS_ACL)) {
            let value = acl.with_mode(mode).encode();
            self.tables.change_xattrs(ino, |xattrs| drop(xattrs.insert(name_of(ACCESS_ACL), value)));
        }
    }

    fn set_access_acl(&mut self, ino: Ino, name: &XattrName, value: &Bytes) -> Result<Reply, FsError> {
        if self.tables.inode(ino)?.attr.kind == FileKind::Symlink {
            return Err(FsError::Unsupported { what: "access control lists of symlinks".into() });
        }
        let acl = Acl::decode(value)?;
        if let Some(acl) = &acl {
            self.tables.check_room_for(ino, name, value)?;
            let bits = acl.mode();
            self.edit(ino, |inode| inode.attr.mode = inode.attr.mode & !PERMISSIONS | bits);
        }
        Ok(self.edit_xattrs(ino, |xattrs| match acl.filter(|acl| !acl.is_only_mode()) {
            Some(acl) => drop(xattrs.insert(name.clone(), acl.encode())),
            None => drop(xattrs.remove(name)),
        }))
    }

    fn set_default_acl(&mut self, ino: Ino, name: &XattrName, value: &Bytes) -> Result<Reply, FsError> {
        if !self.tables.inode(ino)?.is_directory() {
            return Err(invalid("only a directory has a default access control list"));
        }
        let acl = Acl::decode(value)?;
        if acl.is_some() {
            self.tables.check_room_for(ino, name, value)?;
        }
        Ok(self.edit_xattrs(ino, |xattrs| match acl {
            Some(acl) => drop(xattrs.insert(name.clone(), acl.encode())),
            None => drop(xattrs.remove(name)),
        }))
    }

    fn edit_xattrs(&mut self, ino: Ino, edit: impl FnOnce(&mut Xattrs)) -> Reply {
        let flags = self.tables.change_xattrs(ino, edit);
        Reply::Attr(self.edit(ino, |inode| inode.attr.flags = flags))
    }

    /// The attributes of an inode that was just created, and so has no times to be changed.
    fn attr_mut(&mut self, ino: Ino) -> &mut Attr {
        let inode = self.tables.inodes.get_mut(&ino).expect("the caller has created the inode");
        &mut Arc::make_mut(inode).attr
    }
}

impl Tables {
    pub(super) fn list_xattrs(&self, ino: Ino) -> Result<Answer, FsError> {
        let attr = self.inode(ino)?.attr.clone();
        let xattrs = self.xattrs.get(&ino).map(|xattrs| Xattrs::clone(xattrs)).unwrap_or_default();
        Ok(Answer::Xattrs { attr, xattrs })
    }

    fn has_xattr(&self, ino: Ino, name: &XattrName) -> bool {
        self.xattrs.get(&ino).is_some_and(|xattrs| xattrs.contains_key(name))
    }

    pub(super) fn acl(&self, ino: Ino, name: &'static [u8]) -> Option<Acl> {
        if !self.inodes.get(&ino)?.attr.flags.has_acl {
            return None;
        }
        let value = self.xattrs.get(&ino)?.get(&name_of(name))?;
        Acl::decode(value).expect("only valid lists are stored")
    }

    fn change_xattrs(&mut self, ino: Ino, edit: impl FnOnce(&mut Xattrs)) -> InodeFlags {
        let mut xattrs = self.xattrs.get(&ino).map(|xattrs| Xattrs::clone(xattrs)).unwrap_or_default();
        edit(&mut xattrs);
        let has_acl = xattrs.keys().any(|name| [ACCESS_ACL, DEFAULT_ACL].contains(&name.as_bytes()));
        let flags = InodeFlags { has_xattrs: !xattrs.is_empty(), has_acl };
        if xattrs.is_empty() {
            self.xattrs.remove(&ino);
        } else {
            self.xattrs.insert(ino, Arc::new(xattrs));
        }
        flags
    }

    fn check_room_for(&self, ino: Ino, name: &XattrName, value: &Bytes) -> Result<(), FsError> {
        if value.len() > MAX_XATTR_VALUE_BYTES {
            return Err(FsError::XattrsTooLarge { limit: MAX_XATTR_VALUE_BYTES });
        }
        let others = self.xattrs.get(&ino).into_iter().flat_map(|xattrs| xattrs.iter());
        let others = others.filter(|(other, _)| *other != name).map(|(name, value)| bytes_of(name, value));
        if others.sum::<usize>() + bytes_of(name, value) > MAX_XATTRS_BYTES {
            return Err(FsError::XattrsTooLarge { limit: MAX_XATTRS_BYTES });
        }
        Ok(())
    }
}

fn bytes_of(name: &XattrName, value: &Bytes) -> usize {
    name.as_bytes().len() + value.len()
}

fn name_of(name: &'static [u8]) -> XattrName {
    XattrName::new(Bytes::from_static(name)).expect("a short name without a NUL")
}
