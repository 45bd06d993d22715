//! Tombstones: the chunks that were deleted recently, so that they are not put again.
//!
//! A dead version is never referenced again, but its chunks may come back: nodes delete at slightly different times,
//! and repair, which reconciles neighbours, takes a chunk that only one of them has deleted for a missing one. So a put
//! skips chunks that have a tombstone here, and repair passes the deletion on to a neighbour that was away.
//!
//! Tombstones save traffic and an hour of space, and show a syncing writer that a chunk is obsolete before the
//! namespace can be asked (`chordfs_net::chunk_client`). Nothing else relies on them. So they are kept only in memory
//! and only for a while: a chunk that comes back after ten minutes or a restart is an orphan, and the scrub collects it
//! when it is old.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chordfs_types::chunk::{ChunkId, ChunkRun, Version};
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::removal::last_index;

/// How long tombstones are kept: longer than a round of repair takes to copy the chunks that it found missing.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The most runs that are kept; the oldest give way.
const MAX_RUNS: usize = 1 << 18;

#[derive(Default)]
pub(crate) struct Tombstones {
    inner: RwLock<TombstoneRuns>,
}

#[derive(Default)]
struct TombstoneRuns {
    runs: HashMap<Version, Vec<IndexRange>>,
    /// Oldest first, each once for each of its spans.
    order: VecDeque<(Instant, Version)>,
}

/// First and last chunk, both included; the oldest of a version comes first.
type IndexRange = (u32, u32);

impl Tombstones {
    pub(crate) fn add(&self, runs: &[ChunkRun], now: Instant) {
        let mut inner = self.inner.write();
        inner.forget_old(now);
        for run in runs.iter().filter(|run| run.count > 0) {
            let span = (run.first, last_index(run));
            inner.add(run.version, span, now);
        }
    }

    /// Like [`Tombstones::add`], for chunks that come one by one.
    pub(crate) fn add_chunks(&self, ids: impl Iterator<Item = ChunkId>, now: Instant) {
        let mut ids: Vec<ChunkId> = ids.collect();
        ids.sort_unstable();
        let follows = |a: &ChunkId, b: &ChunkId| a.version == b.version && a.index.checked_add(1) == Some(b.index);
        let mut inner = self.inner.write();
        inner.forget_old(now);
        for run in ids.chunk_by(follows) {
            inner.add(run[0].version, (run[0].index, run[run.len() - 1].index), now);
        }
    }

    pub(crate) fn holds(&self, id: ChunkId) -> bool {
        let inner = self.inner.read();
        let spans = inner.runs.get(&id.version);
        spans.is_some_and(|spans| spans.iter().any(|(first, last)| (*first..=*last).contains(&id.index)))
    }
}

impl TombstoneRuns {
    fn add(&mut self, version: Version, span: IndexRange, now: Instant) {
        let spans = self.runs.entry(version).or_default();
        // A run is often deleted several times, until all nodes have deleted it.
        if spans.contains(&span) {
            return;
        }
        spans.push(span);
        self.order.push_back((now, version));
        if self.order.len() > MAX_RUNS {
            self.forget_oldest();
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) > KEPT_FOR) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, version)) = self.order.pop_front() else { return };
        let Some(spans) = self.runs.get_mut(&version) else { return };
        spans.remove(0);
        if spans.is_empty() {
            self.runs.remove(&version);
        }
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::FileName;

    use super::*;

    fn run(first: u32, count: u32, version: u64) -> ChunkRun {
        ChunkRun { file: FileName::new("f").unwrap(), first, count, version: Version(version) }
    }

    fn id(index: u32, version: u64) -> ChunkId {
        ChunkId { version: Version(version), index }
    }

    #[test]
    fn a_run_has_a_tombstone_for_a_while() {
        let (tombstones, start) = (Tombstones::default(), Instant::now());
        tombstones.add(&[run(3, 2, 7), run(u32::MAX, 5, 7), run(1, 0, 9)], start);
        tombstones.add(&[run(3, 2, 7), run(1, 1, 8)], start + KEPT_FOR);
        let held = |expected: [bool; 6]| {
            let asked = [id(2, 7), id(3, 7), id(4, 7), id(u32::MAX, 7), id(1, 8), id(1, 9)];
            assert_eq!(asked.map(|id| tombstones.holds(id)), expected);
        };
        held([false, true, true, true, true, false]);
        tombstones.add(&[], start + KEPT_FOR + Duration::from_secs(1));
        held([false, false, false, false, true, false]);
    }

    #[test]
    fn chunks_that_follow_each_other_are_one_span() {
        let tombstones = Tombstones::default();
        tombstones.add_chunks([id(5, 7), id(3, 7), id(4, 7), id(9, 7), id(5, 8)].into_iter(), Instant::now());
        assert_eq!(tombstones.inner.read().runs[&Version(7)], [(3, 5), (9, 9)]);
        assert!(tombstones.holds(id(4, 7)) && tombstones.holds(id(5, 8)) && !tombstones.holds(id(4, 8)));
    }

    #[test]
    fn the_number_of_tombstones_is_bounded() {
        let (tombstones, start) = (Tombstones::default(), Instant::now());
        let runs: Vec<_> = (0..MAX_RUNS as u64 + 10).map(|version| run(1, 1, version)).collect();
        tombstones.add(&runs, start);
        assert_eq!([9, 10].map(|version| tombstones.holds(id(1, version))), [false, true]);
        assert_eq!(tombstones.inner.read().runs.len(), MAX_RUNS);
    }
}
