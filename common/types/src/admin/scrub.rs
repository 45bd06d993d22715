//! What the scrub of a node has done: `GET /scrub`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    pub period_secs: u64,
    /// The pass under way.
    pub pass: PassReport,
    /// What the pass under way has before it, what it has read included.
    pub total_bytes: u64,
    /// The last one that came to its end.
    pub last: Option<PassReport>,
    /// Passes asked for that came to their end.
    pub asked_done: u64,
    /// Since the node was started: damaged records found, by whomever; those replaced; and those of chunks that no file
    /// has any more.
    pub damaged: u64,
    pub mended: u64,
    pub needless: u64,
    /// Damaged records that wait for a sound copy; and those of them that no holder has sound.
    pub waiting: u64,
    pub lost: u64,
    /// Runs of orphans given up since the node was started.
    pub orphans: u64,
    /// Why orphans are not looked for; `None` if they are.
    pub orphans_kept: Option<String>,
}

/// One reading of all records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassReport {
    /// Seconds since 1970.
    pub began: u64,
    pub ended: Option<u64>,
    pub chunks: u64,
    pub bytes: u64,
    pub damaged: u64,
}
