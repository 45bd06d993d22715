//! Publishes the disk usage of the data folder as CloudWatch's agent would, with its name, unit and dimensions.
//! Publishes it again with the group as the only dimension, so that an alarm can use the group's maximum or average
//! without a formula.

use std::{io, path::Path, time::Duration};

use nix::sys::statvfs::statvfs;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    cloud::{Cloud, Datum},
    health::{AwsHealth, Topic},
};

pub(crate) const METRIC: &str = "disk_used_percent";
const INSTANCE: &str = "InstanceId";
const GROUP: &str = "AutoScalingGroupName";

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

fn datums(metric: &DiskMetric<'_>, percent: f64) -> Vec<Datum> {
    let is_high_resolution = metric.period < Duration::from_secs(60);
    let of_group = || (GROUP, metric.group.to_owned());
    let of_instance = (INSTANCE, metric.instance.to_owned());
    let datum = |dimensions| Datum { metric: METRIC, dimensions, percent, is_high_resolution };
    vec![datum(vec![of_instance, of_group()]), datum(vec![of_group()])]
}

/// Publishes the metric at once and then every period, without end.
pub(crate) async fn publish(cloud: &dyn Cloud, health: &AwsHealth, metric: DiskMetric<'_>) {
    let mut periods = interval(metric.period);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        match used_percent(metric.folder) {
            Ok(percent) => {
                let put = cloud.put_metrics(metric.namespace, datums(&metric, percent)).await;
                health.record(Topic::Metric, put);
            }
            Err(error) => {
                health
                    .set(Topic::Metric, &format!("cannot read the disk usage of {}: {error}", metric.folder.display()));
            }
        }
    }
}

/// Where and how the disk usage is published.
pub(crate) struct DiskMetric<'a> {
    pub folder: &'a Path,
    pub namespace: &'a str,
    pub instance: &'a str,
    pub group: &'a str,
    pub period: Duration,
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
        let metric = DiskMetric { folder: Path::new("/"), namespace: "N", instance: "i-1", group: "G", period };
        let published = datums(&metric, 42.0);
        assert_eq!(published[0].dimensions, [("InstanceId", "i-1".into()), ("AutoScalingGroupName", "G".to_owned())]);
        assert_eq!(published[1].dimensions, [("AutoScalingGroupName", "G".to_owned())]);
        assert!(published.iter().all(|datum| datum.metric == "disk_used_percent" && datum.percent == 42.0));
        assert!(published.iter().all(|datum| !datum.is_high_resolution), "by the minute, as the agent does");
        let often = DiskMetric { period: Duration::from_secs(10), ..metric };
        assert!(datums(&often, 42.0).iter().all(|datum| datum.is_high_resolution));
    }
}
