//! The messages between a mount (or a node acting for a script) and the namespace: changes, queries, their answers, and
//! the change feed. `chordfs-tables` applies them.
//!
//! Everything here is plain data, encoded with postcard: a change is logged, sent again after a leader change, and
//! replayed on a reference model, always as the same bytes. [`WIRE_VERSION`] is the first byte of every message and log
//! entry.

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
pub const WIRE_VERSION: u8 = 2;
/// The longest name of one directory entry, in bytes.
pub const MAX_ENTRY_NAME_BYTES: usize = 255;
/// How many directory entries or extents one answer carries at most.
pub const PAGE_ITEMS: u32 = 1024;

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
    /// Set at creation and by `SetAttr`; reading does not change it.
    pub atime: Time,
    /// The time of the last change of a file's contents or a directory's entries, unless `SetAttr` has set it.
    pub mtime: Time,
    /// The time of the last change, on the clock of the mount that sent it, unless `SetAttr` has set it.
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

/// One change as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOp {
    /// `None` for the namespace's own changes (opening a session, purging, expiring).
    pub origin: Option<OpId>,
    /// The time on the proposer's clock; the tables never read a clock.
    pub now: Time,
    /// Applied as a whole, or refused.
    pub change: Change,
}

/// A retried operation carries the same id and is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpId {
    /// Must be open, or the operation is refused with `NoSession`.
    pub session: SessionId,
    /// Chosen by the session; each operation has a larger one than the one before.
    pub sequence: u64,
    /// The session has received the replies to all operations below this; they may be forgotten.
    pub answered_below: u64,
}

/// Everything that changes the tables. Postcard encodes variants by position: add new ones at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// `nonce` makes opening idempotent: the same nonce gets the same session.
    OpenSession {
        /// Random, chosen by the client.
        nonce: u64,
        /// The client's description of itself, shown to operators.
        client: String,
    },
    /// Ends the session and releases what it holds.
    CloseSession {
        /// Named here because the leader closes expired sessions, without an origin.
        session: SessionId,
    },
    /// Answered with a block of new versions, which belong to the session.
    AllocateVersions {
        /// At least 1.
        count: u32,
    },
    /// Creates an entry. With `exclusive` an existing one is an error, otherwise it is returned as it is.
    Make {
        /// The file's NAME is its path from the root through this directory.
        parent: Ino,
        /// Must be free with `exclusive`.
        name: EntryName,
        /// Checked only if the entry is created.
        node: NewNode,
        /// As `O_EXCL`.
        exclusive: bool,
    },
    /// Creates a file without a name, held by the session; `Publish` gives it one.
    MakeUnnamed {
        /// Chosen by the client, as there is no path.
        file: FileName,
        /// Its kind must be `File`.
        node: NewNode,
    },
    /// Gives an unnamed file a name, replacing any non-directory there.
    Publish {
        /// Held by the session and without a name.
        ino: Ino,
        /// Directory of the new name.
        parent: Ino,
        /// May be taken.
        name: EntryName,
    },
    /// Adds a name to an inode, as `link(2)`; an unnamed file must be held by the session.
    Link {
        /// Not a directory.
        ino: Ino,
        /// Directory of the new name.
        parent: Ino,
        /// Must be free.
        name: EntryName,
    },
    /// `hold`: the session has the file open, so its contents stay until `Release`.
    Unlink {
        /// Directory of the name.
        parent: Ino,
        /// Refers to anything but a directory.
        name: EntryName,
        /// Matters only if this is the file's last name.
        hold: bool,
    },
    /// Removes an empty directory.
    Rmdir {
        /// Directory of the name.
        parent: Ino,
        /// Refers to a directory.
        name: EntryName,
    },
    /// Moves an entry. `hold` applies to the file that it replaces.
    Rename {
        /// Directory of the old name.
        parent: Ino,
        /// Must exist.
        name: EntryName,
        /// Must not lie inside a directory that is moved.
        new_parent: Ino,
        /// Whether it may exist, or must, depends on `mode`.
        new_name: EntryName,
        /// As the flags of `renameat2(2)`.
        mode: RenameMode,
        /// As in `Unlink`.
        hold: bool,
    },
    /// Sets attributes, the size included.
    SetAttr {
        /// A file, if the size is set.
        ino: Ino,
        /// Attributes that it leaves out stay as they are.
        set: SetAttr,
    },
    /// Answered with the new attributes.
    Commit {
        /// A file, with or without a name.
        ino: Ino,
        /// Refused as a whole or applied as a whole.
        commit: Commit,
    },
    /// Keeps a file without a name, because the session has it open.
    Hold {
        /// Nothing happens if it has a name.
        ino: Ino,
    },
    /// Ends holds of the session; files that no session holds are purged after a grace period.
    Release {
        /// At most [`MAX_HOLDS`]. Those that the session does not hold are skipped.
        inos: Vec<Ino>,
    },
    /// Deletes files that have had neither a name nor a holder since before `before`, at most `limit` of them.
    PurgeOrphans {
        /// A place in the log, because the clocks of two leaders may differ by more than any grace period.
        before: u64,
        /// Bounds the time that applying this takes.
        limit: u32,
    },
    /// Removes runs from the dead list after the nodes have deleted them.
    ForgetDead {
        /// From `Answer::Dead`; unknown ones are skipped.
        ids: Vec<u64>,
    },
    /// Puts orphan chunks on the dead list: a node has stored them for a long time, and no file has them. Skips chunks
    /// that are current or dead already, or whose version was never allocated. The versions of the others never become
    /// current again.
    CollectOrphans {
        /// At most [`MAX_COLLECTED_RUNS`]. One malformed run refuses them all.
        runs: Vec<ChunkRun>,
    },
    /// Gives the root directory to the user for whom the namespace was founded. Once the root has been changed, this
    /// does nothing.
    FoundRoot {
        /// From the settings of the leader.
        uid: u32,
        /// From the settings of the leader.
        gid: u32,
    },
    /// Does what `Hold` does for many files at once. A mount sends it with all files that it has open after its change
    /// feed was interrupted, so that the last one is held as early as the first. Answered with those that are held.
    HoldOrphans {
        /// At most [`MAX_HOLDS`]. Those that have a name or do not exist are skipped.
        inos: Vec<Ino>,
    },
    /// Puts chunks on the dead list that the session has stored and that no commit of it will name. Skips chunks that
    /// are current or dead already, and versions that were not allocated to the session.
    Discard {
        /// At most [`MAX_COLLECTED_RUNS`] in all. One malformed run refuses them all.
        files: Vec<DiscardedRuns>,
    },
}

