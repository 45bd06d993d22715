//! The types that parametrize openraft, and the frame of its messages between nodes.
//!
//! Logged operations keep their first encoding (`namespace::encode` of a list of `NamespaceOp`): the log, the wire and
//! the followers' logs never encode them again, and only the state machine decodes them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use chordfs_types::{
    fs_error::FsError,
    namespace::{DecodeError, NamespaceOp, OpId, Reply, Time, WIRE_VERSION, decode, encode},
    ring_config::PoolConfig,
};
use openraft::{declare_raft_types, type_config::alias};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::answer_terms::AnswerTerms;

/// Raised when a Raft message, a log entry or a snapshot changes its encoding. Nodes of different formats refuse each
/// other's messages rather than guess.
pub const FORMAT: u8 = 2;

/// The version of logged operations before [`WIRE_VERSION`] 6: an entry is one operation, not a list.
const VERSION_WITHOUT_LISTS: u8 = 5;
/// The version before that: `Change::OpenSession` also ends before `holds_leases`.
const VERSION_WITHOUT_LEASES: u8 = 4;
/// The version before that: `Change::Configure` also ends before the thresholds of the disks.
const VERSION_WITHOUT_DISK_USE: u8 = 3;
/// The position of `Change::OpenSession`.
const OPEN_SESSION: u32 = 0;

declare_raft_types!(
    /// What Raft replicates here, and between which nodes.
    pub TypeConfig:
        D = LoggedOp,
        R = EntryResult,
        NodeId = u64,
        Node = RaftMember,
);

pub type LogEntry = alias::EntryOf<TypeConfig>;
/// A term and its leader.
pub type LeaderTerm = alias::CommittedLeaderIdOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// The address of a member: its ring address, from which the addresses of its other two planes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RaftMember {
    pub ring: SocketAddr,
}

impl RaftMember {
    /// The address for Raft messages: the administration plane, two ports above the ring's.
    pub fn admin_address(&self) -> SocketAddr {
        admin_address(self.ring)
    }
}

impl Default for RaftMember {
    fn default() -> Self {
        Self { ring: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0) }
    }
}

impl fmt::Display for RaftMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.fmt(f)
    }
}

/// Returns the administration address of the node with the ring address `ring`.
pub fn admin_address(ring: SocketAddr) -> SocketAddr {
    SocketAddr::new(ring.ip(), ring.port().saturating_add(2))
}

/// The operations of one log entry, with the leader's time: grace periods count from it, because mounts' clocks cannot
/// be trusted.
///
/// They are of one session, in the order in which it made them, and are applied in this order with nothing between
/// them. They are ordered, and not one transaction: the session may have answered each of them by itself before it sent
/// them, so one that is refused must not take the others back, and what depends on it is refused by the tables anyway.
///
/// ```text
/// version u8 (6) | count varint | operations (postcard of `NamespaceOp`)
/// version u8 (3 to 5) | one operation
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOp {
    pub at: Time,
    op: Bytes,
}

impl LoggedOp {
    pub fn new(op: &NamespaceOp, at: Time) -> Self {
        Self::list(std::slice::from_ref(op), at)
    }

    pub fn list(ops: &[NamespaceOp], at: Time) -> Self {
        Self { at, op: encode(&ops) }
    }

    /// Reads an entry of this release or of the three before: a log outlives the program that wrote it.
    pub fn decode(&self) -> Result<Vec<NamespaceOp>, DecodeError> {
        match self.op.split_first() {
            Some((&version @ VERSION_WITHOUT_DISK_USE..=VERSION_WITHOUT_LISTS, rest)) => {
                decode(&completed(version, rest)).map(|op| vec![op])
            }
            _ => decode(&self.op),
        }
    }

    /// Its length in the log, without the time.
    pub fn bytes(&self) -> usize {
        self.op.len()
    }
}

/// Completes an operation of a former version with what it lacks. The lacking fields are always the very end of the
/// only operation that carries them.
fn completed(version: u8, op: &[u8]) -> Vec<u8> {
    let completed = [&[WIRE_VERSION], op].concat();
    let extended = if version <= VERSION_WITHOUT_LEASES && opens_session(op) {
        // The safe side, as for the sessions in former snapshots: at worst a leader waits for it in vain.
        postcard::to_extend(&true, completed)
    } else if version == VERSION_WITHOUT_DISK_USE {
        let PoolConfig { max_disk_use, min_disk_use, .. } = PoolConfig::default();
        // Bytes behind other operations are ignored.
        postcard::to_extend(&(max_disk_use, min_disk_use), completed)
    } else {
        Ok(completed)
    };
    extended.expect("plain data always encodes")
}

