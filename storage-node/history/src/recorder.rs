//! Samples of a node become points, one for each whole minute of the clock.
//!
//! The wall clock only decides to which minute a sample belongs. How long a minute was watched is measured by a clock
//! that never jumps, so that rates stay right while the wall clock is corrected:
//!
//! | between two samples the wall clock | then |
//! |---|---|
//! | stays in its minute, or steps back into the one before | the minute continues |
//! | enters the next minute | the minute ends with the new sample |
//! | is some minutes further: the machine was asleep, or the clock was set | the minute ends with its last sample, and the minutes between have no points |
//! | steps back further | the minute is dropped, and so are the points of the minutes that come again |
//!
//! A minute that was watched for less than half of it has no point either: its rates would be noise.

use std::{collections::VecDeque, time::Duration};

use chordfs_types::admin::{
    BacklogMinute, CacheMinute, DiskMinute, HISTORY_POINTS, HistoryPoint, LatencySummary, NodeHistory,
};

use crate::latency::LatencyMeter;

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleTime {
    /// By the wall clock, since 1970.
    pub wall: Duration,
    /// By a clock that never jumps, since any moment.
    pub steady: Duration,
}

/// What a node counts from its start on. A counter that is smaller than before has begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub requests: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// What a node measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeGauges {
    pub nodes: Option<u32>,
    pub cache_items: u64,
    pub cache_bytes: u64,
    pub cache_capacity_bytes: u64,
    pub disk: DiskMinute,
    pub repair: BacklogMinute,
    pub filling: BacklogMinute,
    /// Whether the node votes on the namespace, and so keeps its log.
    pub votes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSample {
    pub counters: NodeCounters,
    pub gauges: NodeGauges,
}

/// The latencies of the minute that ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteLatencies {
    pub reads: LatencySummary,
    pub writes: LatencySummary,
    pub names: LatencySummary,
    pub log: LatencySummary,
}

/// The meters of all kinds of operations. They are shared with the parts of the node that carry them out.
#[derive(Clone, Default)]
pub struct LatencyMeters {
    pub reads: std::sync::Arc<LatencyMeter>,
    pub writes: std::sync::Arc<LatencyMeter>,
    pub names: std::sync::Arc<LatencyMeter>,
    pub log: std::sync::Arc<LatencyMeter>,
}

impl LatencyMeters {
    fn take(&self) -> MinuteLatencies {
        let Self { reads, writes, names, log } = self;
        MinuteLatencies { reads: reads.take(), writes: writes.take(), names: names.take(), log: log.take() }
    }
}

/// The last [`HISTORY_POINTS`] minutes of one node.
pub struct HistoryRecorder {
    period: Duration,
    meters: LatencyMeters,
    points: VecDeque<HistoryPoint>,
    minute: Option<OpenMinute>,
}

/// The minute that is being watched.
struct OpenMinute {
    /// Counted from 1970.
    number: u64,
    began: Duration,
    at_start: NodeCounters,
    last: (Duration, NodeSample),
}

impl HistoryRecorder {
    /// `period`: the length of a minute, in whole seconds.
    pub fn new(period: Duration, meters: LatencyMeters) -> Self {
        let period = Duration::from_secs(period.as_secs().max(1));
        Self { period, meters, points: VecDeque::new(), minute: None }
    }

    /// Takes a sample. The more often, the more exactly points end where minutes do.
    pub fn observe(&mut self, at: SampleTime, sample: NodeSample) {
        let number = at.wall.as_secs() / self.period.as_secs();
        match self.minute.take() {
            Some(open) if (open.number.saturating_sub(1)..=open.number).contains(&number) => {
                self.minute = Some(OpenMinute { last: (at.steady, sample), ..open });
            }
            Some(open) if number == open.number + 1 => self.end(&open, (at.steady, sample)),
            Some(open) if number > open.number => self.end(&open, open.last),
            Some(_) => self.points.retain(|point| point.time < number * self.period.as_secs()),
            None => {}
        }
        if self.minute.is_none() {
            self.begin(number, at.steady, sample);
        }
    }

