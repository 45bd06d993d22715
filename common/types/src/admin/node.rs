//! The status of one node: `GET /status` of its plane of administration.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{DrainStatus, RepairStatus, Work};
use crate::ring_id::Neighbours;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Starting,
    Joining,
    Serving,
    Draining,
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub state: NodeState,
    /// `None` while the node is in no ring.
    pub neighbours: Option<Neighbours>,
    pub store: StoreStatus,
    pub namespace: NamespaceStatus,
    #[serde(default)]
    pub work: Work,
    pub repair: RepairStatus,
    /// The drain that is under way, or the last one that was tried.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub chunks: u64,
    /// Size of the chunks' data, without their records' headers.
    pub data_bytes: u64,
    /// Bytes that may still be stored.
    pub free_bytes: u64,
    pub capacity_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceStatus {
    pub voter: bool,
    /// Ring address of the leader, if one is known.
    pub leader: Option<SocketAddr>,
    /// Ring addresses of the voters.
    pub voters: Vec<SocketAddr>,
}
