//! The status of one node: `GET /status` of its plane of administration.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{CacheStatus, DrainStatus, RepairStatus, Work};
use crate::{disk_space::Disk, ring_id::Neighbours};

/// Where a node is in its life. It passes through these in order, except that a drain that fails leads back to
/// `Serving`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// The process opens its data folder and its ports.
    Starting,
    /// The node looks for its ring and takes its place in it.
    Joining,
    /// The node is in the ring, though it may still fetch chunks of its arcs.
    Serving,
    /// The node serves as before while it hands its chunks over.
    Draining,
    /// The node has left the ring, and the process is about to end.
    Gone,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Gone => "gone",
        })
    }
}

/// One node's report about itself, without requests to other nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `/readyz` fails unless this is `Serving`.
    pub state: NodeState,
    /// `None` while the node is in no ring.
    pub neighbours: Option<Neighbours>,
    /// Counted over the segments on this node's disk.
    pub store: StoreStatus,
    /// Taken from this node's Raft; it may be older than the leader's view.
    pub namespace: NamespaceStatus,
    /// Computed from `repair`, `drain` and the scrub's status; empty from a node that is too old to send it.
    #[serde(default)]
    pub work: Work,
    /// Copies that this node fetches and sends.
    pub repair: RepairStatus,
    /// The drain that is under way, or the last one that was tried.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
    /// The chunks that the node keeps in memory.
    #[serde(default)]
    pub cache: CacheStatus,
    /// The name of the node's failure domain, if it was given one.
    #[serde(default)]
    pub zone: Option<String>,
    /// HTTP requests that were answered on 5058 since the process started, those of other nodes included.
    #[serde(default)]
    pub requests: u64,
    /// The ring has no identities: whoever reaches the node's ports may do anything.
    #[serde(default)]
    pub insecure: bool,
}

/// How full a node's disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Records that are not dead.
    pub chunks: u64,
    /// Bytes of these records, headers included.
    pub data_bytes: u64,
    /// Bytes of records that may still be stored.
    pub free_bytes: u64,
    /// The configured capacity; without one, the size of the segments plus `free_bytes`.
    pub capacity_bytes: u64,
    /// The file system of the data folder; `None` from a node that does not know it.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// Why the data folder cannot be used: a read-only file system, a broken disk.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A node's part in the namespace's Raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceStatus {
    /// Whether the reporting node has a vote.
    pub voter: bool,
    /// Ring address of the leader, if one is known.
    pub leader: Option<SocketAddr>,
    /// Ring addresses of the voters.
    pub voters: Vec<SocketAddr>,
    /// Whether the reporting node knows a namespace.
    #[serde(default)]
    pub known: bool,
    /// Whether the reporting node leads, and a majority of the voters has confirmed that recently.
    #[serde(default)]
    pub leads: bool,
    /// Whether the leader has recently reported that it leads with a majority.
    #[serde(default)]
    pub leader_confirmed: bool,
    /// How far the other voters are behind; only the leader reports them.
    #[serde(default)]
    pub lags: Vec<VoterLag>,
    /// What the reporting node has done about leases since it started. Only leaders do something.
    #[serde(default)]
    pub leases: LeaseStatus,
    /// Chunks that the log keeps until their holders have them, as far as the reporting node has applied it.
    #[serde(default)]
    pub logged: LoggedStatus,
}

/// Chunks whose data came into the log with the commit of an `fsync`, and that are not stored on their holders yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedStatus {
    /// Chunks now.
    pub chunks: u64,
    /// The memory that they take, in bytes.
    pub bytes: u64,
}

/// The leases of mounts on directories and inodes, at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Mounts and nodes that are connected to the namespace here.
    pub sessions: u64,
    /// Leases that are held now.
    pub held: u64,
    /// Messages to mounts that what they remember is out of date.
    pub changed: u64,
    /// Messages to mounts that another one wants to use what they hold alone.
    pub recalled: u64,
    /// Messages to mounts that leases have ended: they held too many, or claimed them in vain.
    pub revoked: u64,
    /// Messages to mounts that a program without a mount wants to read what they hold alone.
    pub wanted: u64,
    /// How often requests waited for other mounts, or for other changes of the same names.
    pub waits: u64,
    /// The time that they waited, in milliseconds.
    pub waited_millis: u64,
}

/// A voter as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterLag {
    /// Ring address.
    pub voter: SocketAddr,
    /// Entries of the leader's log that the voter has not confirmed.
    pub entries: u64,
    /// Whether it has confirmed nothing for some seconds.
    pub unresponsive: bool,
}
