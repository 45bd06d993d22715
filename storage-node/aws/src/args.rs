//! What `--aws` brings to the command line.

use std::{net::IpAddr, str::FromStr, time::Duration};

use chordfs_pool::{Policy, ScaleOn, policy::PolicyError};
use chordfs_types::duration;
use clap::Args;
use tracing::warn;

/// Instances are added and removed one at a time, between the group's own limits; these are never the smaller ones.
const GROUP_SETS_THE_LIMITS: (usize, usize) = (1, usize::MAX);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "With --aws")]
pub struct AwsArgs {
    /// The Auto Scaling group [default: the one that this instance belongs to]
    #[arg(long, value_name = "NAME", env = "CHORDFS_ASG")]
    pub asg: Option<String>,
    /// Which address others are told: private, public, or one of your own
    #[arg(long, value_name = "WHICH", env = "CHORDFS_ADVERTISE", default_value = "private")]
    pub advertise: Advertise,
    /// Namespace of the metric disk_used_percent
    #[arg(long, value_name = "NAME", env = "CHORDFS_METRIC_NAMESPACE", default_value = "ChordFS")]
    pub metric_namespace: String,
    /// How often the metric is published [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_METRIC_PERIOD", default_value = "60s", value_parser = duration::parse_positive)]
    pub metric_period: Duration,
    /// What the alarms watch: max (the fullest disk of the group) or avg
    #[arg(long, value_name = "HOW", env = "CHORDFS_SCALE_ON", default_value_t = ScaleOn::Max)]
    pub scale_on: ScaleOn,
    /// The group grows above this percentage of a disk
    #[arg(long, value_name = "PERCENT", env = "CHORDFS_SCALE_OUT_ABOVE", default_value_t = 70.0)]
    pub scale_out_above: f64,
    /// The group shrinks below this percentage; a third of --scale-out-above, if this is too near to it
    #[arg(long, value_name = "PERCENT", env = "CHORDFS_SCALE_IN_BELOW", default_value_t = 30.0)]
    pub scale_in_below: f64,
    /// The group never shrinks by itself
    #[arg(long, env = "CHORDFS_NO_SCALE_IN")]
    pub no_scale_in: bool,
    /// So many periods in a row have to be beyond a threshold
    #[arg(long, value_name = "N", env = "CHORDFS_SCALE_PERIODS", default_value_t = 2)]
    pub scale_periods: u32,
    /// A period of the alarms: 10s, 30s, or whole minutes [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALE_PERIOD", default_value = "60s", value_parser = duration::parse_positive)]
    pub scale_period: Duration,
    /// No step for so long after one [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALE_COOLDOWN", default_value = "180s", value_parser = duration::parse)]
    pub scale_cooldown: Duration,
    /// Name of the policy that adds an instance
    #[arg(long, value_name = "NAME", env = "CHORDFS_POLICY_NAME", default_value = "MyChordFileSystemASGPolicy")]
    pub policy_name: String,
    /// Name of the alarm that calls it
    #[arg(long, value_name = "NAME", env = "CHORDFS_ALARM_NAME", default_value = "MyChordFileSystemASGDiskUsedAlarm")]
    pub alarm_name: String,
    /// Name of the policy that removes one [default: that of --policy-name and -ScaleIn]
    #[arg(long, value_name = "NAME", env = "CHORDFS_SCALE_IN_POLICY_NAME")]
    pub scale_in_policy_name: Option<String>,
    /// Name of the alarm that calls it [default: that of --alarm-name and -ScaleIn]
    #[arg(long, value_name = "NAME", env = "CHORDFS_SCALE_IN_ALARM_NAME")]
    pub scale_in_alarm_name: Option<String>,
    /// The lifecycle hook on termination [default: every one that the group has]
    #[arg(long, value_name = "NAME", env = "CHORDFS_HOOK")]
    pub hook: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advertise {
    Private,
    Public,
    Address(IpAddr),
}

#[derive(Clone, Debug)]
pub struct AwsSettings {
    pub asg: Option<String>,
    pub advertise: Advertise,
    pub hook: Option<String>,
    pub metric_period: Duration,
    pub scaling: ScalingSettings,
}

/// What policy and alarm are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingSettings {
    pub namespace: String,
    pub policy: Policy,
    pub grow: Names,
    pub shrink: Names,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub policy: String,
    pub alarm: String,
}

