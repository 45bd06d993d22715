//! The damaged records that were found, kept until a sound copy has been put or the chunk turns out to be obsolete.

use std::collections::VecDeque;

use chordfs_types::{chunk::ChunkId, ring_id::RingId};
use hashbrown::HashSet;
use parking_lot::Mutex;

use crate::index::IndexEntry;

/// How many damaged chunks are remembered for repair.
const REMEMBERED: usize = 4096;

/// The damaged records found since the open; the newest are listed by chunk.
#[derive(Default)]
pub(crate) struct DamageLog {
    entries: Mutex<DamageEntries>,
}

#[derive(Default)]
struct DamageEntries {
    count: u64,
    chunks: VecDeque<DamagedChunk>,
}

/// A chunk whose record was found damaged, and where the record lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedChunk {
    pub key: RingId,
    pub id: ChunkId,
    pub segment: u32,
    pub offset: u32,
}

impl DamageLog {
    pub(crate) fn list(&self) -> Vec<(RingId, ChunkId)> {
        self.entries.lock().chunks.iter().map(|damaged| (damaged.key, damaged.id)).collect()
    }

    pub(crate) fn records(&self) -> Vec<DamagedChunk> {
        self.entries.lock().chunks.iter().copied().collect()
    }

    pub(crate) fn forget(&self, chunks: &[(RingId, ChunkId)]) {
        self.entries.lock().chunks.retain(|damaged| !chunks.contains(&(damaged.key, damaged.id)));
    }

    pub(crate) fn count(&self) -> u64 {
        self.entries.lock().count
    }

    /// Counts damage whose chunk is unknown.
    pub(crate) fn add_unnamed(&self, count: u64) {
        self.entries.lock().count += count;
    }

    /// Removes chunks from the list that were stored again.
    pub(crate) fn repaired(&self, new: &[IndexEntry]) {
        let mut entries = self.entries.lock();
        if !entries.chunks.is_empty() {
            let stored: HashSet<_> = new.iter().map(|entry| (entry.key.0, entry.id)).collect();
            entries.chunks.retain(|damaged| !stored.contains(&(damaged.key.0, damaged.id)));
        }
    }

    pub(crate) fn add(&self, IndexEntry { key, id, location }: &IndexEntry) {
        let damaged = DamagedChunk { key: *key, id: *id, segment: location.segment, offset: location.offset };
        let mut entries = self.entries.lock();
        entries.count += 1;
        if entries.chunks.len() == REMEMBERED {
            entries.chunks.pop_front();
        }
        entries.chunks.push_back(damaged);
    }
}
