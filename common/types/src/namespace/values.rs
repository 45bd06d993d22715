//! What changes, queries and answers are made of: names, times, attributes, extents, and the ids that the namespace
//! gives out.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    chunk::{ChunkId, ChunkRef, ChunkRun, FileName, NameError, Version},
    ino::Ino,
    operator::TokenHash,
};

/// The longest name of one directory entry, in bytes.
pub const MAX_ENTRY_NAME_BYTES: usize = 255;

/// One name in a directory: not empty, no slash, no NUL, neither `.` nor `..`. Its constructor is the only check.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct EntryName(Bytes);

impl EntryName {
    /// Takes 1 to [`MAX_ENTRY_NAME_BYTES`] bytes.
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NameError> {
        let name = name.into();
        match &name[..] {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            long if long.len() > MAX_ENTRY_NAME_BYTES => {
                Err(NameError::TooLong { len: long.len(), limit: MAX_ENTRY_NAME_BYTES })
            }
            bytes if bytes.contains(&b'/') => Err(NameError::Slash),
            bytes if bytes.contains(&0) => Err(NameError::Nul),
            _ => Ok(Self(name)),
        }
    }

    /// The bytes need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for EntryName {
    type Error = NameError;

    fn try_from(name: Bytes) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<EntryName> for Bytes {
    fn from(name: EntryName) -> Bytes {
        name.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The longest name of an extended attribute, in bytes, with its namespace: that of Linux.
pub const MAX_XATTR_NAME_BYTES: usize = 255;
/// The longest value of an extended attribute, in bytes: that of Linux.
pub const MAX_XATTR_VALUE_BYTES: usize = 1 << 16;

/// The most bytes that all extended attributes of one inode take together, names and values.
pub const MAX_XATTRS_BYTES: usize = 1 << 17;

/// The extended attributes of an inode, by their names.
pub type Xattrs = BTreeMap<XattrName, Bytes>;

/// The name of an extended attribute, such as `user.origin`: not empty, no NUL. Its constructor is the only check.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct XattrName(Bytes);

impl XattrName {
    /// Takes 1 to [`MAX_XATTR_NAME_BYTES`] bytes.
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NameError> {
        let name = name.into();
        match name.len() {
            0 => Err(NameError::Empty),
            len if len > MAX_XATTR_NAME_BYTES => Err(NameError::TooLong { len, limit: MAX_XATTR_NAME_BYTES }),
            _ if name.contains(&0) => Err(NameError::Nul),
            _ => Ok(Self(name)),
        }
    }

    /// The bytes need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for XattrName {
    type Error = NameError;

    fn try_from(name: Bytes) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<XattrName> for Bytes {
    fn from(name: XattrName) -> Bytes {
        name.0
    }
}

impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Fixed when the inode is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// The only kind with extents, and the only one that can be without a name.
    File,
    /// Has one name, and a link count of 2 and one more for each subdirectory.
    Directory,
    /// Its target is stored in the namespace and cannot be changed.
    Symlink,
    /// The kernel of each mount implements it, so it connects only processes of one mount.
    Fifo,
    /// Like a FIFO, it connects only processes of one mount.
    Socket,
    /// `rdev` is the device.
    CharDevice,
    /// `rdev` is the device.
    BlockDevice,
}

/// A point in time, seconds and nanoseconds since 1970; before 1970 the seconds are negative, the nanoseconds never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Rounded towards the past.
    pub secs: i64,
    /// 0 to 999,999,999; counts forward from `secs`.
    pub nanos: u32,
}

impl Time {
    /// The wall clock's time. Pure code takes the time as an argument instead.
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let whole = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self { secs: whole(since.as_secs()), nanos: since.subsec_nanos() },
            Err(before) => match (before.duration().as_secs(), before.duration().subsec_nanos()) {
                (secs, 0) => Self { secs: -whole(secs), nanos: 0 },
                (secs, nanos) => Self { secs: -whole(secs) - 1, nanos: 1_000_000_000 - nanos },
            },
        }
    }
}

