//! Finds the chunks in which two holders of an arc differ, by comparing sums over ever smaller arcs, as in a Merkle
//! tree. The comparison is a value that names the next step.
//!
//! The sums of an arc are compared. If they differ, the arc is cut into up to 64 pieces whose sums are compared in
//! turn, until a piece holds so few chunks that their ids are compared. Cuts lie at multiples of powers of two, where
//! both indexes keep running sums. So equal arcs cost one sum however many chunks they hold, and one additional chunk
//! costs a few hundred sums and a few dozen ids. The caller sends the requests and copies the difference.
#![deny(clippy::disallowed_methods)]

use std::collections::HashSet;

use chordfs_types::{
    compare_api::{ArcSum, ChunkAt},
    ring_id::{RingArc, RingId},
};

/// How many pieces an arc is cut into; one more if it does not begin at a cut.
const PIECES: u64 = 64;
/// A piece is compared by ids if both holders together have no more than this many chunks in it.
const LEAF_CHUNKS: u64 = 128;
/// The limit if one holder has no chunk in a piece: each chunk of the other has to be listed anyway.
const LACKED_CHUNKS: u64 = 4096;
/// About how many ids are compared in one step.
const STEP_CHUNKS: u64 = 8192;
/// The most arcs in one step.
const STEP_ARCS: usize = 1024;

/// What to request from both holders. The arcs follow each other clockwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComparisonStep {
    Sums(Vec<RingArc>),
    /// `expected` is about how many chunks the larger holder has in these arcs.
    Ids {
        arcs: Vec<RingArc>,
        expected: u64,
    },
}

/// A number of chunks and their bytes: how much is missing, left, or copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyAmount {
    pub chunks: u64,
    pub bytes: u64,
}

impl CopyAmount {
    pub fn of(chunks: &[ChunkAt]) -> Self {
        Self { chunks: chunks.len() as u64, bytes: chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum() }
    }

    pub fn and(self, other: Self) -> Self {
        Self { chunks: self.chunks.saturating_add(other.chunks), bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub fn without(self, done: Self) -> Self {
        Self { chunks: self.chunks.saturating_sub(done.chunks), bytes: self.bytes.saturating_sub(done.bytes) }
    }
}

/// The chunks that make two holders equal: those to send and those to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub push: Vec<ChunkAt>,
    pub pull: Vec<ChunkAt>,
}

/// An arc in which the two holders differ.
#[derive(Clone, Copy, Debug)]
struct Unequal {
    arc: RingArc,
    ours: ArcSum,
    theirs: ArcSum,
}

pub struct ArcComparison {
    start: RingId,
    /// Arcs to be cut further, in reverse order: the first one clockwise is the last.
    open: Vec<Unequal>,
    /// Arcs small enough to be compared by ids.
    leaves: Vec<Unequal>,
}

impl ArcComparison {
    pub fn new(arc: RingArc, ours: ArcSum, theirs: ArcSum) -> Self {
        let mut this = Self { start: arc.after.advance(1), open: Vec::new(), leaves: Vec::new() };
        this.learn(&[arc], &[ours], &[theirs]);
        this
    }

    /// Returns the next step; `None` when everything has been compared. The arcs of the step are taken out; the caller
    /// reports the sums of a `Sums` step to [`ArcComparison::learn`].
    pub fn next_step(&mut self) -> Option<ComparisonStep> {
        let waiting: u64 = self.leaves.iter().map(Unequal::larger).sum();
        if !self.leaves.is_empty() && (self.open.is_empty() || waiting >= STEP_CHUNKS) {
            return Some(self.take_leaves());
        }
        let mut arcs = Vec::new();
        while (arcs.len() + PIECES as usize) < STEP_ARCS {
            let Some(unequal) = self.open.pop() else { break };
            arcs.extend(cut(unequal.arc));
        }
        (!arcs.is_empty()).then_some(ComparisonStep::Sums(arcs))
    }

    /// Takes in the sums of the arcs of a step.
    pub fn learn(&mut self, arcs: &[RingArc], ours: &[ArcSum], theirs: &[ArcSum]) {
        let all = arcs.iter().zip(ours.iter().zip(theirs));
        for (arc, (ours, theirs)) in all.rev().filter(|(_, (ours, theirs))| !ours.equals(theirs)) {
            let unequal = Unequal { arc: *arc, ours: *ours, theirs: *theirs };
            if unequal.is_leaf() { self.leaves.push(unequal) } else { self.open.push(unequal) }
        }
    }

    /// Returns how much is left to fetch and to send in the arcs not yet compared by ids. The amounts are exact where
    /// one holder has all chunks of the other, and lower bounds elsewhere.
    pub fn left(&self) -> (CopyAmount, CopyAmount) {
        let both = self.open.iter().chain(&self.leaves);
        both.fold(<(CopyAmount, CopyAmount)>::default(), |(fetch, send), unequal| {
            (fetch.and(beyond(&unequal.theirs, &unequal.ours)), send.and(beyond(&unequal.ours, &unequal.theirs)))
        })
    }

