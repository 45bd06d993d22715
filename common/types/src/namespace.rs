//! The messages between a mount (or a node acting for a script) and the namespace: changes, queries, their answers, and
//! the change feed. `chordfs-tables` carries them out.
//!
//! Everything here is plain data, encoded with postcard: a change is logged, sent again after a leader change, and
//! replayed on a reference model, always as the same bytes. [`WIRE_VERSION`] goes first in every message and log entry.

use std::{
    fmt,
    net::SocketAddr,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::ino::Ino;
use crate::{
    chunk::{ChunkRun, FileName, NameError, Version},
    fs_error::FsError,
};

/// Raised when any type below changes its encoding.
pub const WIRE_VERSION: u8 = 1;
/// The longest name of one directory entry, in bytes.
pub const MAX_ENTRY_NAME_BYTES: usize = 255;
/// How many directory entries or extents one answer carries at most.
pub const PAGE_ITEMS: u32 = 1024;

/// One name in a directory: not empty, no slash, no NUL, neither `.` nor `..`. Checked once, here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct EntryName(Bytes);

impl EntryName {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A point in time, seconds and nanoseconds since 1970; before 1970 the seconds are negative, the nanoseconds never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    /// The wall clock's time. Pure code is given the time instead.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits, set-id bits and sticky bit: 0..=0o7777.
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Bytes of a file or of a symlink's target; 0 for all other kinds.
    pub size: u64,
    pub chunk_bytes: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Grows with every change of contents or attributes: an equal value means that nothing changed in between.
    pub change: u64,
    /// NAME of the file's chunks: its path at creation.
    pub file: FileName,
}

/// A run of chunks with one version. Chunks that no extent covers are holes and read as zeros; so does the rest of a
/// chunk stored shorter than the chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Counts from 1.
    pub first: u32,
    pub count: u32,
    pub version: Version,
}

impl Extent {
    /// The number after that of its last chunk; it may be 2^32.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Versions `first..first + count`, for the session that allocated them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionBlock {
    pub first: Version,
    pub count: u32,
}

/// One change as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOp {
    /// `None` for the namespace's own changes (opening a session, purging, expiring).
    pub origin: Option<OpId>,
    /// The time on the proposer's clock; the tables never read a clock.
    pub now: Time,
    pub change: Change,
}

/// A retried operation carries the same id and is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpId {
    pub session: SessionId,
    pub sequence: u64,
    /// The session has the replies to all operations below this; they may be forgotten.
    pub answered_below: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// `nonce` makes opening idempotent: the same nonce gets the same session.
    OpenSession {
        nonce: u64,
        client: String,
    },
    /// Ends the session and releases what it holds.
    CloseSession {
        session: SessionId,
    },
    AllocateVersions {
        count: u32,
    },
    /// Creates an entry. With `exclusive` an existing one is an error, otherwise it is returned as it is.
    Make {
        parent: Ino,
        name: EntryName,
        node: NewNode,
        exclusive: bool,
    },
    /// Creates a file without a name, held by the session; `Publish` gives it one.
    MakeUnnamed {
        file: FileName,
        node: NewNode,
    },
    /// Gives an unnamed file a name, replacing any non-directory there.
    Publish {
        ino: Ino,
        parent: Ino,
        name: EntryName,
    },
    Link {
        ino: Ino,
        parent: Ino,
        name: EntryName,
    },
    /// `hold`: the session has the file open, so its contents stay until `Release`.
    Unlink {
        parent: Ino,
        name: EntryName,
        hold: bool,
    },
    Rmdir {
        parent: Ino,
        name: EntryName,
    },
    /// `hold` is about the file that is replaced.
    Rename {
        parent: Ino,
        name: EntryName,
        new_parent: Ino,
        new_name: EntryName,
        mode: RenameMode,
        hold: bool,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
    },
    Commit {
        ino: Ino,
        commit: Commit,
    },
    /// The session has a file open that has lost its last name.
    Hold {
        ino: Ino,
    },
    Release {
        inos: Vec<Ino>,
    },
    /// Deletes files that have had neither name nor holder since before `before`, at most `limit` of them.
    PurgeOrphans {
        before: Time,
        limit: u32,
    },
    /// The nodes have deleted these runs.
    ForgetDead {
        ids: Vec<u64>,
    },
    /// Puts chunks that a node has stored for a long time and that no file has on the dead list, except those that are
    /// current or dead already or whose version was never allocated. Their versions never become current again.
    CollectOrphans {
        runs: Vec<ChunkRun>,
    },
    /// Gives the root directory to the user for whom the namespace was founded. Once the root has been changed, this
    /// does nothing.
    FoundRoot {
        uid: u32,
        gid: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    pub kind: FileKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub chunk_bytes: u32,
    /// Empty except for symlinks.
    pub target: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
    /// Overrides the ctime, which is otherwise the operation's own time.
    pub ctime: Option<Time>,
    pub truncate: Option<Truncate>,
}

