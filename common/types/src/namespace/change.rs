//! The changes of the namespace, and the replies to them.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    identities::{AdmissionReason, Invitation, KeyHash},
    locks::{FileLock, LockRange},
    pool_size::PoolStep,
    values::{Attr, EntryName, Extent, FileKind, InoBlock, SessionId, Time, VersionBlock, XattrName},
};
use crate::{
    chunk::{ChunkId, ChunkRun, FileName, Version},
    identity::{Identity, IdentityId},
    ino::Ino,
    operator::TokenHash,
    ring_config::RingConfig,
};

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
        /// Whether the session may hold leases on directories and inodes. A new leader waits for those that may.
        holds_leases: bool,
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
    /// Replaces the configuration of the ring. Answered with `Configured`.
    Configure {
        /// Its version is that of the configuration from which it was made; if that is no longer the current one,
        /// nothing changes.
        config: RingConfig,
    },
    /// Accepts a node's token from now on, instead of the one that it had before. Answered with `Done`.
    AcceptOperatorToken {
        /// Identifies the node's data folder.
        node_uid: u64,
        /// The address of its ring plane.
        node: SocketAddr,
        /// What the token hashes to.
        hash: TokenHash,
    },
    /// Makes all nodes refuse a node's token. Answered with `Done`, also if there is none.
    RevokeOperatorToken {
        /// The node whose token is refused.
        node_uid: u64,
        /// The node has left the ring for good, and so nothing has to remember that its token was revoked.
        forget: bool,
    },
    /// Decides how many nodes the pool shall have. Answered with `PoolResized`; refused if the decision breaks a
    /// setting of the pool.
    ResizePool {
        /// The [`PoolSize::serial`](super::PoolSize::serial) from which the decision was made; if another decision came
        /// first, nothing changes.
        expected: u64,
        /// What is decided, and why.
        step: PoolStep,
    },
    /// Answered with a block of new inode numbers, which belong to the session. It uses them in ascending order and may
    /// skip some.
    AllocateInos {
        /// At least 1.
        count: u32,
    },
    /// Creates an entry that must not exist yet, under a number and a NAME that the session has chosen: it has answered
    /// its program already. Otherwise like `Make`.
    MakeNumbered {
        /// From a block of the session; larger than all numbers that the session has used.
        ino: Ino,
        /// NAME of the chunks of the new file.
        file: FileName,
        /// Must be a directory.
        parent: Ino,
        /// Must be free.
        name: EntryName,
        /// As in `Make`.
        node: NewNode,
    },
    /// Releases files that a session holds, at most [`MAX_HOLDS`], because it has been silent for long. It stays open,
    /// so that what it has answered can still be logged, but no new leader waits for it. Answered with `Done`.
    SuspendSession {
        /// Must be open.
        session: SessionId,
    },
    /// The session is there again, and may hold leases. Answered with `Done`.
    ResumeSession {
        /// Must be open.
        session: SessionId,
    },
    /// A `Commit` that brings the data of some of its chunks along: no node has stored them yet. The log keeps them
    /// until the leader has stored them on their holders. So an fsync of few bytes is durable in one round trip.
    /// Refused with `LogFull`, without any effect, if the log keeps very many bytes already.
    CommitWithData {
        /// A file, with or without a name.
        ino: Ino,
        /// Refused as a whole or applied as a whole.
        commit: Commit,
        /// Each is a chunk of the commit; at most [`MAX_COMMIT_DATA`] bytes together.
        chunks: Vec<LoggedChunk>,
    },
    /// Removes chunks from the log's care: their holders have them on disk. Answered with `Done`.
    ForgetLogged {
        /// Those that the log does not keep are skipped.
        chunks: Vec<ChunkId>,
    },
    /// Lets somebody come in once. Answered with `Done`.
    Invite {
        /// Its number and its hash are new.
        invitation: Invitation,
    },
    /// Notes that somebody gets a certificate. Answered with `Admitted`; refused with `NotPermitted` if nothing allows
    /// it any longer.
    Admit {
        /// What allows it.
        admission: AdmissionReason,
        /// The key that is certified.
        key: KeyHash,
        /// When the certificate expires.
        expires: Time,
    },
    /// Makes all nodes refuse somebody, or withdraws an invitation. Answered with `Done`; `NoEntry` if there is
    /// neither.
    RevokeIdentity {
        /// The number of the identity, or of the one that was invited.
        id: IdentityId,
    },
    /// What the leader makes of an `OpenSession` by a caller with a certificate: nobody else may act in the session.
    OpenOwnedSession {
        /// As in `OpenSession`.
        nonce: u64,
        /// As in `OpenSession`.
        client: String,
        /// As in `OpenSession`.
        holds_leases: bool,
        /// From the caller's certificate.
        owner: IdentityId,
    },
    /// Sets an extended attribute, as `setxattr(2)`. An access control list also sets the permission bits. Answered
    /// with `Attr`.
    SetXattr {
        /// Its kind does not matter: which kinds may have which attributes is checked by the kernels.
        ino: Ino,
        /// In the namespace `user.`, `trusted.` or `security.`, or an access control list.
        name: XattrName,
        /// At most [`MAX_XATTR_VALUE_BYTES`](super::MAX_XATTR_VALUE_BYTES).
        value: Bytes,
        /// As the flags of `setxattr(2)`.
        mode: XattrMode,
    },
    /// Removes an extended attribute. Answered with `Attr`; `NoXattr` if there is none of this name.
    RemoveXattr {
        /// Its kind does not matter.
        ino: Ino,
        /// With its namespace.
        name: XattrName,
    },
    /// Does what `Make` does, in a directory that may have a default access control list. With such a list, the list
    /// takes the place of the umask.
    MakeMasked {
        /// As in `Make`.
        parent: Ino,
        /// As in `Make`.
        name: EntryName,
        /// Its mode is that of the program, without the umask.
        node: NewNode,
        /// Permission bits that the program's umask takes away.
        umask: u16,
        /// As in `Make`.
        exclusive: bool,
    },
    /// Makes a hole of chunks, which read as zeros from then on. The size stays. Answered with `Attr`.
    PunchHole {
        /// A file, with or without a name.
        ino: Ino,
        /// The first of the chunks; counts from 1.
        first: u32,
        /// At least 1; may reach beyond the end of the file.
        count: u32,
        /// The chunk size for which the chunks were chosen: refused with `Stale` if the file was restarted with another
        /// one.
        chunk_bytes: u32,
    },
    /// Gives a lock to a program of the session, in place of what its owner holds of the range. Answered with `Done` if
    /// it is held now, and with `LockQueued` if the session waits for it; refused with `WouldBlock` if it does not want
    /// to wait, and with `Deadlock` if it would wait for ever.
    Lock {
        /// With or without a name.
        ino: Ino,
        /// What is wanted.
        lock: FileLock,
        /// The session waits: it hears of the lock by [`FeedEvent::LockGranted`](super::FeedEvent::LockGranted) with
        /// this number, and may ask again with it.
        ticket: Option<u64>,
    },
    /// Takes from an owner what it holds of a range. Answered with `Done`.
    Unlock {
        /// With or without a name.
        ino: Ino,
        /// May be more than the owner holds.
        range: LockRange,
    },
    /// Ends waiting. Answered with `Done`; `NoEntry` if the session does not wait: then it may have the lock.
    CancelLock {
        /// The inode that it waits for.
        ino: Ino,
        /// From `Lock`.
        ticket: u64,
    },
    /// Takes over locks that the session has given its programs by itself, under a sole lease or under a former leader.
    /// Answered with `LocksRefused`.
    KeepLocks {
        /// With or without a name.
        ino: Ino,
        /// At most [`MAX_LOCKS`](super::MAX_LOCKS).
        locks: Vec<FileLock>,
    },
    /// Lets a file have chunks of another one, or its own, in place of what it has in that range: both share the
    /// stored chunks. Holes become holes. Answered with `Cloned`.
    CloneRange {
        /// The file whose chunks these are.
        from: Ino,
        /// The first of them there.
        from_first: u32,
        /// The file that gets them, with or without a name.
        ino: Ino,
        /// Their first number there. In one file the two ranges must not overlap.
        first: u32,
        /// At least 1.
        count: u32,
        /// The chunk size of both files: refused with `Stale` if one has another one.
        chunk_bytes: u32,
        /// The file is at least this long afterwards, if all of the range was cloned.
        size_at_least: u64,
        /// The sizes of `from` and `ino` for which the range was chosen: refused with `Conflict` if one has another
        /// size. Otherwise a short chunk at the end could replace bytes that somebody has written behind it.
        sizes: (u64, u64),
    },
    /// Notes when inodes were read last. Only later times count; nothing else about the inodes changes, and nobody is
    /// told. Answered with `Done`.
    Touch {
        /// At most [`MAX_TOUCHED`]; inodes that are gone are left out.
        atimes: Vec<(Ino, Time)>,
    },
}

