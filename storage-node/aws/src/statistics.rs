//! Publishes what a manager watches: hits and misses of the cache, what it holds, and the requests served, every few
//! seconds in high resolution. The scaler takes the group's miss rate from here.
//!
//! | metric | unit | of |
//! |---|---|---|
//! | `cache_hit_percent`, `cache_miss_percent` | Percent | the reads of the period; not published for a period without reads |
//! | `cache_items`, `cache_bytes` | Count, Bytes | what is in memory at the end of the period |
//! | `requests` | Count | HTTP requests that were answered on 5058 in the period |
//!
//! Each is published twice: with instance and group, and with the group alone, so that CloudWatch's average over the
//! group is the mean of its nodes.

use std::{sync::Arc, time::Duration};

use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::{admin::CacheStatus, ring_id::NodeAddress};
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::{
    cloud::{Cloud, Datum, MetricUnit},
    health::{AwsHealth, Topic},
    metric::{HIGH_RESOLUTION_BELOW, MetricSeries},
};

pub(crate) const ITEMS: &str = "cache_items";
pub(crate) const MISS_PERCENT: &str = "cache_miss_percent";
/// The node answers from memory.
const DEADLINE: Duration = Duration::from_secs(2);

/// Publishes the statistics every period, without end.
pub(crate) async fn publish(
    cloud: &dyn Cloud,
    health: &AwsHealth,
    (node, pool): (NodeAddress, Arc<HttpPool>),
    series: MetricSeries<'_>,
) {
    let client = AdminClient::new(pool, DEADLINE);
    let mut statistics = CacheStatistics::default();
    let mut periods = interval(series.period);
    periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        periods.tick().await;
        match client.status(node).await {
            Ok(status) => {
                let data = series.datums(&statistics.next(&status.cache, status.requests));
                health.record(Topic::Statistics, cloud.put_metrics(series.namespace, data).await);
            }
            // A node that starts or ends does not answer, and has nothing to publish.
            Err(error) => debug!(%error, "no statistics of this node"),
        }
    }
}

/// One value of a metric, without its dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    metric: &'static str,
    value: f64,
    unit: MetricUnit,
}

/// Turns totals into those of a period.
#[derive(Default)]
struct CacheStatistics {
    before: Option<Totals>,
}

#[derive(Clone, Copy)]
struct Totals {
    hits: u64,
    misses: u64,
    requests: u64,
}

impl CacheStatistics {
    /// Takes the node's counters at the end of a period. The first period has no counts.
    fn next(&mut self, cache: &CacheStatus, requests: u64) -> Vec<Value> {
        let CacheStatus { hits, misses, items, bytes, .. } = *cache;
        let now = Totals { hits, misses, requests };
        let of_period = self.before.replace(now).map(|before| now.since(before)).unwrap_or_default();
        let value = |metric, value, unit| Value { metric, value, unit };
        let held =
            [value(ITEMS, items as f64, MetricUnit::Count), value("cache_bytes", bytes as f64, MetricUnit::Bytes)];
        held.into_iter().chain(of_period).collect()
    }
}

impl Totals {
    fn since(self, before: Self) -> Vec<Value> {
        let (hits, misses) = (self.hits.saturating_sub(before.hits), self.misses.saturating_sub(before.misses));
        let requests = self.requests.saturating_sub(before.requests) as f64;
        let mut values = vec![Value { metric: "requests", value: requests, unit: MetricUnit::Count }];
        let reads = hits + misses;
        if reads > 0 {
            let share = |count: u64| 100.0 * count as f64 / reads as f64;
            let percent = |metric, count| Value { metric, value: share(count), unit: MetricUnit::Percent };
            values.extend([percent("cache_hit_percent", hits), percent(MISS_PERCENT, misses)]);
        }
        values
    }
}

impl MetricSeries<'_> {
    fn datums(&self, values: &[Value]) -> Vec<Datum> {
        let is_high_resolution = self.period < HIGH_RESOLUTION_BELOW;
        let datum = |one: &Value, dimensions| Datum {
            metric: one.metric,
            dimensions,
            value: one.value,
            unit: one.unit,
            is_high_resolution,
        };
        values.iter().flat_map(|one| [datum(one, self.of_instance()), datum(one, self.of_group())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(hits: u64, misses: u64) -> CacheStatus {
        CacheStatus { hits, misses, items: 4, bytes: 9000, ..CacheStatus::default() }
    }

    fn shown(values: &[Value]) -> Vec<(&'static str, f64)> {
        values.iter().map(|one| (one.metric, one.value)).collect()
    }

    #[test]
    fn counts_are_those_of_the_period() {
        let mut statistics = CacheStatistics::default();
        let held = [("cache_items", 4.0), ("cache_bytes", 9000.0)];
        assert_eq!(shown(&statistics.next(&cache(1000, 500), 70)), held, "no period has passed yet");
        let second = shown(&statistics.next(&cache(1003, 501), 75));
        assert_eq!(second[..2], held);
        assert_eq!(second[2..], [("requests", 5.0), ("cache_hit_percent", 75.0), ("cache_miss_percent", 25.0)]);
    }

    #[test]
    fn a_period_without_reads_has_no_rate() {
        let mut statistics = CacheStatistics::default();
        statistics.next(&cache(5, 5), 1);
        let names: Vec<_> = statistics.next(&cache(5, 5), 2).iter().map(|one| one.metric).collect();
        assert_eq!(names, ["cache_items", "cache_bytes", "requests"], "0 of 0 is no rate");
    }

    #[test]
    fn the_group_has_its_own_series_in_high_resolution() {
        let series = MetricSeries { namespace: "N", instance: "i-1", group: "G", period: Duration::from_secs(5) };
        let data = series.datums(&[Value { metric: MISS_PERCENT, value: 25.0, unit: MetricUnit::Percent }]);
        let dimensions: Vec<usize> = data.iter().map(|datum| datum.dimensions.len()).collect();
        assert_eq!(dimensions, [2, 1]);
        assert!(data.iter().all(|datum| datum.is_high_resolution && datum.unit == MetricUnit::Percent));
    }
}
