//! Computes the runs to report as orphans from the chunks here and the unreferenced pieces that the namespace names.
//!
//! A node keeps only some chunks of a write; other nodes keep the rest. So the node asks about each version from its
//! first chunk here to its last, and the answer is a list of pieces, which also cover chunks of other nodes. A reported
//! run lies within one piece, begins and ends with a chunk that is here, and contains no unconfirmed chunk of this
//! node. The chunks in its gaps are on other nodes. They belong to the same version and piece, and so are orphans too.
#![deny(clippy::disallowed_methods)]

use std::{cmp::Ordering, collections::HashSet};

use chordfs_store::{HeldChunk, HeldRun};
use chordfs_types::{chunk::ChunkId, namespace::Extent};

/// A chunk of this node that belongs to no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreferenced {
    pub chunk: HeldChunk,
    /// The first index of the piece that contains the chunk.
    piece: u32,
}

/// The runs to ask about: each version from its first chunk here to its last. `held` ascends.
pub(super) fn version_spans(held: &[HeldChunk]) -> Vec<Extent> {
    let versions = held.chunk_by(|a, b| a.id.version == b.id.version);
    let span = |chunks: &[HeldChunk]| {
        let (first, last) = (chunks[0].id, chunks[chunks.len() - 1].id);
        Extent { first: first.index, count: (last.index - first.index).saturating_add(1), version: first.version }
    };
    versions.map(span).collect()
}

/// The rest of the requested runs, from a chunk of one of them on. `None` if the chunk is in none of them.
pub(super) fn remaining_runs(runs: &[Extent], (number, chunk): (u32, u32)) -> Option<Vec<Extent>> {
    let mut rest = runs.get(number as usize..)?.to_vec();
    let first = rest.first_mut()?;
    let passed = chunk.checked_sub(first.first).filter(|passed| *passed < first.count)?;
    (first.first, first.count) = (chunk, first.count - passed);
    Some(rest)
}

/// The chunks that lie in the pieces. Both lists ascend.
pub(super) fn unreferenced_chunks(held: &[HeldChunk], pieces: &[Extent]) -> Vec<Unreferenced> {
    let (mut found, mut pieces) = (Vec::new(), pieces.iter().peekable());
    for chunk in held {
        while pieces.next_if(|piece| place(chunk.id, piece) == Ordering::Greater).is_some() {}
        if let Some(piece) = pieces.peek().filter(|piece| place(chunk.id, piece) == Ordering::Equal) {
            found.push(Unreferenced { chunk: *chunk, piece: piece.first });
        }
    }
    found
}

/// The runs to report: the confirmed chunks, joined where no unconfirmed chunk of this node lies between them.
pub(super) fn runs(unreferenced: &[Unreferenced], confirmed: &HashSet<ChunkId>) -> Vec<HeldRun> {
    let is_confirmed = |found: &Unreferenced| confirmed.contains(&found.chunk.id);
    let together = |a: &Unreferenced, b: &Unreferenced| {
        let same = |found: &Unreferenced| (found.chunk.id.version, found.piece, is_confirmed(found));
        same(a) == same(b)
    };
    let groups = unreferenced.chunk_by(together).filter(|group| is_confirmed(&group[0]));
    groups.map(|group| HeldRun { first: group[0].chunk, last: group[group.len() - 1].chunk.id.index }).collect()
}

/// Whether a chunk lies before, in, or after a piece.
fn place(id: ChunkId, piece: &Extent) -> Ordering {
    id.version.cmp(&piece.version).then_with(|| match id.index.checked_sub(piece.first) {
        None => Ordering::Less,
        Some(at) if at < piece.count => Ordering::Equal,
        Some(_) => Ordering::Greater,
    })
}

#[cfg(test)]
mod tests {
    use chordfs_types::{chunk::Version, ring_id::RingId};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn held(version: u64, indexes: &[u32]) -> Vec<HeldChunk> {
        let chunk =
            |index: &u32| HeldChunk { id: ChunkId { version: Version(version), index: *index }, key: RingId(*index) };
        indexes.iter().map(chunk).collect()
    }

    fn extent(first: u32, count: u32, version: u64) -> Extent {
        Extent { first, count, version: Version(version) }
    }

    fn shown(runs: &[HeldRun]) -> Vec<(u64, u32, u32)> {
        runs.iter().map(|run| (run.first.id.version.0, run.first.id.index, run.last)).collect()
    }

    #[test]
    fn a_query_spans_a_version_from_its_first_chunk_here_to_its_last() {
        let chunks = [held(1, &[1, u32::MAX]), held(4, &[7]), held(5, &[2, 3, 9])].concat();
        let asked = version_spans(&chunks);
        assert_eq!(asked, [extent(1, u32::MAX, 1), extent(7, 1, 4), extent(2, 8, 5)]);
        assert_eq!(remaining_runs(&asked, (2, 4)), Some(vec![extent(4, 6, 5)]));
        assert_eq!(remaining_runs(&asked, (0, 9)).unwrap()[0], extent(9, u32::MAX - 8, 1));
        for outside in [(3, 1), (1, 6), (1, 8), (u32::MAX, 0)] {
            assert_eq!(remaining_runs(&asked, outside), None);
        }
    }

    #[test]
    fn a_run_stays_within_its_piece_and_contains_no_unconfirmed_chunk() {
        let chunks = [held(4, &[1, 4, 7, 10, 13]), held(5, &[2, 5, 8])].concat();
        let found = unreferenced_chunks(&chunks, &[extent(1, 4, 4), extent(6, 9, 4), extent(5, 2, 5)]);
        let all: HashSet<ChunkId> = found.iter().map(|found| found.chunk.id).collect();
        assert_eq!(shown(&runs(&found, &all)), [(4, 1, 4), (4, 7, 13), (5, 5, 5)]);
        let without = |index| all.iter().copied().filter(|id| id.index != index).collect();
        assert_eq!(shown(&runs(&found, &without(10))), [(4, 1, 4), (4, 7, 7), (4, 13, 13), (5, 5, 5)]);
        assert_eq!(runs(&found, &HashSet::new()), []);
    }

    /// For random stored and random unreferenced chunks: exactly the stored chunks that are unreferenced are reported.
    #[test]
    fn runs_contain_exactly_the_unreferenced_chunks_of_this_node() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut some = |part: f64| (1..40).filter(|_| rng.random_bool(part)).collect::<Vec<u32>>();
            let chunks = [held(3, &some(0.4)), held(4, &some(0.9)), held(9, &some(0.1))].concat();
            let free: HashSet<ChunkId> = [held(3, &some(0.5)), held(4, &some(0.7)), held(9, &some(0.9))]
                .concat()
                .iter()
                .map(|chunk| chunk.id)
                .collect();
            let mut sorted: Vec<ChunkId> = free.iter().copied().collect();
            sorted.sort();
            let pieces = sorted.chunk_by(|a, b| a.version == b.version && a.index + 1 == b.index);
            let pieces: Vec<Extent> =
                pieces.map(|ids| extent(ids[0].index, ids.len() as u32, ids[0].version.0)).collect();
            let reported = runs(&unreferenced_chunks(&chunks, &pieces), &free);
            for chunk in &chunks {
                let within = |run: &&HeldRun| {
                    run.first.id.version == chunk.id.version
                        && (run.first.id.index..=run.last).contains(&chunk.id.index)
                };
                assert_eq!(
                    reported.iter().filter(within).count(),
                    usize::from(free.contains(&chunk.id)),
                    "seed {seed}: {chunk:?}"
                );
            }
        }
    }
}
