//! The LRU cache of chunks, with one limit in bytes.
//!
//! Entries are keyed by version and index, so they are never stale and need no invalidation. To keep one pass over a
//! large file from evicting chunks that are read repeatedly, each shard has two lists: a chunk enters `once`, and
//! the second read moves it to `often`, which may fill three quarters of the limit. Space that `often` does not use is
//! available to `once`.
//!
//! A chunk usually arrives as a slice of a buffer with many chunks. When it moves to `often` it is copied into a buffer
//! of its own, so that one frequently read chunk does not keep its neighbours in memory. `once` evicts in the order of
//! arrival, and the first read does not make a chunk younger: the chunks of one buffer are evicted at about the same
//! time, which frees it. Otherwise one chunk in each buffer of 2 MiB, read once, would keep all buffers in memory while
//! the limit counts those chunks only. `transfer` fetches chunks.

use bytes::Bytes;
use chordfs_types::chunk::ChunkId;
use lru::LruCache;
use parking_lot::Mutex;

const SHARDS: usize = 16;
/// Neighbouring chunks of one version in a shard. The next run is in the next shard, so that all shards evict the
/// chunks of a large buffer at the same time, and a small buffer is in one or two shards.
const SHARD_RUN: u32 = 8;
/// The memory of an entry beside its data.
const ENTRY_BYTES: usize = 128;

pub struct ChunkCache {
    shards: Vec<Mutex<CacheShard>>,
}

impl ChunkCache {
    /// `limit_bytes` covers the data and the overhead of the entries.
    pub fn new(limit_bytes: usize) -> Self {
        let shard = || Mutex::new(CacheShard::new(limit_bytes / SHARDS));
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Returns a chunk, and counts the call as a read.
    pub fn get(&self, id: ChunkId) -> Option<Bytes> {
        self.shard(id).lock().get(id)
    }

    /// Does not count as a read.
    pub fn contains(&self, id: ChunkId) -> bool {
        let shard = self.shard(id).lock();
        shard.once.contains(&id) || shard.often.contains(&id)
    }

    pub fn insert(&self, id: ChunkId, data: Bytes) {
        self.shard(id).lock().insert(id, data);
    }

    /// Bytes in use now, including the overhead of entries.
    pub fn held_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().held()).sum()
    }

    fn shard(&self, id: ChunkId) -> &Mutex<CacheShard> {
        let run = u64::from(id.index / SHARD_RUN).wrapping_add(id.version.0);
        &self.shards[(run % SHARDS as u64) as usize]
    }
}

struct CachedChunk {
    data: Bytes,
    read_before: bool,
}

impl CachedChunk {
    fn cost(&self) -> usize {
        self.data.len() + ENTRY_BYTES
    }
}

struct CacheShard {
    limit: usize,
    once: LruCache<ChunkId, CachedChunk>,
    once_bytes: usize,
    often: LruCache<ChunkId, CachedChunk>,
    often_bytes: usize,
}

impl CacheShard {
    fn new(limit: usize) -> Self {
        Self { limit, once: LruCache::unbounded(), once_bytes: 0, often: LruCache::unbounded(), often_bytes: 0 }
    }

    fn held(&self) -> usize {
        self.once_bytes + self.often_bytes
    }

    fn get(&mut self, id: ChunkId) -> Option<Bytes> {
        if let Some(entry) = self.often.get(&id) {
            return Some(entry.data.clone());
        }
        let entry = self.once.peek_mut(&id)?;
        let data = entry.data.clone();
        if entry.read_before {
            self.promote(id);
        } else {
            entry.read_before = true;
        }
        Some(data)
    }

    fn promote(&mut self, id: ChunkId) {
        let Some(mut entry) = self.once.pop(&id) else { return };
        self.once_bytes -= entry.cost();
        entry.data = Bytes::copy_from_slice(&entry.data);
        self.often_bytes += entry.cost();
        self.often.put(id, entry);
        while self.often_bytes > self.limit / 4 * 3 {
            let Some((id, entry)) = self.often.pop_lru() else { break };
            self.often_bytes -= entry.cost();
            self.once_bytes += entry.cost();
            self.once.put(id, entry);
        }
        self.evict();
    }