/// The most files of one `HoldOrphans` or `Release`, which bounds the time that applying it takes.
pub const MAX_HOLDS: usize = 4096;
/// The most runs of one `Commit`, `extents` and `partial` together. A mount that has more sends several.
pub const MAX_COMMIT_RUNS: usize = 1024;
/// The most runs of one `CollectOrphans` or `Discard`.
pub const MAX_COLLECTED_RUNS: usize = 1024;

/// Chunks of one file that are not needed; see [`Change::Discard`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardedRuns {
    /// NAME from which the keys of the chunks are computed.
    pub file: FileName,
    /// In any order.
    pub runs: Vec<Extent>,
}

/// Attributes of an inode that is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Any kind in `Make`, only `File` in `MakeUnnamed`.
    pub kind: FileKind,
    /// Bits beyond 0o7777 are dropped; no umask is applied.
    pub mode: u16,
    /// Taken unchecked.
    pub uid: u32,
    /// Ignored where the parent directory passes its group on.
    pub gid: u32,
    /// Ignored except for devices.
    pub rdev: u32,
    /// 1 to `MAX_CHUNK_BYTES` for a file, ignored for all other kinds.
    pub chunk_bytes: u32,
    /// Empty except for symlinks.
    pub target: Bytes,
}

/// What becomes of an entry that the new name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// It is removed. A directory replaces only an empty directory, and nothing else replaces a directory.
    Replace,
    /// The rename is refused with `Exists`.
    NoReplace,
    /// Both entries swap their names; both must exist.
    Exchange,
}

/// Attributes to set; `None` leaves an attribute as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// Bits beyond 0o7777 are dropped.
    pub mode: Option<u16>,
    /// Set-id bits are cleared only if `mode` says so.
    pub uid: Option<u32>,
    /// Set-id bits are cleared only if `mode` says so.
    pub gid: Option<u32>,
    /// A mount sends the time itself, also for "now".
    pub atime: Option<Time>,
    /// Overrides the time that `truncate` sets.
    pub mtime: Option<Time>,
    /// Overrides the ctime, which is otherwise the operation's own time.
    pub ctime: Option<Time>,
    /// Only for files; not allowed in a [`Commit`].
    pub truncate: Option<Truncate>,
}

impl SetAttr {
    /// An empty `SetAttr` still updates ctime when it is applied.
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
    /// May be larger than the current size; the bytes in between are a hole.
    pub size: u64,
    /// Must be `None` if the size is a multiple of the chunk size, and may be if the file grows or its new end lies in
    /// a hole.
    pub tail: Option<ChunkWrite>,
}