/// What `stat` shows of an inode, and what a mount needs to read and write its chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EncodedAttr", into = "EncodedAttr")]
pub struct Attr {
    /// Never reused, so that it identifies the inode for ever.
    pub ino: Ino,
    /// Decides which of the other fields mean something.
    pub kind: FileKind,
    /// Permission bits, set-id bits and sticky bit: 0..=0o7777.
    pub mode: u16,
    /// Names of the inode, 0 for one that is only held open; of a directory 2 and its subdirectories.
    pub nlink: u32,
    /// As on the host that set it; hosts share no table of users.
    pub uid: u32,
    /// Taken from the parent directory if that has the set-gid bit.
    pub gid: u32,
    /// 0 except for devices.
    pub rdev: u32,
    /// Bytes of a file or of a symlink's target; 0 for all other kinds.
    pub size: u64,
    /// 1 to `MAX_CHUNK_BYTES` for a file, 0 for all other kinds. Only a restart changes it.
    pub chunk_bytes: u32,
    /// How many of a file's chunks are holes, and take no space.
    pub holes: u32,
    /// Set at creation and by `SetAttr`. Reading changes it by `Touch`, which leaves `change` alone.
    pub atime: Time,
    /// The time of the last change of a file's contents or a directory's entries, unless `SetAttr` has set it.
    pub mtime: Time,
    /// The time of the last change, on the clock of the mount that sent it, unless `SetAttr` has set it.
    pub ctime: Time,
    /// Grows with every change of contents or attributes: an equal value means that nothing changed in between.
    pub change: u64,
    /// NAME of the file's chunks: its path at creation.
    pub file: FileName,
    /// What else the inode has.
    pub flags: InodeFlags,
}

/// What an inode has besides its attributes. A mount that sees a flag missing need not ask for what it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags {
    /// At least one extended attribute, access control lists included.
    pub has_xattrs: bool,
    /// An access control list for itself, or for what is created in it.
    pub has_acl: bool,
}

const HAS_XATTRS: u16 = 1 << 12;
const HAS_ACL: u16 = 1 << 13;

/// An [`Attr`] as it is encoded: the flags are in the bits that a mode does not use, and the holes of a file in the
/// place of a device's number. Inodes that were encoded before there were flags have none of what they stand for.
#[derive(Serialize, Deserialize)]
struct EncodedAttr {
    ino: Ino,
    kind: FileKind,
    mode_and_flags: u16,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev_or_holes: u32,
    size: u64,
    chunk_bytes: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
    change: u64,
    file: FileName,
}

impl From<Attr> for EncodedAttr {
    fn from(attr: Attr) -> Self {
        let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
        let InodeFlags { has_xattrs, has_acl } = attr.flags;
        Self {
            ino: attr.ino,
            kind: attr.kind,
            mode_and_flags: attr.mode & 0o7777 | flag(has_xattrs, HAS_XATTRS) | flag(has_acl, HAS_ACL),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev_or_holes: if attr.kind == FileKind::File { attr.holes } else { attr.rdev },
            size: attr.size,
            chunk_bytes: attr.chunk_bytes,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            change: attr.change,
            file: attr.file,
        }
    }
}

impl From<EncodedAttr> for Attr {
    fn from(encoded: EncodedAttr) -> Self {
        let has = |bit: u16| encoded.mode_and_flags & bit != 0;
        let (rdev, holes) = match encoded.kind {
            FileKind::File => (0, encoded.rdev_or_holes),
            _ => (encoded.rdev_or_holes, 0),
        };
        Self {
            ino: encoded.ino,
            kind: encoded.kind,
            mode: encoded.mode_and_flags & 0o7777,
            nlink: encoded.nlink,
            uid: encoded.uid,
            gid: encoded.gid,
            rdev,
            size: encoded.size,
            chunk_bytes: encoded.chunk_bytes,
            holes,
            atime: encoded.atime,
            mtime: encoded.mtime,
            ctime: encoded.ctime,
            change: encoded.change,
            flags: InodeFlags { has_xattrs: has(HAS_XATTRS), has_acl: has(HAS_ACL) },
            file: encoded.file,
        }
    }
}

/// Permission bits, as those of others in a mode.
pub mod permission {
    /// Read a file, list a directory.
    pub const READ: u16 = 4;
    /// Change a file, or the names in a directory.
    pub const WRITE: u16 = 2;
    /// Execute a file, look names up in a directory.
    pub const EXECUTE: u16 = 1;

    /// A program runs as the owner of its file.
    pub const SET_USER_ID: u16 = 0o4000;
    /// A program runs in the group of its file; what is created in a directory gets the directory's group.
    pub const SET_GROUP_ID: u16 = 0o2000;
    const GROUP_MAY_EXECUTE: u16 = 0o010;

