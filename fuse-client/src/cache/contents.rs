//! The extents of closed files. They belong to one state of a file's attributes: extents are used only while the
//! attributes are known and still have the change number with which the extents came. A change by this mount removes
//! them: until it is logged, the mount gives the file a number of its own, which the namespace may give to another
//! state.

use std::num::NonZeroUsize;

use chordfs_types::namespace::{Attr, Extent, Ino};
use lru::LruCache;

/// How many files. Each has [`chordfs_types::namespace::MAX_LISTED_EXTENTS`] extents at most, about 200 bytes in all.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(32_768).expect("not zero");

pub struct Contents {
    files: LruCache<Ino, FileExtents>,
}

struct FileExtents {
    change: u64,
    extents: Vec<Extent>,
}

impl Default for Contents {
    fn default() -> Self {
        Self { files: LruCache::new(CAPACITY) }
    }
}

impl Contents {
    /// All extents of the file with these attributes, if they are known.
    pub fn of(&mut self, attr: &Attr) -> Option<Vec<Extent>> {
        self.files.get(&attr.ino).filter(|known| known.change == attr.change).map(|known| known.extents.clone())
    }

    pub fn put(&mut self, attr: &Attr, extents: Vec<Extent>) {
        self.files.put(attr.ino, FileExtents { change: attr.change, extents });
    }

    pub fn remove(&mut self, ino: Ino) {
        self.files.pop(&ino);
    }

    pub fn clear(&mut self) {
        self.files.clear();
    }
}
