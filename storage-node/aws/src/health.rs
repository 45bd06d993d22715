//! The current problems between this node and AWS, for `/healthz`. Each change is also logged.
//!
//! A problem listed here never means that the node does not serve: access to data does not depend on AWS.

use std::{collections::BTreeMap, fmt::Display};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::cloud::CallError;

/// The subject of a problem; each subject has at most one problem at a time. `/healthz` lists them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Group,
    Secret,
    Policy,
    Alarm,
    Metric,
    Statistics,
    Capacity,
    PoolLimits,
    Metadata,
    Address,
    Lifecycle,
    Hook,
    Completion,
    Heartbeat,
    Drain,
}

#[derive(Default)]
pub(crate) struct AwsHealth {
    problems: Mutex<BTreeMap<Topic, String>>,
    /// The current activity, if it explains a delay or a change: waiting, founding, draining.
    activity: Mutex<Option<String>>,
}

impl AwsHealth {
    /// Records whether a call succeeded, and returns its value.
    pub(crate) fn record<T>(&self, topic: Topic, result: Result<T, CallError>) -> Option<T> {
        match result {
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

    pub(crate) fn set(&self, topic: Topic, problem: &dyn Display) {
        let problem = problem.to_string();
        if self.problems.lock().insert(topic, problem.clone()).as_ref() != Some(&problem) {
            warn!("{problem}");
        }
    }

    pub(crate) fn clear(&self, topic: Topic) {
        if self.problems.lock().remove(&topic).is_some() {
            info!(?topic, "problem with AWS resolved");
        }
    }

    pub(crate) fn set_activity(&self, activity: impl Into<String>) {
        let activity = activity.into();
        let mut current = self.activity.lock();
        if current.as_ref() != Some(&activity) {
            info!("{activity}");
            *current = Some(activity);
        }
    }

    pub(crate) fn clear_activity(&self) {
        *self.activity.lock() = None;
    }

    /// `{"state": "ok" | "degraded", "problems": [LINE, ...], "activity": TEXT or null}`
    pub(crate) fn to_json(&self) -> Value {
        let problems: Vec<String> = self.problems.lock().values().cloned().collect();
        let state = if problems.is_empty() { "ok" } else { "degraded" };
        json!({ "state": state, "problems": problems, "activity": *self.activity.lock() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_lasts_until_its_topic_succeeds() {
        let health = AwsHealth::default();
        assert_eq!(health.to_json(), json!({"state": "ok", "problems": [], "activity": null}));
        assert_eq!(health.record::<()>(Topic::Group, Err(CallError::no_group("G"))), None);
        health.set(Topic::Metric, &"no");
        let status = health.to_json();
        assert_eq!(status["state"], "degraded");
        assert!(status["problems"][0].as_str().unwrap().contains("no Auto Scaling group"), "{status}");
        assert_eq!(health.record(Topic::Group, Ok(7)), Some(7));
        health.clear(Topic::Metric);
        assert_eq!(health.to_json()["state"], "ok");
    }
}
