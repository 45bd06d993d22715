//! Chunks that this mount has stored and that no commit will name: later writes replaced them, a truncation cut them
//! off, or their data was given up. Nobody else knows of them, so the mount reports them (`transfer::discards`).
//!
//! A chunk is reported only when no other chunk of its version waits for a commit, since the namespace refuses to make
//! any chunk of a version current after one was deleted. Reporting a chunk that a commit without an answer has made
//! current does no harm: the namespace skips it.

use std::collections::HashSet;

use chordfs_types::{
    chunk::{ChunkId, FileName, Version},
    namespace::Extent,
};

use super::FileState;
use crate::transfer::extents::ExtentMap;

#[derive(Default)]
pub(super) struct DiscardedChunks(Vec<Extent>);

impl DiscardedChunks {
    pub(super) fn add(&mut self, extent: Extent) {
        match self.0.last_mut().filter(|last| last.version == extent.version && last.end() == u64::from(extent.first)) {
            Some(last) => last.count += extent.count,
            None => self.0.push(extent),
        }
    }

    fn contains(&self, id: ChunkId) -> bool {
        self.0.iter().any(|extent| extent.version == id.version && extent.range().contains(&u64::from(id.index)))
    }

    /// Inserts a run, and adds what it replaces.
    pub(super) fn insert_over(&mut self, map: &mut ExtentMap, extent: Extent) {
        let replaced: Vec<Extent> = map.overlapping(extent.range()).collect();
        for old in replaced.into_iter().rev().filter(|old| old.version != extent.version) {
            let (first, end) = (old.first.max(extent.first), old.end().min(extent.end()));
            self.add(Extent { first, count: (end - u64::from(first)) as u32, version: old.version });
        }
        map.insert(extent);
    }
}

impl FileState {
    pub(crate) fn discard(&mut self, extents: impl IntoIterator<Item = Extent>) {
        extents.into_iter().for_each(|extent| self.discarded.add(extent));
    }

    /// Whether a report of lost chunks of this name may be about chunks that this file has stored and not committed.
    /// They all belong to the next commit then, or to the one under way.
    pub(crate) fn may_have_lost(&mut self, name: &FileName) -> bool {
        let may = self.attr.file == *name && self.has_stored();
        if may {
            self.merge_newer();
        }
        may
    }

    /// Whether this file had the chunk and needs it no more: it was discarded, or the next commit replaces it.
    pub(crate) fn is_superseded(&self, id: ChunkId) -> bool {
        let is_committed = self.committed_version(id.index) == Some(id.version);
        let is_replaced = self.stored.get(id.index).is_some_and(|version| version != id.version);
        is_committed && is_replaced || self.discarded.contains(id)
    }

    /// Takes everything out of `stored`.
    pub(super) fn discard_stored(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        self.discard(stored.iter());
    }

    /// Takes out the chunks to report, between two commits.
    pub(crate) fn take_discarded(&mut self) -> Vec<Extent> {
        if self.discarded.0.is_empty() {
            return Vec::new();
        }
        let waiting: HashSet<Version> = self.stored.iter().map(|extent| extent.version).collect();
        let (kept, settled) =
            std::mem::take(&mut self.discarded.0).into_iter().partition(|extent| waiting.contains(&extent.version));
        self.discarded.0 = kept;
        settled
    }
}
