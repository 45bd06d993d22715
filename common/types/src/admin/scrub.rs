//! The progress and the results of a node's scrub: `GET /scrub`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    pub period_secs: u64,
    /// The pass under way.
    pub pass: PassReport,
    /// Bytes that the pass under way reads in all.
    pub total_bytes: u64,
    /// The last pass that was completed.
    pub last: Option<PassReport>,
    /// Number of requested passes that were completed.
    pub asked_done: u64,
    /// Counted since the node was started: damaged records found, by the scrub or by a read; those replaced; and those of
    /// chunks that no longer belong to a file.
    pub damaged: u64,
    pub mended: u64,
    pub needless: u64,
    /// Damaged records that wait for a sound copy; and those of them of which no holder has one.
    pub waiting: u64,
    pub lost: u64,
    /// Runs of orphans deleted since the node was started.
    pub orphans: u64,
    /// Why orphans are not collected; `None` if they are.
    pub orphans_kept: Option<String>,
}

/// One pass over all records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassReport {
    /// Seconds since 1970.
    pub began: u64,
    pub ended: Option<u64>,
    pub chunks: u64,
    pub bytes: u64,
    pub damaged: u64,
}
