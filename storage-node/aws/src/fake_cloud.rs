//! An in-memory replacement for AWS, for tests.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::cloud::{
    AlarmSpec, CallError, CallErrorKind, Cloud, CloudFuture, Datum, FoundAlarm, FoundPolicy, Group, HeldInstance, Hook,
    Membership, PolicySpec,
};

#[derive(Default)]
pub(crate) struct FakeCloud {
    pub metadata: Mutex<HashMap<&'static str, String>>,
    pub membership: Mutex<Option<Membership>>,
    pub group: Mutex<Option<Group>>,
    pub hooks: Mutex<Vec<Hook>>,
    pub policies: Mutex<HashMap<(String, String), FoundPolicy>>,
    pub alarms: Mutex<Vec<AlarmSpec>>,
    pub data: Mutex<Vec<Datum>>,
    pub secrets: Mutex<HashMap<String, String>>,
    denied: Mutex<HashSet<&'static str>>,
    called: Mutex<HashMap<&'static str, usize>>,
    pub unreachable: AtomicBool,
}

impl FakeCloud {
    pub(crate) fn deny(&self, call: &'static str) {
        self.denied.lock().insert(call);
    }

    pub(crate) fn allow(&self) {
        self.denied.lock().clear();
    }

    pub(crate) fn calls(&self, call: &str) -> usize {
        self.called.lock().get(call).copied().unwrap_or(0)
    }

    fn answer<T: Send + 'static>(&self, call: &'static str, value: impl FnOnce() -> T) -> CloudFuture<'_, T> {
        *self.called.lock().entry(call).or_default() += 1;
        let refused = |kind| CallError { action: call, resource: "it".into(), kind, detail: String::new() };
        let done = match () {
            () if self.unreachable.load(Ordering::Relaxed) => Err(refused(CallErrorKind::Unreachable)),
            () if self.denied.lock().contains(call) => Err(refused(CallErrorKind::Denied)),
            () => Ok(value()),
        };
        Box::pin(async move { done })
    }
}

impl Cloud for FakeCloud {
    fn metadata(&self, path: &'static str) -> CloudFuture<'_, Option<String>> {
        self.answer("metadata", || self.metadata.lock().get(path).cloned())
    }

    fn membership<'a>(&'a self, _: &'a str) -> CloudFuture<'a, Option<Membership>> {
        self.answer("membership", || self.membership.lock().clone())
    }

    fn group<'a>(&'a self, _: &'a str) -> CloudFuture<'a, Option<Group>> {
        self.answer("group", || self.group.lock().clone())
    }

    fn hooks<'a>(&'a self, _: &'a str) -> CloudFuture<'a, Vec<Hook>> {
        self.answer("hooks", || self.hooks.lock().clone())
    }

    fn policies<'a>(&'a self, group: &'a str, names: Vec<String>) -> CloudFuture<'a, Vec<FoundPolicy>> {
        self.answer("policies", || {
            let policies = self.policies.lock();
            names.into_iter().filter_map(|name| policies.get(&(group.to_owned(), name)).cloned()).collect()
        })
    }

    fn put_policy<'a>(&'a self, group: &'a str, policy: &'a PolicySpec) -> CloudFuture<'a, ()> {
        self.answer("put_policy", || {
            let found = FoundPolicy {
                name: policy.name.clone(),
                arn: format!("arn:{}", policy.name),
                adjustment: Some(policy.adjustment),
                cooldown_secs: Some(policy.cooldown_secs),
            };
            self.policies.lock().insert((group.to_owned(), policy.name.clone()), found);
        })
    }

    fn alarms(&self, names: Vec<String>) -> CloudFuture<'_, Vec<FoundAlarm>> {
        self.answer("alarms", || {
            let alarms = self.alarms.lock();
            alarms.iter().filter(|alarm| names.contains(&alarm.name)).cloned().map(FoundAlarm::Plain).collect()
        })
    }

    fn put_alarm<'a>(&'a self, alarm: &'a AlarmSpec) -> CloudFuture<'a, ()> {
        self.answer("put_alarm", || {
            let mut alarms = self.alarms.lock();
            alarms.retain(|other| other.name != alarm.name);
            alarms.push(alarm.clone());
            alarms.sort_by(|a, b| a.name.cmp(&b.name));
        })
    }

    fn put_metrics<'a>(&'a self, _: &'a str, data: Vec<Datum>) -> CloudFuture<'a, ()> {
        self.answer("put_metrics", || self.data.lock().extend(data))
    }

    fn set_desired<'a>(&'a self, _: &'a str, desired: i32) -> CloudFuture<'a, ()> {
        self.answer("set_desired", || {
            if let Some(group) = self.group.lock().as_mut() {
                group.desired = desired;
            }
        })
    }

    fn heartbeat<'a>(&'a self, _: &'a HeldInstance) -> CloudFuture<'a, ()> {
        self.answer("heartbeat", || ())
    }

    fn complete<'a>(&'a self, _: &'a HeldInstance) -> CloudFuture<'a, ()> {
        self.answer("complete", || ())
    }

    fn secret<'a>(&'a self, name: &'a str) -> CloudFuture<'a, Option<String>> {
        self.answer("secret", || self.secrets.lock().get(name).cloned())
    }

    fn create_secret<'a>(&'a self, name: &'a str, text: String) -> CloudFuture<'a, bool> {
        self.answer("create_secret", || {
            let mut secrets = self.secrets.lock();
            let is_new = !secrets.contains_key(name);
            secrets.entry(name.to_owned()).or_insert(text);
            is_new
        })
    }

    fn mark_unhealthy<'a>(&'a self, _: &'a str) -> CloudFuture<'a, ()> {
        self.answer("mark_unhealthy", || ())
    }
}