/// Makes stored chunks current.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Drops all contents first and sets this chunk size: the file is restarted.
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
    /// `None` is the operation's own time.
    pub mtime: Option<Time>,
    /// Attributes that were set while the data was being stored; no truncation.
    pub set: SetAttr,
}

/// A chunk that was merged with the bytes of its previous version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkWrite {
    /// Counts from 1.
    pub index: u32,
    /// Allocated to the writing session; the tables check only that it was allocated.
    pub version: Version,
    /// The version into which the bytes were merged; `None` for a hole.
    pub base: Option<Version>,
}

/// The result of a [`Change`] that was applied. It is kept and returned again if the operation is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To changes whose effect needs no description.
    Done,
    /// To `OpenSession`.
    Session {
        /// The new session, or the one that was opened with this nonce before.
        session: SessionId,
        /// The session's first block, so that it can write without another round trip.
        versions: VersionBlock,
    },
    /// To `AllocateVersions`.
    Versions(VersionBlock),
    /// `created` is false where `Make` without `exclusive` found the entry.
    /// To `Make`, `MakeUnnamed` and `Link`.
    Entry {
        /// After the change.
        attr: Attr,
        /// Always true for `MakeUnnamed` and `Link`.
        created: bool,
    },
    /// To `SetAttr` and `Commit`: the attributes after the change.
    Attr(Attr),
    /// The inode that `Unlink`, `Publish` or `Rename` removed or replaced, after the change.
    Removed {
        /// `None` if no inode was replaced; `nlink` 0 if it lost its last name.
        attr: Option<Attr>,
    },
    /// To `PurgeOrphans`.
    Purged {
        /// Fewer files than the limit: none is left that is old enough.
        count: u32,
    },
    /// The number of runs that were put on the dead list.
    Collected {
        /// May exceed the number of runs in the change, because current chunks split a run.
        runs: u32,
    },
    /// To `HoldOrphans`.
    Held {
        /// Those of the given files that have no name; the session holds them.
        inos: Vec<Ino>,
    },
}

/// Everything that mounts and nodes read. Postcard encodes variants by position: add new ones at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Answered with `Attr`.
    Lookup {
        /// Must be a directory.
        parent: Ino,
        /// `NoEntry` if it does not exist.
        name: EntryName,
    },
    /// Answered with `Attr`.
    GetAttr {
        /// `Stale` if it does not exist.
        ino: Ino,
    },
    /// Attributes and the first page of extents, in one round trip.
    Open {
        /// `Stale` if it does not exist.
        ino: Ino,
    },
    /// Extents that end at or after chunk `from`.
    Extents {
        /// `Stale` if it does not exist.
        ino: Ino,
        /// Counts from 1; the first extent may begin before it.
        from: u32,
    },
    /// Entries after the name `after` (from the start without one), in the order of their bytes.
    ReadDir {
        /// Must be a directory.
        ino: Ino,
        /// Need not exist any more.
        after: Option<EntryName>,
    },
    /// Answered with `Target`.
    ReadLink {
        /// Must be a symlink.
        ino: Ino,
    },
    /// Resolves a path from the root without following symlinks. An empty path is the root.
    Resolve {
        /// Names from the root down.
        path: Vec<EntryName>,
    },
    /// Totals of the namespace, not of the disks.
    StatFs,
    /// Answered with dead runs, oldest first, and the ids under which to forget them.
    Dead {
        /// Only runs that became dead before this place in the log.
        before: u64,
        /// Runs in the answer at most.
        limit: u32,
    },
    /// Answered with the chunks of these runs that no file has and that may therefore be collected (`CollectOrphans`).
    Unreferenced {
        /// Single chunks or runs, in any order.
        runs: Vec<Extent>,
    },
    /// Answered with the contents of all files, by inode and chunk, from chunk `first` of `ino` on. This includes files
    /// that have lost their last name and are held open.
    Contents {
        /// The first inode of the page; it need not exist any more.
        ino: Ino,
        /// Counts from 1; an extent that covers it is listed whole.
        first: u32,
    },
}

