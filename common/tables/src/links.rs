//! Adding a name to an inode: link, and publish for files without one.

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, EntryName, Ino, Reply},
};

use super::{MAX_LINKS, Transaction, invalid};

impl Transaction<'_> {
    pub(super) fn link(&mut self, ino: Ino, parent: Ino, name: &EntryName) -> Result<Reply, FsError> {
        self.tables.directory(parent)?;
        if self.tables.entry(parent, name).is_some() {
            return Err(FsError::Exists);
        }
        let inode = self.tables.inode(ino)?;
        if inode.is_directory() {
            return Err(FsError::NotPermitted { reason: "a directory has one name only".into() });
        }
        match inode.attr.nlink {
            0 if !self.holds(ino) => return Err(FsError::NoEntry),
            MAX_LINKS.. => return Err(FsError::TooManyLinks),
            _ => {}
        }
        let attr = self.give_name(ino, parent, name);
        Ok(Reply::Entry { attr, created: true })
    }

    /// Names an unnamed file, replacing any non-directory at that name. Only the session that holds the file may do so.
    pub(super) fn publish(&mut self, ino: Ino, parent: Ino, name: &EntryName) -> Result<Reply, FsError> {
        self.tables.directory(parent)?;
        let inode = self.tables.inode(ino)?;
        if inode.attr.nlink > 0 || inode.is_directory() {
            return Err(invalid("only a file without a name can be published"));
        }
        if !self.holds(ino) {
            return Err(FsError::NoEntry);
        }
        let old = match self.tables.entry(parent, name) {
            Some(old) if old.is_directory() => return Err(FsError::IsDirectory),
            old => old.map(|old| old.attr.ino),
        };
        // A session that has the replaced file open holds it when it receives the feed event.
        let attr = old.map(|old| {
            self.forget_parent(old, parent);
            self.drop_link(old, parent, false)
        });
        self.give_name(ino, parent, name);
        Ok(Reply::Removed { attr })
    }

    fn give_name(&mut self, ino: Ino, parent: Ino, name: &EntryName) -> Attr {
        if self.tables.inode(ino).is_ok_and(|inode| inode.attr.nlink == 0) {
            // The parent is that of the last name, which is gone.
            self.tables.set_parent(ino, None);
        }
        self.forget_orphan(ino);
        self.add_name(parent, name, ino, false);
        self.edit(ino, |inode| inode.attr.nlink += 1)
    }
}
