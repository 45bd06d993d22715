//! One part of the cache: its records within their bound.

use bytes::Bytes;
use chordfs_types::ring_config::CachePolicy;

use super::{CachedRecord, RecordKey, admission::FirstReads, replacement::CachedRecords};
use crate::index::RecordLocation;

/// The memory around a record: its node in the list or the map, its slots in the hash table, which may be half empty,
/// the counter of its buffer, and what the allocator adds to each of these.
pub(super) const ENTRY_BYTES: usize = 240;

pub(super) struct RecordCacheShard {
    seed: u64,
    records: CachedRecords,
    /// Memory of all records, [`ENTRY_BYTES`] for each included.
    record_bytes: usize,
    /// `record_bytes` stays below this. 0: the cache is off.
    limit_bytes: usize,
    first_reads: FirstReads,
}

impl RecordCacheShard {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            records: CachedRecords::new(CachePolicy::default(), seed),
            record_bytes: 0,
            limit_bytes: 0,
            first_reads: FirstReads::default(),
        }
    }

    pub(super) fn items(&self) -> usize {
        self.records.len()
    }

    /// Memory of all records, with what surrounds them. The table of the admission is not counted: an empty cache has
    /// it too.
    pub(super) fn bytes(&self) -> usize {
        self.record_bytes
    }

    /// Changes the capacity and the policy; returns how many records had to go. The tables of the others are made
    /// anew if there were any, because a table keeps the memory of its largest size.
    pub(super) fn configure(&mut self, capacity_bytes: usize, policy: CachePolicy) -> usize {
        self.first_reads = FirstReads::new(capacity_bytes);
        self.limit_bytes = capacity_bytes.saturating_sub(self.first_reads.bytes());
        let records = std::mem::replace(&mut self.records, CachedRecords::new(policy, self.seed));
        self.records = records.under(policy, self.seed);
        let evicted = self.shrink_to(self.limit_bytes);
        if evicted > 0 {
            let records = std::mem::replace(&mut self.records, CachedRecords::new(policy, self.seed));
            self.records = records.rebuilt(policy, self.seed);
        }
        evicted
    }

    /// Empties the shard; returns its records for the caller to drop.
    pub(super) fn take_all(&mut self) -> CachedRecords {
        self.record_bytes = 0;
        let empty = CachedRecords::new(self.records.policy(), self.seed);
        std::mem::replace(&mut self.records, empty)
    }

    /// Returns the record if it was read from this location. One from another location can never be read again, and is
    /// removed.
    pub(super) fn get(&mut self, key: &RecordKey, location: RecordLocation) -> Option<Bytes> {
        let record = self.records.get(key)?;
        if record.location == location {
            return Some(record.bytes.clone());
        }
        let outdated = self.records.remove(key)?;
        self.record_bytes -= cost(outdated.bytes.len());
        None
    }

    /// Takes a copy of the record while there is room, and afterwards if it was read before; returns how many others
    /// had to go, `None` if the record was not taken.
    pub(super) fn offer(&mut self, key: RecordKey, location: RecordLocation, record: &[u8]) -> Option<usize> {
        let bytes = cost(record.len());
        if bytes > self.limit_bytes {
            return None;
        }
        let is_second = self.first_reads.is_second(&key);
        let has_room = self.record_bytes + bytes <= self.limit_bytes;
        if !has_room && !is_second {
            return None;
        }
        let evicted = self.shrink_to(self.limit_bytes - bytes);
        let former = self.records.insert(key, CachedRecord { location, bytes: Bytes::copy_from_slice(record) });
        self.record_bytes += bytes;
        self.record_bytes -= former.map_or(0, |former| cost(former.bytes.len()));
        Some(evicted)
    }

    fn shrink_to(&mut self, limit_bytes: usize) -> usize {
        let mut evicted = 0;
        while self.record_bytes > limit_bytes
            && let Some(record) = self.records.evict()
        {
            self.record_bytes -= cost(record.bytes.len());
            evicted += 1;
        }
        evicted
    }
}

