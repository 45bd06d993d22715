//! Which logged chunks the leader stores next, as a value. New ones go in large pages. The chunks of a page that failed
//! come again a little later in pages of a quarter of its size, in the end alone, and each time after a longer pause;
//! until then nothing waits for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chordfs_types::chunk::ChunkId;

/// The most chunks and bytes of one page. A page is stored within seconds, also over a slow network.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 2 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct PlacementPlan {
    under_way: BTreeSet<ChunkId>,
    failed: BTreeMap<ChunkId, FailedChunk>,
}

#[derive(Clone, Copy)]
struct FailedChunk {
    /// The size of the page in which it comes again.
    page: usize,
    next_try: Instant,
    pause: Duration,
}

impl PlacementPlan {
    /// Chooses the next page among the chunks that the log keeps, given in the order of their ids with their bytes. The
    /// caller reports its end to [`Self::note`].
    pub(crate) fn next_page(
        &mut self,
        kept: impl Iterator<Item = (ChunkId, usize)> + Clone,
        now: Instant,
    ) -> BTreeSet<ChunkId> {
        let free = kept.filter(|(id, _)| !self.under_way.contains(id));
        let mut page = take_page(free.clone().filter(|(id, _)| !self.failed.contains_key(id)), PAGE);
        if page.is_empty() {
            let due = |id: &ChunkId| self.failed.get(id).filter(|failed| failed.next_try <= now);
            // The largest pages first: they have the most chunks whose holders may be well.
            let size = free.clone().filter_map(|(id, _)| due(&id)).map(|failed| failed.page).max();
            let of_size = |id: &ChunkId| due(id).is_some_and(|failed| Some(failed.page) == size);
            page = take_page(free.filter(|(id, _)| of_size(id)), size.unwrap_or(0));
        }
        self.under_way.extend(&page);
        page
    }

    /// Forgets failures of chunks that the log keeps no longer.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&ChunkId) -> bool) {
        self.failed.retain(|id, _| is_kept(id));
    }

    /// Whether any chunk has failed.
    pub(crate) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    pub(crate) fn note(&mut self, page: &[ChunkId], is_placed: bool, now: Instant) {
        for id in page {
            self.under_way.remove(id);
            if is_placed {
                self.failed.remove(id);
                continue;
            }
            let former = self.failed.get(id).map(|failed| failed.pause);
            let pause = former.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
            self.failed.insert(*id, FailedChunk { page: (page.len() / 4).max(1), next_try: now + pause, pause });
        }
    }
}

/// The first of the chunks that make up a page: at least one, if there is any.
fn take_page(chunks: impl Iterator<Item = (ChunkId, usize)>, most: usize) -> BTreeSet<ChunkId> {
    let mut bytes = 0;
    let fits = |(_, len): &(ChunkId, usize)| {
        let fits = bytes == 0 || bytes + len <= PAGE_BYTES;
        bytes += len.max(&1);
        fits
    };
    chunks.take(most).take_while(fits).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    fn id(version: u64) -> ChunkId {
        ChunkId { version: Version(version), index: 1 }
    }

    /// Time passes only as long as requests wait: a page with a chunk that cannot be stored takes eight seconds, four
    /// pages are under way at a time, and new chunks come all the time.
    #[test]
    fn a_chunk_that_cannot_be_stored_delays_no_other_and_is_tried_again_and_again() {
        let (bad, start) = (BTreeSet::from([id(5), id(77), id(500)]), Instant::now());
        let (mut plan, mut kept, mut next) = (PlacementPlan::default(), BTreeSet::new(), 0);
        let mut running: Vec<(Instant, Vec<ChunkId>)> = Vec::new();
        let (mut tries, mut since): (usize, BTreeMap<ChunkId, u64>) = (0, BTreeMap::new());
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            running.retain(|(end, page)| {
                if *end > now {
                    return true;
                }
                let is_placed = page.iter().all(|id| !bad.contains(id));
                tries += usize::from(!is_placed && page.len() == 1);
                plan.note(page, is_placed, now);
                if is_placed {
                    kept.retain(|id| !page.contains(id));
                }
                false
            });
            for _ in 0..100 {
                kept.insert(id(next));
                since.insert(id(next), second);
                next += 1;
            }
            while running.len() < 4 {
                let page = plan.next_page(kept.iter().map(|id| (*id, 4096)), now);
                if page.is_empty() {
                    break;
                }
                let time = if page.iter().any(|id| bad.contains(id)) { 8 } else { 1 };
                running.push((now + Duration::from_secs(time), page.into_iter().collect()));
            }
            let oldest = kept.iter().filter(|id| !bad.contains(id)).map(|id| second - since[id]).max().unwrap_or(0);
            assert!(oldest < 90, "a sound chunk waits for {oldest} s");
        }
        assert!(bad.is_subset(&kept) && kept.len() < 200, "{} chunks are left", kept.len());
        assert!(tries > 10, "chunks alone in their pages were tried {tries} times");
    }

    #[test]
    fn pages_are_bounded_in_chunks_and_bytes_and_nothing_is_in_two() {
        let mut plan = PlacementPlan::default();
        let small: Vec<(ChunkId, usize)> = (0..1000).map(|version| (id(version), 10)).collect();
        let pages: Vec<usize> = (0..5).map(|_| plan.next_page(small.iter().copied(), Instant::now()).len()).collect();
        assert_eq!(pages, [256, 256, 256, 232, 0]);
        let large: Vec<(ChunkId, usize)> = (2000..2010).map(|version| (id(version), 1 << 20)).collect();
        assert_eq!(plan.next_page(large.iter().copied(), Instant::now()).len(), 2);
        let huge = [(id(3000), 9 << 20), (id(3001), 1)];
        assert_eq!(plan.next_page(huge.iter().copied(), Instant::now()).len(), 1);
    }

    #[test]
    fn failures_are_forgotten_with_their_chunks() {
        let mut plan = PlacementPlan::default();
        plan.note(&[id(1), id(2)], false, Instant::now());
        plan.retain(|kept| *kept == id(2));
        assert!(plan.has_failed() && plan.failed.len() == 1);
        plan.note(&[id(2)], true, Instant::now());
        assert!(!plan.has_failed());
    }
}
