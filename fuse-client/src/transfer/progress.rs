//! What a commit waits for, so that the log can say it when one takes long: everything that was answered after it waits
//! as well.

use std::{fmt, time::Duration};

use chordfs_log::warn_limited;
use tokio::time::Instant;

use super::FileData;

/// A commit that does not come on for this long is reported. A node that dies delays one by about a second.
const LONG: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitStep {
    Resolve,
    Upload,
    Merge,
    Sync,
    Log,
    Refetch,
}

impl fmt::Display for CommitStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the namespace's word on an earlier commit",
            Self::Upload => "nodes that store its chunks",
            Self::Merge => "the former contents of a chunk that was written in part, and nodes that store it anew",
            Self::Sync => "nodes that write its chunks to disk",
            Self::Log => "the log of the namespace",
            Self::Refetch => "the present contents, after another mount has changed the file",
        })
    }
}

/// The step of the commit under way, and since when.
#[derive(Default)]
pub(super) struct CommitProgress(parking_lot::Mutex<Option<(CommitStep, Instant)>>);

impl CommitProgress {
    pub(super) fn begin(&self, step: CommitStep) {
        *self.0.lock() = Some((step, Instant::now()));
    }

    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    fn waits_long(&self) -> Option<(CommitStep, Duration)> {
        let (step, since) = (*self.0.lock())?;
        Some((step, since.elapsed())).filter(|(_, time)| *time > LONG)
    }
}

impl FileData {
    /// Tells operators if the commit under way waits for long.
    pub(super) fn report_slow_commit(&self) {
        if let Some((step, time)) = self.progress.waits_long() {
            warn_limited!(ino = self.ino.0, ?time, "a file is not committed yet: it waits for {step}");
        }
    }
}
