//! Whether a drain is running, and until when it can be cancelled.
//!
//! One lock decides between cancelling and leaving: the first of the two wins, and the other one fails. `task` acts on
//! the decision.
#![deny(clippy::disallowed_methods)]

use chordfs_replication::drain::DrainError;
use chordfs_types::admin::NodeState;
use parking_lot::Mutex;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Why a drain cannot be cancelled, in words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CancelDrainError {
    #[error("no drain is under way, so there is none to cancel")]
    NoDrain,
    #[error("the node's machine terminates whether it is drained or not, so the drain cannot be cancelled")]
    MustGo,
    #[error(
        "the node has handed over its chunks and announced its departure to the ring, which cannot be undone; to add the \
         node again, start it with --join, best with an empty folder"
    )]
    TooLate,
}

/// A drain that has begun.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainRun {
    /// Set when an operator cancels the drain or it cannot be completed.
    pub cancelled: CancellationToken,
    /// Set when the drain has ended without leaving and the other nodes have been informed.
    ended: CancellationToken,
}

impl DrainRun {
    /// Returns when a cancelled drain has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

#[derive(Debug)]
pub(super) enum BeginOutcome {
    Started(DrainRun),
    AlreadyRunning,
}

#[derive(Default)]
pub(super) struct DrainControl(Mutex<ControlState>);

#[derive(Default)]
enum ControlState {
    #[default]
    Idle,
    Running {
        run: DrainRun,
        must_go: bool,
    },
    /// The drain can no longer be cancelled.
    Leaving,
}

impl DrainControl {
    /// `must_go`: see [`super::DrainOptions`]; a later call can set it for a running drain, and none can clear it.
    pub(super) fn begin(&self, must_go: bool, stage: NodeState) -> Result<BeginOutcome, DrainError> {
        let not_serving = |state: String| DrainError::NotServing { state };
        let mut state = self.0.lock();
        match &mut *state {
            ControlState::Idle if stage != NodeState::Serving => Err(not_serving(stage.to_string())),
            ControlState::Idle => {
                let run = DrainRun::default();
                *state = ControlState::Running { run: run.clone(), must_go };
                Ok(BeginOutcome::Started(run))
            }
            ControlState::Running { run, .. } if run.cancelled.is_cancelled() => {
                Err(not_serving("ending a drain that was refused or cancelled".into()))
            }
            ControlState::Running { must_go: must, .. } => {
                *must |= must_go;
                Ok(BeginOutcome::AlreadyRunning)
            }
            ControlState::Leaving => Ok(BeginOutcome::AlreadyRunning),
        }
    }

    /// Marks the drain as failed. A new one can begin once this one has [ended](Self::end).
    pub(super) fn abandon(&self) {
        if let ControlState::Running { run, .. } = &*self.0.lock() {
            run.cancelled.cancel();
        }
    }

    /// Interrupts the drain wherever it is.
    pub(super) fn cancel(&self) -> Result<DrainRun, CancelDrainError> {
        match &*self.0.lock() {
            ControlState::Idle => Err(CancelDrainError::NoDrain),
            ControlState::Running { must_go: true, .. } => Err(CancelDrainError::MustGo),
            ControlState::Running { run, .. } => {
                run.cancelled.cancel();
                Ok(run.clone())
            }
            ControlState::Leaving => Err(CancelDrainError::TooLate),
        }
    }

    /// Whether the node may announce its departure to the ring. Once this has returned true the drain cannot be
    /// cancelled.
    pub(super) fn pass_the_point_of_no_return(&self) -> bool {
        let mut state = self.0.lock();
        let goes = matches!(&*state, ControlState::Running { run, .. } if !run.cancelled.is_cancelled());
        if goes {
            *state = ControlState::Leaving;
        }
        goes
    }

    /// Ends a drain that has failed or was cancelled. The node serves as before, and the next drain may begin.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        if let ControlState::Running { run, .. } = &*state {
            run.ended.cancel();
            *state = ControlState::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(control: &DrainControl, must_go: bool) -> Option<DrainRun> {
        match control.begin(must_go, NodeState::Serving).expect("the node serves") {
            BeginOutcome::Started(run) => Some(run),
            BeginOutcome::AlreadyRunning => None,
        }
    }

    #[test]
    fn a_cancelled_drain_may_begin_again_once_it_has_ended() {
        let control = DrainControl::default();
        assert_eq!(control.cancel().unwrap_err(), CancelDrainError::NoDrain);
        let run = begin(&control, false).expect("none ran before");
        assert!(begin(&control, false).is_none(), "the running drain continues");
        control.cancel().expect("it has not left");
        control.cancel().expect("cancelling is idempotent");
        assert!(run.cancelled.is_cancelled() && !run.ended.is_cancelled());
        assert!(!control.pass_the_point_of_no_return(), "it stays");
        control.begin(false, NodeState::Serving).expect_err("the others still count it as draining");
        control.end();
        assert!(run.ended.is_cancelled());
        assert!(!begin(&control, false).expect("the next one").cancelled.is_cancelled());
    }

    /// Such a request used to be accepted as if the drain were running, and nothing drained.
    #[test]
    fn beginning_fails_while_a_refused_drain_ends() {
        let control = DrainControl::default();
        begin(&control, false).unwrap();
        control.abandon();
        control.begin(true, NodeState::Serving).expect_err("that one has failed");
        control.end();
        assert!(begin(&control, true).is_some());
    }

    #[test]
    fn after_its_announcement_the_node_leaves() {
        let control = DrainControl::default();
        assert!(!control.pass_the_point_of_no_return());
        let run = begin(&control, false).unwrap();
        assert!(control.pass_the_point_of_no_return());
        assert_eq!(control.cancel().unwrap_err(), CancelDrainError::TooLate);
        assert!(!run.cancelled.is_cancelled() && begin(&control, false).is_none());
        control.end();
        assert_eq!(control.cancel().unwrap_err(), CancelDrainError::TooLate, "for good");
    }

    #[test]
    fn a_drain_that_must_go_cannot_be_cancelled() {
        let control = DrainControl::default();
        begin(&control, false).unwrap();
        assert!(begin(&control, true).is_none(), "now it must go");
        assert!(begin(&control, false).is_none(), "and an operator's request does not change that");
        assert_eq!(control.cancel().unwrap_err(), CancelDrainError::MustGo);
        assert!(control.pass_the_point_of_no_return());
    }

    #[test]
    fn only_a_serving_node_can_begin_a_drain() {
        for stage in [NodeState::Starting, NodeState::Joining, NodeState::Draining, NodeState::Gone] {
            let refused = DrainControl::default().begin(false, stage).unwrap_err();
            assert!(matches!(refused, DrainError::NotServing { .. }), "{stage:?}");
        }
    }
}
