//! How many reads of the last period missed the caches of the nodes, from the counters that the nodes report.
//!
//! The rate of the pool is the mean of the nodes' own rates: a node whose readers all miss counts as much as one with
//! ten times as many readers. Counters that began anew, because a node was started again, count from there.
#![deny(clippy::disallowed_methods)]

use std::{collections::HashMap, net::SocketAddr};

/// What is known of the misses of a period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Misses {
    /// The period has no beginning: no node was asked before.
    NotMeasured,
    /// No node was asked for a chunk.
    NoReads,
    /// The mean of the miss rates of the nodes that were asked for chunks, 0 to 1.
    Rate(f64),
}

/// The counters of one node since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    pub hits: u64,
    pub misses: u64,
}

/// The counters of all nodes at the end of the last period.
#[derive(Debug, Default)]
pub struct MissMeter {
    last: HashMap<SocketAddr, CacheCounters>,
}

impl MissMeter {
    /// To be called at the end of each period with the nodes that answered. A node that is new counts from the next
    /// period on.
    pub fn next(&mut self, now: &[(SocketAddr, CacheCounters)]) -> Misses {
        let last = std::mem::replace(&mut self.last, now.iter().copied().collect());
        let known = now.iter().filter_map(|(node, counters)| Some(counters.since(*last.get(node)?)));
        let known: Vec<CacheCounters> = known.collect();
        let rates: Vec<f64> = known.iter().filter_map(|counters| counters.miss_rate()).collect();
        match (known.len(), rates.len()) {
            (0, _) => Misses::NotMeasured,
            (_, 0) => Misses::NoReads,
            (_, count) => Misses::Rate(rates.iter().sum::<f64>() / count as f64),
        }
    }
}

impl CacheCounters {
    fn since(self, last: Self) -> Self {
        match (self.hits.checked_sub(last.hits), self.misses.checked_sub(last.misses)) {
            (Some(hits), Some(misses)) => Self { hits, misses },
            _ => self,
        }
    }

    fn miss_rate(self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.misses as f64 / reads as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node, hits, misses.
    fn nodes(counters: &[(u8, u64, u64)]) -> Vec<(SocketAddr, CacheCounters)> {
        let node =
            |&(node, hits, misses): &(u8, u64, u64)| (([10, 0, 0, node], 5057).into(), CacheCounters { hits, misses });
        counters.iter().map(node).collect()
    }

    #[test]
    fn the_rate_is_the_mean_of_the_nodes_that_had_reads_in_the_period() {
        let mut meter = MissMeter::default();
        assert_eq!(meter.next(&nodes(&[(1, 100, 900), (2, 0, 0), (3, 5, 5)])), Misses::NotMeasured);
        let rate = meter.next(&nodes(&[(1, 1000, 1000), (2, 1, 1), (3, 5, 5)]));
        assert_eq!(rate, Misses::Rate((0.1 + 0.5) / 2.0), "node 3 had no reads, and few reads weigh as many");
        assert_eq!(meter.next(&nodes(&[(1, 1000, 1000), (2, 1, 1)])), Misses::NoReads);
    }

    #[test]
    fn a_node_that_was_started_again_counts_anew_and_a_new_one_from_the_next_period() {
        let mut meter = MissMeter::default();
        meter.next(&nodes(&[(1, 100, 100)]));
        assert_eq!(meter.next(&nodes(&[(1, 30, 10), (2, 0, 50)])), Misses::Rate(0.25));
        assert_eq!(meter.next(&nodes(&[(2, 50, 50)])), Misses::Rate(0.0));
        assert_eq!(meter.next(&[]), Misses::NotMeasured);
    }
}