impl AwsArgs {
    pub fn checked(self) -> anyhow::Result<AwsSettings> {
        let (min, max) = GROUP_SETS_THE_LIMITS;
        let policy = Policy {
            min,
            max,
            scale_on: self.scale_on,
            grow_above: self.scale_out_above,
            shrink_below: (!self.no_scale_in).then(|| apart(self.scale_out_above, self.scale_in_below)),
            periods: self.scale_periods,
            period: self.scale_period,
            cooldown: self.scale_cooldown,
            grow_by: 1,
        };
        let shrink = Names {
            policy: self.scale_in_policy_name.unwrap_or_else(|| format!("{}-ScaleIn", self.policy_name)),
            alarm: self.scale_in_alarm_name.unwrap_or_else(|| format!("{}-ScaleIn", self.alarm_name)),
        };
        let grow = Names { policy: self.policy_name, alarm: self.alarm_name };
        anyhow::ensure!(
            grow.policy != shrink.policy && grow.alarm != shrink.alarm,
            "growing and shrinking need policies and alarms of different names, not {} and {} for both",
            grow.policy,
            grow.alarm
        );
        let policy = checked(policy)?;
        anyhow::ensure!(
            self.metric_period <= policy.period,
            "an alarm that looks every {:?} at a metric published every {:?} finds nothing most of the time: \
             --metric-period has to be at most --scale-period",
            policy.period,
            self.metric_period
        );
        let scaling = ScalingSettings { namespace: self.metric_namespace, policy, grow, shrink };
        Ok(AwsSettings {
            asg: self.asg,
            advertise: self.advertise,
            hook: self.hook,
            metric_period: self.metric_period,
            scaling,
        })
    }
}

/// Whoever only lowers the threshold for growing must not be left without a node: the other one goes down with it.
fn apart(above: f64, below: f64) -> f64 {
    const MIN_GAP: f64 = 10.0;
    if below + MIN_GAP <= above {
        return below;
    }
    let lowered = above / 3.0;
    warn!(
        "shrinking below {below}% and growing above {above}% would undo each other: the group shrinks below {lowered:.1}%; \
         --scale-in-below and --no-scale-in say otherwise"
    );
    lowered
}

/// CloudWatch has periods of 10 s, 30 s and whole minutes.
fn checked(policy: Policy) -> anyhow::Result<Policy> {
    let policy = policy.checked().map_err(|error: PolicyError| anyhow::anyhow!(error))?;
    let secs = policy.period.as_secs_f64();
    let known = [10.0, 30.0].contains(&secs) || secs % 60.0 == 0.0;
    anyhow::ensure!(known, "--scale-period is 10s, 30s or whole minutes for CloudWatch, not {:?}", policy.period);
    Ok(policy)
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "private" => Ok(Self::Private),
            "public" => Ok(Self::Public),
            other => {
                let wrong = |_| format!("{other:?} is neither private, public nor an IP address");
                other.parse().map(Self::Address).map_err(wrong)
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        aws: AwsArgs,
    }

    pub fn settings(line: &str) -> Result<AwsSettings, String> {
        let args = ["node"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.aws.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_promised_ones() {
        let AwsSettings { asg, advertise, hook, metric_period, scaling } = settings("").unwrap();
        assert_eq!((asg, advertise, hook), (None, Advertise::Private, None));
        assert_eq!(metric_period, Duration::from_secs(60));
        assert_eq!((scaling.namespace.as_str(), scaling.policy.scale_on), ("ChordFS", ScaleOn::Max));
        assert_eq!((scaling.policy.grow_above, scaling.policy.shrink_below), (70.0, Some(30.0)));
        assert_eq!((scaling.policy.periods, scaling.policy.period.as_secs()), (2, 60));
        assert_eq!(scaling.policy.cooldown.as_secs(), 180);
        assert_eq!(scaling.grow.alarm, "MyChordFileSystemASGDiskUsedAlarm");
        assert_eq!(scaling.shrink.alarm, "MyChordFileSystemASGDiskUsedAlarm-ScaleIn");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("--scale-period 45s", "whole minutes"),
            ("--scale-period 10s", "at most --scale-period"),
            ("--scale-out-above 101", "percentage"),
            ("--advertise everywhere", "neither private"),
            ("--alarm-name a --scale-in-alarm-name a", "different names"),
        ] {
            let refused = settings(line).expect_err(line);
            assert!(refused.contains(part), "{line}: {refused}");
        }
        assert_eq!(settings("--no-scale-in --scale-out-above 30").unwrap().scaling.policy.shrink_below, None);
        assert_eq!(settings("--scale-out-above 30").unwrap().scaling.policy.shrink_below, Some(10.0));
        assert_eq!(settings("--advertise 10.1.2.3").unwrap().advertise, Advertise::Address([10, 1, 2, 3].into()));
    }
}
