//! The whole ring at a glance: `GET /ring`, and what `storage-node status --json` prints.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{NamespaceStatus, Work};
use crate::ring_id::{RingArc, RingId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RingStatus {
    /// Ring address of the node that gathered this.
    pub asked: SocketAddr,
    /// In the order of their ids; at the end those that are in no ring.
    pub nodes: Vec<NodeLine>,
    /// Copies that holders lack, as far as the nodes have compared; `None` if none of them has.
    pub under_replicated: Option<u64>,
    pub namespace: NamespaceStatus,
}

/// One node, as far as it is known: what a silent or foreign node has, nobody knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeLine {
    /// Ring address.
    pub address: SocketAddr,
    pub id: Option<RingId>,
    pub state: State,
    /// `(after, upto]`; `None` where the node is in no ring.
    pub arc: Option<RingArc>,
    /// Of the circle, 0 to 1.
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
pub enum State {
    Up,
    /// On its way into the ring, or in it and not yet filled.
    Joining,
    /// Handing over what it has, or ending.
    Draining,
    /// Others name it, and it does not answer.
    Unreachable,
    /// A Chord node that is none of ours: it stores nothing.
    Foreign,
}
