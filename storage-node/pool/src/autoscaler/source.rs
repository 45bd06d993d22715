//! Where the scaler takes the miss rate from.

use std::net::SocketAddr;

use chordfs_types::admin::{NodeLine, RingStatus};
use futures_util::future::BoxFuture;

use super::misses::{CacheCounters, MissMeter, Misses};

/// Measures the misses of the last period. CloudWatch is a second one, where there is AWS.
pub trait MissRateSource: Send {
    /// To be called once a period, with the ring as it is now. Every wait in it has a deadline.
    fn measure<'a>(&'a mut self, ring: &'a RingStatus) -> BoxFuture<'a, Misses>;
}

/// The counters of the nodes' caches.
#[derive(Debug, Default)]
pub struct RingMissRate {
    meter: MissMeter,
}

impl MissRateSource for RingMissRate {
    fn measure<'a>(&'a mut self, ring: &'a RingStatus) -> BoxFuture<'a, Misses> {
        let counters: Vec<_> = ring.nodes.iter().filter_map(counters).collect();
        Box::pin(std::future::ready(self.meter.next(&counters)))
    }
}

fn counters(node: &NodeLine) -> Option<(SocketAddr, CacheCounters)> {
    let cache = node.cache?;
    Some((node.address, CacheCounters { hits: cache.hits, misses: cache.misses }))
}
