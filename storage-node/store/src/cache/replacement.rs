//! Which record gives way to another one.

use chordfs_types::ring_config::CachePolicy;
use indexmap::IndexMap;
use lru::LruCache;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{CachedRecord, RecordKey};

/// Records under one replacement policy. The random one reads no randomness from outside: it is seeded.
pub(super) enum CachedRecords {
    Lru(LruCache<RecordKey, CachedRecord>),
    Random { records: IndexMap<RecordKey, CachedRecord>, random: Box<StdRng> },
}

impl CachedRecords {
    pub(super) fn new(policy: CachePolicy, seed: u64) -> Self {
        match policy {
            CachePolicy::Lru => Self::Lru(LruCache::unbounded()),
            CachePolicy::Random => {
                Self::Random { records: IndexMap::new(), random: Box::new(StdRng::seed_from_u64(seed)) }
            }
        }
    }

    /// Puts the same records under another policy. Under the policy that they have, they stay as they are.
    pub(super) fn under(self, policy: CachePolicy, seed: u64) -> Self {
        if self.policy() == policy { self } else { self.rebuilt(policy, seed) }
    }

    /// Moves the records into new tables of their number, in their order.
    pub(super) fn rebuilt(self, policy: CachePolicy, seed: u64) -> Self {
        let mut changed = Self::new(policy, seed);
        match self {
            Self::Lru(mut records) => {
                while let Some((key, record)) = records.pop_lru() {
                    changed.insert(key, record);
                }
            }
            Self::Random { records, .. } => {
                for (key, record) in records {
                    changed.insert(key, record);
                }
            }
        }
        changed
    }

    pub(super) fn policy(&self) -> CachePolicy {
        match self {
            Self::Lru(_) => CachePolicy::Lru,
            Self::Random { .. } => CachePolicy::Random,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lru(records) => records.len(),
            Self::Random { records, .. } => records.len(),
        }
    }

    /// Returns the record; for LRU it is the most recently used one then.
    pub(super) fn get(&mut self, key: &RecordKey) -> Option<&CachedRecord> {
        match self {
            Self::Lru(records) => records.get(key),
            Self::Random { records, .. } => records.get(key),
        }
    }

    /// Returns the record that was there before.
    pub(super) fn insert(&mut self, key: RecordKey, record: CachedRecord) -> Option<CachedRecord> {
        match self {
            Self::Lru(records) => records.put(key, record),
            Self::Random { records, .. } => records.insert(key, record),
        }
    }

    pub(super) fn remove(&mut self, key: &RecordKey) -> Option<CachedRecord> {
        match self {
            Self::Lru(records) => records.pop(key),
            Self::Random { records, .. } => records.swap_remove(key),
        }
    }

    /// Removes the record that gives way; `None` if there is no record.
    pub(super) fn evict(&mut self) -> Option<CachedRecord> {
        match self {
            Self::Lru(records) => records.pop_lru().map(|(_, record)| record),
            Self::Random { records, .. } if records.is_empty() => None,
            Self::Random { records, random } => {
                let victim = random.random_range(0..records.len());
                records.swap_remove_index(victim).map(|(_, record)| record)
            }
        }
    }
}
