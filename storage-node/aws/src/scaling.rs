//! Maintains the scaling policies and alarms of the group.
//!
//! Every node does this at startup: it reads first and writes only differences. All nodes write the same, so ten nodes
//! at once have the same effect as one. An alarm of our name that watches another group is left alone: alarm names are
//! unique in an account, and overwriting it would leave that group without an alarm.
//!
//! Later checks restore what has been deleted or no longer works. They keep different settings, because newer nodes may
//! have written them: nodes with old and new settings must not overwrite each other without end.

use tracing::info;

use chordfs_pool::ScaleOn;

use super::{
    args::ScalingSettings,
    cloud::{AlarmSpec, CallError, Cloud, FoundAlarm, FoundPolicy, PolicySpec, Statistic},
    health::{AwsHealth, Topic},
    metric::METRIC,
};

/// A policy and the alarm that triggers it, without the action, which is known only once the policy exists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredScaling {
    pub policy: PolicySpec,
    alarm: AlarmSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScalingChange {
    /// Nothing to change.
    None,
    Create,
    /// It does not work, for the reason given: the alarm watches another metric or triggers another policy.
    Replace(String),
    /// It works, but with other settings, which are given.
    Adjust(String),
    /// The alarm triggers its policy and must not, or the other way round.
    Switch,
    /// It must not be changed, for the reason given.
    Leave(String),
}

/// Returns the policies and alarms that the group should have: to grow, and to shrink unless that is disabled.
pub(crate) fn desired_scaling(settings: &ScalingSettings, group: &str) -> Vec<DesiredScaling> {
    let policy = &settings.policy;
    let secs = |duration: std::time::Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let one = |names: &super::args::PolicyAndAlarmNames, adjustment: i32, above: bool, threshold: f64| DesiredScaling {
        policy: PolicySpec { name: names.policy.clone(), adjustment, cooldown_secs: secs(policy.cooldown) },
        alarm: AlarmSpec {
            name: names.alarm.clone(),
            namespace: settings.namespace.clone(),
            metric: METRIC.to_owned(),
            group: group.to_owned(),
            statistic: match policy.scale_on {
                ScaleOn::Max => Statistic::Maximum,
                ScaleOn::Avg => Statistic::Average,
            },
            above,
            threshold,
            periods: i32::try_from(policy.periods).unwrap_or(i32::MAX),
            period_secs: secs(policy.period),
            action: String::new(),
            enabled: true,
        },
    };
    let growing = i32::try_from(policy.grow_by).unwrap_or(1);
    let grow = one(&settings.grow, growing, true, policy.grow_above);
    let shrink = policy.shrink_below.map(|below| one(&settings.shrink, -1, false, below));
    [Some(grow), shrink].into_iter().flatten().collect()
}

impl DesiredScaling {
    pub(crate) fn alarm(&self, policy_arn: &str) -> AlarmSpec {
        AlarmSpec { action: policy_arn.to_owned(), ..self.alarm.clone() }
    }

    pub(crate) fn alarm_name(&self) -> &str {
        &self.alarm.name
    }
}

pub(crate) fn policy_change(wanted: &PolicySpec, found: Option<&FoundPolicy>) -> ScalingChange {
    match found {
        None => ScalingChange::Create,
        Some(found) if found.adjustment != Some(wanted.adjustment) => {
            ScalingChange::Adjust(format!("it does not change the capacity by {}", wanted.adjustment))
        }
        Some(found) if found.cooldown_secs != Some(wanted.cooldown_secs) => {
            ScalingChange::Adjust(format!("its cooldown is not {} s", wanted.cooldown_secs))
        }
        Some(_) => ScalingChange::None,
    }
}

