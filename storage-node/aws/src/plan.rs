//! `storage-node aws plan`: reports what a node would find, create and change, without changing anything.

use std::fmt::Write;

use anyhow::{Context, Result};
use chordfs_types::chunk_api::REPLICAS;

use super::{
    args::AwsSettings,
    cloud::{CallError, Cloud, Group, Hook},
    identity::InstanceIdentity,
    scaling::{self, AlarmSwitch, ScalingChange, ScalingComparison},
    sdk::Sdk,
    termination::own_hooks,
};

/// Returns the output of `storage-node aws plan`.
pub async fn of_this_machine(settings: AwsSettings) -> Result<String> {
    let (cloud, identity) = this_machine(settings.asg.is_some()).await?;
    let group = group_of(&cloud, &settings, identity.as_ref()).await?;
    Ok(plan(&cloud, &settings, identity.as_ref(), &group).await)
}

/// AWS as this machine reaches it, and which instance this is. On a workstation --asg names the group, and there is no
/// instance.
pub(crate) async fn this_machine(is_group_named: bool) -> Result<(Sdk, Option<InstanceIdentity>)> {
    let imds = Sdk::metadata_client();
    let identity = match InstanceIdentity::fetch(&imds).await {
        Ok(identity) => Some(identity),
        Err(_) if is_group_named => None,
        Err(error) => return Err(error.context("without --asg this needs the group of this instance")),
    };
    Ok((Sdk::new(imds, identity.as_ref().map(|identity| identity.region.clone())).await, identity))
}

/// The name of the group: the one that was given, or that of this instance.
pub(crate) async fn group_of(
    cloud: &dyn Cloud,
    settings: &AwsSettings,
    identity: Option<&InstanceIdentity>,
) -> Result<String> {
    if let Some(name) = &settings.asg {
        return Ok(name.clone());
    }
    let instance = &identity.context("without --asg this needs the group of this instance")?.instance;
    let found = cloud.membership(instance).await?.map(|found| found.group);
    found.with_context(|| format!("{instance} belongs to no Auto Scaling group; name one with --asg"))
}

/// Returns the plan as text for operators. Where a call fails, its error takes the place of the result.
async fn plan(cloud: &dyn Cloud, settings: &AwsSettings, identity: Option<&InstanceIdentity>, group: &str) -> String {
    let mut out = PlanText::default();
    match identity {
        Some(identity) => out.line(
            "instance",
            format!(
                "{} in {}, {}{}",
                identity.instance,
                identity.zone,
                identity.private,
                identity.public.map_or(String::new(), |public| format!(", public address {public}"))
            ),
        ),
        None => out.line("instance", "none: this machine is not on EC2"),
    }
    match cloud.group(group).await.and_then(|found| found.ok_or_else(|| CallError::no_group(group))) {
        Ok(found) => show_group(&mut out, &found, settings),
        Err(error) => out.line("group", error),
    }
    match cloud.hooks(group).await {
        Ok(hooks) => show_hooks(&mut out, own_hooks(hooks, settings.hook.as_deref())),
        Err(error) => out.line("hook", error),
    }
    match scaling::compare(cloud, &settings.scaling, group, AlarmSwitch::AsFound).await {
        Ok(compared) => compared.iter().for_each(|one| show_compared(&mut out, one)),
        Err(error) => out.line("scaling", error),
    }
    out.line(
        "metric",
        format!(
            "would publish disk_used_percent in {} every {:?}, and statistics every {:?}, for the instance and for the group",
            settings.scaling.namespace, settings.metric_period, settings.statistics_period
        ),
    );
    out.0
}

#[derive(Default)]
struct PlanText(String);

impl PlanText {
    fn line(&mut self, name: &str, what: impl std::fmt::Display) {
        writeln!(self.0, "{name:<9} {what}").expect("a string takes text");
    }
}

fn show_group(out: &mut PlanText, group: &Group, settings: &AwsSettings) {
    let Group { name, min, max, desired, members } = group;
    out.line("group", format!("{name}: desired size {desired}, {min} to {max}, {} members", members.len()));
    let replicas = i32::try_from(REPLICAS).unwrap_or(i32::MAX);
    if *min < replicas && settings.scaling.policy.shrink_below.is_some() {
        out.line(
            "",
            format!(
                "its minimum size is below {replicas}: an instance whose removal would leave fewer nodes than that cannot \
                 drain, and its hook holds it until the hook times out; set the minimum to {replicas}, or use --no-scale-in"
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

fn show_hooks(out: &mut PlanText, hooks: Vec<Hook>) {
    if hooks.is_empty() {
        out.line("hook", "none on termination: for the ring, an instance that the group terminates is a crash");
    }
    for hook in hooks {
        out.line(
            "hook",
            format!(
                "{}: heartbeat timeout {} s, global timeout {} s",
                hook.name, hook.heartbeat_secs, hook.global_secs
            ),
        );
    }
}

fn show_compared(out: &mut PlanText, one: &ScalingComparison) {
    let policy = &one.wanted.policy;
    let what = format!("{} ({:+}, cooldown {} s)", policy.name, policy.adjustment, policy.cooldown_secs);
    out.line("policy", format!("{what}: {}", change_text(&one.policy)));
    let alarm = one.wanted.alarm(&one.policy_arn);
    let side = if alarm.above { "above" } else { "below" };
    let what = format!(
        "{} ({:?} of {} {side} {}% for {} periods of {} s)",
        alarm.name, alarm.statistic, alarm.metric, alarm.threshold, alarm.periods, alarm.period_secs
    );
    out.line("alarm", format!("{what}: {}", change_text(&one.alarm)));
}

fn change_text(change: &ScalingChange) -> String {
    match change {
        ScalingChange::None => "in place".to_owned(),
        ScalingChange::Create => "would be created".to_owned(),
        ScalingChange::Replace(why) | ScalingChange::Adjust(why) => format!("would be replaced: {why}"),
        ScalingChange::Switch => "would be switched".to_owned(),
        ScalingChange::Leave(why) => format!("would not be changed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake_cloud::FakeCloud, *};
    use crate::args::tests::settings;

    #[tokio::test]
    async fn a_plan_lists_what_is_missing_and_changes_nothing() {
        let (cloud, settings) = (FakeCloud::default(), settings("").unwrap());
        *cloud.group.lock() = Some(Group { name: "G".into(), min: 1, max: 8, desired: 1, members: Vec::new() });
        let text = plan(&cloud, &settings, None, "G").await;
        for part in
            ["G: desired size 1, 1 to 8", "below 3", "none on termination", "would be created", "-ScaleIn", "70%"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(cloud.calls("put_policy") + cloud.calls("put_alarm") + cloud.calls("put_metrics"), 0);
    }

    #[tokio::test]
    async fn a_failed_call_is_part_of_the_plan() {
        let (cloud, settings) = (FakeCloud::default(), settings("").unwrap());
        cloud.deny("policies");
        let text = plan(&cloud, &settings, None, "Nowhere").await;
        assert!(text.contains("no Auto Scaling group") && text.contains("lack this right"), "{text}");
    }
}