/// The result of a [`Query`] that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Lookup`, `GetAttr` and `Resolve`.
    Attr(Attr),
    /// To `Open`.
    Open {
        /// As of the same operation as the extents.
        attr: Attr,
        /// From the first chunk on, at most [`PAGE_ITEMS`].
        extents: Vec<Extent>,
        /// Query the rest with `Extents`.
        more: bool,
    },
    /// To `Extents`.
    Extents {
        /// Ascending, at most [`PAGE_ITEMS`].
        extents: Vec<Extent>,
        /// Query again from the chunk after the last extent.
        more: bool,
    },
    /// `parent` is the inode that `..` refers to.
    Entries {
        /// The root is its own parent.
        parent: Ino,
        /// At most [`PAGE_ITEMS`], without `.` and `..`.
        entries: Vec<DirEntry>,
        /// Query again after the last name.
        more: bool,
    },
    /// To `ReadLink`: bytes without a NUL, not necessarily UTF-8.
    Target(Bytes),
    /// To `StatFs`.
    StatFs {
        /// All inodes, those without a name included.
        inodes: u64,
        /// Chunks that are current, each counted with the file's full chunk size, without replicas.
        bytes: u64,
    },
    /// To `Dead`.
    Dead(Vec<(u64, ChunkRun)>),
    /// Pieces of the queried runs, in their order. `next` is the number of the run, and its chunk, from which to query
    /// again.
    Unreferenced {
        /// Chunks that no file has; a piece never spans two runs.
        pieces: Vec<Extent>,
        /// `None` if all runs were looked up.
        next: Option<(u32, u32)>,
    },
    /// `next` is where the next query starts.
    Contents {
        /// By inode; a long file may continue on the next page.
        files: Vec<FileContents>,
        /// `None` at the end.
        next: Option<(Ino, u32)>,
    },
}

/// A file's extents, ascending; one page of them for a long file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContents {
    /// May have no name any more.
    pub ino: Ino,
    /// NAME from which the keys of its chunks are computed.
    pub file: FileName,
    /// The first may begin before the chunk that was queried.
    pub extents: Vec<Extent>,
}

/// A name with its attributes, so that listing needs no further queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Unique in its directory.
    pub name: EntryName,
    /// As of the query; the mount may cache it.
    pub attr: Attr,
}

/// A change by an applied operation, sent to the other sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedEvent {
    /// The attributes changed; with `contents`, the bytes too.
    Inode {
        /// Each inode at most once in an operation.
        ino: Ino,
        /// If true, cached pages and extents are out of date.
        contents: bool,
    },
    /// The entry was added or removed, or refers to another inode now.
    Entry {
        /// Its attributes have changed as well, in an event of their own.
        parent: Ino,
        /// A cached absence is out of date too.
        name: EntryName,
    },
    /// The inode lost its last name. A session that has it open answers with `Change::Hold`.
    Orphaned {
        /// Purged after a grace period unless a session holds it.
        ino: Ino,
    },
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

/// What a mount sends with [`calls::NAMESPACE`]. Postcard encodes variants by position: add new ones at the end.
#[allow(clippy::large_enum_variant, reason = "one at a time, and only until it is encoded or carried out")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Asks for the leader.
    Leader,
    /// Attaches this connection to the session: from now on it renews the lease and receives the feed.
    Attach {
        /// Refused with `NoSession` unless it is open.
        session: SessionId,
    },
    /// Renews the lease of the attached session, and reports how much of the change feed it has handled.
    KeepAlive {
        /// The session holds every file that it has open and that lost its last name at or before this place in the
        /// log; 0 if it cannot say.
        answered: u64,
    },
    /// Answered by the leader once the operation is committed and applied.
    Apply(NamespaceOp),
    /// The answer includes every operation that any node answered before.
    Query(Query),
}

/// What the node sends back for a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// This node is not the leader; `leader` is the leader's ring address, if known. Nothing was done.
    NotLeader {
        /// `None` during an election; try other nodes, then this one again.
        leader: Option<SocketAddr>,
    },
    /// The operation may or may not have been applied: send it again with the same id.
    Unavailable {
        /// For people.
        reason: String,
    },
    /// The feed follows on this connection. Earlier events may have been missed, so the session drops its caches.
    Attached,
    /// The lease counts from the request.
    Alive {
        /// A place in the log. All events of the feed up to it were sent before this response, on this connection.
        applied: u64,
    },
    /// The operation was applied, or refused without any effect.
    Applied(Result<Reply, FsError>),
    /// Also carries the error of a request that is neither an operation nor a query.
    Answered(Result<Answer, FsError>),
}

/// Encodes a message, with the version byte in front.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    let bytes = vec![WIRE_VERSION];
    postcard::to_extend(message, bytes).expect("plain data always encodes").into()
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Without even the version byte.
    #[error("the message is empty")]
    Empty,
    /// The sender is of another release.
    #[error("the message has format {found}, this program supports {WIRE_VERSION}")]
    Version {
        /// The first byte of the message.
        found: u8,
    },
    /// The decoder's own error text.
    #[error("the message does not decode: {0}")]
    Malformed(String),
}

/// Refuses a message whose version byte differs; ignores bytes after the value.
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
