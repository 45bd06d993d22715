//! The messages between a mount (or a node acting for a script) and the namespace: changes, queries, their answers, and
//! the change feed. `chordfs-tables` applies them.
//!
//! Everything here is plain data, encoded with postcard: a change is logged, sent again after a leader change, and
//! replayed on a reference model, always as the same bytes. [`WIRE_VERSION`] is the first byte of every message and log
//! entry.

mod change;
mod identities;
mod locks;
mod messages;
mod pool_size;
mod query;
mod values;

pub use self::{
    change::{
        Change, ChunkWrite, Commit, DiscardedRuns, LoggedChunk, MAX_CLONED_RUNS, MAX_COLLECTED_RUNS, MAX_COMMIT_DATA,
        MAX_COMMIT_RUNS, MAX_HOLDS, MAX_TOUCHED, NamespaceOp, NewNode, OpId, RenameMode, Reply, SetAttr, Truncate,
        XattrMode,
    },
    identities::{
        AdmissionReason, Invitation, InvitationHash, KeyHash, KnownIdentity, MAX_IDENTITIES, MAX_INVITATIONS,
        folder_of, path_names,
    },
    locks::{FileLock, HeldLock, LockKind, LockRange, LockSpace, MAX_LOCKS},
    messages::{
        ClientReport, DecodeError, FeedEvent, FeedMessage, Granted, LEASE, Request, Response, SessionRequests,
        WIRE_VERSION, calls, decode, encode,
    },
    pool_size::{MAX_POOL_REASON_BYTES, PoolDecider, PoolDecision, PoolSize, PoolStep, REMEMBERED_POOL_DECISIONS},
    query::{Answer, DirEntry, FileContents, MAX_LISTED_EXTENTS, OpenedEntry, PAGE_ITEMS, Query},
    values::{
        AcceptedToken, Attr, ClonedRun, EntryName, Extent, FileKind, InoBlock, InodeFlags, MAX_ENTRY_NAME_BYTES,
        MAX_XATTR_NAME_BYTES, MAX_XATTR_VALUE_BYTES, MAX_XATTRS_BYTES, SessionId, Time, VersionBlock, XattrName,
        Xattrs, permission,
    },
};
pub use crate::ino::Ino;