    /// The mode of a file that somebody else has written: it makes no program run as another user or in another
    /// group. Where the group may not execute, the set-group-id bit starts no program, and with `may_keep_group` it
    /// stays.
    pub const fn without_set_id(mode: u16, may_keep_group: bool) -> u16 {
        let keeps_group = may_keep_group && mode & GROUP_MAY_EXECUTE == 0;
        mode & !SET_USER_ID & !if keeps_group { 0 } else { SET_GROUP_ID }
    }
}

impl Attr {
    /// The space that the contents take, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        if self.kind != FileKind::File {
            return self.size;
        }
        let chunk_bytes = u64::from(self.chunk_bytes.max(1));
        let stored = self.size.div_ceil(chunk_bytes).saturating_sub(self.holes.into());
        // The last chunk is stored as short as it is.
        stored.saturating_mul(chunk_bytes).min(self.size)
    }

    /// Whether some user who is not root and not in root's group has these permissions. A machine that acts for
    /// anybody but root can claim to act for that user.
    pub fn permits_without_root(&self, bits: u16) -> bool {
        let of_group = self.gid != 0 && self.mode >> 3 & bits == bits;
        self.uid != 0 || of_group || self.mode & bits == bits
    }
}

/// A run of chunks with one version. Chunks that no extent covers are holes and read as zeros; so does the rest of a
/// chunk stored shorter than the chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Counts from 1.
    pub first: u32,
    /// At least 1.
    pub count: u32,
    /// Its chunks may also be only a part of those with this version.
    pub version: Version,
}

impl Extent {
    /// The number of its last chunk plus 1, at most 2^32.
    pub fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    /// The numbers of its chunks.
    pub fn range(&self) -> Range<u64> {
        u64::from(self.first)..self.end()
    }

    /// Whether chunk `index` belongs to it.
    pub fn contains(&self, index: u32) -> bool {
        self.range().contains(&u64::from(index))
    }
}

impl From<&ChunkRun> for Extent {
    fn from(run: &ChunkRun) -> Self {
        Self { first: run.first, count: run.count, version: run.version }
    }
}

/// What the version of a clone stands for. Neither changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonedRun {
    /// The version of the clone, as it is in the extents of one file.
    pub version: Version,
    /// The number of the first of its chunks in that file.
    pub first: u32,
    /// The chunks as they are stored, all of them, in the same order.
    pub stored: ChunkRun,
}

impl ClonedRun {
    /// Where a chunk of the file is stored that has the clone's version; `None` if the clone has no such chunk.
    pub fn stored_chunk(&self, index: u32) -> Option<ChunkRef> {
        let after = index.checked_sub(self.first).filter(|after| *after < self.stored.count)?;
        let id = ChunkId { version: self.stored.version, index: self.stored.first + after };
        Some(ChunkRef { file: self.stored.file.clone(), id })
    }
}

/// Counts up from 1; never reused, even after a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Versions `first..first + count`, for the session that allocated them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionBlock {
    /// Greater than 0; blocks are allocated in ascending order.
    pub first: Version,
    /// At least 1.
    pub count: u32,
}

/// Inode numbers `first..first + count`, for the session that allocated them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InoBlock {
    /// Larger than any number that was allocated before.
    pub first: Ino,
    /// At least 1.
    pub count: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_1970_have_nanoseconds_that_count_forwards() {
        let before = |secs, nanos| Time::from(UNIX_EPOCH - Duration::new(secs, nanos));
        assert_eq!(before(3, 0), Time { secs: -3, nanos: 0 });
        assert_eq!(before(1, 250_000_000), Time { secs: -2, nanos: 750_000_000 });
        assert_eq!(Time::from(UNIX_EPOCH + Duration::new(5, 6)), Time { secs: 5, nanos: 6 });
    }

    #[test]
    fn an_extent_may_end_with_the_last_chunk() {
        let extent = Extent { first: u32::MAX, count: 1, version: Version(1) };
        assert_eq!(extent.range(), u64::from(u32::MAX)..1 << 32);
        assert!(extent.contains(u32::MAX) && !extent.contains(u32::MAX - 1));
    }
}

/// A token that all nodes accept, or accepted until it was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedToken {
    /// The node whose token it is; each has at most one.
    pub node_uid: u64,
    /// The address of that node's ring plane.
    pub node: SocketAddr,
    /// What the node's token hashes to.
    pub hash: TokenHash,
    /// When the namespace began to list it.
    pub since: Time,
    /// No node accepts it any longer. Its own node makes a new one as soon as it sees this.
    pub revoked: bool,
}
