//! The progress of filling and repair, part of a node's status.

use serde::{Deserialize, Serialize};

/// Copies in one direction. [`TransferWork`](super::TransferWork) omits what is unknown or zero and `DrainStatus` has
/// names of its own for what was moved, so their JSON keeps them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferProgress {
    /// An estimate; exact once the arcs have been compared.
    pub chunks_left: u64,
    /// Bytes of the records of these copies.
    pub bytes_left: u64,
    /// Mean of the last ten seconds.
    pub bytes_per_second: u64,
    /// `None` while nothing moves, or nothing is left.
    pub seconds_left: Option<u64>,
    /// Counted since the node started.
    pub chunks_moved: u64,
    /// Bytes of the records of these copies, since the node started.
    pub bytes_moved: u64,
}

/// Copies between this node and the other holders of its arcs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// To this node: copies that it lacks in the arcs that it holds.
    pub incoming: TransferProgress,
    /// To other nodes.
    pub outgoing: TransferProgress,
    /// The node has compared its own arc with every holder since the neighbours last changed, so that `outgoing` and
    /// the copies to fetch from holders are known.
    pub compared: bool,
    /// Bytes a second that repair may use; `None` is no limit.
    pub limit: Option<u64>,
}

impl RepairStatus {
    /// The holders have all chunks of this node, and no copy is under way.
    pub fn rests(&self) -> bool {
        self.compared && self.incoming.bytes_left == 0 && self.outgoing.bytes_left == 0
    }
}
