//! A table in AWS's place, for the tests of what is decided here.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::cloud::{
    AlarmSpec, Answer, CallError, Cloud, Datum, FoundAlarm, FoundPolicy, Group, Hold, Hook, Membership, PolicySpec,
    Trouble,
};

#[derive(Default)]
pub struct Fake {
    pub metadata: Mutex<HashMap<&'static str, String>>,
    pub membership: Mutex<Option<Membership>>,
    pub group: Mutex<Option<Group>>,
    pub hooks: Mutex<Vec<Hook>>,
    pub policies: Mutex<HashMap<(String, String), FoundPolicy>>,
    pub alarms: Mutex<Vec<AlarmSpec>>,
    pub data: Mutex<Vec<Datum>>,
    denied: Mutex<HashSet<&'static str>>,
    called: Mutex<HashMap<&'static str, usize>>,
    pub unreachable: AtomicBool,
}

impl Fake {
    pub fn deny(&self, call: &'static str) {
        self.denied.lock().insert(call);
    }

    pub fn allow(&self) {
        self.denied.lock().clear();
    }

    pub fn calls(&self, call: &str) -> usize {
        self.called.lock().get(call).copied().unwrap_or(0)
    }

    fn answer<T: Send + 'static>(&self, call: &'static str, value: impl FnOnce() -> T) -> Answer<'_, T> {
        *self.called.lock().entry(call).or_default() += 1;
        let refused = |trouble| CallError { action: call, resource: "it".into(), trouble, detail: String::new() };
        let done = match () {
            () if self.unreachable.load(Ordering::Relaxed) => Err(refused(Trouble::Unreachable)),
            () if self.denied.lock().contains(call) => Err(refused(Trouble::Denied)),
            () => Ok(value()),
        };
        Box::pin(async move { done })
    }
}

impl Cloud for Fake {
    fn metadata(&self, path: &'static str) -> Answer<'_, Option<String>> {
        self.answer("metadata", || self.metadata.lock().get(path).cloned())
    }

    fn membership<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Membership>> {
        self.answer("membership", || self.membership.lock().clone())
    }

    fn group<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Group>> {
        self.answer("group", || self.group.lock().clone())
    }

    fn hooks<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Hook>> {
        self.answer("hooks", || self.hooks.lock().clone())
    }

    fn policies<'a>(&'a self, group: &'a str, names: Vec<String>) -> Answer<'a, Vec<FoundPolicy>> {
        self.answer("policies", || {
            let policies = self.policies.lock();
            names.into_iter().filter_map(|name| policies.get(&(group.to_owned(), name)).cloned()).collect()
        })
    }

    fn put_policy<'a>(&'a self, group: &'a str, policy: &'a PolicySpec) -> Answer<'a, ()> {
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

    fn alarms(&self, names: Vec<String>) -> Answer<'_, Vec<FoundAlarm>> {
        self.answer("alarms", || {
            let alarms = self.alarms.lock();
            alarms.iter().filter(|alarm| names.contains(&alarm.name)).cloned().map(FoundAlarm::Plain).collect()
        })
    }

    fn put_alarm<'a>(&'a self, alarm: &'a AlarmSpec) -> Answer<'a, ()> {
        self.answer("put_alarm", || {
            let mut alarms = self.alarms.lock();
            alarms.retain(|other| other.name != alarm.name);
            alarms.push(alarm.clone());
            alarms.sort_by(|a, b| a.name.cmp(&b.name));
        })
    }

    fn put_metrics<'a>(&'a self, _: &'a str, data: Vec<Datum>) -> Answer<'a, ()> {
        self.answer("put_metrics", || self.data.lock().extend(data))
    }

    fn heartbeat<'a>(&'a self, _: &'a Hold) -> Answer<'a, ()> {
        self.answer("heartbeat", || ())
    }

    fn complete<'a>(&'a self, _: &'a Hold) -> Answer<'a, ()> {
        self.answer("complete", || ())
    }

    fn give_up<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        self.answer("give_up", || ())
    }
}
