//! Translation between what the kernel sees and what the namespace has.
//!
//! Inode numbers differ only for the root: the kernel's root is always 1, and a mount of a subdirectory has that
//! directory as its root. Owners and permissions differ if the mount was told to show others in their place, for a
//! machine whose users have other numbers. What is stored stays as it is.

use chordfs_types::namespace::Ino;
use fuser::INodeNo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootMap {
    root: Ino,
    shown: ShownOwner,
}

/// Owners and permissions that are shown in place of the stored ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShownOwner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// All permissions but these are shown.
    pub umask: Option<u16>,
}

impl ShownOwner {
    pub fn uid(self, stored: u32) -> u32 {
        self.uid.unwrap_or(stored)
    }

    pub fn gid(self, stored: u32) -> u32 {
        self.gid.unwrap_or(stored)
    }

    /// The set-id bits and the sticky bit are kept.
    pub fn mode(self, stored: u16) -> u16 {
        self.umask.map_or(stored, |umask| stored & !0o777 | 0o777 & !umask)
    }

    /// What to store when a program sets the mode. It may have read the shown permissions, and mean another bit: those
    /// that are shown are not stored.
    pub fn stored_mode(self, set: u16, stored: u16) -> u16 {
        let is_shown = self.umask.is_some() && set & 0o777 == self.mode(0);
        if is_shown { set & !0o777 | stored & 0o777 } else { set }
    }
}

impl RootMap {
    pub fn new(root: Ino, shown: ShownOwner) -> Self {
        Self { root, shown }
    }

    pub fn shown(self) -> ShownOwner {
        self.shown
    }

    /// Translates the kernel's number of an inode to the namespace's.
    pub fn inward(self, ino: INodeNo) -> Ino {
        if ino == INodeNo::ROOT { self.root } else { Ino(ino.0) }
    }

    /// Translates the namespace's number of an inode to the kernel's. The namespace's own root has number 1 as well. In
    /// a mount of a subdirectory it occurs only as the parent of that directory, and the parent of a root is the root.
    pub fn outward(self, ino: Ino) -> INodeNo {
        if ino == self.root { INodeNo::ROOT } else { INodeNo(ino.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_subdirectory_is_the_root() {
        let map = RootMap::new(Ino(77), ShownOwner::default());
        assert_eq!(map.inward(INodeNo::ROOT), Ino(77));
        assert_eq!(map.outward(Ino(77)), INodeNo::ROOT);
        assert_eq!(map.outward(Ino(5)), INodeNo(5));
        let plain = RootMap::new(Ino::ROOT, ShownOwner::default());
        assert_eq!((plain.inward(INodeNo::ROOT), plain.outward(Ino::ROOT)), (Ino::ROOT, INodeNo::ROOT));
    }

    #[test]
    fn owners_and_permissions_are_shown_as_they_are_unless_others_are_given() {
        let stored = ShownOwner::default();
        assert_eq!((stored.uid(5), stored.gid(6), stored.mode(0o4750)), (5, 6, 0o4750));
        let other = ShownOwner { uid: Some(1000), gid: Some(100), umask: Some(0o027) };
        assert_eq!((other.uid(5), other.gid(6), other.mode(0o1600)), (1000, 100, 0o1750));
        assert_eq!(other.stored_mode(0o0750, 0o4711), 0o711, "the kernel ends a set-id bit");
        assert_eq!(other.stored_mode(0o600, 0o711), 0o600, "a program chooses permissions");
        assert_eq!(stored.stored_mode(0o750, 0o711), 0o750);
    }
}
