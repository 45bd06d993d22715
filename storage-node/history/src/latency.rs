//! How long operations took.
//!
//! A histogram with buckets of about six per cent, so that the quantiles of several nodes can be put together exactly
//! as if one node had recorded all operations. (The mean of two medians is no median.)

use std::time::Duration;

use chordfs_types::admin::LatencySummary;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Longer operations count as this long: every call has a deadline below it.
const LONGEST_US: u64 = 120_000_000;
/// More than the histogram has.
const MAX_BUCKETS: usize = 512;
/// One decimal digit: sixteen buckets for each power of two, and 400 buckets in all.
const DIGITS: u8 = 1;

/// Records the operations of a minute. Takes some KiB, however many there are.
pub struct LatencyMeter {
    histogram: Mutex<Histogram<u64>>,
}

impl Default for LatencyMeter {
    fn default() -> Self {
        Self { histogram: Mutex::new(empty()) }
    }
}

impl LatencyMeter {
    pub fn record(&self, taken: Duration) {
        let micros = u64::try_from(taken.as_micros()).unwrap_or(LONGEST_US);
        self.histogram.lock().saturating_record(micros.clamp(1, LONGEST_US));
    }

    /// Returns what was recorded since the last call, and begins anew.
    pub fn take(&self) -> LatencySummary {
        let mut histogram = self.histogram.lock();
        let summary = summarize(&histogram);
        histogram.reset();
        summary
    }
}

/// Puts the operations of several nodes together.
pub fn merge<'a>(summaries: impl IntoIterator<Item = &'a LatencySummary>) -> LatencySummary {
    let mut all = empty();
    for (micros, count) in summaries.into_iter().flat_map(|summary| &summary.buckets) {
        all.saturating_record_n((*micros).clamp(1, LONGEST_US), *count);
    }
    summarize(&all)
}

/// Cuts what a stranger may have sent to as many buckets as there are.
pub(crate) fn bound(summary: &mut LatencySummary) {
    summary.buckets.truncate(MAX_BUCKETS);
    summary.buckets.shrink_to_fit();
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are constants in order")
}

fn summarize(histogram: &Histogram<u64>) -> LatencySummary {
    let quantile = |share| (!histogram.is_empty()).then(|| histogram.value_at_quantile(share));
    LatencySummary {
        count: histogram.len(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        buckets: histogram.iter_recorded().map(|it| (it.value_iterated_to(), it.count_at_value())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: Option<u64>, expected: u64) -> bool {
        value.is_some_and(|value| value.abs_diff(expected) * 15 <= expected)
    }

    #[test]
    fn quantiles_are_within_the_promised_precision_and_end_with_the_minute() {
        let meter = LatencyMeter::default();
        (1..=1000).for_each(|at| meter.record(Duration::from_micros(at * 100)));
        let minute = meter.take();
        assert_eq!(minute.count, 1000);
        assert!(near(minute.p50_us, 50_000) && near(minute.p99_us, 99_000), "{minute:?}");
        assert_eq!(meter.take(), LatencySummary::default());
    }

    /// The mean of the two nodes' medians would be 50 ms.
    #[test]
    fn the_quantiles_of_two_nodes_are_those_of_all_their_operations() {
        let (fast, slow) = (LatencyMeter::default(), LatencyMeter::default());
        (0..990).for_each(|_| fast.record(Duration::from_micros(1000)));
        (0..10).for_each(|_| slow.record(Duration::from_millis(100)));
        let all = merge([&fast.take(), &slow.take()]);
        assert_eq!(all.count, 1000);
        assert!(near(all.p50_us, 1000) && near(all.p99_us, 1000), "{all:?}");
        (0..20).for_each(|_| slow.record(Duration::from_millis(100)));
        assert!(near(merge([&all, &slow.take()]).p99_us, 100_000));
    }

    #[test]
    fn extremes_are_kept_within_the_bounds_and_a_strangers_numbers_do_no_harm() {
        let meter = LatencyMeter::default();
        meter.record(Duration::ZERO);
        meter.record(Duration::MAX);
        let minute = meter.take();
        assert_eq!(minute.count, 2);
        assert!(minute.buckets.iter().all(|(micros, _)| (1..=LONGEST_US * 17 / 16).contains(micros)), "{minute:?}");
        let hostile = LatencySummary { buckets: vec![(0, u64::MAX), (u64::MAX, u64::MAX)], ..Default::default() };
        assert_eq!(merge([&hostile]).count, u64::MAX);
    }
}
