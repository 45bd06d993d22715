//! `storage-node aws plan`: what a node would find, create and change here; nothing is.

use std::fmt::Write;

use anyhow::Result;
use chordfs_types::chunk_api::REPLICAS;

use super::{
    args::AwsSettings,
    cloud::{CallError, Cloud, Group, Hook},
    identity::Identity,
    leave::own_hooks,
    scaling::{self, Change, Compared},
    sdk::Sdk,
};

/// `storage-node aws plan`.
pub async fn of_this_machine(settings: AwsSettings) -> Result<String> {
    let imds = Sdk::metadata_client();
    let identity = match Identity::ask(&imds).await {
        Ok(identity) => Some(identity),
        // From a workstation a group can be named, and looked at.
        Err(_) if settings.asg.is_some() => None,
        Err(error) => return Err(error.context("without --asg the plan is for the group of this instance")),
    };
    let cloud = Sdk::new(imds, identity.as_ref().map(|identity| identity.region.clone())).await;
    let group = match (&settings.asg, &identity) {
        (Some(name), _) => name.clone(),
        (None, Some(identity)) => {
            cloud.membership(&identity.instance).await?.map(|found| found.group).ok_or_else(|| {
                anyhow::anyhow!("{} belongs to no Auto Scaling group; name one with --asg", identity.instance)
            })?
        }
        (None, None) => unreachable!("without a name and an identity the plan was given up above"),
    };
    Ok(plan(&cloud, &settings, identity.as_ref(), &group).await)
}

/// Lines for people. What cannot be found out is said in its place.
async fn plan(cloud: &dyn Cloud, settings: &AwsSettings, identity: Option<&Identity>, group: &str) -> String {
    let mut out = Lines::default();
    match identity {
        Some(identity) => out.line(
            "instance",
            format!(
                "{} in {}, {}{}",
                identity.instance,
                identity.zone,
                identity.private,
                identity.public.map_or(String::new(), |public| format!(", {public} from outside"))
            ),
        ),
        None => out.line("instance", "not on EC2: seen from outside"),
    }
    match cloud.group(group).await.and_then(|found| found.ok_or_else(|| CallError::no_group(group))) {
        Ok(found) => show_group(&mut out, &found, settings),
        Err(error) => out.line("group", error),
    }
    match cloud.hooks(group).await {
        Ok(hooks) => show_hooks(&mut out, own_hooks(hooks, settings.hook.as_deref())),
        Err(error) => out.line("hook", error),
    }
    match scaling::compare(cloud, &settings.scaling, group).await {
        Ok(compared) => compared.iter().for_each(|one| show_compared(&mut out, one)),
        Err(error) => out.line("scaling", error),
    }
    out.line(
        "metric",
        format!(
            "would publish disk_used_percent in {} every {:?}, for the instance and for the group",
            settings.scaling.namespace, settings.metric_period
        ),
    );
    out.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, what: impl std::fmt::Display) {
        writeln!(self.0, "{name:<9} {what}").expect("a string takes text");
    }
}

fn show_group(out: &mut Lines, group: &Group, settings: &AwsSettings) {
    let Group { name, min, max, desired, members } = group;
    out.line("group", format!("{name}: {desired} wanted, {min} to {max}, {} there", members.len()));
    let replicas = i32::try_from(REPLICAS).unwrap_or(i32::MAX);
    if *min < replicas && settings.scaling.policy.shrink_below.is_some() {
        out.line(
            "",
            format!(
                "its smallest size is below {replicas}: an instance whose end would leave fewer nodes than that is not \
                 drained, and held by its hook as long as that allows; set it to {replicas}, or --no-scale-in"
            ),
        );
    }
    for member in members {
        let address = |address: Option<std::net::IpAddr>| address.map_or("-".to_owned(), |address| address.to_string());
        let health = if member.healthy { "" } else { ", unhealthy" };
        let (private, public) = (address(member.private), address(member.public));
        out.line("", format!("{} {} {} {private} {public}{health}", member.instance, member.lifecycle, member.zone));
    }
}

fn show_hooks(out: &mut Lines, hooks: Vec<Hook>) {
    if hooks.is_empty() {
        out.line("hook", "none on termination: an instance that the group ends is a crash to the ring");
    }
    for hook in hooks {
        out.line(
            "hook",
            format!("{}: {} s between heartbeats, {} s in all", hook.name, hook.heartbeat_secs, hook.global_secs),
        );
    }
}

fn show_compared(out: &mut Lines, one: &Compared) {
    let policy = &one.wanted.policy;
    let what = format!("{} ({:+}, cooldown {} s)", policy.name, policy.adjustment, policy.cooldown_secs);
    out.line("policy", format!("{what}: {}", shown(&one.policy)));
    let alarm = one.wanted.alarm(&one.policy_arn);
    let side = if alarm.above { "above" } else { "below" };
    let what = format!(
        "{} ({:?} of {} {side} {}% for {} periods of {} s)",
        alarm.name, alarm.statistic, alarm.metric, alarm.threshold, alarm.periods, alarm.period_secs
    );
    out.line("alarm", format!("{what}: {}", shown(&one.alarm)));
}

fn shown(change: &Change) -> String {
    match change {
        Change::None => "is there".to_owned(),
        Change::Create => "would be created".to_owned(),
        Change::Replace(why) | Change::Adjust(why) => format!("would be replaced: {why}"),
        Change::Leave(why) => format!("would be left alone: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::Fake, *};
    use crate::args::tests::settings;

    #[tokio::test]
    async fn it_says_what_is_missing_and_changes_nothing() {
        let (cloud, settings) = (Fake::default(), settings("").unwrap());
        *cloud.group.lock() = Some(Group { name: "G".into(), min: 1, max: 8, desired: 1, members: Vec::new() });
        let text = plan(&cloud, &settings, None, "G").await;
        for part in ["G: 1 wanted, 1 to 8", "below 3", "none on termination", "would be created", "-ScaleIn", "70%"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(cloud.calls("put_policy") + cloud.calls("put_alarm") + cloud.calls("put_metrics"), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_found_out_is_said() {
        let (cloud, settings) = (Fake::default(), settings("").unwrap());
        cloud.deny("policies");
        let text = plan(&cloud, &settings, None, "Nowhere").await;
        assert!(text.contains("no Auto Scaling group") && text.contains("lack this right"), "{text}");
    }
}