/// Whether an extended attribute must exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// It is created or replaced.
    Any,
    /// `Exists` if it exists.
    Create,
    /// `NoXattr` if it does not.
    Replace,
}

impl Change {
    /// The file and the commit of a change that is one, with or without data.
    pub fn as_commit(&self) -> Option<(Ino, &Commit)> {
        match self {
            Self::Commit { ino, commit } | Self::CommitWithData { ino, commit, .. } => Some((*ino, commit)),
            _ => None,
        }
    }
}

/// A chunk whose data is logged with the commit that makes it current.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedChunk {
    /// Its number in the file and its version.
    pub id: ChunkId,
    /// As a node would store it: at most the file's chunk size, less for the last chunk.
    pub data: Bytes,
}

impl LoggedChunk {
    /// Removes from the chunks of a query those that `answer` is about. An answer holds as many as fit, in the order of
    /// the query, and none only if the log keeps none of them.
    pub fn drop_answered(queried: &mut Vec<ChunkId>, answer: &[Self]) {
        let last = answer.last().and_then(|last| queried.iter().position(|id| *id == last.id));
        queried.drain(..last.map_or(queried.len(), |at| at + 1));
    }
}

/// Without the data, which belongs in no log file.
impl fmt::Debug for LoggedChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedChunk").field("id", &self.id).field("bytes", &self.data.len()).finish()
    }
}

