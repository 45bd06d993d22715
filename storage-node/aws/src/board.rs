//! What is wrong between this node and AWS at the moment: for `/healthz`, and a line in the log when it changes.
//!
//! A problem here never means that the node does not serve: data needs no alarm.

use std::{collections::BTreeMap, fmt::Display};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::cloud::CallError;

/// What a problem is about; there is at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Group,
    Policy,
    Alarm,
    Metric,
    Metadata,
    Address,
    Lifecycle,
    Hook,
    Farewell,
    Heartbeat,
    Drain,
}

#[derive(Default)]
pub struct Board {
    problems: Mutex<BTreeMap<Topic, String>>,
    /// What the node is about, where that is worth a word: waiting, founding, draining.
    activity: Mutex<Option<String>>,
}

impl Board {
    /// Passes a call's answer on after taking note of how it ended.
    pub fn note<T>(&self, topic: Topic, done: Result<T, CallError>) -> Option<T> {
        match done {
            Ok(value) => {
                self.clear(topic);
                Some(value)
            }
            Err(error) => {
                self.set(topic, &error);
                None
            }
        }
    }

    pub fn set(&self, topic: Topic, problem: &dyn Display) {
        let problem = problem.to_string();
        if self.problems.lock().insert(topic, problem.clone()).as_ref() != Some(&problem) {
            warn!("{problem}");
        }
    }

    pub fn clear(&self, topic: Topic) {
        if self.problems.lock().remove(&topic).is_some() {
            info!(?topic, "is in order again");
        }
    }

    pub fn set_activity(&self, activity: impl Into<String>) {
        let activity = activity.into();
        let mut now = self.activity.lock();
        if now.as_ref() != Some(&activity) {
            info!("{activity}");
            *now = Some(activity);
        }
    }

    pub fn clear_activity(&self) {
        *self.activity.lock() = None;
    }

    /// `{"state": "ok" | "degraded", "problems": [LINE, ...], "activity": TEXT or null}`
    pub fn shown(&self) -> Value {
        let problems: Vec<String> = self.problems.lock().values().cloned().collect();
        let state = if problems.is_empty() { "ok" } else { "degraded" };
        json!({ "state": state, "problems": problems, "activity": *self.activity.lock() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_there_until_the_same_thing_works() {
        let board = Board::default();
        assert_eq!(board.shown(), json!({"state": "ok", "problems": [], "activity": null}));
        assert_eq!(board.note::<()>(Topic::Group, Err(CallError::no_group("G"))), None);
        board.set(Topic::Metric, &"no");
        let shown = board.shown();
        assert_eq!(shown["state"], "degraded");
        assert!(shown["problems"][0].as_str().unwrap().contains("no Auto Scaling group"), "{shown}");
        assert_eq!(board.note(Topic::Group, Ok(7)), Some(7));
        board.clear(Topic::Metric);
        assert_eq!(board.shown()["state"], "ok");
    }
}