    fn take_leaves(&mut self) -> ComparisonStep {
        let start = self.start;
        self.leaves.sort_unstable_by_key(|leaf| std::cmp::Reverse(start.steps_to(leaf.arc.after.advance(1))));
        let (mut arcs, mut expected) = (Vec::new(), 0);
        while let Some(leaf) = self
            .leaves
            .pop_if(|leaf| arcs.is_empty() || arcs.len() < STEP_ARCS && expected + leaf.larger() <= STEP_CHUNKS)
        {
            expected += leaf.larger();
            arcs.push(leaf.arc);
        }
        ComparisonStep::Ids { arcs, expected }
    }
}

impl Unequal {
    fn larger(&self) -> u64 {
        self.ours.count.max(self.theirs.count)
    }

    fn is_leaf(&self) -> bool {
        // A single key cannot be cut.
        let one_lacks_all = self.ours.count.min(self.theirs.count) == 0;
        self.arc.len() == 1
            || self.ours.count.saturating_add(self.theirs.count) <= LEAF_CHUNKS
            || one_lacks_all && self.larger() <= LACKED_CHUNKS
    }
}

fn beyond(has: &ArcSum, other: &ArcSum) -> CopyAmount {
    CopyAmount { chunks: has.count, bytes: has.bytes }.without(CopyAmount { chunks: other.count, bytes: other.bytes })
}

/// Cuts an arc into pieces, clockwise; the inner cuts lie at multiples of a power of two.
fn cut(arc: RingArc) -> impl Iterator<Item = RingArc> {
    let first = u64::from(arc.after.advance(1).0);
    let (end, step) = (first + arc.len(), arc.len().div_ceil(PIECES).next_power_of_two());
    let mut at = first;
    std::iter::from_fn(move || {
        let from = at;
        at = end.min((from / step + 1) * step);
        // Positions continue past 2^32 where the arc passes zero.
        (from < end).then(|| RingArc::new(RingId((from as u32).wrapping_sub(1)), RingId((at as u32).wrapping_sub(1))))
    })
}

/// Compares two lists of chunks. Stored chunks never change, so two holders become equal by set union.
pub fn compare(ours: &[ChunkAt], theirs: &[ChunkAt]) -> Difference {
    let names = |chunks: &[ChunkAt]| chunks.iter().map(|chunk| (chunk.key, chunk.id)).collect::<HashSet<_>>();
    let (have, they_have) = (names(ours), names(theirs));
    let lacking = |chunks: &[ChunkAt], had: &HashSet<_>| {
        chunks.iter().filter(|chunk| !had.contains(&(chunk.key, chunk.id))).copied().collect()
    };
    Difference { push: lacking(ours, &they_have), pull: lacking(theirs, &have) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chordfs_types::{
        chunk::{ChunkId, Version},
        compare_api::check_arcs,
    };
    use proptest::prelude::*;

    use super::*;

    fn chunk((key, version): (u32, u8)) -> ChunkAt {
        ChunkAt { key: RingId(key), id: ChunkId { version: Version(version.into()), index: 1 }, bytes: 100 }
    }

    fn arc(after: u32, upto: u32) -> RingArc {
        RingArc::new(RingId(after), RingId(upto))
    }

    type Holder = BTreeSet<(u32, u8)>;

    fn within(holder: &Holder, arc: RingArc) -> Vec<ChunkAt> {
        holder.iter().filter(|(key, _)| arc.contains(RingId(*key))).map(|name| chunk(*name)).collect()
    }

    /// Computes the sums as an index would, chunk by chunk.
    fn sums(holder: &Holder, arcs: &[RingArc]) -> Vec<ArcSum> {
        let sum = |arc: &RingArc| {
            let inside = within(holder, *arc);
            let digest = inside.iter().fold(0u64, |sum, chunk| {
                let mut bits = u64::from(chunk.key.0) << 8 | chunk.id.version.0;
                // With a linear function, different sets of nearby keys would have equal sums.
                for factor in [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
                    bits = (bits ^ bits >> 30).wrapping_mul(factor);
                }
                sum.wrapping_add(bits ^ bits >> 31)
            });
            ArcSum { count: inside.len() as u64, bytes: 100 * inside.len() as u64, digest }
        };
        arcs.iter().map(sum).collect()
    }

    #[derive(Debug, Default)]
    struct Outcome {
        difference: Difference,
        sums: usize,
        ids: usize,
        steps: usize,
        first_left: (CopyAmount, CopyAmount),
    }

    fn run_comparison(ours: &Holder, theirs: &Holder, arc: RingArc) -> Outcome {
        let mut comparison = ArcComparison::new(arc, sums(ours, &[arc])[0], sums(theirs, &[arc])[0]);
        let mut found = Outcome { sums: 1, steps: 1, first_left: comparison.left(), ..Outcome::default() };
        while let Some(step) = comparison.next_step() {
            found.steps += 1;
            match step {
                ComparisonStep::Sums(arcs) => {
                    assert!(arcs.len() <= STEP_ARCS && check_arcs(&arcs).is_ok(), "{arcs:?}");
                    found.sums += arcs.len();
                    comparison.learn(&arcs, &sums(ours, &arcs), &sums(theirs, &arcs));
                }
                ComparisonStep::Ids { arcs, expected } => {
                    assert!(arcs.len() <= STEP_ARCS && check_arcs(&arcs).is_ok(), "{arcs:?}");
                    let all = |holder| arcs.iter().flat_map(|arc| within(holder, *arc)).collect::<Vec<_>>();
                    let (ours, theirs) = (all(ours), all(theirs));
                    assert!(expected <= STEP_CHUNKS.max(ours.len().max(theirs.len()) as u64));
                    found.ids += theirs.len();
                    let more = compare(&ours, &theirs);
                    found.difference.push.extend(more.push);
                    found.difference.pull.extend(more.pull);
                }
            }
        }
        found.difference.push.sort_unstable_by_key(|chunk| (chunk.key.0, chunk.id));
        found.difference.pull.sort_unstable_by_key(|chunk| (chunk.key.0, chunk.id));
        found
    }

    fn holder() -> impl Strategy<Value = Holder> {
        // Near the cuts, close together, and anywhere.
        let key = prop_oneof![
            any::<u32>(),
            (0u32..4096, -2i32..=2).prop_map(|(piece, beside)| (piece << 20).wrapping_add_signed(beside)),
            7_000_000u32..7_000_400,
        ];
        proptest::collection::btree_set((key, 0u8..3), 0..600)
    }

    fn end() -> impl Strategy<Value = u32> {
        prop_oneof![
            any::<u32>(),
            (0u32..4096, -1i32..=1).prop_map(|(piece, beside)| (piece << 20).wrapping_add_signed(beside)),
            7_000_000u32..7_000_400,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn exactly_the_differing_chunks_are_found(
            both in holder(), ours in holder(), theirs in holder(), after in end(), upto in end(),
        ) {
            let (ours, theirs): (Holder, Holder) = (&both | &ours, &both | &theirs);
            let arc = arc(after, upto);
            let found = run_comparison(&ours, &theirs, arc);
            prop_assert_eq!(found.difference, Difference {
                push: within(&(&ours - &theirs), arc),
                pull: within(&(&theirs - &ours), arc),
            });
        }

        #[test]
        fn the_pieces_cover_the_arc_exactly(after in end(), upto in end()) {
            let whole = arc(after, upto);
            let pieces: Vec<RingArc> = cut(whole).collect();
            prop_assert!(pieces.len() as u64 <= PIECES + 1);
            prop_assert_eq!((pieces[0].after, pieces[pieces.len() - 1].upto), (whole.after, whole.upto));
            prop_assert!(pieces.windows(2).all(|pair| pair[0].upto == pair[1].after));
            prop_assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<u64>(), whole.len());
        }
    }

    fn many(chunks: u32) -> Holder {
        (0..chunks).map(|number| (number.wrapping_mul(2_654_435_761), 0)).collect()
    }

    #[test]
    fn equal_arcs_cost_one_sum() {
        let found = run_comparison(&many(5000), &many(5000), arc(3, 2_000_000_000));
        assert_eq!((found.sums, found.ids, found.steps), (1, 0, 1));
    }

    #[test]
    fn one_additional_chunk_costs_few_sums_and_ids() {
        let (ours, mut theirs) = (many(20_000), many(20_000));
        theirs.insert((123_456_789, 9));
        let found = run_comparison(&ours, &theirs, arc(5, 5));
        assert_eq!((found.difference.pull.len(), found.difference.push.len()), (1, 0));
        assert!(found.sums <= 1 + 3 * 65 && found.ids <= 128 && found.steps <= 5, "{found:?}");
        assert_eq!(found.first_left, (CopyAmount { chunks: 1, bytes: 100 }, CopyAmount::default()));
    }

    #[test]
    fn an_empty_holder_receives_every_id_once() {
        let found = run_comparison(&Holder::new(), &many(20_000), arc(5, 5));
        assert_eq!((found.difference.pull.len(), found.ids), (20_000, 20_000));
        assert!(found.steps <= 8, "{} steps", found.steps);
        assert_eq!(found.first_left.0, CopyAmount { chunks: 20_000, bytes: 2_000_000 });
    }

    #[test]
    fn many_versions_under_one_key_are_compared() {
        let versions = |upto| (0..upto).map(|version| (77, version)).collect::<Holder>();
        let found = run_comparison(&versions(200), &versions(255), arc(1000, 900));
        assert_eq!(found.difference.pull.len(), 55);
    }
}
