//! The points of each minute that is shown.

use std::net::SocketAddr;

use chordfs_history::known::Minutes;
use chordfs_types::admin::{HistoryPoint, RingHistory};

/// The points of one node or of all, by minute.
pub(crate) struct Slots<'a> {
    /// Beginnings of the minutes, ascending.
    pub times: Vec<u64>,
    pub period_seconds: u64,
    /// The points of each minute, of those nodes that have one.
    points: Vec<Vec<&'a HistoryPoint>>,
    is_ring: bool,
}

impl<'a> Slots<'a> {
    /// `node`: the node whose points are wanted; `None` for all.
    pub(crate) fn of(history: &'a RingHistory, node: Option<SocketAddr>) -> Self {
        let period_seconds = history.period_seconds.max(1);
        let times: Vec<u64> = Minutes { now: history.time, period_seconds }.shown().collect();
        let mut points = vec![Vec::new(); times.len()];
        let nodes = history.nodes.iter().filter(|known| node.is_none_or(|node| node == known.address));
        for point in nodes.flat_map(|known| &known.points) {
            if let Ok(at) = times.binary_search(&point.time) {
                points[at].push(point);
            }
        }
        Self { times, period_seconds, points, is_ring: node.is_none() }
    }

    /// A value for each minute that has points.
    pub(crate) fn values(&self, value: impl Fn(&[&HistoryPoint]) -> Option<f64>) -> Vec<Option<f64>> {
        self.points.iter().map(|points| if points.is_empty() { None } else { value(points) }).collect()
    }

    /// Says how many of the ring's nodes have a point, if not all.
    pub(crate) fn missing(&self, at: usize) -> Option<String> {
        let points = &self.points[at];
        let members = points.iter().filter_map(|point| point.nodes).max()? as usize;
        let is_partial = self.is_ring && points.len() < members;
        is_partial.then(|| format!("{} of {members} nodes reported", points.len()))
    }
}
