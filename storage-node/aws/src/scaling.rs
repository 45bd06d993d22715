//! Which scaling policies and alarms the group should have, what of that is missing, and putting it there.
//!
//! Every node ensures the same at its start: it reads first and writes only what differs, and what is written is the
//! same whoever writes it, so ten nodes at once end where one does. An alarm of our name that watches another group is
//! left alone: names of alarms are an account's, and taking it would blind that group.
//!
//! Afterwards it looks again now and then. What has gone, or does not do what it is for, is put back. What only has other
//! settings stays, because newer nodes may have put it there: two generations must not overwrite each other for ever.

use tracing::info;

use chordfs_pool::ScaleOn;

use super::{
    args::ScalingSettings,
    board::{Board, Topic},
    cloud::{AlarmSpec, CallError, Cloud, FoundAlarm, FoundPolicy, PolicySpec, Statistic},
    metric::METRIC,
};

/// A policy with the alarm that calls it, but for the action, which is known when the policy is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub policy: PolicySpec,
    alarm: AlarmSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// As it should be.
    None,
    Create,
    /// Why what is there does not do what it is for: an alarm that watches something else, or calls something else.
    Replace(String),
    /// It does, with other settings.
    Adjust(String),
    /// It must not be touched.
    Leave(String),
}

/// What there should be for the group: growing, and shrinking unless that is switched off.
pub fn wanted(settings: &ScalingSettings, group: &str) -> Vec<Wanted> {
    let policy = &settings.policy;
    let secs = |duration: std::time::Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let one = |names: &super::args::Names, adjustment: i32, above: bool, threshold: f64| Wanted {
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
        },
    };
    let growing = i32::try_from(policy.grow_by).unwrap_or(1);
    let grow = one(&settings.grow, growing, true, policy.grow_above);
    let shrink = policy.shrink_below.map(|below| one(&settings.shrink, -1, false, below));
    [Some(grow), shrink].into_iter().flatten().collect()
}

impl Wanted {
    pub fn alarm(&self, policy_arn: &str) -> AlarmSpec {
        AlarmSpec { action: policy_arn.to_owned(), ..self.alarm.clone() }
    }

    pub fn alarm_name(&self) -> &str {
        &self.alarm.name
    }
}

pub fn policy_change(wanted: &PolicySpec, found: Option<&FoundPolicy>) -> Change {
    match found {
        None => Change::Create,
        Some(found) if found.adjustment != Some(wanted.adjustment) => {
            Change::Adjust(format!("it does not change the capacity by {}", wanted.adjustment))
        }
        Some(found) if found.cooldown_secs != Some(wanted.cooldown_secs) => {
            Change::Adjust(format!("its cooldown is not {} s", wanted.cooldown_secs))
        }
        Some(_) => Change::None,
    }
}

pub fn alarm_change(wanted: &AlarmSpec, found: Option<&FoundAlarm>) -> Change {
    let foreign = |groups: &[String]| groups.iter().find(|group| **group != wanted.group).cloned();
    match found {
        None => Change::Create,
        Some(FoundAlarm::Plain(found)) if found == wanted => Change::None,
        Some(FoundAlarm::Plain(found)) if found.group != wanted.group => of_another(&found.group),
        Some(FoundAlarm::Plain(found)) if found.action != wanted.action => {
            Change::Replace("it calls another policy than the group's".to_owned())
        }
        Some(FoundAlarm::Plain(found)) => Change::Adjust(difference(wanted, found)),
        Some(FoundAlarm::Other { groups, .. }) if foreign(groups).is_some() => {
            of_another(&foreign(groups).unwrap_or_default())
        }
        Some(FoundAlarm::Other { metrics: 1.., .. }) => {
            Change::Replace("it is a formula over the metrics of single instances".to_owned())
        }
        Some(FoundAlarm::Other { .. }) => Change::Replace("it watches or calls something else".to_owned()),
    }
}

