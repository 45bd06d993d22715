//! What a machine may do that can act for any of its users but root: as much as the permissions allow to some user who
//! is neither root nor in root's group. Permissions are those of the inode, and of the directories that lead to it.

use chordfs_types::namespace::{
    FileKind, Ino,
    permission::{self, SET_GROUP_ID, SET_USER_ID},
};

use super::{Body, Inode, Tables, acl::ACCESS_ACL};

impl Tables {
    /// Whether some such user has these permissions on the inode itself.
    pub(super) fn permits_without_root(&self, inode: &Inode, bits: u16) -> bool {
        let attr = &inode.attr;
        if attr.uid != 0 {
            return true;
        }
        // The mode of a symlink allows everything, and means nothing.
        if attr.kind == FileKind::Symlink {
            return bits & permission::WRITE == 0;
        }
        match self.acl(attr.ino, ACCESS_ACL) {
            Some(acl) => acl.permits_without_root(bits, attr.gid),
            None => attr.permits_without_root(bits),
        }
    }

    /// Whether some way from the directory `root` down to the inode may be searched.
    pub(super) fn is_led_to(&self, root: Ino, ino: Ino) -> bool {
        let Some(inode) = self.inodes.get(&ino) else { return false };
        match &inode.body {
            Body::Directory { .. } if ino == root => true,
            Body::Directory { up } => up.as_ref().is_some_and(|(parent, _)| self.is_searchable(root, *parent)),
            Body::Plain { parent: Some(parent) } | Body::Symlink { parent: Some(parent), .. } => {
                self.is_searchable(root, *parent)
            }
            Body::Plain { .. } | Body::Symlink { .. } => self.parents(ino).any(|at| self.is_searchable(root, at)),
        }
    }

    /// Whether `directory` and all directories from `root` to it may be searched.
    fn is_searchable(&self, root: Ino, directory: Ino) -> bool {
        for above in self.upwards(directory) {
            if !self.permits_without_root(above, permission::EXECUTE) {
                return false;
            }
            if above.attr.ino == root {
                return true;
            }
        }
        false
    }
}

impl Inode {
    /// Whether it is a program that runs as root or in root's group, whoever starts it.
    pub(super) fn runs_as_root(&self) -> bool {
        let attr = &self.attr;
        let is_set = |bit: u16| attr.mode & bit != 0;
        attr.kind == FileKind::File && (is_set(SET_USER_ID) && attr.uid == 0 || is_set(SET_GROUP_ID) && attr.gid == 0)
    }
}
