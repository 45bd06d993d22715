//! How much filling and repair have still to move, part of a node's status.

use serde::{Deserialize, Serialize};

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// As far as it is known: exact once the arcs have been compared.
    pub chunks_left: u64,
    pub bytes_left: u64,
    /// Over the last ten seconds.
    pub bytes_per_second: u64,
    /// `None` while nothing moves, or nothing is left.
    pub seconds_left: Option<u64>,
    /// Since the node started.
    pub chunks_moved: u64,
    pub bytes_moved: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// To this node: what it lacks of the arcs that it holds.
    pub incoming: Flow,
    /// To others.
    pub outgoing: Flow,
    /// Every holder of the own arc was compared with since the neighbours last changed, so that `outgoing` and what
    /// is fetched from holders are known.
    pub compared: bool,
    /// Bytes a second that repair may use; `None` is no limit.
    pub limit: Option<u64>,
}

impl RepairStatus {
    /// Its holders have what this node has, and nothing is on its way.
    pub fn rests(&self) -> bool {
        self.compared && self.incoming.bytes_left == 0 && self.outgoing.bytes_left == 0
    }
}
