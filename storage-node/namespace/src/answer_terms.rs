//! When an answer may be given to a session, and what it may remember of it.

use std::time::Instant;

use chordfs_types::namespace::Granted;
use tokio::{sync::watch, time::timeout_at};

#[derive(Clone, Debug, Default)]
pub struct AnswerTerms {
    /// The answer is given when all are over.
    pub(crate) waits: Vec<Wait>,
    /// Counts the terms of leaders here. When it has grown during the wait, the answer must not be given.
    pub(crate) generation: u64,
    pub(crate) granted: Granted,
}

impl AnswerTerms {
    /// For an answer that may be given at once, about nothing that changes.
    pub(crate) fn remembered() -> Self {
        Self { granted: Granted { remember: true, sole: Vec::new() }, ..Self::default() }
    }
}

/// Until nobody remembers any longer what an answer contradicts.
#[derive(Clone, Debug)]
pub(crate) struct Wait(watch::Receiver<()>);

impl Wait {
    /// Over when the sender is dropped.
    pub(crate) fn until_closed(receiver: watch::Receiver<()>) -> Self {
        Self(receiver)
    }

    /// Returns at the latest when the leases have run out that it waits for.
    pub(crate) async fn over(mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Returns at `end` at the latest.
    pub(crate) async fn over_by(self, end: Instant) {
        // The caller looks again in both cases.
        _ = timeout_at(end.into(), self.over()).await;
    }
}