    fn insert(&mut self, id: ChunkId, data: Bytes) {
        if self.often.contains(&id) {
            return;
        }
        let entry = CachedChunk { data, read_before: false };
        self.once_bytes += entry.cost();
        if let Some(old) = self.once.put(id, entry) {
            self.once_bytes -= old.cost();
        }
        self.evict();
    }

    fn evict(&mut self) {
        while self.held() > self.limit {
            if let Some((_, entry)) = self.once.pop_lru() {
                self.once_bytes -= entry.cost();
            } else if let Some((_, entry)) = self.often.pop_lru() {
                self.often_bytes -= entry.cost();
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    fn id(index: u32) -> ChunkId {
        ChunkId { version: Version(7), index }
    }

    #[test]
    fn the_limit_is_never_exceeded() {
        let cache = ChunkCache::new(1 << 20);
        for index in 1..5000 {
            cache.insert(id(index), Bytes::from(vec![1; 4096]));
            cache.get(id(index / 2 + 1));
            assert!(cache.held_bytes() <= 1 << 20);
        }
        assert!(cache.held_bytes() > (1 << 20) / 10 * 8);
        assert_eq!(cache.get(id(4999)).unwrap().len(), 4096);
        assert!(cache.get(id(1)).is_none() || cache.contains(id(1)));
    }

    #[test]
    fn one_sequential_pass_does_not_evict_chunks_that_are_read_often() {
        let cache = ChunkCache::new(1 << 20);
        for index in 1..=100 {
            cache.insert(id(index), Bytes::from(vec![1; 4096]));
            (0..2).for_each(|_| assert!(cache.get(id(index)).is_some()));
        }
        for index in 1000..4000 {
            cache.insert(id(index), Bytes::from(vec![2; 4096]));
            cache.get(id(index));
        }
        let kept = (1..=100).filter(|&index| cache.contains(id(index))).count();
        assert!(kept > 90, "{kept} of 100 kept");
    }

    #[test]
    fn a_chunk_read_twice_gets_its_own_buffer() {
        let cache = ChunkCache::new(1 << 20);
        let common = Bytes::from(vec![3; 64 << 10]);
        cache.insert(id(1), common.slice(..4096));
        for _ in 0..2 {
            cache.get(id(1));
        }
        assert!(common.is_unique(), "the entry still shares the large buffer");
    }

    /// The number of buffers of 256 KiB that a cache of 1 MiB keeps in memory. If `read` is set, one chunk of each is
    /// read before its buffer is evicted.
    fn buffers_kept(read: bool) -> usize {
        const CHUNKS: u32 = 64;
        let cache = ChunkCache::new(1 << 20);
        let buffers: Vec<Bytes> = (0..200).map(|_| Bytes::from(vec![4; CHUNKS as usize * 4096])).collect();
        for (number, buffer) in (0..).zip(&buffers) {
            let first = 1 + number * CHUNKS;
            for chunk in 0..CHUNKS {
                let start = chunk as usize * 4096;
                cache.insert(id(first + chunk), buffer.slice(start..start + 4096));
            }
            if read && number >= 3 {
                assert!(cache.get(id(first - 3 * CHUNKS + 5)).is_some(), "evicted too early to be read");
            }
        }
        buffers.iter().filter(|buffer| !buffer.is_unique()).count()
    }

    /// A random reader that needs one chunk of each buffer kept all buffers in memory for twice the time.
    #[test]
    fn a_chunk_read_once_does_not_outlive_its_neighbours() {
        assert!(buffers_kept(false) <= 5, "{}", buffers_kept(false));
        assert_eq!(buffers_kept(true), buffers_kept(false));
    }

    #[test]
    fn a_chunk_too_large_for_a_shard_is_not_kept() {
        let cache = ChunkCache::new(1 << 20);
        cache.insert(id(1), Bytes::from(vec![0; 1 << 20]));
        assert_eq!(cache.held_bytes(), 0);
    }
}
