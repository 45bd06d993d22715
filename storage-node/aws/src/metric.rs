//! Publishes the disk usage of the data folder as CloudWatch's agent would, with its name, unit and dimensions.
//! Publishes it again with the group as the only dimension, so that an alarm can use the group's maximum or average
//! without a formula.

use std::{io, path::Path, time::Duration};

use nix::sys::statvfs::statvfs;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    cloud::{Cloud, Datum, MetricUnit},
    health::{AwsHealth, Topic},
};

pub(crate) const METRIC: &str = "disk_used_percent";
const INSTANCE: &str = "InstanceId";
pub(crate) const GROUP: &str = "AutoScalingGroupName";
/// CloudWatch keeps values by the minute unless they are published in high resolution.
pub(crate) const HIGH_RESOLUTION_BELOW: Duration = Duration::from_secs(60);

/// Returns what `df` shows: the used share of the space that this process may use.
pub(crate) fn used_percent(folder: &Path) -> io::Result<f64> {
    let disk = statvfs(folder)?;
    let used = disk.blocks().saturating_sub(disk.blocks_free());
    Ok(percent(used, disk.blocks_available()))
}

fn percent(used: u64, available: u64) -> f64 {
    match used.saturating_add(available) {
        0 => 100.0,
        total => 100.0 * used as f64 / total as f64,
    }
}

fn datums(series: &MetricSeries<'_>, percent: f64) -> Vec<Datum> {
    let is_high_resolution = series.period < HIGH_RESOLUTION_BELOW;
    let unit = MetricUnit::Percent;
    let datum = |dimensions| Datum { metric: METRIC, dimensions, value: percent, unit, is_high_resolution };
    vec![datum(series.of_instance()), datum(series.of_group())]
}

/// Publishes the disk usage of `folder` at once and then every period, without end.
pub(crate) async fn publish(cloud: &dyn Cloud, health: &AwsHealth, folder: &Path, series: MetricSeries<'_>) {
    let mut periods = interval(series.period);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        match used_percent(folder) {
            Ok(percent) => {
                let put = cloud.put_metrics(series.namespace, datums(&series, percent)).await;
                health.record(Topic::Metric, put);
            }
            Err(error) => {
                health.set(Topic::Metric, &format!("cannot read the disk usage of {}: {error}", folder.display()));
            }
        }
    }
}

/// Where and how often an instance publishes.
#[derive(Clone, Copy)]
pub(crate) struct MetricSeries<'a> {
    pub namespace: &'a str,
    pub instance: &'a str,
    pub group: &'a str,
    pub period: Duration,
}

impl MetricSeries<'_> {
    pub(crate) fn of_instance(&self) -> Vec<(&'static str, String)> {
        [vec![(INSTANCE, self.instance.to_owned())], self.of_group()].concat()
    }

    pub(crate) fn of_group(&self) -> Vec<(&'static str, String)> {
        vec![(GROUP, self.group.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        assert_eq!(percent(30, 70), 30.0);
        assert_eq!(percent(0, 0), 100.0);
        let own = used_percent(Path::new("/")).unwrap();
        assert!((0.0..=100.0).contains(&own), "{own}");
        assert!(used_percent(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn the_group_has_its_own_series() {
        let period = Duration::from_secs(60);
        let series = MetricSeries { namespace: "N", instance: "i-1", group: "G", period };
        let published = datums(&series, 42.0);
        assert_eq!(published[0].dimensions, [("InstanceId", "i-1".into()), ("AutoScalingGroupName", "G".to_owned())]);
        assert_eq!(published[1].dimensions, [("AutoScalingGroupName", "G".to_owned())]);
        assert!(published.iter().all(|datum| datum.metric == "disk_used_percent" && datum.value == 42.0));
        assert!(published.iter().all(|datum| !datum.is_high_resolution), "by the minute, as the agent does");
        let often = MetricSeries { period: Duration::from_secs(10), ..series };
        assert!(datums(&often, 42.0).iter().all(|datum| datum.is_high_resolution));
    }
}
