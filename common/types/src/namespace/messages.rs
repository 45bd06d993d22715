//! What travels between a mount and a node: requests and responses, the change feed, and their bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    change::{NamespaceOp, Reply},
    query::{Answer, Query},
    values::{EntryName, SessionId},
};
use crate::{fs_error::FsError, ino::Ino};

/// Raised when any type in a message changes its encoding.
pub const WIRE_VERSION: u8 = 5;

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
}

/// What a mount tells operators about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Bytes that programs have written and the mount has not stored yet.
    pub dirty_bytes: u64,
    /// Files and directories that programs have open.
    pub open_files: u64,
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
    Applied(Result<Reply, FsError>),
    /// Also carries the error of a request that is neither an operation nor a query.
    Answered(Result<Answer, FsError>),
    /// To [`Request::Report`].
    Reported,
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