fn cost(record_bytes: usize) -> usize {
    record_bytes + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        chunk::{ChunkId, Version},
        ring_id::RingId,
    };

    use super::*;

    const RECORD: [u8; 4096] = [7; 4096];
    const HELD: usize = 50;

    fn key(number: u32) -> RecordKey {
        (RingId(number), ChunkId { version: Version(1), index: number })
    }

    fn location(offset: u32) -> RecordLocation {
        RecordLocation { segment: 1, offset, bytes: RECORD.len() as u32 }
    }

    /// With room for [`HELD`] records.
    fn shard(policy: CachePolicy) -> RecordCacheShard {
        let mut shard = RecordCacheShard::new(1);
        shard.configure(HELD * cost(RECORD.len()) + 64 * 8, policy);
        shard
    }

    /// The number of evicted records; 0 also if the record was not taken.
    fn offer(shard: &mut RecordCacheShard, number: u32) -> usize {
        shard.offer(key(number), location(number), &RECORD).unwrap_or(0)
    }

    fn has(shard: &mut RecordCacheShard, number: u32) -> bool {
        shard.get(&key(number), location(number)).is_some()
    }

    #[test]
    fn the_bound_holds_under_both_policies() {
        for policy in [CachePolicy::Lru, CachePolicy::Random] {
            let mut shard = shard(policy);
            let bound = shard.limit_bytes;
            let mut evicted = 0;
            for number in (0..500).flat_map(|number| [number, number]) {
                evicted += offer(&mut shard, number);
                assert!(shard.record_bytes <= bound);
                assert_eq!(shard.record_bytes, shard.items() * cost(RECORD.len()));
            }
            assert!(shard.items() >= HELD - 1, "{}", shard.items());
            assert!(evicted >= 400, "{evicted}");
        }
    }

    #[test]
    fn lru_keeps_what_is_read_and_random_does_not() {
        let mut survivors = Vec::new();
        for policy in [CachePolicy::Lru, CachePolicy::Random] {
            let mut shard = shard(policy);
            (0..10).for_each(|number| _ = offer(&mut shard, number));
            for number in (100..400).flat_map(|number| [number, number]) {
                (0..10).for_each(|hot| _ = has(&mut shard, hot));
                offer(&mut shard, number);
            }
            survivors.push((0..10).filter(|hot| has(&mut shard, *hot)).count());
        }
        assert_eq!(survivors[0], 10);
        assert!(survivors[1] < 5, "{survivors:?}");
    }

    #[test]
    fn one_pass_over_many_records_leaves_a_full_cache_as_it_is() {
        let mut shard = shard(CachePolicy::Lru);
        (0..HELD as u32).for_each(|number| _ = offer(&mut shard, number));
        let held = shard.items();
        let evicted: usize = (1000..3000).map(|number| offer(&mut shard, number)).sum();
        assert_eq!((evicted, shard.items()), (0, held));
        assert_eq!(offer(&mut shard, 2999), 1, "the second read of a record makes it enter");
        assert!(has(&mut shard, 2999));
    }

    #[test]
    fn another_location_is_never_served_and_frees_its_room() {
        let mut shard = shard(CachePolicy::Lru);
        offer(&mut shard, 1);
        assert!(shard.get(&key(1), location(99)).is_none());
        assert_eq!((shard.items(), shard.record_bytes), (0, 0));
    }

    #[test]
    fn changing_capacity_and_policy_keeps_what_fits() {
        let mut shard = shard(CachePolicy::Lru);
        (0..40).for_each(|number| _ = offer(&mut shard, number));
        assert_eq!(shard.configure(HELD * cost(RECORD.len()) + 64 * 8, CachePolicy::Random), 0);
        assert!((0..40).all(|number| has(&mut shard, number)));
        shard.configure(HELD * cost(RECORD.len()) + 64 * 8, CachePolicy::Lru);
        assert!((0..40).all(|number| has(&mut shard, number)));
        let gone = shard.configure(10 * cost(RECORD.len()) + 64 * 8, CachePolicy::Lru);
        assert!((29..=31).contains(&gone), "{gone}");
        assert!(has(&mut shard, 39) && !has(&mut shard, 0), "the latest ones stay");
        shard.configure(0, CachePolicy::Lru);
        assert_eq!((shard.items(), shard.bytes()), (0, 0));
        assert_eq!(offer(&mut shard, 1), 0);
        assert_eq!(shard.items(), 0, "a cache that is off takes nothing");
    }

    /// The tables of a cache that had been large kept their memory, beyond the bound of the smaller one.
    #[test]
    fn a_smaller_capacity_gives_the_memory_of_the_tables_back() {
        let mut shard = RecordCacheShard::new(1);
        shard.configure(5000 * cost(1), CachePolicy::Random);
        (0..4000).for_each(|number| _ = shard.offer(key(number), location(number), &[7]));
        shard.configure(100 * cost(1), CachePolicy::Random);
        let CachedRecords::Random { records, .. } = &shard.records else { unreachable!("it was configured") };
        assert!(records.len() > 50 && records.capacity() < 500, "{} for {}", records.capacity(), records.len());
    }

    #[test]
    fn a_record_larger_than_the_bound_is_not_taken() {
        let mut shard = RecordCacheShard::new(1);
        shard.configure(4000, CachePolicy::Lru);
        assert_eq!((offer(&mut shard, 1), shard.items()), (0, 0));
    }
}