    /// How long until the present minute ends.
    pub fn until_next_minute(&self, wall: Duration) -> Duration {
        let period = self.period.as_nanos();
        Duration::from_nanos((period - wall.as_nanos() % period) as u64)
    }

    /// The points after `after`, in seconds since 1970; all without it.
    pub fn history(&self, after: Option<u64>) -> NodeHistory {
        let new = |point: &&HistoryPoint| after.is_none_or(|after| point.time > after);
        NodeHistory { period_seconds: self.period.as_secs(), points: self.points.iter().filter(new).cloned().collect() }
    }

    fn begin(&mut self, number: u64, steady: Duration, sample: NodeSample) {
        let oldest = number.saturating_sub(HISTORY_POINTS as u64) * self.period.as_secs();
        self.points.retain(|point| point.time >= oldest);
        // What was recorded since the last minute ended belongs to none, or is nothing.
        self.meters.take();
        self.minute = Some(OpenMinute { number, began: steady, at_start: sample.counters, last: (steady, sample) });
    }

    fn end(&mut self, open: &OpenMinute, (ended, sample): (Duration, NodeSample)) {
        let watched = ended.saturating_sub(open.began);
        if watched * 2 >= self.period {
            let time = open.number * self.period.as_secs();
            self.points.push_back(point(time, watched, open.at_start, sample, self.meters.take()));
        }
    }
}

fn point(
    time: u64,
    watched: Duration,
    start: NodeCounters,
    sample: NodeSample,
    latencies: MinuteLatencies,
) -> HistoryPoint {
    let NodeSample { counters: end, gauges } = sample;
    let MinuteLatencies { reads, writes, names, log } = latencies;
    HistoryPoint {
        time,
        seconds: watched.as_secs_f64(),
        nodes: gauges.nodes,
        cache: CacheMinute {
            hits: increase(start.cache_hits, end.cache_hits),
            misses: increase(start.cache_misses, end.cache_misses),
            items: gauges.cache_items,
            bytes: gauges.cache_bytes,
            capacity_bytes: gauges.cache_capacity_bytes,
        },
        requests: increase(start.requests, end.requests),
        read_bytes: increase(start.read_bytes, end.read_bytes),
        written_bytes: increase(start.written_bytes, end.written_bytes),
        disk: gauges.disk,
        repair: gauges.repair,
        filling: gauges.filling,
        reads,
        writes,
        names,
        log: gauges.votes.then_some(log),
    }
}

