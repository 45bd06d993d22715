//! The calls that a node makes to AWS, as a trait of plain values. `sdk` implements it; `fake_cloud` replaces it in
//! tests.

use std::sync::Arc;

pub use chordfs_asg::{CallError, CallErrorKind, Group, GroupMember};
use futures_util::future::BoxFuture;

pub type CloudFuture<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// Each call is one attempt for the caller; the SDK retries within a call.
pub trait Cloud: Send + Sync + 'static {
    /// Reads a path below `latest/meta-data/`. Returns `None` if the metadata service does not have it.
    fn metadata(&self, path: &'static str) -> CloudFuture<'_, Option<String>>;

    /// Returns `None` if the instance belongs to no group.
    fn membership<'a>(&'a self, instance: &'a str) -> CloudFuture<'a, Option<Membership>>;
    /// Returns `None` if there is no such group.
    fn group<'a>(&'a self, name: &'a str) -> CloudFuture<'a, Option<Group>>;
    /// Returns the group's termination hooks.
    fn hooks<'a>(&'a self, group: &'a str) -> CloudFuture<'a, Vec<Hook>>;
    fn policies<'a>(&'a self, group: &'a str, names: Vec<String>) -> CloudFuture<'a, Vec<FoundPolicy>>;
    fn put_policy<'a>(&'a self, group: &'a str, policy: &'a PolicySpec) -> CloudFuture<'a, ()>;
    fn alarms(&self, names: Vec<String>) -> CloudFuture<'_, Vec<FoundAlarm>>;
    fn put_alarm<'a>(&'a self, alarm: &'a AlarmSpec) -> CloudFuture<'a, ()>;
    fn put_metrics<'a>(&'a self, namespace: &'a str, data: Vec<Datum>) -> CloudFuture<'a, ()>;
    /// Changes the size that the group brings about by itself. Fails outside its minimum and maximum.
    fn set_desired<'a>(&'a self, group: &'a str, desired: i32) -> CloudFuture<'a, ()>;

    /// The text of a secret; `None` if there is no such secret.
    fn secret<'a>(&'a self, name: &'a str) -> CloudFuture<'a, Option<String>>;
    /// Makes a secret. Returns false, and changes nothing, if there is one of this name.
    fn create_secret<'a>(&'a self, name: &'a str, text: String) -> CloudFuture<'a, bool>;

    fn heartbeat<'a>(&'a self, hold: &'a HeldInstance) -> CloudFuture<'a, ()>;
    /// Completes the hook with `CONTINUE`. There is no call to abandon data.
    fn complete<'a>(&'a self, hold: &'a HeldInstance) -> CloudFuture<'a, ()>;
    /// Marks an instance that has handed over all its data as unhealthy, so that the group replaces it.
    fn mark_unhealthy<'a>(&'a self, instance: &'a str) -> CloudFuture<'a, ()>;
}

pub type SharedCloud = Arc<dyn Cloud>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub group: String,
    pub lifecycle: String,
}

/// A termination lifecycle hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// Seconds without a heartbeat after which the group terminates the instance.
    pub heartbeat_secs: u64,
    /// Seconds after which it does so despite heartbeats.
    pub global_secs: u64,
}

/// An instance that a hook holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInstance {
    pub group: String,
    pub hook: String,
    pub instance: String,
}

/// A simple scaling policy: adds `adjustment` instances, which may be negative, and then waits for the cooldown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    pub name: String,
    pub adjustment: i32,
    pub cooldown_secs: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPolicy {
    pub name: String,
    pub arn: String,
    /// `None` if the policy is not simple scaling by a number of instances.
    pub adjustment: Option<i32>,
    pub cooldown_secs: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    Maximum,
    Average,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlarmSpec {
    pub name: String,
    pub namespace: String,
    pub metric: String,
    /// The metric's only dimension.
    pub group: String,
    pub statistic: Statistic,
    /// Whether the alarm triggers above the threshold; otherwise below it.
    pub above: bool,
    pub threshold: f64,
    pub periods: i32,
    pub period_secs: i32,
    /// The policy's ARN.
    pub action: String,
    /// Whether the alarm triggers its policy. It still changes its state if not.
    pub enabled: bool,
}

/// An existing alarm.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundAlarm {
    /// An alarm on one metric, with the structure of those that nodes write.
    Plain(AlarmSpec),
    /// Any other alarm. `metrics`: the number of metrics in its formula, 0 without one. `groups`: the groups that its
    /// dimensions name.
    Other { name: String, metrics: usize, groups: Vec<String> },
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    pub metric: &'static str,
    pub dimensions: Vec<(&'static str, String)>,
    pub value: f64,
    pub unit: MetricUnit,
    /// Stored with a resolution of one second, which alarms with periods below a minute need.
    pub is_high_resolution: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    Percent,
    Count,
    Bytes,
}