/// The most files of one `HoldOrphans` or `Release`, which bounds the time that applying it takes.
pub const MAX_HOLDS: usize = 4096;
/// The most runs of one `Commit`, `extents` and `partial` together. A mount that has more sends several.
pub const MAX_COMMIT_RUNS: usize = 1024;
/// The most bytes that one `CommitWithData` carries: what is larger costs less if it goes to its holders at once.
pub const MAX_COMMIT_DATA: usize = 256 << 10;
/// The most inodes of one `Touch`.
pub const MAX_TOUCHED: usize = 4096;
/// The most extents that one `CloneRange` clones.
pub const MAX_CLONED_RUNS: usize = 1024;
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

impl Commit {
    /// All chunks that it makes current, in no order.
    pub fn runs(&self) -> impl Iterator<Item = Extent> {
        self.extents.iter().copied().chain(self.partial.iter().map(ChunkWrite::extent))
    }
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

impl ChunkWrite {
    /// The chunk as a run of one.
    pub fn extent(&self) -> Extent {
        Extent { first: self.index, count: 1, version: self.version }
    }
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
    /// To `Configure`.
    Configured {
        /// The configuration after the change.
        config: RingConfig,
        /// False if another change came first.
        changed: bool,
    },
    /// To `ResizePool`.
    PoolResized {
        /// The serial after the change.
        serial: u64,
        /// The size that is wanted after the change.
        wanted: Option<u32>,
        /// False if another decision came first.
        changed: bool,
    },
    /// To `AllocateInos`.
    Inos(InoBlock),
    /// To `Admit`: who is to be certified.
    Admitted(Identity),
    /// To `Lock`: others come first.
    LockQueued,
    /// To `KeepLocks`: those that contradict the locks of others.
    LocksRefused {
        /// The session's programs do not hold them any longer.
        locks: Vec<FileLock>,
    },
    /// To `CloneRange`.
    Cloned {
        /// The attributes of the file that has them now.
        attr: Attr,
        /// How many chunks were cloned: less than all if they are of more than [`MAX_CLONED_RUNS`] extents.
        count: u32,
    },
}