fn of_another(group: &str) -> Change {
    Change::Leave(format!("it watches the group {group}; give this group an alarm of its own with --alarm-name"))
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

/// What was looked up for one policy and its alarm. `policy_arn` is empty where there is no policy yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub wanted: Wanted,
    pub policy: Change,
    pub policy_arn: String,
    pub alarm: Change,
}

/// Reads what there is. An alarm is compared with the policy that it should call, if there is one.
pub async fn compare(cloud: &dyn Cloud, settings: &ScalingSettings, group: &str) -> Result<Vec<Compared>, CallError> {
    let wanted = wanted(settings, group);
    let policies = cloud.policies(group, wanted.iter().map(|one| one.policy.name.clone()).collect()).await?;
    let alarms = cloud.alarms(wanted.iter().map(|one| one.alarm.name.clone()).collect()).await?;
    let compare = |wanted: Wanted| {
        let policy = policies.iter().find(|found| found.name == wanted.policy.name);
        let policy_arn = policy.map(|found| found.arn.clone()).unwrap_or_default();
        let alarm = alarms.iter().find(|found| found.name() == wanted.alarm.name);
        Compared {
            policy: policy_change(&wanted.policy, policy),
            alarm: alarm_change(&wanted.alarm(&policy_arn), alarm),
            policy_arn,
            wanted,
        }
    };
    Ok(wanted.into_iter().map(compare).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// At a node's start: its settings are the newest.
    WhatDiffers,
    /// Afterwards: others may have put what differs.
    WhatIsBroken,
}

impl Put {
    fn covers(self, change: &Change) -> bool {
        match change {
            Change::None => false,
            Change::Adjust(_) => self == Self::WhatDiffers,
            Change::Create | Change::Replace(_) | Change::Leave(_) => true,
        }
    }
}

/// Whether nothing is left to do; what is wrong is on the board.
pub async fn ensure(cloud: &dyn Cloud, board: &Board, settings: &ScalingSettings, group: &str, put: Put) -> bool {
    let mut work = Work { cloud, settings, group, put, problems: Vec::new() };
    work.put_policies().await;
    board_shows(board, Topic::Policy, &work.problems);
    if !work.problems.is_empty() {
        return false;
    }
    work.put_alarms().await;
    board_shows(board, Topic::Alarm, &work.problems);
    work.problems.is_empty()
}

fn board_shows(board: &Board, topic: Topic, problems: &[String]) {
    match problems.is_empty() {
        true => board.clear(topic),
        false => board.set(topic, &problems.join("; ")),
    }
}

struct Work<'a> {
    cloud: &'a dyn Cloud,
    settings: &'a ScalingSettings,
    group: &'a str,
    put: Put,
    problems: Vec<String>,
}

impl Work<'_> {
    /// Empty, and a problem more, if that cannot be found out.
    async fn compared(&mut self) -> Vec<Compared> {
        let compared = compare(self.cloud, self.settings, self.group).await;
        compared.unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            Vec::new()
        })
    }

    async fn put_policies(&mut self) {
        for one in self.compared().await {
            if !self.put.covers(&one.policy) {
                continue;
            }
            info!(policy = one.wanted.policy.name, change = ?one.policy, "puts the scaling policy");
            let put = self.cloud.put_policy(self.group, &one.wanted.policy).await;
            self.problems.extend(put.err().map(|error| error.to_string()));
        }
    }

    /// Asks anew: a policy that was put a moment ago has got its ARN now.
    async fn put_alarms(&mut self) {
        for one in self.compared().await {
            let alarm = one.wanted.alarm_name();
            if !self.put.covers(&one.alarm) {
                continue;
            }
            if let Change::Leave(why) = &one.alarm {
                self.problems.push(format!("the alarm {alarm} is left alone: {why}"));
                continue;
            }
            if one.policy_arn.is_empty() {
                let policy = &one.wanted.policy.name;
                self.problems
                    .push(format!("the alarm {alarm} waits for the policy {policy}, which AWS does not show yet"));
                continue;
            }
            info!(alarm, change = ?one.alarm, "puts the alarm");
            let put = self.cloud.put_alarm(&one.wanted.alarm(&one.policy_arn)).await;
            self.problems.extend(put.err().map(|error| error.to_string()));
        }
    }
}