pub(crate) fn alarm_change(wanted: &AlarmSpec, found: Option<&FoundAlarm>) -> ScalingChange {
    let foreign = |groups: &[String]| groups.iter().find(|group| **group != wanted.group).cloned();
    match found {
        None => ScalingChange::Create,
        Some(FoundAlarm::Plain(found)) if found == wanted => ScalingChange::None,
        Some(FoundAlarm::Plain(found)) if found.group != wanted.group => watches_another_group(&found.group),
        Some(FoundAlarm::Plain(found)) if found.action != wanted.action => {
            ScalingChange::Replace("it triggers another policy than the group's".to_owned())
        }
        Some(FoundAlarm::Plain(found)) if found.enabled != wanted.enabled => ScalingChange::Switch,
        Some(FoundAlarm::Plain(found)) => ScalingChange::Adjust(difference(wanted, found)),
        Some(FoundAlarm::Other { groups, .. }) if foreign(groups).is_some() => {
            watches_another_group(&foreign(groups).unwrap_or_default())
        }
        Some(FoundAlarm::Other { metrics: 1.., .. }) => {
            ScalingChange::Replace("it is a formula over the metrics of single instances".to_owned())
        }
        Some(FoundAlarm::Other { .. }) => {
            ScalingChange::Replace("it watches another metric or triggers something else".to_owned())
        }
    }
}

fn watches_another_group(group: &str) -> ScalingChange {
    ScalingChange::Leave(format!(
        "it watches the group {group}; choose another name for this group's alarm with --alarm-name"
    ))
}

fn difference(wanted: &AlarmSpec, found: &AlarmSpec) -> String {
    let mut differs = Vec::new();
    let mut compare = |what: &str, same: bool| {
        if !same {
            differs.push(what.to_owned());
        }
    };
    compare("metric", (&wanted.namespace, &wanted.metric) == (&found.namespace, &found.metric));
    compare("statistic", wanted.statistic == found.statistic);
    compare("threshold", (wanted.above, wanted.threshold) == (found.above, found.threshold));
    compare("periods", (wanted.periods, wanted.period_secs) == (found.periods, found.period_secs));
    format!("its {} differs", differs.join(", "))
}

/// The result of comparing one policy and its alarm. `policy_arn` is empty if there is no policy yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScalingComparison {
    pub wanted: DesiredScaling,
    pub policy: ScalingChange,
    pub policy_arn: String,
    pub alarm: ScalingChange,
    /// The alarm as it is, if it has the structure of those that nodes write.
    found: Option<AlarmSpec>,
}

impl ScalingComparison {
    /// The alarm to write. Only its switch differs from the existing one if the others of its settings may be newer
    /// than ours.
    fn alarm_to_write(&self, writes: ScalingWrites) -> AlarmSpec {
        let wanted = self.wanted.alarm(&self.policy_arn);
        match (&self.alarm, &self.found) {
            (ScalingChange::Switch, Some(found)) if writes == ScalingWrites::Repairs => {
                AlarmSpec { enabled: wanted.enabled, ..found.clone() }
            }
            _ => wanted,
        }
    }
}

/// Which alarms trigger their policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlarmSwitch {
    /// Every one: the group sizes itself.
    On,
    /// None: somebody has chosen the size.
    Off,
    /// Those that do so already: whether somebody has chosen the size is not known.
    AsFound,
}

impl AlarmSwitch {
    fn enables(self, found: Option<&FoundAlarm>) -> bool {
        match (self, found) {
            (Self::On, _) => true,
            (Self::Off, _) => false,
            (Self::AsFound, Some(FoundAlarm::Plain(found))) => found.enabled,
            (Self::AsFound, _) => true,
        }
    }
}

