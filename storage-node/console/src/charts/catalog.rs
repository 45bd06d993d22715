//! Which charts there are, and how their values follow from the points of a minute.

use chordfs_history::latency::merge;
use chordfs_types::admin::{BacklogMinute, HistoryPoint, LatencySummary};

use super::{Chart, Series, shown_minutes, slots::Slots, unit::Unit};

type Points<'a> = [&'a HistoryPoint];

/// The charts in the order of the page. `is_node`: the points are those of one node.
pub(crate) fn charts(slots: &Slots<'_>, is_node: bool) -> Vec<Chart> {
    let plotter = Plotter { slots };
    let nodes = if is_node { "Nodes in the ring, as this one saw it" } else { "Nodes in the ring" };
    let mut charts = vec![
        plotter.chart("nodes", nodes, Unit::Count, vec![plotter.series("nodes", nodes_in_ring)]),
        plotter.chart(
            "hit-rate",
            "Reads that the cache answered, and did not",
            Unit::Percent,
            vec![
                plotter.series("hits", |points| hit_rate(points, true)),
                plotter.series("misses", |points| hit_rate(points, false)),
            ],
        ),
        plotter.chart(
            "items",
            "Chunks in the cache",
            Unit::Count,
            vec![plotter.series("chunks", |points| sum(points, |point| point.cache.items))],
        ),
        plotter.chart(
            "cache-bytes",
            "Memory of the cache",
            Unit::Bytes,
            vec![
                plotter.series("used", |points| sum(points, |point| point.cache.bytes)),
                plotter.series("capacity", |points| sum(points, |point| point.cache.capacity_bytes)),
            ],
        ),
        plotter.chart(
            "requests",
            "Requests served per minute",
            Unit::PerMinute,
            vec![plotter.series("requests", |points| rate(points, |point| point.requests).map(|rate| rate * 60.0))],
        ),
        plotter.chart("disk", "Disk used", Unit::Percent, disk(&plotter, is_node)),
        plotter.chart(
            "bytes",
            "Bytes read and written",
            Unit::BytesPerSecond,
            vec![
                plotter.series("read", |points| rate(points, |point| point.read_bytes)),
                plotter.series("written", |points| rate(points, |point| point.written_bytes)),
            ],
        ),
    ];
    charts.extend(repair(&plotter));
    charts.extend(operations(&plotter));
    charts
}

struct Plotter<'a> {
    slots: &'a Slots<'a>,
}

impl Plotter<'_> {
    fn chart(&self, id: &'static str, title: &str, unit: Unit, series: Vec<Series>) -> Chart {
        Chart { id, title: title.into(), unit, series, minutes: shown_minutes(self.slots) }
    }

    fn series(&self, name: &'static str, value: impl Fn(&Points<'_>) -> Option<f64>) -> Series {
        Series { name, values: self.slots.values(value) }
    }

    fn latency(&self, id: &'static str, title: &str, of: fn(&HistoryPoint) -> Option<&LatencySummary>) -> Chart {
        let quantile = |points: &Points<'_>, pick: fn(&LatencySummary) -> Option<u64>| {
            pick(&merge(points.iter().filter_map(|point| of(point)))).map(|micros| micros as f64)
        };
        let p50 = self.series("p50", |points| quantile(points, |all| all.p50_us));
        let p99 = self.series("p99", |points| quantile(points, |all| all.p99_us));
        self.chart(id, title, Unit::Micros, vec![p50, p99])
    }
}

/// A node of one machine and the disk of its neighbour differ, so the fullest node is not the mean.
fn disk(plotter: &Plotter<'_>, is_node: bool) -> Vec<Series> {
    let percent = |point: &&HistoryPoint| {
        let disk = point.disk;
        (disk.capacity_bytes > 0).then(|| 100.0 * disk.used_bytes as f64 / disk.capacity_bytes as f64)
    };
    let fullest = move |points: &Points<'_>| points.iter().filter_map(percent).reduce(f64::max);
    let mean = move |points: &Points<'_>| {
        let shares: Vec<f64> = points.iter().filter_map(percent).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    };
    if is_node {
        vec![plotter.series("used", fullest)]
    } else {
        vec![plotter.series("fullest node", fullest), plotter.series("mean of all", mean)]
    }
}

fn repair(plotter: &Plotter<'_>) -> [Chart; 2] {
    let left = |amount: fn(&BacklogMinute) -> u64| {
        vec![
            plotter.series("to send", |points| sum(points, |point| amount(&point.repair))),
            plotter.series("to receive", |points| sum(points, |point| amount(&point.filling))),
        ]
    };
    [
        plotter.chart("repair-chunks", "Repair: copies left to make", Unit::Count, left(|backlog| backlog.chunks_left)),
        plotter.chart("repair-bytes", "Repair: bytes of these copies", Unit::Bytes, left(|backlog| backlog.bytes_left)),
    ]
}

fn operations(plotter: &Plotter<'_>) -> [Chart; 5] {
    let each = vec![
        plotter.series("reads", |points| rate(points, |point| point.reads.count)),
        plotter.series("writes", |points| rate(points, |point| point.writes.count)),
        plotter.series("names", |points| rate(points, |point| point.names.count)),
    ];
    [
        plotter.chart("operations", "Operations: batches read and written, and names", Unit::PerSecond, each),
        plotter.latency("read-latency", "Reading a batch of chunks", |point| Some(&point.reads)),
        plotter.latency("write-latency", "Writing a batch of chunks", |point| Some(&point.writes)),
        plotter.latency("name-latency", "Operations on names", |point| Some(&point.names)),
        plotter.latency("log-latency", "Appends to the namespace's log, on the disk", |point| point.log.as_ref()),
    ]
}

/// Nodes see a change of the ring within half a minute of each other.
fn nodes_in_ring(points: &Points<'_>) -> Option<f64> {
    points.iter().filter_map(|point| point.nodes).max().map(f64::from)
}

/// `None` if nothing was read: then there is no rate.
fn hit_rate(points: &Points<'_>, hits: bool) -> Option<f64> {
    let (hit, missed) = (sum(points, |point| point.cache.hits)?, sum(points, |point| point.cache.misses)?);
    let all = hit + missed;
    (all > 0.0).then(|| 100.0 * if hits { hit } else { missed } / all)
}

fn sum(points: &Points<'_>, value: impl Fn(&HistoryPoint) -> u64) -> Option<f64> {
    Some(points.iter().map(|point| value(point) as f64).sum())
}

/// In a second.
fn rate(points: &Points<'_>, count: impl Fn(&HistoryPoint) -> u64) -> Option<f64> {
    Some(points.iter().filter(|point| point.seconds > 0.0).map(|point| count(point) as f64 / point.seconds).sum())
}