impl SetAttr {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Merges both, where `self` is the later one.
    pub fn over(self, older: Self) -> Self {
        Self {
            mode: self.mode.or(older.mode),
            uid: self.uid.or(older.uid),
            gid: self.gid.or(older.gid),
            atime: self.atime.or(older.atime),
            mtime: self.mtime.or(older.mtime),
            ctime: self.ctime.or(older.ctime),
            truncate: self.truncate.or(older.truncate),
        }
    }

    /// Applies everything except the size.
    pub fn apply_to(&self, attr: &mut Attr) {
        attr.mode = self.mode.map_or(attr.mode, |mode| mode & 0o7777);
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        attr.atime = self.atime.unwrap_or(attr.atime);
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
        attr.ctime = self.ctime.unwrap_or(attr.ctime);
    }
}

/// Sets the size. Where the new end falls inside a stored chunk, the caller has stored that chunk again, cut at the
/// end, and names it in `tail`: bytes beyond the end must not come back when the file grows again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncate {
    pub size: u64,
    pub tail: Option<ChunkWrite>,
}

/// Makes stored chunks current.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Drops all contents first and sets the chunk size: the file is restarted.
    pub restart: Option<u32>,
    /// The chunk size that the chunks were made for: refused with `Stale` if the file was restarted with another.
    /// Ignored with `restart`; `None` checks nothing.
    pub chunk_bytes: Option<u32>,
    /// Chunks written whole: nothing of what they replace is needed. Ascending, not overlapping.
    pub extents: Vec<Extent>,
    /// Chunks overwritten in part: refused with `Conflict` unless `base` is still current.
    pub partial: Vec<ChunkWrite>,
    /// The file is at least this long afterwards.
    pub size_at_least: u64,
    /// The operation's own time where it is `None`.
    pub mtime: Option<Time>,
    /// Attributes that were set while the data was being stored; no truncation.
    pub set: SetAttr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkWrite {
    pub index: u32,
    pub version: Version,
    /// The version into which the bytes were merged; `None` for a hole.
    pub base: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Session {
        session: SessionId,
        versions: VersionBlock,
    },
    Versions(VersionBlock),
    /// `created` is false where `Make` without `exclusive` found the entry.
    Entry {
        attr: Attr,
        created: bool,
    },
    Attr(Attr),
    /// The inode that `Unlink`, `Publish` or `Rename` removed or replaced, after the change.
    Removed {
        attr: Option<Attr>,
    },
    Purged {
        count: u32,
    },
    /// The number of runs that were put on the dead list.
    Collected {
        runs: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    Lookup {
        parent: Ino,
        name: EntryName,
    },
    GetAttr {
        ino: Ino,
    },
    /// Attributes and the first page of extents, in one round trip.
    Open {
        ino: Ino,
    },
    /// Extents that end at or after chunk `from`.
    Extents {
        ino: Ino,
        from: u32,
    },
    /// Entries after the name `after` (from the start without one), in the order of their bytes.
    ReadDir {
        ino: Ino,
        after: Option<EntryName>,
    },
    ReadLink {
        ino: Ino,
    },
    /// From the root, following no symlinks. An empty path is the root.
    Resolve {
        path: Vec<EntryName>,
    },
    StatFs,
    /// Dead versions, oldest first, with the id under which to forget them.
    Dead {
        before: Time,
        limit: u32,
    },
    /// Asks for the chunks of these runs that no file has and that may therefore be collected (`CollectOrphans`).
    Unreferenced {
        runs: Vec<Extent>,
    },
    /// Asks for the contents of all files, by inode and chunk, from chunk `first` of `ino` on. This includes files that
    /// have lost their last name and are held open.
    Contents {
        ino: Ino,
        first: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Attr(Attr),
    Open {
        attr: Attr,
        extents: Vec<Extent>,
        more: bool,
    },
    Extents {
        extents: Vec<Extent>,
        more: bool,
    },
    /// `parent` is the inode that `..` refers to.
    Entries {
        parent: Ino,
        entries: Vec<DirEntry>,
        more: bool,
    },
    Target(Bytes),
    StatFs {
        inodes: u64,
        bytes: u64,
    },
    Dead(Vec<(u64, ChunkRun)>),
    /// Pieces of the queried runs, in their order. `next` is the number of the run, and its chunk, from which to query
    /// again.
    Unreferenced {
        pieces: Vec<Extent>,
        next: Option<(u32, u32)>,
    },
    /// `next` is where the next query starts.
    Contents {
        files: Vec<FileContents>,
        next: Option<(Ino, u32)>,
    },
}

/// A file's extents, ascending; one page of them for a long file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContents {
    pub ino: Ino,
    pub file: FileName,
    pub extents: Vec<Extent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    pub name: EntryName,
    pub attr: Attr,
}

/// A change by an applied operation, sent to the other sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedEvent {
    /// The attributes changed; with `contents`, the bytes too.
    Inode { ino: Ino, contents: bool },
    /// The entry was added or removed, or refers to another inode now.
    Entry { parent: Ino, name: EntryName },
    /// The inode lost its last name. A session that has it open answers with `Change::Hold`.
    Orphaned { ino: Ino },
}

