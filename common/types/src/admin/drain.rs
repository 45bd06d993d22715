//! The progress of a drain: `GET /drain`, and part of a node's status.

use serde::{Deserialize, Serialize};

/// How far a drain has got. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainPhase {
    /// Sending chunks to the nodes that hold them afterwards.
    Copying,
    /// Giving up the vote on the namespace, and leadership.
    Voting,
    /// All chunks are handed over; waiting for the last writes.
    Leaving,
    /// Out of the ring; the process is about to end.
    Left,
    /// The node could not be drained for the given `reason`; it serves as before.
    Refused,
    /// An operator cancelled the drain; the node serves as before.
    Cancelled,
}

impl DrainPhase {
    /// As in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Voting => "voting",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// False once the drain has ended, with or without success.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Copying | Self::Voting | Self::Leaving)
    }
}

/// Other nodes and pools read this as well, and an older node may send it: fields are added, and may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// `Refused` and `Cancelled` come with a `reason`.
    pub phase: DrainPhase,
    /// Copies that other nodes still lack, estimated.
    pub chunks_left: u64,
    /// Bytes of these copies; 0 once the drain was refused or cancelled.
    pub bytes_left: u64,
    /// Copies that other nodes have stored since the drain began.
    pub chunks_sent: u64,
    /// Bytes of these copies.
    pub bytes_sent: u64,
    /// Over the last ten seconds.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// `None` while nothing moves, or nothing is left.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Bytes a second that the drain may use; `None` is no limit.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Why the drain was refused or cancelled, for people; `None` otherwise.
    pub reason: Option<String>,
}