/// Whether the bytes of a `NamespaceOp` (its origin, its time, the position of its change) open a session.
fn opens_session(op: &[u8]) -> bool {
    let head = postcard::take_from_bytes::<(Option<OpId>, Time, u32)>(op);
    matches!(head, Ok(((_, _, OPEN_SESSION), _)))
}

impl fmt::Debug for LoggedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operations of {} bytes", self.op.len())
    }
}

impl fmt::Display for LoggedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of applying a log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryResult {
    /// One for each operation; none for Raft's own entries.
    pub replies: Vec<Result<Reply, FsError>>,
    /// When and how this node, if it leads, may give the replies.
    #[serde(skip)]
    pub(crate) terms: AnswerTerms,
}

/// Encodes a Raft message between two nodes: the format byte, then postcard.
pub fn pack<T: Serialize>(message: &T) -> Bytes {
    postcard::to_extend(message, vec![FORMAT]).expect("plain data always encodes").into()
}

pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        None => Err("the message is empty".into()),
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| format!("it does not decode: {error}")),
        Some((other, _)) => Err(format!("it has format {other}, this node supports {FORMAT}")),
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        namespace::{Change, Ino, SessionId},
        ring_config::RingConfig,
    };

    use super::*;

    /// `op` as the release of `version` has logged it: without its last bytes.
    fn logged_before(version: u8, op: &NamespaceOp, lacking_bytes: usize) -> LoggedOp {
        let bytes = encode(op);
        let former = [&[version], &bytes[1..bytes.len() - lacking_bytes]].concat();
        LoggedOp { at: Time::default(), op: former.into() }
    }

    fn op(change: Change) -> NamespaceOp {
        NamespaceOp { origin: None, now: Time::default(), change }
    }

    #[test]
    fn operations_that_former_releases_have_logged_are_read() {
        let config = RingConfig::default().with([("pool.largest", "5")]).unwrap();
        let configure = op(Change::Configure { config });
        let PoolConfig { max_disk_use, min_disk_use, .. } = PoolConfig::default();
        let disk_use_bytes = postcard::to_stdvec(&(max_disk_use, min_disk_use)).unwrap().len();
        for version in [4, 5] {
            assert_eq!(
                logged_before(version, &configure, 0).decode(),
                Ok(vec![configure.clone()]),
                "version {version}"
            );
        }
        assert_eq!(logged_before(3, &configure, disk_use_bytes).decode(), Ok(vec![configure]));
        let origin = Some(OpId { session: SessionId(300), sequence: 3, answered_below: 2 });
        let hold = NamespaceOp { origin, ..op(Change::Hold { ino: Ino(5) }) };
        for version in [3, 4, 5] {
            assert_eq!(logged_before(version, &hold, 0).decode(), Ok(vec![hold.clone()]), "version {version}");
        }
        for ops in [vec![], vec![hold.clone()], vec![hold.clone(), op(Change::ForgetDead { ids: vec![1] }), hold]] {
            assert_eq!(LoggedOp::list(&ops, Time::default()).decode(), Ok(ops));
        }
        let other = LoggedOp { at: Time::default(), op: Bytes::from_static(&[2, 0]) };
        assert_eq!(other.decode(), Err(DecodeError::Version { found: 2 }));
    }

    #[test]
    fn sessions_that_former_releases_have_opened_may_hold_leases() {
        let open = |holds_leases| op(Change::OpenSession { nonce: 7, client: "here".into(), holds_leases });
        for version in [3, 4] {
            assert_eq!(logged_before(version, &open(false), 1).decode(), Ok(vec![open(true)]), "version {version}");
        }
        for holds_leases in [false, true] {
            assert_eq!(logged_before(5, &open(holds_leases), 0).decode(), Ok(vec![open(holds_leases)]));
            assert_eq!(LoggedOp::new(&open(holds_leases), Time::default()).decode(), Ok(vec![open(holds_leases)]));
        }
    }
}