/// After a reset the counter has counted at least what it shows.
fn increase(start: u64, end: u64) -> u64 {
    end.checked_sub(start).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose counters follow its steady clock: ten requests a second.
    struct WatchedNode {
        recorder: HistoryRecorder,
        wall: Duration,
        steady: Duration,
        requests: u64,
    }

    const NOON: u64 = 1_800_000_000;
    const MINUTE: u64 = 60;

    impl WatchedNode {
        fn start(wall_secs: u64) -> Self {
            let recorder = HistoryRecorder::new(Duration::from_secs(MINUTE), LatencyMeters::default());
            let wall = Duration::from_secs(wall_secs);
            let mut node = Self { recorder, wall, steady: Duration::from_secs(5), requests: 0 };
            node.observe();
            node
        }

        fn observe(&mut self) {
            let counters = NodeCounters { requests: self.requests, ..NodeCounters::default() };
            let gauges = NodeGauges { cache_items: self.requests, ..NodeGauges::default() };
            let at = SampleTime { wall: self.wall, steady: self.steady };
            self.recorder.observe(at, NodeSample { counters, gauges });
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.wall += Duration::from_secs(1);
                self.steady += Duration::from_secs(1);
                self.requests += 10;
                self.observe();
            }
        }

        /// Minutes since [`NOON`], with the requests in each.
        fn minutes(&self) -> Vec<(i64, u64)> {
            let minute = |time: u64| (time as i64 - NOON as i64) / MINUTE as i64;
            self.recorder.history(None).points.iter().map(|point| (minute(point.time), point.requests)).collect()
        }
    }

    #[test]
    fn every_whole_minute_of_the_clock_has_a_point_with_what_happened_in_it() {
        let mut node = WatchedNode::start(NOON);
        node.run(59);
        assert_eq!(node.minutes(), []);
        node.run(62);
        assert_eq!(node.minutes(), [(0, 600), (1, 600)]);
        let history = node.recorder.history(Some(NOON));
        let [point] = &history.points[..] else { panic!("{history:?}") };
        assert_eq!((point.time, point.seconds), (NOON + 60, 60.0));
        assert_eq!(point.cache.items, 1200, "a gauge is as of the minute's end");
        assert_eq!(node.recorder.until_next_minute(node.wall), Duration::from_secs(59));
    }

    #[test]
    fn half_an_hour_is_kept_and_no_more() {
        let mut node = WatchedNode::start(NOON);
        node.run(100 * MINUTE);
        let minutes = node.minutes();
        assert_eq!((minutes.len(), minutes[0].0, minutes[29].0), (HISTORY_POINTS, 70, 99));
    }

    #[test]
    fn a_minute_that_was_watched_for_less_than_half_of_it_is_a_gap() {
        let mut node = WatchedNode::start(NOON + 31);
        node.run(MINUTE);
        assert_eq!(node.minutes(), []);
        let mut node = WatchedNode::start(NOON + 20);
        node.run(MINUTE);
        assert_eq!(node.minutes(), [(0, 400)]);
        assert_eq!(node.recorder.history(None).points[0].seconds, 40.0);
    }

    #[test]
    fn a_machine_that_was_asleep_leaves_a_gap_and_not_zeros() {
        let mut node = WatchedNode::start(NOON);
        node.run(2 * MINUTE + 50);
        node.wall += Duration::from_secs(10 * MINUTE);
        node.run(2 * MINUTE);
        assert_eq!(node.minutes(), [(0, 600), (1, 600), (2, 500), (13, 600)], "12 was watched for ten seconds only");
        node.wall += Duration::from_secs(100 * MINUTE);
        node.run(1);
        assert_eq!(node.minutes(), [], "all of them are too old");
    }

    #[test]
    fn a_clock_that_steps_back_a_little_does_not_end_the_minute() {
        let mut node = WatchedNode::start(NOON);
        node.run(MINUTE + 2);
        node.wall -= Duration::from_secs(5);
        node.run(MINUTE + 4);
        assert_eq!(node.minutes(), [(0, 600), (1, 650)]);
        assert_eq!(node.recorder.history(None).points[1].seconds, 65.0, "so the rate is right");
    }

    #[test]
    fn a_clock_that_is_set_back_replaces_the_minutes_that_come_again() {
        let mut node = WatchedNode::start(NOON);
        node.run(10 * MINUTE + 30);
        node.wall -= Duration::from_secs(5 * MINUTE + 30);
        node.run(MINUTE);
        let minutes: Vec<i64> = node.minutes().iter().map(|(minute, _)| *minute).collect();
        assert_eq!(minutes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_counter_that_begins_anew_counts_what_it_shows() {
        let mut node = WatchedNode::start(NOON);
        node.run(30);
        node.requests = 0;
        node.run(30);
        node.run(MINUTE);
        assert_eq!(node.minutes(), [(0, 300), (1, 600)]);
    }

    #[test]
    fn latencies_belong_to_the_minute_in_which_they_were_recorded() {
        let mut node = WatchedNode::start(NOON);
        node.recorder.meters.reads.record(Duration::from_millis(1));
        node.run(MINUTE);
        node.run(10);
        (0..3).for_each(|_| node.recorder.meters.reads.record(Duration::from_millis(1)));
        node.run(50);
        let counts: Vec<u64> = node.recorder.history(None).points.iter().map(|point| point.reads.count).collect();
        assert_eq!(counts, [1, 3]);
        assert_eq!(node.recorder.history(None).points[0].log, None, "it has no vote");
    }
}
