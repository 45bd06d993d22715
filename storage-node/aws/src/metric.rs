//! How full the disk below the data folder is, published as CloudWatch's agent would: same name, unit and dimensions.
//! And once more with the group as the only dimension, whose maximum and average are then the group's, without a formula.

use std::{io, path::Path, time::Duration};

use nix::sys::statvfs::statvfs;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    board::{Board, Topic},
    cloud::{Cloud, Datum},
};

pub const METRIC: &str = "disk_used_percent";
const INSTANCE: &str = "InstanceId";
const GROUP: &str = "AutoScalingGroupName";

/// What `df` shows: of what this process may use, how much is used.
pub fn used_percent(folder: &Path) -> io::Result<f64> {
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

fn data(what: &Publish<'_>, percent: f64) -> Vec<Datum> {
    let is_high_resolution = what.period < Duration::from_secs(60);
    let of_group = || (GROUP, what.group.to_owned());
    let of_instance = (INSTANCE, what.instance.to_owned());
    let datum = |dimensions| Datum { metric: METRIC, dimensions, percent, is_high_resolution };
    vec![datum(vec![of_instance, of_group()]), datum(vec![of_group()])]
}

/// At once and every period, for ever.
pub async fn publish(cloud: &dyn Cloud, board: &Board, what: Publish<'_>) {
    let mut periods = interval(what.period);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        match used_percent(what.folder) {
            Ok(percent) => {
                let put = cloud.put_metrics(what.namespace, data(&what, percent)).await;
                board.note(Topic::Metric, put);
            }
            Err(error) => {
                board.set(Topic::Metric, &format!("how full the disk of {} is: {error}", what.folder.display()));
            }
        }
    }
}

pub struct Publish<'a> {
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
    fn the_group_has_a_series_of_its_own() {
        let period = Duration::from_secs(60);
        let what = Publish { folder: Path::new("/"), namespace: "N", instance: "i-1", group: "G", period };
        let published = data(&what, 42.0);
        assert_eq!(published[0].dimensions, [("InstanceId", "i-1".into()), ("AutoScalingGroupName", "G".to_owned())]);
        assert_eq!(published[1].dimensions, [("AutoScalingGroupName", "G".to_owned())]);
        assert!(published.iter().all(|datum| datum.metric == "disk_used_percent" && datum.percent == 42.0));
        assert!(published.iter().all(|datum| !datum.is_high_resolution), "by the minute, as the agent does");
        let often = Publish { period: Duration::from_secs(10), ..what };
        assert!(data(&often, 42.0).iter().all(|datum| datum.is_high_resolution));
    }
}
