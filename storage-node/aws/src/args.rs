//! The command-line options that belong to `--aws`.

use std::{net::IpAddr, str::FromStr, time::Duration};

use chordfs_pool::{Policy, ScaleOn, policy::PolicyError};
use chordfs_types::duration;
use clap::Args;
use tracing::warn;

/// Limits that never apply: the group itself has a minimum and a maximum size.
const NO_SIZE_LIMITS: (usize, usize) = (1, usize::MAX);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "With --aws")]
pub struct AwsArgs {
    /// The Auto Scaling group [default: the one that this instance belongs to]
    #[arg(long, value_name = "NAME", env = "CHORDFS_ASG")]
    pub asg: Option<String>,
    /// The address to advertise to other nodes and mounts: private, public, or an IP address of your choice
    #[arg(long, value_name = "WHICH", env = "CHORDFS_ADVERTISE", default_value = "private")]
    pub advertise: Advertise,
    /// CloudWatch namespace of all metrics
    #[arg(long, value_name = "NAME", env = "CHORDFS_METRIC_NAMESPACE", default_value = "ChordFS")]
    pub metric_namespace: String,
    /// Interval at which the metric disk_used_percent is published [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_METRIC_PERIOD", default_value = "60s", value_parser = duration::parse_positive)]
    pub metric_period: Duration,
    /// Interval at which the statistics of the cache and the requests are published, below 60s in high resolution [a
    /// number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_STATISTICS_PERIOD", default_value = "5s", value_parser = duration::parse_positive)]
    pub statistics_period: Duration,
    /// Name of the secret in Secrets Manager that keeps the ring's certificate authority; made by the first node
    /// [default: chordfs/GROUP/authority]
    #[arg(long, value_name = "NAME", env = "CHORDFS_RING_SECRET")]
    pub ring_secret: Option<String>,
    /// What the alarms watch: max (the fullest disk of the group) or avg (the mean of its disks)
    #[arg(long, value_name = "HOW", env = "CHORDFS_SCALE_ON", default_value_t = ScaleOn::Max)]
    pub scale_on: ScaleOn,
    /// The group grows when disk usage is above this percentage
    #[arg(long, value_name = "PERCENT", env = "CHORDFS_SCALE_OUT_ABOVE", default_value_t = 70.0)]
    pub scale_out_above: f64,
    /// The group shrinks when disk usage is below this percentage; if that is less than 10 points below
    /// --scale-out-above, a third of --scale-out-above is used instead
    #[arg(long, value_name = "PERCENT", env = "CHORDFS_SCALE_IN_BELOW", default_value_t = 30.0)]
    pub scale_in_below: f64,
    /// Never shrink the group automatically
    #[arg(long, env = "CHORDFS_NO_SCALE_IN")]
    pub no_scale_in: bool,
    /// Number of consecutive periods that must be beyond a threshold
    #[arg(long, value_name = "N", env = "CHORDFS_SCALE_PERIODS", default_value_t = 2)]
    pub scale_periods: u32,
    /// Length of the alarms' periods: 10s, 30s, or whole minutes [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALE_PERIOD", default_value = "60s", value_parser = duration::parse_positive)]
    pub scale_period: Duration,
    /// Minimum time between two changes of the group's size [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALE_COOLDOWN", default_value = "180s", value_parser = duration::parse)]
    pub scale_cooldown: Duration,
    /// Name of the scaling policy that adds an instance
    #[arg(long, value_name = "NAME", env = "CHORDFS_POLICY_NAME", default_value = "MyChordFileSystemASGPolicy")]
    pub policy_name: String,
    /// Name of the alarm that triggers it
    #[arg(long, value_name = "NAME", env = "CHORDFS_ALARM_NAME", default_value = "MyChordFileSystemASGDiskUsedAlarm")]
    pub alarm_name: String,
    /// Name of the scaling policy that removes an instance [default: the value of --policy-name, followed by -ScaleIn]
    #[arg(long, value_name = "NAME", env = "CHORDFS_SCALE_IN_POLICY_NAME")]
    pub scale_in_policy_name: Option<String>,
    /// Name of the alarm that triggers it [default: the value of --alarm-name, followed by -ScaleIn]
    #[arg(long, value_name = "NAME", env = "CHORDFS_SCALE_IN_ALARM_NAME")]
    pub scale_in_alarm_name: Option<String>,
    /// The termination lifecycle hook to complete [default: all of the group's]
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
    pub ring_secret: Option<String>,
    pub metric_period: Duration,
    pub statistics_period: Duration,
    pub scaling: ScalingSettings,
}

