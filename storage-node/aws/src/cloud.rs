//! What a node asks of AWS, as a trait of plain values: the SDK is behind it in `sdk`, a table in tests.

use std::sync::Arc;

pub use chordfs_asg::{CallError, Group, Member, Trouble};
use futures_util::future::BoxFuture;

pub type Answer<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// One attempt each, as far as the caller sees; retries within a call are the SDK's.
pub trait Cloud: Send + Sync + 'static {
    /// A path below `latest/meta-data/`; `None` where the metadata service has no such thing.
    fn metadata(&self, path: &'static str) -> Answer<'_, Option<String>>;

    /// `None`: the instance belongs to no group.
    fn membership<'a>(&'a self, instance: &'a str) -> Answer<'a, Option<Membership>>;
    /// `None`: there is no such group.
    fn group<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Group>>;
    /// The hooks on termination.
    fn hooks<'a>(&'a self, group: &'a str) -> Answer<'a, Vec<Hook>>;
    fn policies<'a>(&'a self, group: &'a str, names: Vec<String>) -> Answer<'a, Vec<FoundPolicy>>;
    fn put_policy<'a>(&'a self, group: &'a str, policy: &'a PolicySpec) -> Answer<'a, ()>;
    fn alarms(&self, names: Vec<String>) -> Answer<'_, Vec<FoundAlarm>>;
    fn put_alarm<'a>(&'a self, alarm: &'a AlarmSpec) -> Answer<'a, ()>;
    fn put_metrics<'a>(&'a self, namespace: &'a str, data: Vec<Datum>) -> Answer<'a, ()>;

    fn heartbeat<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()>;
    /// `CONTINUE`; there is no call here to abandon data.
    fn complete<'a>(&'a self, hold: &'a Hold) -> Answer<'a, ()>;
    /// Asks the group to replace an instance that has handed everything over.
    fn give_up<'a>(&'a self, instance: &'a str) -> Answer<'a, ()>;
}

pub type SharedCloud = Arc<dyn Cloud>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub group: String,
    pub lifecycle: String,
}

/// A lifecycle hook on termination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    /// Seconds without a heartbeat after which the group goes on without the instance.
    pub heartbeat_secs: u64,
    /// Seconds after which it does so however many there were.
    pub global_secs: u64,
}

/// An instance held by a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub group: String,
    pub hook: String,
    pub instance: String,
}

/// A policy of simple scaling: so many instances more or fewer, then a cooldown.
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
    /// `None`: not simple scaling by a number of instances.
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
    /// Otherwise below it.
    pub above: bool,
    pub threshold: f64,
    pub periods: i32,
    pub period_secs: i32,
    /// The policy's ARN.
    pub action: String,
}

/// An alarm as CloudWatch has it.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundAlarm {
    /// On one metric, and in everything like one of ours.
    Plain(AlarmSpec),
    /// Anything else of that name. `metrics`: how many a formula is made of, 0 without a formula; `groups`: those its
    /// dimensions name.
    Other { name: String, metrics: usize, groups: Vec<String> },
}

/// One measurement in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    pub metric: &'static str,
    pub dimensions: Vec<(&'static str, String)>,
    pub percent: f64,
    /// Kept by the second: what an alarm with periods below a minute needs.
    pub is_high_resolution: bool,
}
