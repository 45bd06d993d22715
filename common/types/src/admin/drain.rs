//! How far a drain is: `GET /drain`, and part of a node's status.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainPhase {
    /// Bringing chunks to those that keep them afterwards.
    Copying,
    /// Giving up the vote on the namespace, and the lead.
    Voting,
    /// Everything is handed over; the last writes are waited for.
    Leaving,
    /// Out of the ring; the process is about to end.
    Left,
    /// It could not be done, `reason` says why; the node serves as before.
    Refused,
    /// Somebody called it off; the node serves as before.
    Cancelled,
}

impl DrainPhase {
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Copying | Self::Voting | Self::Leaving)
    }
}

/// Other nodes and pools read this too, also of nodes that are older: fields are added, and may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    pub phase: DrainPhase,
    /// Copies that others still lack, about.
    pub chunks_left: u64,
    pub bytes_left: u64,
    pub chunks_sent: u64,
    pub bytes_sent: u64,
    /// Over the last ten seconds.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// `None` while nothing moves, or nothing is left.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Bytes a second that it may use; `None` is no limit.
    #[serde(default)]
    pub limit: Option<u64>,
    pub reason: Option<String>,
}