/// Compares the existing policies and alarms with the desired ones.
pub(crate) async fn compare(
    cloud: &dyn Cloud,
    settings: &ScalingSettings,
    group: &str,
    switch: AlarmSwitch,
) -> Result<Vec<ScalingComparison>, CallError> {
    let wanted = desired_scaling(settings, group);
    let policies = cloud.policies(group, wanted.iter().map(|one| one.policy.name.clone()).collect()).await?;
    let alarms = cloud.alarms(wanted.iter().map(|one| one.alarm.name.clone()).collect()).await?;
    let compare = |mut wanted: DesiredScaling| {
        let policy = policies.iter().find(|found| found.name == wanted.policy.name);
        let policy_arn = policy.map(|found| found.arn.clone()).unwrap_or_default();
        let alarm = alarms.iter().find(|found| found.name() == wanted.alarm.name);
        wanted.alarm.enabled = switch.enables(alarm);
        ScalingComparison {
            found: alarm.and_then(FoundAlarm::plain).cloned(),
            policy: policy_change(&wanted.policy, policy),
            alarm: alarm_change(&wanted.alarm(&policy_arn), alarm),
            policy_arn,
            wanted,
        }
    };
    Ok(wanted.into_iter().map(compare).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalingWrites {
    /// At startup, when this node's settings are the newest: everything that differs.
    Differences,
    /// Later, when newer nodes may have written other settings: only what is missing or does not work.
    Repairs,
}

impl ScalingWrites {
    fn covers(self, change: &ScalingChange) -> bool {
        match change {
            ScalingChange::None => false,
            ScalingChange::Adjust(_) => self == Self::Differences,
            ScalingChange::Create | ScalingChange::Replace(_) | ScalingChange::Switch | ScalingChange::Leave(_) => true,
        }
    }
}

/// Brings policies and alarms to the desired state. Returns whether that succeeded; `health` reports what is wrong.
pub(crate) async fn ensure(
    cloud: &dyn Cloud,
    health: &AwsHealth,
    settings: &ScalingSettings,
    group: &str,
    writes: ScalingWrites,
    switch: AlarmSwitch,
) -> bool {
    let mut update = ScalingUpdate { cloud, settings, group, writes, switch, problems: Vec::new() };
    update.put_policies().await;
    report_problems(health, Topic::Policy, &update.problems);
    if !update.problems.is_empty() {
        return false;
    }
    update.put_alarms().await;
    report_problems(health, Topic::Alarm, &update.problems);
    update.problems.is_empty()
}

fn report_problems(health: &AwsHealth, topic: Topic, problems: &[String]) {
    if problems.is_empty() { health.clear(topic) } else { health.set(topic, &problems.join("; ")) }
}

struct ScalingUpdate<'a> {
    cloud: &'a dyn Cloud,
    settings: &'a ScalingSettings,
    group: &'a str,
    writes: ScalingWrites,
    switch: AlarmSwitch,
    problems: Vec<String>,
}

impl ScalingUpdate<'_> {
    /// Returns nothing and adds a problem if the comparison fails.
    async fn compared(&mut self) -> Vec<ScalingComparison> {
        let compared = compare(self.cloud, self.settings, self.group, self.switch).await;
        compared.unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            Vec::new()
        })
    }

    async fn put_policies(&mut self) {
        for one in self.compared().await {
            if !self.writes.covers(&one.policy) {
                continue;
            }
            info!(policy = one.wanted.policy.name, change = ?one.policy, "writing the scaling policy");
            let put = self.cloud.put_policy(self.group, &one.wanted.policy).await;
            self.problems.extend(put.err().map(|error| error.to_string()));
        }
    }

    /// Compares again, because a policy that has just been written has an ARN only now.
    async fn put_alarms(&mut self) {
        for one in self.compared().await {
            let alarm = one.wanted.alarm_name();
            if !self.writes.covers(&one.alarm) {
                continue;
            }
            if let ScalingChange::Leave(why) = &one.alarm {
                self.problems.push(format!("the alarm {alarm} was not changed: {why}"));
                continue;
            }
            if one.policy_arn.is_empty() {
                let policy = &one.wanted.policy.name;
                self.problems.push(format!("the alarm {alarm} cannot be written before AWS shows its policy {policy}"));
                continue;
            }
            info!(alarm, change = ?one.alarm, "writing the alarm");
            let put = self.cloud.put_alarm(&one.alarm_to_write(self.writes)).await;
            self.problems.extend(put.err().map(|error| error.to_string()));
        }
    }
}

