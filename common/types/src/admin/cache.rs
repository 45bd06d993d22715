//! The cache of chunks of one node, as it reports it.

use serde::{Deserialize, Serialize};

use crate::ring_config::CachePolicy;

/// Counted since the node's process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Chunks that were read from memory.
    pub hits: u64,
    /// Chunks that were read from the disk because they were not in memory. Neither counts while the cache is off.
    pub misses: u64,
    /// Chunks that entered the cache.
    #[serde(default)]
    pub inserts: u64,
    /// Chunks that gave way to others or to a smaller capacity.
    pub evictions: u64,
    /// Chunks that are in memory.
    pub items: u64,
    /// Memory of these, with what surrounds them.
    pub bytes: u64,
    /// 0: the cache is off.
    pub capacity_bytes: u64,
    /// The capacity that is configured, if the node has too little memory for it and has taken less.
    #[serde(default)]
    pub reduced_from_bytes: Option<u64>,
    /// Which chunk gives way.
    pub policy: CachePolicy,
    /// Version of the ring's configuration that the node follows.
    pub config_version: u64,
}

impl CacheStatus {
    /// Adds another node's figures; policy and version are kept.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.inserts += other.inserts;
        self.evictions += other.evictions;
        self.items += other.items;
        self.bytes += other.bytes;
        self.capacity_bytes += other.capacity_bytes;
        self.reduced_from_bytes = self.reduced_from_bytes.or(other.reduced_from_bytes);
    }

    /// Returns the hits among all reads, 0 to 1; `None` before the first read.
    pub fn hit_rate(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}
