//! What a commit waits for, so that the log can say it when one takes long: everything that was answered after it waits
//! as well.

use std::{fmt, time::Duration};

use chordfs_log::warn_limited;
use tokio::time::Instant;

use super::FileData;

/// A commit that does not come on for this long is reported. A node that dies delays one by about a second.
const STANDSTILL: Duration = Duration::from_secs(4);
/// And one that takes so long in all, because it has to begin anew again and again, or has very much to store.
const LONG: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitStep {
    Resolve,
    Upload,
    Extents,
    Base,
    Sync,
    Log,
    Refetch,
}

impl fmt::Display for CommitStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the namespace's word on an earlier commit",
            Self::Upload => "nodes that store its chunks",
            Self::Extents => "the namespace's word on the present contents",
            Self::Base => "the former contents of a chunk that was written in part",
            Self::Sync => "nodes that write its chunks to disk",
            Self::Log => "the log of the namespace",
            Self::Refetch => "the present contents, after another mount has changed the file",
        })
    }
}

/// How far the commit under way has come.
#[derive(Default)]
pub(super) struct CommitProgress(parking_lot::Mutex<Option<StepUnderWay>>);

#[derive(Clone, Copy)]
struct StepUnderWay {
    step: CommitStep,
    /// When it began, or came on last.
    moved: Instant,
    /// When the first step of the commit began.
    began: Instant,
}

impl CommitProgress {
    /// Notes that a step begins or comes on.
    pub(super) fn note(&self, step: CommitStep) {
        let mut under_way = self.0.lock();
        let now = Instant::now();
        let began = under_way.map_or(now, |former| former.began);
        *under_way = Some(StepUnderWay { step, moved: now, began });
    }

    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// The step of a commit that takes long, and for how long the commit is under way.
    fn slow_step(&self) -> Option<(CommitStep, Duration)> {
        let StepUnderWay { step, moved, began } = (*self.0.lock())?;
        let is_slow = moved.elapsed() > STANDSTILL || began.elapsed() > LONG;
        is_slow.then(|| (step, began.elapsed()))
    }
}

impl FileData {
    /// Tells operators if the commit under way waits for long.
    pub(super) fn report_slow_commit(&self) {
        if let Some((step, time)) = self.progress.slow_step() {
            warn_limited!(ino = self.ino.0, ?time, "a file is not committed yet: it waits for {step}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_commit_is_slow_if_it_stands_still_or_takes_long_in_all() {
        let progress = CommitProgress::default();
        for _ in 0..6 {
            progress.note(CommitStep::Upload);
            advance(Duration::from_secs(3)).await;
            assert_eq!(progress.slow_step(), None, "uploads end one after the other");
        }
        progress.note(CommitStep::Refetch);
        advance(Duration::from_secs(3)).await;
        assert_eq!(progress.slow_step(), Some((CommitStep::Refetch, Duration::from_secs(21))));
        progress.end();
        progress.note(CommitStep::Log);
        assert_eq!(progress.slow_step(), None);
        advance(Duration::from_secs(5)).await;
        assert_eq!(progress.slow_step(), Some((CommitStep::Log, Duration::from_secs(5))));
    }
}
