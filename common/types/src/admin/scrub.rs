//! The progress and the results of a node's scrub: `GET /scrub`.

use serde::{Deserialize, Serialize};

/// Totals of the scrub and the pass under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// The time in which a pass is to read the whole store.
    pub period_secs: u64,
    /// The pass under way.
    pub pass: PassReport,
    /// The bytes that the pass under way reads in all.
    pub total_bytes: u64,
    /// The last pass that was completed.
    pub last: Option<PassReport>,
    /// Requested passes that were completed.
    pub asked_done: u64,
    /// Damaged records found since the node was started, by a pass or by a read.
    pub damaged: u64,
    /// Damaged records replaced by a sound copy since the node was started.
    #[serde(rename = "mended")]
    pub repaired: u64,
    /// Damaged records of chunks that no file has any more, since the node was started.
    #[serde(rename = "needless")]
    pub obsolete: u64,
    /// Damaged records that wait for a sound copy.
    pub waiting: u64,
    /// Waiting records of which no holder has a sound copy.
    #[serde(rename = "lost")]
    pub unrecoverable: u64,
    /// Runs of orphans collected since the node was started.
    pub orphans: u64,
    /// Why orphans are not collected; `None` if they are.
    pub orphans_kept: Option<String>,
}

/// One pass over all records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassReport {
    /// Seconds since 1970.
    pub began: u64,
    /// Seconds since 1970; `None` while the pass is under way.
    pub ended: Option<u64>,
    /// Records read so far.
    pub chunks: u64,
    /// Bytes of the records read so far.
    pub bytes: u64,
    /// Records that this pass found damaged, whether or not they were repaired since.
    pub damaged: u64,
}
