//! When a chunk counts as orphaned: no file referred to it in two looks, far enough apart.
//!
//! The first look is made of chunks that have lain on this node for long, by the wall clock, which may jump. The time
//! between the looks is told by a clock that does not, and gives a writer whose chunks only seem old the time to
//! commit.
#![deny(clippy::disallowed_methods)]

use std::{collections::HashMap, time::Duration};

use chordfs_types::chunk::ChunkId;

pub(super) struct OrphanCandidates {
    /// Since which moment, on the clock of the looks.
    since: HashMap<ChunkId, Duration>,
    confirm_after: Duration,
}

impl OrphanCandidates {
    pub(super) fn new(confirm_after: Duration) -> Self {
        Self { since: HashMap::new(), confirm_after }
    }

    /// Takes what a look found at `now`, counted from any fixed moment by a clock that does not jump, and says who was
    /// found before, long enough ago, and in every look since.
    pub(super) fn look(&mut self, now: Duration, unreferenced: &[ChunkId]) -> Vec<ChunkId> {
        let before = std::mem::take(&mut self.since);
        self.since = unreferenced.iter().map(|chunk| (*chunk, *before.get(chunk).unwrap_or(&now))).collect();
        let old = |chunk: &&ChunkId| now.saturating_sub(self.since[*chunk]) >= self.confirm_after;
        unreferenced.iter().filter(old).copied().collect()
    }

    /// Nothing that was found so far counts any more.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chordfs_types::chunk::Version;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Chunks of a few versions.
    fn chunks(numbers: &[u64]) -> Vec<ChunkId> {
        numbers.iter().map(|number| ChunkId { version: Version(number / 3), index: (number % 3) as u32 + 1 }).collect()
    }

    #[test]
    fn twice_and_far_apart() {
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

    /// Writers store, commit within their time, replace and delete; looks come whenever they like.
    #[test]
    fn nobody_is_confirmed_who_was_referenced_since_long_ago() {
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
