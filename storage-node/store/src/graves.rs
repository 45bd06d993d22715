//! What was deleted lately, so that it is not put again.
//!
//! A dead version never comes back, but its chunks may: the nodes delete at slightly different times, and repair, which
//! makes neighbours equal, takes what one has deleted and the other not yet for missing. So a put passes over what is
//! remembered here, and repair tells a neighbour that was away.
//!
//! It spares copying, and an hour of space; and a writer that syncs hears from it that nobody needs a chunk any more, until
//! the namespace can be asked that (`chordfs_net::chunk_client`). Nothing else rests on it. So it is only in memory and only for a while: whatever
//! comes back after ten minutes or a restart is an orphan, chunk by chunk, and the scrub collects it when it is old.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chordfs_types::chunk::{ChunkId, ChunkRun, Version};
use hashbrown::HashMap;
use parking_lot::RwLock;

/// Longer than a round of repair takes to move what it found missing.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Runs remembered at most; the oldest give way.
const KEPT_RUNS: usize = 1 << 18;

#[derive(Default)]
pub struct Graves {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    runs: HashMap<Version, Vec<Span>>,
    /// Oldest first, each once for each of its spans.
    order: VecDeque<(Instant, Version)>,
}

/// First and last chunk, both included; the oldest of a version comes first.
type Span = (u32, u32);

impl Graves {
    pub fn add(&self, runs: &[ChunkRun], now: Instant) {
        let mut inner = self.inner.write();
        inner.forget_old(now);
        for run in runs.iter().filter(|run| run.count > 0) {
            let span = (run.first, run.first.saturating_add(run.count - 1));
            inner.add(run.version, span, now);
        }
    }

    /// The same of chunks that come one by one.
    pub fn add_chunks(&self, ids: impl Iterator<Item = ChunkId>, now: Instant) {
        let mut ids: Vec<ChunkId> = ids.collect();
        ids.sort_unstable();
        let follows = |a: &ChunkId, b: &ChunkId| a.version == b.version && a.index.checked_add(1) == Some(b.index);
        let mut inner = self.inner.write();
        inner.forget_old(now);
        for run in ids.chunk_by(follows) {
            inner.add(run[0].version, (run[0].index, run[run.len() - 1].index), now);
        }
    }

    pub fn holds(&self, id: ChunkId) -> bool {
        let inner = self.inner.read();
        let spans = inner.runs.get(&id.version);
        spans.is_some_and(|spans| spans.iter().any(|(first, last)| (*first..=*last).contains(&id.index)))
    }
}

impl Inner {
    fn add(&mut self, version: Version, span: Span, now: Instant) {
        let spans = self.runs.entry(version).or_default();
        // The same is often deleted several times, until all nodes have done it.
        if spans.contains(&span) {
            return;
        }
        spans.push(span);
        self.order.push_back((now, version));
        if self.order.len() > KEPT_RUNS {
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
    fn a_run_is_remembered_for_a_while() {
        let (graves, start) = (Graves::default(), Instant::now());
        graves.add(&[run(3, 2, 7), run(u32::MAX, 5, 7), run(1, 0, 9)], start);
        graves.add(&[run(3, 2, 7), run(1, 1, 8)], start + KEPT_FOR);
        let held = |expected: [bool; 6]| {
            let asked = [id(2, 7), id(3, 7), id(4, 7), id(u32::MAX, 7), id(1, 8), id(1, 9)];
            assert_eq!(asked.map(|id| graves.holds(id)), expected);
        };
        held([false, true, true, true, true, false]);
        graves.add(&[], start + KEPT_FOR + Duration::from_secs(1));
        held([false, false, false, false, true, false]);
    }

    #[test]
    fn chunks_that_follow_each_other_are_one_span() {
        let graves = Graves::default();
        graves.add_chunks([id(5, 7), id(3, 7), id(4, 7), id(9, 7), id(5, 8)].into_iter(), Instant::now());
        assert_eq!(graves.inner.read().runs[&Version(7)], [(3, 5), (9, 9)]);
        assert!(graves.holds(id(4, 7)) && graves.holds(id(5, 8)) && !graves.holds(id(4, 8)));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (graves, start) = (Graves::default(), Instant::now());
        let runs: Vec<_> = (0..KEPT_RUNS as u64 + 10).map(|version| run(1, 1, version)).collect();
        graves.add(&runs, start);
        assert_eq!([9, 10].map(|version| graves.holds(id(1, version))), [false, true]);
        assert_eq!(graves.inner.read().runs.len(), KEPT_RUNS);
    }
}
