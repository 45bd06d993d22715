//! The cache of records: hot chunks in memory, in front of the segments.
//!
//! A read looks every chunk up in the index first, and takes a record from here only if the index still points at the
//! location that the record was read from. So the cache needs no notice of what is deleted, moved or found damaged: a
//! record that left its location can no longer be found here. Locations are never used twice while a process runs.
//!
//! | file | its idea |
//! |---|---|
//! | `replacement` | which record gives way: LRU or random |
//! | `admission` | which records may enter a full cache: those read twice |
//! | `shard` | one part of the cache, with its bound in bytes |
//!
//! The bound covers the records, the memory around each of them and the memory of the admission. Every record has a
//! buffer of its own: a slice of what was read would keep up to a megabyte alive for 4 KiB.

mod admission;
mod replacement;
mod shard;

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use bytes::Bytes;
use chordfs_types::{chunk::ChunkId, ring_config::CachePolicy, ring_id::RingId};
use parking_lot::Mutex;

use self::shard::RecordCacheShard;
use crate::index::{IndexEntry, RecordLocation};

/// Each part has a lock of its own.
const SHARDS: usize = 16;

/// A chunk as the index knows it.
pub(crate) type RecordKey = (RingId, ChunkId);

/// A record and the location from which it was read.
#[derive(Clone)]
pub(crate) struct CachedRecord {
    location: RecordLocation,
    bytes: Bytes,
}

/// What the cache has done and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Chunks that were read from the cache.
    pub hits: u64,
    /// Chunks that were read from the disk because the cache did not have them. Neither counts while it is off.
    pub misses: u64,
    /// Records that entered the cache.
    pub inserts: u64,
    /// Records that gave way to others or to a smaller capacity.
    pub evictions: u64,
    pub items: u64,
    /// Memory of the items, with what surrounds them. It stays a little below the capacity, which has to cover the
    /// admission too.
    pub bytes: u64,
    /// 0: the cache is off.
    pub capacity_bytes: u64,
    pub policy: CachePolicy,
}

/// The cache, see the module. It is off until it is given a capacity.
pub(crate) struct RecordCache {
    shards: Box<[Mutex<RecordCacheShard>]>,
    capacity_bytes: AtomicU64,
    /// The policy, for readers of the figures.
    policy: Mutex<CachePolicy>,
    hits: AtomicU64,
    misses: AtomicU64,
    inserts: AtomicU64,
    evictions: AtomicU64,
}

impl Default for RecordCache {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|number| Mutex::new(RecordCacheShard::new(number as u64))).collect(),
            capacity_bytes: AtomicU64::new(0),
            policy: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            inserts: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }
}

impl RecordCache {
    pub(crate) fn is_on(&self) -> bool {
        self.capacity_bytes.load(Acquire) > 0
    }

    /// Changes capacity and policy, and keeps the records that fit.
    pub(crate) fn configure(&self, capacity_bytes: u64, policy: CachePolicy) {
        // Held to the end, so that two callers do not mix their settings.
        let mut current = self.policy.lock();
        self.capacity_bytes.store(capacity_bytes, Release);
        let share = usize::try_from(capacity_bytes).unwrap_or(usize::MAX) / SHARDS;
        for shard in &self.shards {
            let evicted = shard.lock().configure(share, policy);
            self.count_evictions(evicted);
        }
        *current = policy;
    }

    /// Empties the cache. These records do not count as evicted.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let records = shard.lock().take_all();
            // Without the lock: to free many buffers takes a while.
            drop(records);
        }
    }

    /// Returns the record if it was read from the location of `entry`. The caller counts the hits.
    pub(crate) fn get(&self, entry: &IndexEntry) -> Option<Bytes> {
        self.shard(entry.key).lock().get(&(entry.key, entry.id), entry.location)
    }

    pub(crate) fn count_hits(&self, hits: usize) {
        self.hits.fetch_add(hits as u64, Relaxed);
    }

    /// Counts a miss, and takes a sound record that was read from the disk, or not, as the admission decides.
    pub(crate) fn offer(&self, entry: &IndexEntry, record: &[u8]) {
        if self.is_on() {
            self.misses.fetch_add(1, Relaxed);
            let offered = self.shard(entry.key).lock().offer((entry.key, entry.id), entry.location, record);
            if let Some(evicted) = offered {
                self.inserts.fetch_add(1, Relaxed);
                self.count_evictions(evicted);
            }
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let mut stats = CacheStats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            inserts: self.inserts.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
            capacity_bytes: self.capacity_bytes.load(Acquire),
            policy: *self.policy.lock(),
            ..CacheStats::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.items += shard.items() as u64;
            stats.bytes += shard.bytes() as u64;
        }
        stats
    }

    fn count_evictions(&self, evicted: usize) {
        if evicted > 0 {
            self.evictions.fetch_add(evicted as u64, Relaxed);
        }
    }

    /// Keys are hashes, so their low bits spread evenly, also within the arc of one node.
    fn shard(&self, key: RingId) -> &Mutex<RecordCacheShard> {
        &self.shards[key.0 as usize % SHARDS]
    }
}
