//! When a chunk counts as orphaned: it was unreferenced in two looks, far enough apart.
//!
//! A look considers only chunks that are old by the wall clock, which may jump. The time between the looks is measured
//! by a monotonic clock, and gives a writer whose chunks only seem old the time to commit.
#![deny(clippy::disallowed_methods)]

use std::{collections::HashMap, time::Duration};

use chordfs_types::chunk::{ChunkId, Version};

/// A node with a smaller free share of its capacity is short of room.
const SHORT_OF_ROOM_DIVISOR: u64 = 10;
/// A node that is short of room divides the orphan age by this.
const HURRY_DIVISOR: u32 = 12;

pub(super) struct OrphanCandidates {
    /// When each candidate was first found, on the clock of the looks.
    since: HashMap<ChunkId, Duration>,
    confirm_after: Duration,
}

impl OrphanCandidates {
    pub(super) fn new(confirm_after: Duration) -> Self {
        Self { since: HashMap::new(), confirm_after }
    }

    /// Takes the chunks that a look found at `now`, a time since any fixed moment by a monotonic clock. Returns those
    /// that were first found long enough ago, and in every look since.
    pub(super) fn look(&mut self, now: Duration, unreferenced: &[ChunkId]) -> Vec<ChunkId> {
        let before = std::mem::take(&mut self.since);
        self.since = unreferenced.iter().map(|chunk| (*chunk, *before.get(chunk).unwrap_or(&now))).collect();
        let old = |chunk: &&ChunkId| now.saturating_sub(self.since[*chunk]) >= self.confirm_after;
        unreferenced.iter().filter(old).copied().collect()
    }

    /// Sets the time between the two looks that confirm an orphan.
    pub(super) fn confirm_after(&mut self, time: Duration) {
        self.confirm_after = time;
    }

    /// The versions of the candidates, so that the next look asks about them again.
    pub(super) fn versions(&self) -> Vec<Version> {
        let mut versions: Vec<Version> = self.since.keys().map(|chunk| chunk.version).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Forgets all earlier looks.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}

/// How old a chunk without a file has to be. A node that is short of room waits for a shorter time: a mount commits its
/// writes within seconds, so the rest of the time only helps writers that are nearly dead.
pub(super) fn orphan_age(age: Duration, free_bytes: u64, capacity_bytes: u64) -> Duration {
    let short_of_room = free_bytes < capacity_bytes / SHORT_OF_ROOM_DIVISOR;
    if short_of_room { age / HURRY_DIVISOR } else { age }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Chunks of a few versions.
    fn chunks(numbers: &[u64]) -> Vec<ChunkId> {
        numbers.iter().map(|number| ChunkId { version: Version(number / 3), index: (number % 3) as u32 + 1 }).collect()
    }

    #[test]
    fn a_node_short_of_room_collects_orphans_sooner() {
        let hour = Duration::from_secs(3600);
        assert_eq!(orphan_age(hour, 10, 100), hour);
        assert_eq!(orphan_age(hour, 9, 100), Duration::from_secs(300));
        assert_eq!(orphan_age(hour, 0, 0), hour, "the capacity is unknown");
    }

    #[test]
    fn a_candidate_is_confirmed_by_two_looks_far_apart() {
        let mut candidates = OrphanCandidates::new(Duration::from_secs(10));
        let mut look = |at: u64, found: &[u64]| candidates.look(Duration::from_secs(at), &chunks(found));
        assert_eq!(look(0, &[1, 2, 3]), []);
        assert_eq!(look(9, &[1, 2, 3]), []);
        assert_eq!(look(10, &[1, 3, 4]), chunks(&[1, 3]));
        assert_eq!(look(15, &[2]), [], "2 was referenced in between");
        assert_eq!(look(25, &[2, 1]), chunks(&[2]));
        candidates.clear();
        assert_eq!(candidates.look(Duration::from_secs(99), &chunks(&[2])), []);
    }

    /// Chunks become referenced and unreferenced at random; looks come at random times.
    #[test]
    fn no_recently_referenced_chunk_is_confirmed() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let confirm = rng.random_range(1..20);
            let mut candidates = OrphanCandidates::new(Duration::from_secs(confirm));
            let (mut free, mut found_since) = (BTreeSet::new(), HashMap::new());
            for at in 0..300 {
                let chunk = rng.random_range(0..12);
                if !free.remove(&chunk) {
                    free.insert(chunk);
                }
                if rng.random_bool(0.3) {
                    let found: Vec<u64> = free.iter().copied().collect();
                    found_since.retain(|chunk, _| free.contains(chunk));
                    for chunk in &found {
                        found_since.entry(*chunk).or_insert(at);
                    }
                    let confirmed = candidates.look(Duration::from_secs(at), &chunks(&found));
                    let expected: Vec<u64> =
                        found.iter().copied().filter(|chunk| at - found_since[chunk] >= confirm).collect();
                    assert_eq!(confirmed, chunks(&expected), "seed {seed} at {at}");
                }
            }
        }
    }
}
