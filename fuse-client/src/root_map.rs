//! Translation between inode numbers of the kernel and of the namespace. They differ only for the root: the kernel's
//! root is always 1, and a mount of a subdirectory has that directory as its root.

use chordfs_types::namespace::Ino;
use fuser::INodeNo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootMap {
    root: Ino,
}

impl RootMap {
    pub fn new(root: Ino) -> Self {
        Self { root }
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
        let map = RootMap::new(Ino(77));
        assert_eq!(map.inward(INodeNo::ROOT), Ino(77));
        assert_eq!(map.outward(Ino(77)), INodeNo::ROOT);
        assert_eq!(map.outward(Ino(5)), INodeNo(5));
        let plain = RootMap::new(Ino::ROOT);
        assert_eq!((plain.inward(INodeNo::ROOT), plain.outward(Ino::ROOT)), (Ino::ROOT, INodeNo::ROOT));
    }
}
