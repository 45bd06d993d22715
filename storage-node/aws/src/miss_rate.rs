//! The miss rate of a group's nodes as CloudWatch has it, for the scaler.
//!
//! The nodes publish in high resolution (`statistics.rs`), so the last minute is the last minute and not the last whole
//! one. A group whose nodes publish nothing is not the same as one without readers: only the second may shrink for it.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::{
    Client,
    primitives::DateTime,
    types::{Datapoint, Dimension, Statistic},
};
use chordfs_pool::autoscaler::{MissRateSource, Misses};
use chordfs_types::admin::RingStatus;
use futures_util::future::BoxFuture;
use tracing::warn;

use super::{
    cloud::CallError,
    metric::GROUP,
    statistics::{ITEMS, MISS_PERCENT},
};

/// The shortest periods that CloudWatch adds up for metrics that are published every five seconds.
const RESOLUTION_SECS: u64 = 10;

/// Asks CloudWatch for the metrics of one group.
pub struct CloudWatchMisses {
    cloudwatch: Client,
    namespace: String,
    group: String,
    /// The time before now that counts.
    period: Duration,
}

impl CloudWatchMisses {
    /// Region and credentials are those of the environment or of the instance.
    pub async fn new(namespace: String, group: String, period: Duration) -> Self {
        let config = chordfs_asg::sdk_config(None).await;
        Self { cloudwatch: Client::new(&config), namespace, group, period }
    }

    async fn ask(&self) -> Result<Misses, CallError> {
        let (rates, items) = tokio::try_join!(self.points(MISS_PERCENT), self.points(ITEMS))?;
        Ok(misses(&rates, &items))
    }

    async fn points(&self, metric: &str) -> Result<Vec<Datapoint>, CallError> {
        let now = SystemTime::now();
        let answer = self
            .cloudwatch
            .get_metric_statistics()
            .namespace(&self.namespace)
            .metric_name(metric)
            .dimensions(Dimension::builder().name(GROUP).value(&self.group).build())
            .start_time(DateTime::from(now - whole(self.period)))
            .end_time(DateTime::from(now))
            .period(RESOLUTION_SECS as i32)
            .statistics(Statistic::Sum)
            .statistics(Statistic::SampleCount)
            .send()
            .await;
        let failed = |error| CallError::new("cloudwatch:GetMetricStatistics", metric, &error);
        Ok(answer.map_err(failed)?.datapoints.unwrap_or_default())
    }
}

impl MissRateSource for CloudWatchMisses {
    fn measure<'a>(&'a mut self, _: &'a RingStatus) -> BoxFuture<'a, Misses> {
        Box::pin(async {
            self.ask().await.unwrap_or_else(|error| {
                warn!(%error, "the miss rate of the last period is not known");
                Misses::NotMeasured
            })
        })
    }
}

/// CloudWatch begins with the period of its resolution in which the asked time lies.
fn whole(period: Duration) -> Duration {
    Duration::from_secs(period.as_secs().next_multiple_of(RESOLUTION_SECS).max(RESOLUTION_SECS))
}

/// `rates`: in percent, from each node every few seconds in which it had readers. `items`: from each node in any case.
fn misses(rates: &[Datapoint], items: &[Datapoint]) -> Misses {
    match (mean(rates), mean(items)) {
        (Some(percent), _) => Misses::Rate(percent / 100.0),
        (None, Some(_)) => Misses::NoReads,
        (None, None) => Misses::NotMeasured,
    }
}

/// The mean of all values that were published; `None` without any.
fn mean(points: &[Datapoint]) -> Option<f64> {
    let count: f64 = points.iter().filter_map(Datapoint::sample_count).sum();
    let sum: f64 = points.iter().filter_map(Datapoint::sum).sum();
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(sum: f64, count: f64) -> Datapoint {
        Datapoint::builder().sum(sum).sample_count(count).build()
    }

    #[test]
    fn the_rate_is_the_mean_of_all_that_was_published() {
        let rates = [point(100.0, 1.0), point(60.0, 3.0)];
        assert_eq!(misses(&rates, &[point(9.0, 1.0)]), Misses::Rate(0.4));
    }

    #[test]
    fn no_reads_are_not_the_same_as_no_metrics() {
        assert_eq!(misses(&[], &[point(0.0, 2.0)]), Misses::NoReads);
        assert_eq!(misses(&[], &[]), Misses::NotMeasured);
        assert_eq!(misses(&[point(0.0, 0.0)], &[]), Misses::NotMeasured);
    }

    #[test]
    fn the_last_period_is_asked_for_in_whole_steps() {
        assert_eq!([1, 10, 60, 61].map(|secs| whole(Duration::from_secs(secs)).as_secs()), [10, 10, 60, 70]);
    }
}
