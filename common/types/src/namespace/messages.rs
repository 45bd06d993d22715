//! What travels between a mount and a node: requests and responses, the change feed, and their bytes.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    change::{NamespaceOp, Reply},
    query::{Answer, Query},
    values::{EntryName, SessionId},
};
use crate::{fs_error::FsError, ino::Ino};

/// Raised when any type in a message changes its encoding.
pub const WIRE_VERSION: u8 = 6;

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
    /// Another session uses the directory too: from now on the kernel must not keep its names.
    Recalled {
        /// The session keeps a shared lease.
        ino: Ino,
    },
    /// The lease ends: the session has to forget all about the inode.
    Revoked {
        /// Granted a long time ago, and the session holds more leases than it may; or claimed in vain.
        ino: Ino,
    },
    /// A session that remembers nothing reads the inode: all that this one has answered so far has to be logged first.
    /// Its leases stay as they are.
    Wanted {
        /// The session holds a sole lease on it.
        ino: Ino,
    },
    /// The session has the lock that it waits for. Sent to that session only.
    LockGranted {
        /// The inode that is locked.
        ino: Ino,
        /// Waits for it.
        session: SessionId,
        /// From [`Change::Lock`](super::Change::Lock).
        ticket: u64,
    },
}

impl FeedEvent {
    /// The inode of which the session remembers something that is out of date now.
    pub fn ino(&self) -> Ino {
        match self {
            Self::Inode { ino, .. }
            | Self::Orphaned { ino }
            | Self::Recalled { ino }
            | Self::Revoked { ino }
            | Self::Wanted { ino }
            | Self::LockGranted { ino, .. } => *ino,
            Self::Entry { parent, .. } => *parent,
        }
    }
}

/// What the leader sends with [`calls::FEED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedMessage {
    /// The session sends `Request::Acknowledge` with this number when neither it nor its kernel remembers what the
    /// events contradict. Until then the change is not answered. `None`: nothing waits.
    pub notice: Option<u64>,
    /// In the order of the log.
    pub events: Vec<FeedEvent>,
}

/// How long a session may answer from memory after it has sent a request that was answered. The leader counts from the
/// arrival of the request, so it never counts less.
pub const LEASE: Duration = Duration::from_secs(5);

/// What a session may remember of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The session has leases on all inodes in the answer. If false it must use the answer only once.
    pub remember: bool,
    /// Inodes in the answer that no other session uses. While the lease lasts, the kernel may keep the names of such a
    /// directory, and the session may change the inode before the change is logged.
    pub sole: Vec<Ino>,
}

impl Granted {
    /// For an answer of which a part must be used only once.
    pub fn once(self) -> Self {
        Self { remember: false, ..self }
    }
}

/// The MessagePack-RPC methods that carry these messages; each takes and returns one binary.
pub mod calls {
    /// Takes a [`super::Request`] and returns a [`super::Response`].
    pub const NAMESPACE: &str = "chordfs_namespace";
    /// A notification from the leader: a [`super::FeedMessage`].
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
        /// Inodes on which the session holds a sole lease and has made changes that are not logged yet. It keeps those
        /// leases, unless they have run out.
        claims: Vec<Ino>,
    },
    /// Renews the lease of the attached session, and reports how much of the change feed it has handled.
    KeepAlive {
        /// The session holds every file that it has open and that lost its last name at or before this place in the
        /// log; 0 if it cannot say.
        answered: u64,
        /// From the last [`Response::Alive`], if the session has nothing open and opens nothing now: an opening whose
        /// request this count includes has ended.
        nothing_open: Option<SessionRequests>,
    },
    /// Answered by the leader once the operation is committed and applied.
    Apply(NamespaceOp),
    /// The answer includes every operation that any node answered before.
    Query(Query),
    /// Answered with `Reported` by the leader. Only operators read it.
    Report(ClientReport),
    /// The attached session has done what a [`FeedMessage`] demands. Answered with `Acknowledged`.
    Acknowledge {
        /// From the message.
        notice: u64,
        /// False: the session has not used the inodes lately, and gives its leases on them back.
        keeps: bool,
    },
    /// Operations of one session, applied in this order with nothing between them. Each has its own result, and a
    /// refused one stops none of the others: what depends on it is refused as well. Answered with `AppliedList`.
    ApplyList(Vec<NamespaceOp>),
}

/// What a mount tells operators about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Bytes that programs have written and the mount has not stored yet.
    pub dirty_bytes: u64,
    /// Files and directories that programs have open.
    pub open_files: u64,
    /// Changes that programs were told of and that are not logged, contents of closed files included.
    pub unlogged_changes: u64,
    /// The time since the first of them was answered, in milliseconds; 0 without any.
    pub oldest_unlogged_millis: u64,
}

/// How many operations and queries of a session one leader has received. Opening a file takes one of them, so while the
/// count stays the same the session opens nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequests {
    /// The leader's; another leader counts anew.
    pub term: u64,
    /// Never decreases in a term.
    pub count: u64,
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
        /// The session's operations and queries so far.
        requests: SessionRequests,
    },
    /// The operation was applied, or refused without any effect.
    Applied(Result<Reply, FsError>, Granted),
    /// Also carries the error of a request that is neither an operation nor a query.
    Answered(Result<Answer, FsError>, Granted),
    /// To [`Request::Report`].
    Reported,
    /// To [`Request::Acknowledge`].
    Acknowledged,
    /// To [`Request::ApplyList`], one result for each operation.
    AppliedList(Vec<Result<Reply, FsError>>, Granted),
}

impl Response {
    /// Nothing was done, and nothing is told about any inode.
    pub fn refused(error: FsError) -> Self {
        Self::Answered(Err(error), Granted::default())
    }
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
