//! Whether a drain is under way, who may call it off, and until when.
//!
//! One lock decides between calling off and leaving: whichever comes first holds, and the other is told so. What is
//! done about it is for `task`.
#![deny(clippy::disallowed_methods)]

use chordfs_replication::drain::DrainError;
use chordfs_types::admin::NodeState;
use parking_lot::Mutex;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Why a drain goes on all the same, in words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallOffError {
    #[error("no drain is under way, so there is none to call off")]
    NoDrain,
    #[error("its machine goes whether it is drained or not, so the drain cannot be called off")]
    MustGo,
    #[error(
        "its chunks have their holders elsewhere and the ring was told that it leaves, which cannot be taken back; \
         start it again with --join to take it in anew, best with an empty folder"
    )]
    TooLate,
}

/// A drain that has begun.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Somebody wants the node to stay, or it cannot go.
    pub called_off: CancellationToken,
    /// It has come to nothing, and everybody knows it.
    ended: CancellationToken,
}

impl Run {
    /// When a drain that was called off has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

#[derive(Debug)]
pub enum Begun {
    Now(Run),
    Already,
}

#[derive(Default)]
pub struct Control(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Rests,
    Runs {
        run: Run,
        must_go: bool,
    },
    /// From here on there is no way back.
    Leaves,
}

impl Control {
    /// `must_go`: see [`super::DrainOptions`]; of one that runs already it becomes true and never false.
    pub fn begin(&self, must_go: bool, stage: NodeState) -> Result<Begun, DrainError> {
        let not_serving = |state: String| DrainError::NotServing { state };
        let mut state = self.0.lock();
        match &mut *state {
            State::Rests if stage != NodeState::Serving => Err(not_serving(format!("{stage:?}").to_lowercase())),
            State::Rests => {
                let run = Run::default();
                *state = State::Runs { run: run.clone(), must_go };
                Ok(Begun::Now(run))
            }
            State::Runs { run, .. } if run.called_off.is_cancelled() => {
                Err(not_serving("ending a drain that came to nothing".into()))
            }
            State::Runs { must_go: must, .. } => {
                *must |= must_go;
                Ok(Begun::Already)
            }
            State::Leaves => Ok(Begun::Already),
        }
    }

    /// It will come to nothing: from here on nobody counts on it, and a new one can begin when it has [ended](Self::end).
    pub fn give_up(&self) {
        if let State::Runs { run, .. } = &*self.0.lock() {
            run.called_off.cancel();
        }
    }

    /// The drain breaks off now, wherever it is.
    pub fn call_off(&self) -> Result<Run, CallOffError> {
        match &*self.0.lock() {
            State::Rests => Err(CallOffError::NoDrain),
            State::Runs { must_go: true, .. } => Err(CallOffError::MustGo),
            State::Runs { run, .. } => {
                run.called_off.cancel();
                Ok(run.clone())
            }
            State::Leaves => Err(CallOffError::TooLate),
        }
    }

    /// Whether the node may tell the ring that it leaves. After a yes nobody can call it off.
    pub fn pass_the_point_of_no_return(&self) -> bool {
        let mut state = self.0.lock();
        let goes = matches!(&*state, State::Runs { run, .. } if !run.called_off.is_cancelled());
        if goes {
            *state = State::Leaves;
        }
        goes
    }

    /// The drain came to nothing, and the node serves as before: the next one may begin.
    pub fn end(&self) {
        let mut state = self.0.lock();
        if let State::Runs { run, .. } = &*state {
            run.ended.cancel();
            *state = State::Rests;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(control: &Control, must_go: bool) -> Option<Run> {
        match control.begin(must_go, NodeState::Serving).expect("the node serves") {
            Begun::Now(run) => Some(run),
            Begun::Already => None,
        }
    }

    #[test]
    fn a_drain_that_was_called_off_may_begin_again_once_it_has_ended() {
        let control = Control::default();
        assert_eq!(control.call_off().unwrap_err(), CallOffError::NoDrain);
        let run = begin(&control, false).expect("none ran before");
        assert!(begin(&control, false).is_none(), "one that runs goes on");
        control.call_off().expect("it has not left");
        control.call_off().expect("saying it twice is no fault");
        assert!(run.called_off.is_cancelled() && !run.ended.is_cancelled());
        assert!(!control.pass_the_point_of_no_return(), "it stays");
        control.begin(false, NodeState::Serving).expect_err("the others still take it for one that drains");
        control.end();
        assert!(run.ended.is_cancelled());
        assert!(!begin(&control, false).expect("the next one").called_off.is_cancelled());
    }

    /// It was told that its drain is under way already, and nothing drained.
    #[test]
    fn who_asks_while_a_refused_drain_ends_is_told_so() {
        let control = Control::default();
        begin(&control, false).unwrap();
        control.give_up();
        control.begin(true, NodeState::Serving).expect_err("that one comes to nothing");
        control.end();
        assert!(begin(&control, true).is_some());
    }

    #[test]
    fn who_has_told_the_ring_leaves() {
        let control = Control::default();
        assert!(!control.pass_the_point_of_no_return());
        let run = begin(&control, false).unwrap();
        assert!(control.pass_the_point_of_no_return());
        assert_eq!(control.call_off().unwrap_err(), CallOffError::TooLate);
        assert!(!run.called_off.is_cancelled() && begin(&control, false).is_none());
        control.end();
        assert_eq!(control.call_off().unwrap_err(), CallOffError::TooLate, "for good");
    }

    #[test]
    fn nobody_calls_off_what_must_go() {
        let control = Control::default();
        begin(&control, false).unwrap();
        assert!(begin(&control, true).is_none(), "now it must go");
        assert!(begin(&control, false).is_none(), "and an operator's word does not change that");
        assert_eq!(control.call_off().unwrap_err(), CallOffError::MustGo);
        assert!(control.pass_the_point_of_no_return());
    }

    #[test]
    fn only_a_node_that_serves_begins() {
        for stage in [NodeState::Starting, NodeState::Joining, NodeState::Draining, NodeState::Gone] {
            let refused = Control::default().begin(false, stage).unwrap_err();
            assert!(matches!(refused, DrainError::NotServing { .. }), "{stage:?}");
        }
    }
}