impl FoundAlarm {
    pub fn name(&self) -> &str {
        match self {
            Self::Plain(alarm) => &alarm.name,
            Self::Other { name, .. } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};
    use crate::args::tests::settings;

    fn scaling(line: &str) -> ScalingSettings {
        settings(line).unwrap().scaling
    }

    #[test]
    fn growing_watches_the_fullest_disk_and_shrinking_is_beside_it() {
        let both = wanted(&scaling(""), "G");
        let grow = both[0].alarm("arn");
        assert_eq!((grow.above, grow.threshold, grow.statistic), (true, 70.0, Statistic::Maximum));
        assert_eq!((grow.periods, grow.period_secs, grow.group.as_str()), (2, 60, "G"));
        assert_eq!((both[0].policy.adjustment, both[0].policy.cooldown_secs), (1, 180));
        let shrink = both[1].alarm("arn");
        assert_eq!((shrink.above, shrink.threshold, both[1].policy.adjustment), (false, 30.0, -1));
        assert_eq!(wanted(&scaling("--no-scale-in"), "G").len(), 1);
        assert_eq!(wanted(&scaling("--scale-on avg"), "G")[0].alarm("").statistic, Statistic::Average);
    }

    #[test]
    fn only_what_differs_is_written() {
        let one = wanted(&scaling(""), "G").remove(0);
        let found = FoundPolicy {
            name: one.policy.name.clone(),
            arn: "arn".into(),
            adjustment: Some(1),
            cooldown_secs: Some(180),
        };
        assert_eq!(policy_change(&one.policy, Some(&found)), Change::None);
        assert_eq!(policy_change(&one.policy, None), Change::Create);
        for other in [
            FoundPolicy { adjustment: Some(2), ..found.clone() },
            FoundPolicy { adjustment: None, ..found.clone() },
            FoundPolicy { cooldown_secs: None, ..found },
        ] {
            assert!(matches!(policy_change(&one.policy, Some(&other)), Change::Adjust(_)), "{other:?}");
        }
        let alarm = one.alarm("arn");
        assert_eq!(alarm_change(&alarm, Some(&FoundAlarm::Plain(alarm.clone()))), Change::None);
        let other = AlarmSpec { threshold: 30.0, periods: 3, ..alarm.clone() };
        let differs = alarm_change(&alarm, Some(&FoundAlarm::Plain(other.clone())));
        assert_eq!(differs, Change::Adjust("its threshold, periods differs".into()));
        let old = FoundAlarm::Plain(AlarmSpec { action: "old".into(), ..other });
        assert!(matches!(alarm_change(&alarm, Some(&old)), Change::Replace(_)), "it grows nothing");
    }

    #[test]
    fn a_formula_over_instances_is_replaced_and_another_groups_alarm_is_not() {
        let alarm = wanted(&scaling(""), "G").remove(0).alarm("arn");
        let formula =
            |group: &str| FoundAlarm::Other { name: alarm.name.clone(), metrics: 3, groups: vec![group.into()] };
        assert!(matches!(alarm_change(&alarm, Some(&formula("G"))), Change::Replace(why) if why.contains("formula")));
        assert!(matches!(alarm_change(&alarm, Some(&formula("H"))), Change::Leave(why) if why.contains('H')));
        let theirs = FoundAlarm::Plain(AlarmSpec { group: "H".into(), ..alarm.clone() });
        assert!(matches!(alarm_change(&alarm, Some(&theirs)), Change::Leave(_)));
    }

    #[tokio::test]
    async fn ensuring_twice_writes_once() {
        let (cloud, board) = (Fake::default(), Board::default());
        for _ in 0..2 {
            assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        }
        assert_eq!(cloud.calls("put_policy"), 2);
        assert_eq!(cloud.calls("put_alarm"), 2);
        assert_eq!(board.shown()["state"], "ok");
        let actions: Vec<String> = cloud.alarms.lock().iter().map(|alarm| alarm.action.clone()).collect();
        assert_eq!(actions, ["arn:MyChordFileSystemASGPolicy", "arn:MyChordFileSystemASGPolicy-ScaleIn"]);
        assert!(ensure(&cloud, &board, &scaling("--scale-out-above 50"), "G", Put::WhatDiffers).await);
        assert_eq!(cloud.calls("put_alarm"), 3);
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_on_the_board() {
        let (cloud, board) = (Fake::default(), Board::default());
        cloud.deny("put_policy");
        assert!(!ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        let shown = board.shown().to_string();
        assert!(shown.contains("degraded") && shown.contains("put_policy"), "{shown}");
        cloud.allow();
        assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        assert_eq!(board.shown()["state"], "ok");
    }

    #[tokio::test]
    async fn two_groups_do_not_take_each_others_alarm() {
        let (cloud, board) = (Fake::default(), Board::default());
        assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        assert!(!ensure(&cloud, &board, &scaling(""), "H", Put::WhatDiffers).await);
        assert!(board.shown().to_string().contains("--alarm-name"), "{}", board.shown());
        assert!(cloud.alarms.lock().iter().all(|alarm| alarm.group == "G"));
        // One of the two is its own: the other one is told of all the same.
        assert!(!ensure(&cloud, &board, &scaling("--scale-in-alarm-name J"), "J", Put::WhatDiffers).await);
        assert_eq!(board.shown()["state"], "degraded");
        assert!(ensure(&cloud, &board, &scaling("--alarm-name H"), "H", Put::WhatDiffers).await);
        assert_eq!(cloud.alarms.lock().len(), 5);
    }

    /// Both found no alarm of that name, and both put theirs: the first one has none now, and has to say so.
    #[tokio::test]
    async fn a_later_look_finds_an_alarm_that_another_group_has_put_over_it() {
        let (cloud, board) = (Fake::default(), Board::default());
        assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        for alarm in cloud.alarms.lock().iter_mut() {
            alarm.group = "H".into();
        }
        assert!(!ensure(&cloud, &board, &scaling(""), "G", Put::WhatIsBroken).await);
        assert!(board.shown().to_string().contains("it watches the group H"), "{}", board.shown());
        assert_eq!(cloud.calls("put_alarm"), 2);
    }

    #[tokio::test]
    async fn a_later_look_puts_back_what_has_gone_and_leaves_what_differs() {
        let (cloud, board) = (Fake::default(), Board::default());
        let (old, new) = (scaling(""), scaling("--scale-out-above 50 --scale-cooldown 60s"));
        for settings in [&old, &new] {
            assert!(ensure(&cloud, &board, settings, "G", Put::WhatDiffers).await);
        }
        let put = || (cloud.calls("put_policy"), cloud.calls("put_alarm"));
        let before = put();
        assert!(ensure(&cloud, &board, &old, "G", Put::WhatIsBroken).await);
        assert_eq!((put(), board.shown()["state"].as_str()), (before, Some("ok")));
        cloud.alarms.lock().pop();
        assert!(ensure(&cloud, &board, &old, "G", Put::WhatIsBroken).await);
        assert_eq!((put(), cloud.alarms.lock().len()), ((before.0, before.1 + 1), 2));
    }

    #[tokio::test]
    async fn an_alarm_calls_the_policy_that_was_put_back() {
        let (cloud, board) = (Fake::default(), Board::default());
        assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatDiffers).await);
        cloud.policies.lock().clear();
        for alarm in cloud.alarms.lock().iter_mut() {
            alarm.action = "arn:gone".into();
        }
        // However far the first try gets, the next one sees it through.
        cloud.deny("put_alarm");
        assert!(!ensure(&cloud, &board, &scaling(""), "G", Put::WhatIsBroken).await);
        cloud.allow();
        assert!(ensure(&cloud, &board, &scaling(""), "G", Put::WhatIsBroken).await);
        assert!(cloud.alarms.lock().iter().all(|alarm| alarm.action != "arn:gone"));
    }
}