/// The MessagePack-RPC methods that carry these messages; each takes and returns one binary.
pub mod calls {
    /// Takes a [`super::Request`] and returns a [`super::Response`].
    pub const NAMESPACE: &str = "chordfs_namespace";
    /// A notification from the leader: postcard of `Vec<FeedEvent>`.
    pub const FEED: &str = "chordfs_feed";
    /// Takes no argument; returns MessagePack of [`crate::ring_id::Neighbours`] as `[predecessor, self, [successor,
    /// ...]]`.
    pub const NEIGHBOURS: &str = "chordfs_neighbours";
    /// Like [`NEIGHBOURS`], for the ring without its foreign members: the nodes that store the keys up to the node's
    /// own.
    pub const STORAGE_NODES: &str = "chordfs_keepers";
}

#[allow(clippy::large_enum_variant, reason = "one at a time, and only until it is encoded or carried out")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Asks for the leader.
    Leader,
    /// Attaches this connection to the session: from now on it renews the lease and receives the feed.
    Attach {
        session: SessionId,
    },
    /// Renews the lease of the attached session.
    KeepAlive,
    Apply(NamespaceOp),
    Query(Query),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// This node is not the leader; `leader` is the leader's ring address, if known. Nothing was done.
    NotLeader {
        leader: Option<SocketAddr>,
    },
    /// The operation may or may not have been applied: send it again with the same id.
    Unavailable {
        reason: String,
    },
    Attached,
    Alive,
    Applied(Result<Reply, FsError>),
    Answered(Result<Answer, FsError>),
}

/// Encodes a message, with the version byte in front.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    let bytes = vec![WIRE_VERSION];
    postcard::to_extend(message, bytes).expect("plain data always encodes").into()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the message is empty")]
    Empty,
    #[error("the message has format {found}, this program supports {WIRE_VERSION}")]
    Version { found: u8 },
    #[error("the message does not decode: {0}")]
    Malformed(String),
}

pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&WIRE_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| DecodeError::Malformed(error.to_string()))
        }
        Some((&found, _)) => Err(DecodeError::Version { found }),
    }
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
