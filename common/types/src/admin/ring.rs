//! The status of the whole ring: `GET /ring`, and what `storage-node status --json` prints.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{NamespaceStatus, Work};
use crate::ring_id::{RingArc, RingId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingStatus {
    /// Ring address of the node that gathered this.
    pub asked: SocketAddr,
    /// Sorted by id; nodes that are in no ring come last.
    pub nodes: Vec<NodeLine>,
    /// Copies that holders lack, as far as the nodes have compared their arcs; `None` if none of them has.
    pub under_replicated: Option<u64>,
    pub namespace: NamespaceStatus,
}

/// One node, as far as its status is known; an unresponsive or foreign node reports none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeLine {
    /// Ring address.
    pub address: SocketAddr,
    pub id: Option<RingId>,
    pub state: RingNodeState,
    /// `(after, upto]`; `None` where the node is in no ring.
    pub arc: Option<RingArc>,
    /// Share of the circle, 0 to 1.
    pub share: Option<f64>,
    pub chunks: Option<u64>,
    pub data_bytes: Option<u64>,
    pub free_bytes: Option<u64>,
    pub capacity_bytes: Option<u64>,
    pub voter: bool,
    pub leader: bool,
    #[serde(default)]
    pub work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingNodeState {
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