impl FoundAlarm {
    fn plain(&self) -> Option<&AlarmSpec> {
        match self {
            Self::Plain(alarm) => Some(alarm),
            Self::Other { .. } => None,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Plain(alarm) => &alarm.name,
            Self::Other { name, .. } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake_cloud::FakeCloud, *};
    use crate::args::tests::settings;

    fn scaling(line: &str) -> ScalingSettings {
        settings(line).unwrap().scaling
    }

    #[test]
    fn both_alarms_watch_the_fullest_disk() {
        let both = desired_scaling(&scaling(""), "G");
        let grow = both[0].alarm("arn");
        assert_eq!((grow.above, grow.threshold, grow.statistic), (true, 70.0, Statistic::Maximum));
        assert_eq!((grow.periods, grow.period_secs, grow.group.as_str()), (2, 60, "G"));
        assert_eq!((both[0].policy.adjustment, both[0].policy.cooldown_secs), (1, 180));
        let shrink = both[1].alarm("arn");
        assert_eq!((shrink.above, shrink.threshold, both[1].policy.adjustment), (false, 30.0, -1));
        assert_eq!(desired_scaling(&scaling("--no-scale-in"), "G").len(), 1);
        assert_eq!(desired_scaling(&scaling("--scale-on avg"), "G")[0].alarm("").statistic, Statistic::Average);
    }

    #[test]
    fn only_what_differs_is_written() {
        let one = desired_scaling(&scaling(""), "G").remove(0);
        let found = FoundPolicy {
            name: one.policy.name.clone(),
            arn: "arn".into(),
            adjustment: Some(1),
            cooldown_secs: Some(180),
        };
        assert_eq!(policy_change(&one.policy, Some(&found)), ScalingChange::None);
        assert_eq!(policy_change(&one.policy, None), ScalingChange::Create);
        for other in [
            FoundPolicy { adjustment: Some(2), ..found.clone() },
            FoundPolicy { adjustment: None, ..found.clone() },
            FoundPolicy { cooldown_secs: None, ..found },
        ] {
            assert!(matches!(policy_change(&one.policy, Some(&other)), ScalingChange::Adjust(_)), "{other:?}");
        }
        let alarm = one.alarm("arn");
        assert_eq!(alarm_change(&alarm, Some(&FoundAlarm::Plain(alarm.clone()))), ScalingChange::None);
        let other = AlarmSpec { threshold: 30.0, periods: 3, ..alarm.clone() };
        let differs = alarm_change(&alarm, Some(&FoundAlarm::Plain(other.clone())));
        assert_eq!(differs, ScalingChange::Adjust("its threshold, periods differs".into()));
        let old = FoundAlarm::Plain(AlarmSpec { action: "old".into(), ..other });
        assert!(matches!(alarm_change(&alarm, Some(&old)), ScalingChange::Replace(_)), "it triggers no policy");
    }

    #[test]
    fn a_formula_over_instances_is_replaced_and_another_groups_alarm_is_not() {
        let alarm = desired_scaling(&scaling(""), "G").remove(0).alarm("arn");
        let formula =
            |group: &str| FoundAlarm::Other { name: alarm.name.clone(), metrics: 3, groups: vec![group.into()] };
        assert!(
            matches!(alarm_change(&alarm, Some(&formula("G"))), ScalingChange::Replace(why) if why.contains("formula"))
        );
        assert!(matches!(alarm_change(&alarm, Some(&formula("H"))), ScalingChange::Leave(why) if why.contains('H')));
        let theirs = FoundAlarm::Plain(AlarmSpec { group: "H".into(), ..alarm.clone() });
        assert!(matches!(alarm_change(&alarm, Some(&theirs)), ScalingChange::Leave(_)));
    }

    #[tokio::test]
    async fn ensuring_twice_writes_once() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        for _ in 0..2 {
            assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        }
        assert_eq!(cloud.calls("put_policy"), 2);
        assert_eq!(cloud.calls("put_alarm"), 2);
        assert_eq!(health.to_json()["state"], "ok");
        let actions: Vec<String> = cloud.alarms.lock().iter().map(|alarm| alarm.action.clone()).collect();
        assert_eq!(actions, ["arn:MyChordFileSystemASGPolicy", "arn:MyChordFileSystemASGPolicy-ScaleIn"]);
        assert!(
            ensure(&cloud, &health, &scaling("--scale-out-above 50"), "G", ScalingWrites::Differences, AlarmSwitch::On)
                .await
        );
        assert_eq!(cloud.calls("put_alarm"), 3);
    }

    #[tokio::test]
    async fn a_denied_call_is_reported() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        cloud.deny("put_policy");
        assert!(!ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        let shown = health.to_json().to_string();
        assert!(shown.contains("degraded") && shown.contains("put_policy"), "{shown}");
        cloud.allow();
        assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        assert_eq!(health.to_json()["state"], "ok");
    }