/// The settings of the policies and alarms.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingSettings {
    pub namespace: String,
    pub policy: Policy,
    pub grow: PolicyAndAlarmNames,
    pub shrink: PolicyAndAlarmNames,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAndAlarmNames {
    pub policy: String,
    pub alarm: String,
}

impl AwsArgs {
    pub fn checked(self) -> anyhow::Result<AwsSettings> {
        let (min, max) = NO_SIZE_LIMITS;
        let policy = Policy {
            min,
            max,
            scale_on: self.scale_on,
            grow_above: self.scale_out_above,
            shrink_below: (!self.no_scale_in)
                .then(|| lower_shrink_threshold(self.scale_out_above, self.scale_in_below)),
            periods: self.scale_periods,
            period: self.scale_period,
            cooldown: self.scale_cooldown,
            grow_by: 1,
        };
        let shrink = PolicyAndAlarmNames {
            policy: self.scale_in_policy_name.unwrap_or_else(|| format!("{}-ScaleIn", self.policy_name)),
            alarm: self.scale_in_alarm_name.unwrap_or_else(|| format!("{}-ScaleIn", self.alarm_name)),
        };
        let grow = PolicyAndAlarmNames { policy: self.policy_name, alarm: self.alarm_name };
        anyhow::ensure!(
            grow.policy != shrink.policy && grow.alarm != shrink.alarm,
            "the policies and alarms for growing and shrinking need different names, not {} and {} for both",
            grow.policy,
            grow.alarm
        );
        let policy = checked(policy)?;
        anyhow::ensure!(
            self.metric_period <= policy.period,
            "an alarm that is evaluated every {:?} would miss a metric that is published every {:?}: --metric-period must \
             be at most --scale-period",
            policy.period,
            self.metric_period
        );
        let scaling = ScalingSettings { namespace: self.metric_namespace, policy, grow, shrink };
        Ok(AwsSettings {
            asg: self.asg,
            advertise: self.advertise,
            hook: self.hook,
            ring_secret: self.ring_secret.filter(|name| !name.is_empty()),
            metric_period: self.metric_period,
            statistics_period: self.statistics_period,
            scaling,
        })
    }
}

/// Lowers the threshold for shrinking if it is too close to the one for growing, so that the group does not alternate.
fn lower_shrink_threshold(above: f64, below: f64) -> f64 {
    const MIN_GAP: f64 = 10.0;
    if below + MIN_GAP <= above {
        return below;
    }
    let lowered = above / 3.0;
    warn!(
        "shrinking below {below}% and growing above {above}% would undo each other, so the group will shrink below \
         {lowered:.1}%; set --scale-in-below or --no-scale-in to change that"
    );
    lowered
}

/// CloudWatch supports periods of 10 s, 30 s and whole minutes.
fn checked(policy: Policy) -> anyhow::Result<Policy> {
    let policy = policy.checked().map_err(|error: PolicyError| anyhow::anyhow!(error))?;
    let secs = policy.period.as_secs_f64();
    let is_supported = [10.0, 30.0].contains(&secs) || secs % 60.0 == 0.0;
    anyhow::ensure!(
        is_supported,
        "CloudWatch requires --scale-period to be 10s, 30s or whole minutes, not {:?}",
        policy.period
    );
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
    struct AwsTestArgs {
        #[command(flatten)]
        aws: AwsArgs,
    }

    pub fn settings(line: &str) -> Result<AwsSettings, String> {
        let args = ["node"].into_iter().chain(line.split_whitespace());
        let cli = AwsTestArgs::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.aws.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let AwsSettings { asg, advertise, hook, ring_secret, metric_period, statistics_period, scaling } =
            settings("").unwrap();
        assert_eq!((asg, advertise, hook, ring_secret), (None, Advertise::Private, None, None));
        assert_eq!((metric_period.as_secs(), statistics_period.as_secs()), (60, 5));
        assert_eq!((scaling.namespace.as_str(), scaling.policy.scale_on), ("ChordFS", ScaleOn::Max));
        assert_eq!((scaling.policy.grow_above, scaling.policy.shrink_below), (70.0, Some(30.0)));
        assert_eq!((scaling.policy.periods, scaling.policy.period.as_secs()), (2, 60));
        assert_eq!(scaling.policy.cooldown.as_secs(), 180);
        assert_eq!(scaling.grow.alarm, "MyChordFileSystemASGDiskUsedAlarm");
        assert_eq!(scaling.shrink.alarm, "MyChordFileSystemASGDiskUsedAlarm-ScaleIn");
    }

    #[test]
    fn errors_name_the_mistake() {
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
