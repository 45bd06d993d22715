//! Sample values for the unit tests of this crate.

use chordfs_types::{
    chunk::FileName,
    namespace::{Attr, EntryName, FileKind, Ino, InodeFlags, Time},
};

pub(crate) fn name(name: &str) -> EntryName {
    EntryName::new(name.as_bytes().to_vec()).expect("a name")
}

/// A regular file.
pub(crate) fn attr(ino: u64, change: u64) -> Attr {
    Attr {
        ino: Ino(ino),
        kind: FileKind::File,
        mode: 0o644,
        nlink: 1,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        size: 10,
        chunk_bytes: 4096,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        change,
        holes: 0,
        flags: InodeFlags::default(),
        file: FileName::new("f").expect("a name"),
    }
}