    #[tokio::test]
    async fn two_groups_do_not_take_each_others_alarm() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        assert!(!ensure(&cloud, &health, &scaling(""), "H", ScalingWrites::Differences, AlarmSwitch::On).await);
        assert!(health.to_json().to_string().contains("--alarm-name"), "{}", health.to_json());
        assert!(cloud.alarms.lock().iter().all(|alarm| alarm.group == "G"));
        // One of the two alarms is this group's own; the other one is still reported.
        assert!(
            !ensure(
                &cloud,
                &health,
                &scaling("--scale-in-alarm-name J"),
                "J",
                ScalingWrites::Differences,
                AlarmSwitch::On
            )
            .await
        );
        assert_eq!(health.to_json()["state"], "degraded");
        assert!(
            ensure(&cloud, &health, &scaling("--alarm-name H"), "H", ScalingWrites::Differences, AlarmSwitch::On).await
        );
        assert_eq!(cloud.alarms.lock().len(), 5);
    }

    #[tokio::test]
    async fn the_alarms_trigger_nothing_while_somebody_has_chosen_the_size() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        let (old, new) = (scaling(""), scaling("--scale-out-above 50"));
        let repair = |switch| ensure(&cloud, &health, &old, "G", ScalingWrites::Repairs, switch);
        let enabled = || cloud.alarms.lock().iter().map(|alarm| alarm.enabled).collect::<Vec<_>>();
        assert!(ensure(&cloud, &health, &new, "G", ScalingWrites::Differences, AlarmSwitch::AsFound).await);
        assert_eq!(enabled(), [true, true]);
        for (switch, expected) in [
            (AlarmSwitch::Off, false),
            (AlarmSwitch::AsFound, false),
            (AlarmSwitch::Off, false),
            (AlarmSwitch::On, true),
        ] {
            assert!(repair(switch).await);
            assert_eq!(enabled(), [expected; 2], "{switch:?}");
        }
        assert_eq!(cloud.calls("put_alarm"), 6, "only what differs is written");
        let threshold = cloud.alarms.lock().iter().map(|alarm| alarm.threshold).reduce(f64::max);
        assert_eq!(threshold, Some(50.0), "the newer settings of another node stay");
    }

    /// Two groups found no alarm of that name, and both wrote theirs: the first one now has none, and must report that.
    #[tokio::test]
    async fn a_later_check_finds_an_alarm_that_another_group_has_overwritten() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        for alarm in cloud.alarms.lock().iter_mut() {
            alarm.group = "H".into();
        }
        assert!(!ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Repairs, AlarmSwitch::On).await);
        assert!(health.to_json().to_string().contains("it watches the group H"), "{}", health.to_json());
        assert_eq!(cloud.calls("put_alarm"), 2);
    }

    #[tokio::test]
    async fn a_later_check_restores_what_was_deleted_and_keeps_other_settings() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        let (old, new) = (scaling(""), scaling("--scale-out-above 50 --scale-cooldown 60s"));
        for settings in [&old, &new] {
            assert!(ensure(&cloud, &health, settings, "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        }
        let put = || (cloud.calls("put_policy"), cloud.calls("put_alarm"));
        let before = put();
        assert!(ensure(&cloud, &health, &old, "G", ScalingWrites::Repairs, AlarmSwitch::On).await);
        assert_eq!((put(), health.to_json()["state"].as_str()), (before, Some("ok")));
        cloud.alarms.lock().pop();
        assert!(ensure(&cloud, &health, &old, "G", ScalingWrites::Repairs, AlarmSwitch::On).await);
        assert_eq!((put(), cloud.alarms.lock().len()), ((before.0, before.1 + 1), 2));
    }

    #[tokio::test]
    async fn an_alarm_triggers_the_restored_policy() {
        let (cloud, health) = (FakeCloud::default(), AwsHealth::default());
        assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Differences, AlarmSwitch::On).await);
        cloud.policies.lock().clear();
        for alarm in cloud.alarms.lock().iter_mut() {
            alarm.action = "arn:gone".into();
        }
        // The next attempt completes what the first one left undone.
        cloud.deny("put_alarm");
        assert!(!ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Repairs, AlarmSwitch::On).await);
        cloud.allow();
        assert!(ensure(&cloud, &health, &scaling(""), "G", ScalingWrites::Repairs, AlarmSwitch::On).await);
        assert!(cloud.alarms.lock().iter().all(|alarm| alarm.action != "arn:gone"));
    }
}
