//! The types Raft is run with, and the one frame in which its messages travel between nodes.
//!
//! A logged operation stays the bytes it was first encoded as (`namespace::encode` of a `NamespaceOp`): the log, the wire and the
//! followers' logs never encode it again, and only the state machine looks inside.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use chordfs_types::{
    fs_error::FsError,
    namespace::{DecodeError, NamespaceOp, Reply, Time, decode, encode},
};
use openraft::{declare_raft_types, type_config::alias};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::state_machine::StateMachine;

/// Raised when a Raft message, a log entry or a snapshot changes its encoding. Nodes of different formats refuse each
/// other's messages rather than guess.
pub const FORMAT: u8 = 2;

declare_raft_types!(
    /// What this namespace's Raft replicates, among whom.
    pub TypeConfig:
        D = LoggedOp,
        R = Outcome,
        NodeId = u64,
        Node = Member,
);

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = alias::SmSnapshotOf<TypeConfig, StateMachine>;

/// Where a member of the Raft cluster lives; its ring address, from which the other two follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub ring: SocketAddr,
}

impl Member {
    /// Where its Raft is served: the administration plane, two ports above the ring's.
    pub fn admin_address(&self) -> SocketAddr {
        admin_address(self.ring)
    }
}

impl Default for Member {
    fn default() -> Self {
        Self { ring: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0) }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.fmt(f)
    }
}

/// The administration address of the node whose ring address is `ring`.
pub fn admin_address(ring: SocketAddr) -> SocketAddr {
    SocketAddr::new(ring.ip(), ring.port().saturating_add(2))
}

/// One operation as it is logged, and the time its leader saw: what grace periods count from, because mounts' clocks are
/// anybody's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOp {
    pub at: Time,
    op: Bytes,
}

impl LoggedOp {
    pub fn new(op: &NamespaceOp, at: Time) -> Self {
        Self { at, op: encode(op) }
    }

    pub fn decode(&self) -> Result<NamespaceOp, DecodeError> {
        decode(&self.op)
    }

    /// Its length as it is logged, but for the time.
    pub fn bytes(&self) -> usize {
        self.op.len()
    }
}

impl fmt::Debug for LoggedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation of {} bytes", self.op.len())
    }
}

impl fmt::Display for LoggedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying a log entry came to; `None` for entries of Raft's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome(pub Option<Result<Reply, FsError>>);

/// A message between two nodes' Rafts: the format byte, then postcard.
pub fn pack<T: Serialize>(message: &T) -> Bytes {
    postcard::to_extend(message, vec![FORMAT]).expect("plain data always encodes").into()
}

pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        None => Err("the message is empty".into()),
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| format!("it does not decode: {error}")),
        Some((other, _)) => Err(format!("it has format {other}, this node speaks {FORMAT}")),
    }
}
