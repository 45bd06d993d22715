//! The points that one node knows of the others.
//!
//! A node that stops answering keeps the points that it sent before, and a node that starts again, and so has lost its
//! own, gets new ones beside them: what it missed is a gap between the two. Bounded by the number of nodes and
//! [`HISTORY_POINTS`].

use std::{collections::BTreeMap, net::SocketAddr};

use chordfs_types::admin::{HISTORY_POINTS, HistoryPoint, HistorySource, RingHistory, RingNodeHistory};

use crate::latency::bound;

/// Nodes that are remembered, at most: as many as a survey of the ring finds.
const MAX_NODES: usize = 4096;

/// The minutes of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minutes {
    /// Seconds since 1970.
    pub now: u64,
    pub period_seconds: u64,
}

impl Minutes {
    /// The beginnings of the last [`HISTORY_POINTS`] whole minutes, ascending.
    pub fn shown(self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
        let Self { now, period_seconds } = self;
        let present = now / period_seconds;
        let count = HISTORY_POINTS as u64;
        (0..HISTORY_POINTS).map(move |at| (present + at as u64).saturating_sub(count) * period_seconds)
    }

    /// The beginning of the last whole minute.
    pub fn newest(self) -> u64 {
        (self.now / self.period_seconds).saturating_sub(1) * self.period_seconds
    }
}

/// The points of all nodes that this node has asked.
#[derive(Default)]
pub struct KnownHistories {
    nodes: BTreeMap<SocketAddr, BTreeMap<u64, HistoryPoint>>,
}

impl KnownHistories {
    /// Adds points that a node has sent. A point that is known is replaced.
    pub fn add(&mut self, node: SocketAddr, points: Vec<HistoryPoint>) {
        if self.nodes.len() < MAX_NODES || self.nodes.contains_key(&node) {
            // A stranger may send more than it should, and in any order.
            let points = points.into_iter().rev().take(HISTORY_POINTS).map(bounded).map(|point| (point.time, point));
            self.nodes.entry(node).or_default().extend(points);
        }
    }

    /// The newest point of a node: it has to be asked only for later ones.
    pub fn newest(&self, node: SocketAddr) -> Option<u64> {
        Some(*self.nodes.get(&node)?.last_key_value()?.0)
    }

    /// Forgets the points that are older than what is shown, and those from a future that a wrong clock has made up.
    pub fn forget_old(&mut self, minutes: Minutes) {
        let oldest = minutes.shown().next().unwrap_or_default();
        let future = minutes.now + 2 * minutes.period_seconds;
        self.nodes.retain(|_, points| {
            points.retain(|time, _| (oldest..=future).contains(time));
            !points.is_empty()
        });
    }

    /// All that is known: the nodes of the ring in the given order, each with whether it answered, then those that have
    /// left.
    pub fn ring(&self, asked: SocketAddr, minutes: Minutes, ring: &[(SocketAddr, bool)]) -> RingHistory {
        let points = |node: &SocketAddr| self.nodes.get(node).into_iter().flat_map(|points| points.values().cloned());
        let entry =
            |address: SocketAddr, source| RingNodeHistory { address, source, points: points(&address).collect() };
        let present = ring.iter().map(|(address, answered)| {
            let source = if *answered { HistorySource::Answered } else { HistorySource::Unresponsive };
            entry(*address, source)
        });
        let left = self.nodes.keys().filter(|node| !ring.iter().any(|(address, _)| address == *node));
        let left = left.map(|address| entry(*address, HistorySource::Left));
        RingHistory {
            asked,
            time: minutes.now,
            period_seconds: minutes.period_seconds,
            nodes: present.chain(left).collect(),
        }
    }
}

fn bounded(mut point: HistoryPoint) -> HistoryPoint {
    let HistoryPoint { reads, writes, names, log, .. } = &mut point;
    [reads, writes, names].into_iter().chain(log).for_each(bound);
    point
}

#[cfg(test)]
mod tests {
    use chordfs_types::admin::LatencySummary;

    use super::*;

    const MINUTES: Minutes = Minutes { now: 6030, period_seconds: 60 };

    fn node(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 5057))
    }

    fn points(times: impl IntoIterator<Item = u64>) -> Vec<HistoryPoint> {
        times.into_iter().map(|time| HistoryPoint { time, ..HistoryPoint::default() }).collect()
    }

    #[test]
    fn the_last_thirty_whole_minutes_are_shown() {
        let shown: Vec<u64> = MINUTES.shown().collect();
        assert_eq!((shown.len(), shown[0], shown[29], MINUTES.newest()), (30, 4200, 5940, 5940));
    }

    #[test]
    fn a_node_that_started_again_keeps_what_was_known_and_has_a_gap() {
        let mut known = KnownHistories::default();
        known.add(node(1), points([5700, 5760]));
        known.add(node(1), points([5940]));
        known.add(node(2), points([5940]));
        known.add(node(3), points([4140, 4200, 9000]));
        known.forget_old(MINUTES);
        assert_eq!(known.newest(node(1)), Some(5940));
        let ring = known.ring(node(9), MINUTES, &[(node(2), true), (node(1), false), (node(4), true)]);
        let times = |at: usize| ring.nodes[at].points.iter().map(|point| point.time).collect::<Vec<_>>();
        let sources: Vec<_> = ring.nodes.iter().map(|node| (node.address, node.source)).collect();
        use HistorySource::{Answered, Left, Unresponsive};
        assert_eq!(sources, [(node(2), Answered), (node(1), Unresponsive), (node(4), Answered), (node(3), Left)]);
        assert_eq!((times(1), times(2), times(3)), (vec![5700, 5760, 5940], vec![], vec![4200]));
        known.forget_old(Minutes { now: 9000, ..MINUTES });
        assert_eq!(known.newest(node(1)), None);
        assert!(known.nodes.is_empty());
    }

    #[test]
    fn a_stranger_that_sends_too_many_points_takes_the_room_of_thirty() {
        let mut known = KnownHistories::default();
        let mut sent = points(0..10_000);
        sent[9999].log = Some(LatencySummary { buckets: vec![(1, 1); 1_000_000], ..LatencySummary::default() });
        known.add(node(1), sent);
        let log = known.nodes[&node(1)][&9999].log.as_ref().unwrap();
        assert!(log.buckets.capacity() < 1000);
        assert_eq!((known.nodes[&node(1)].len(), known.newest(node(1))), (HISTORY_POINTS, Some(9999)));
    }
}
