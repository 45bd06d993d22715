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
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use chordfs_types::chunk::{ChunkId, ChunkRun, Version};
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

/// One ordered map over all versions: with a map for each version, a run took 400 bytes, since most versions have one.
#[derive(Default)]
struct TombstoneRuns {
    /// The deleted spans by their first chunk, each with the index of its last chunk, which is included, and the time
    /// it was added. Those of one version do not overlap.
    spans: BTreeMap<ChunkId, (u32, Instant)>,
    /// Oldest first: when each span was added, and its first chunk. A span that has become a part of a newer one is no
    /// longer in `spans`.
    order: VecDeque<(Instant, ChunkId)>,
}

/// First and last chunk, both included.
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
        self.inner.read().span_before(id).is_some_and(|(_, last)| id.index <= last)
    }
}

impl TombstoneRuns {
    /// The last span of the chunk's version that begins at or before it: first and last chunk.
    fn span_before(&self, id: ChunkId) -> Option<IndexRange> {
        let (first, (last, _)) = self.spans.range(..=id).next_back()?;
        (first.version == id.version).then_some((first.index, *last))
    }

    fn add(&mut self, version: Version, (mut first, mut last): IndexRange, now: Instant) {
        let at = |index| ChunkId { version, index };
        // A run is often deleted several times, until all nodes have deleted it.
        if self.span_before(at(first)).is_some_and(|(_, known)| last <= known) {
            return;
        }
        while let Some((start, end)) = self.span_before(at(last)).filter(|(_, end)| *end >= first) {
            self.spans.remove(&at(start));
            (first, last) = (first.min(start), last.max(end));
        }
        self.spans.insert(at(first), (last, now));
        self.order.push_back((now, at(first)));
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
        let Some((since, first)) = self.order.pop_front() else { return };
        if self.spans.get(&first).is_some_and(|(_, added)| *added == since) {
            self.spans.remove(&first);
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
        let inner = tombstones.inner.read();
        let spans: Vec<_> =
            inner.spans.iter().map(|(first, (last, _))| (first.version.0, first.index, *last)).collect();
        assert_eq!(spans, [(7, 3, 5), (7, 9, 9), (8, 5, 5)]);
        drop(inner);
        assert!(tombstones.holds(id(4, 7)) && tombstones.holds(id(5, 8)) && !tombstones.holds(id(4, 8)));
    }

    #[test]
    fn a_chunk_in_overlapping_spans_has_a_tombstone_until_the_newest_is_old() {
        let (tombstones, start) = (Tombstones::default(), Instant::now());
        tombstones.add(&[run(1, 4, 7), run(8, 3, 7)], start);
        tombstones.add(&[run(4, 5, 7), run(5, 2, 7), run(20, 1, 7)], start + KEPT_FOR);
        let held = |asked: &[u32]| asked.iter().map(|index| tombstones.holds(id(*index, 7))).collect::<Vec<_>>();
        assert_eq!(held(&[0, 1, 6, 10, 11, 19, 20, 21]), [false, true, true, true, false, false, true, false]);
        tombstones.add(&[], start + KEPT_FOR + Duration::from_secs(1));
        assert_eq!(held(&[1, 6, 10, 20]), [true; 4], "the span that joined them is new");
        tombstones.add(&[], start + 2 * KEPT_FOR + Duration::from_secs(1));
        assert_eq!(held(&[1, 6, 10, 20]), [false; 4]);
        assert!(tombstones.inner.read().spans.is_empty());
    }

    /// Adding a span compared it with all others of its version, and forgetting one moved all others: a rewritten large
    /// file blocked all puts for minutes.
    #[test]
    fn many_spans_of_one_version_take_little_time() {
        let (tombstones, start) = (Tombstones::default(), Instant::now());
        let runs: Vec<_> = (0..MAX_RUNS as u32 + 1000).map(|at| run(2 * at + 1, 1, 7)).collect();
        tombstones.add(&runs, start);
        assert_eq!([1999, 2001, 2002].map(|index| tombstones.holds(id(index, 7))), [false, true, false]);
        tombstones.add(&[], start + KEPT_FOR + Duration::from_secs(1));
        assert!(tombstones.inner.read().spans.is_empty());
        assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    }

    #[test]
    fn the_number_of_tombstones_is_bounded() {
        let (tombstones, start) = (Tombstones::default(), Instant::now());
        let runs: Vec<_> = (0..MAX_RUNS as u64 + 10).map(|version| run(1, 1, version)).collect();
        tombstones.add(&runs, start);
        assert_eq!([9, 10].map(|version| tombstones.holds(id(1, version))), [false, true]);
        assert_eq!(tombstones.inner.read().spans.len(), MAX_RUNS);
    }
}
