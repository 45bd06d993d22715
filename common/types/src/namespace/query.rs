//! The queries to the namespace, and the answers to them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    change::LoggedChunk,
    identities::{Invitation, KnownIdentity},
    locks::HeldLock,
    pool_size::PoolSize,
    values::{AcceptedToken, Attr, ClonedRun, EntryName, Extent, Xattrs},
};
use crate::{
    chunk::{ChunkId, ChunkRun, FileName, Version},
    identity::IdentityId,
    ino::Ino,
    ring_config::RingConfig,
};

/// How many directory entries or extents one answer carries at most.
pub const PAGE_ITEMS: u32 = 1024;
/// Files with more extents than this are listed without them.
pub const MAX_LISTED_EXTENTS: usize = 8;

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
    /// The configuration of the ring.
    RingConfig,
    /// The operators' tokens that nodes accept, and those that were revoked.
    OperatorTokens,
    /// How many nodes the pool shall have, and the last decisions.
    PoolSize,
    /// The data of chunks that the log keeps until their holders have them. Answered with `LoggedChunks`.
    LoggedChunks {
        /// At most [`PAGE_ITEMS`].
        ids: Vec<ChunkId>,
    },
    /// The open invitations, and the identities that the ring has let in.
    Identities,
    /// The identities that no node lets in any longer.
    RevokedIdentities,
    /// Which of the versions an identity that is bound to a folder may read and store chunks of. Nodes ask this for the
    /// callers that they serve. Answered with `Reachable`.
    Reachable {
        /// The caller's identity.
        owner: IdentityId,
        /// The folder to which it is bound.
        path: Vec<EntryName>,
        /// Those of one request for chunks, each once.
        versions: Vec<Version>,
    },
    /// Entries as `ReadDir` has them, with the extents of those files that have few: all that a mount needs to open
    /// them. Answered with `OpenedEntries`.
    OpenEntries {
        /// Must be a directory.
        ino: Ino,
        /// Need not exist any more.
        after: Option<EntryName>,
        /// Entries in the answer at most, besides [`PAGE_ITEMS`].
        limit: u32,
    },
    /// What `Reachable` asks, of an identity on whose machine root has no power. Answered with `Reachable`.
    ReachableWithoutRoot {
        /// The caller's identity.
        owner: IdentityId,
        /// The folder to which it is bound; empty if it is bound to none.
        path: Vec<EntryName>,
        /// Those of one request for chunks, each once.
        versions: Vec<Version>,
        /// Whether the caller stores chunks, and does not read them.
        stores: bool,
    },
    /// All extended attributes of an inode. Answered with `Xattrs`.
    Xattrs {
        /// `Stale` if it does not exist.
        ino: Ino,
    },
    /// The locks on an inode. Answered with `Locks`.
    Locks {
        /// `Stale` if it does not exist.
        ino: Ino,
    },
    /// What the versions of clones stand for. Answered with `Clones`.
    Clones {
        /// At most [`PAGE_ITEMS`].
        versions: Vec<Version>,
    },
    /// Which chunks a caller may read because a file has them by a clone that it reaches. Nodes ask this when a caller
    /// does not reach their versions otherwise. Answered with `Reachable`.
    ReachableByClone {
        /// The caller's identity.
        owner: IdentityId,
        /// The folder to which it is bound; empty if it is bound to none.
        path: Vec<EntryName>,
        /// Root has no power on the caller's machine.
        without_root: bool,
        /// At most [`PAGE_ITEMS`].
        ids: Vec<ChunkId>,
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
    /// To `RingConfig`.
    RingConfig(RingConfig),
    /// To `OperatorTokens`: by the uids of their nodes, at most
    /// [`MAX_ACCEPTED_TOKENS`](crate::operator::MAX_ACCEPTED_TOKENS).
    OperatorTokens(Vec<AcceptedToken>),
    /// To `PoolSize`.
    PoolSize(PoolSize),
    /// To `LoggedChunks`: those of the chunks that the log keeps, as many as fit into one answer.
    LoggedChunks(Vec<LoggedChunk>),
    /// To `Identities`, by their numbers.
    Identities {
        /// At most [`MAX_INVITATIONS`](super::MAX_INVITATIONS).
        invitations: Vec<Invitation>,
        /// At most [`MAX_IDENTITIES`](super::MAX_IDENTITIES).
        known: Vec<KnownIdentity>,
    },
    /// To `RevokedIdentities`, by their numbers.
    RevokedIdentities(Vec<IdentityId>),
    /// To `Reachable`, `ReachableWithoutRoot` and `ReachableByClone`, in the order of the query.
    Reachable(Vec<bool>),
    /// To `OpenEntries`.
    OpenedEntries {
        /// In the order of their names, without `.` and `..`.
        entries: Vec<OpenedEntry>,
        /// Query again after the last name.
        more: bool,
    },
    /// To `Xattrs`.
    Xattrs {
        /// As of the same operation as the extended attributes.
        attr: Attr,
        /// At most [`MAX_XATTRS_BYTES`](super::MAX_XATTRS_BYTES) together.
        xattrs: Xattrs,
    },
    /// To `Locks`: those that are held. Nobody waits if there are none.
    Locks(Vec<HeldLock>),
    /// To `Clones`: those that files have.
    Clones(Vec<ClonedRun>),
}

/// A name with all that a mount needs to open what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedEntry {
    /// As of the same operation as the extents.
    pub entry: DirEntry,
    /// All extents of a file that has at most [`MAX_LISTED_EXTENTS`].
    pub extents: Option<Vec<Extent>>,
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
