//! The status of the whole ring: `GET /ring`, and what `storage-node status --json` prints.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{CacheStatus, Health, NamespaceStatus, Work};
use crate::{
    disk_space::{Disk, RingSpace},
    ring_id::{RingArc, RingId},
};

/// One node's survey of the ring, in which it requested every node's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingStatus {
    /// Ring address of the node that gathered this.
    pub asked: SocketAddr,
    /// Sorted by id; nodes that are in no ring come last.
    pub nodes: Vec<NodeLine>,
    /// Copies that holders lack, those of dead holders included; `None` while no node has compared its arcs.
    pub under_replicated: Option<u64>,
    /// The space for file contents; `None` while no node has reported its own.
    #[serde(default)]
    pub space: Option<RingSpace>,
    /// As the gathering node reports it, or another node if the first knows no leader.
    pub namespace: NamespaceStatus,
    /// [`NodeStatus::insecure`](super::NodeStatus::insecure).
    #[serde(default)]
    pub insecure: bool,
    /// The verdict on all of this.
    #[serde(default)]
    pub health: Health,
}

/// One node, as far as its status is known; an unresponsive or foreign node reports none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeLine {
    /// Ring address.
    pub address: SocketAddr,
    /// `None` for a voter that is in no ring.
    pub id: Option<RingId>,
    /// Derived from the node's own [`NodeState`](super::NodeState) and its work.
    pub state: RingNodeState,
    /// `(after, upto]`; `None` where the node is in no ring.
    pub arc: Option<RingArc>,
    /// Share of the circle, 0 to 1.
    pub share: Option<f64>,
    /// [`StoreStatus::chunks`](super::StoreStatus::chunks).
    pub chunks: Option<u64>,
    /// [`StoreStatus::data_bytes`](super::StoreStatus::data_bytes).
    pub data_bytes: Option<u64>,
    /// [`StoreStatus::free_bytes`](super::StoreStatus::free_bytes).
    pub free_bytes: Option<u64>,
    /// [`StoreStatus::capacity_bytes`](super::StoreStatus::capacity_bytes).
    pub capacity_bytes: Option<u64>,
    /// [`StoreStatus::disk`](super::StoreStatus::disk). Nodes with the same one share its free bytes.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// [`StoreStatus::problem`](super::StoreStatus::problem).
    #[serde(default)]
    pub problem: Option<String>,
    /// According to the ring's `namespace`, not to the node itself.
    pub voter: bool,
    /// According to the ring's `namespace`, not to the node itself.
    pub leader: bool,
    /// Empty if the node sent no status.
    #[serde(default)]
    pub work: Work,
    /// [`NodeStatus::cache`](super::NodeStatus::cache).
    #[serde(default)]
    pub cache: Option<CacheStatus>,
    /// [`NodeStatus::zone`](super::NodeStatus::zone).
    #[serde(default)]
    pub zone: Option<String>,
}

impl NodeLine {
    /// A node of which nothing else is known: it has sent no status, and its place is not known either.
    pub fn without_status(address: SocketAddr, state: RingNodeState) -> Self {
        Self {
            address,
            id: None,
            state,
            arc: None,
            share: None,
            chunks: None,
            data_bytes: None,
            free_bytes: None,
            capacity_bytes: None,
            disk: None,
            problem: None,
            voter: false,
            leader: false,
            work: Work::default(),
            cache: None,
            zone: None,
        }
    }
}

/// A node's state as the whole ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingNodeState {
    /// The node serves and has fetched the chunks of its arcs.
    Up,
    /// The node is on its way into the ring, or in it and not yet filled.
    Joining,
    /// The node hands over its chunks, or ends.
    Draining,
    /// Other nodes name it, and it does not answer.
    Unreachable,
    /// A Chord node of another program: it stores nothing.
    Foreign,
}
