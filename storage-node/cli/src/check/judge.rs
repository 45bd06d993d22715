//! What the answers of the holders mean, decided from values alone.
#![deny(clippy::disallowed_methods)]

use chordfs_types::{
    chunk::{ChunkId, Version},
    namespace::Extent,
    placement,
    ring_id::{NodeRef, RingArc, RingId},
};

/// What one node says of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    Absent,
    Sound,
    Damaged,
    /// The node does not answer.
    Unknown,
}

impl Copy {
    /// As it travels; whatever else a node may say is no copy.
    pub fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Sound,
            2 => Self::Damaged,
            _ => Self::Absent,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Sound,
    /// Fewer sound copies than holders.
    UnderReplicated,
    /// At least one copy is damaged, and at least one is sound.
    Damaged,
    /// Nobody who answers has a sound copy, and not everybody answers.
    Unreachable,
    /// Everybody answers, and nobody has a sound copy.
    Missing,
}

/// `holders`: what those say who should have it. `others`: what the rest of the ring says, asked only where no holder
/// has a sound copy; during a join it may be with one that was a holder before.
pub fn judge(holders: &[Copy], others: &[Copy]) -> Verdict {
    let all = || holders.iter().chain(others);
    let sound = |copies: &[Copy]| copies.iter().filter(|copy| **copy == Copy::Sound).count();
    let damaged = all().any(|copy| *copy == Copy::Damaged);
    match sound(holders) + sound(others) {
        0 if all().any(|copy| *copy == Copy::Unknown) => Verdict::Unreachable,
        0 => Verdict::Missing,
        _ if damaged => Verdict::Damaged,
        _ if sound(holders) < holders.len() => Verdict::UnderReplicated,
        _ => Verdict::Sound,
    }
}

/// The nodes that keep chunks, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Circle {
    nodes: Vec<NodeRef>,
    /// Of what each of them owns.
    holders: Vec<Vec<NodeRef>>,
}

impl Circle {
    pub fn new(mut nodes: Vec<NodeRef>) -> Self {
        nodes.sort_by_key(|node| node.id.0);
        let holders = |at| placement::holders(&placement::onwards(&nodes, at));
        let holders = (0..nodes.len()).map(holders).collect();
        Self { nodes, holders }
    }

    pub fn nodes(&self) -> &[NodeRef] {
        &self.nodes
    }

    /// The owner of the key first.
    pub fn holders(&self, key: RingId) -> impl Iterator<Item = NodeRef> + '_ {
        let owner = self.nodes.partition_point(|node| node.id.0 < key.0);
        let holders = self.holders.get(owner).or(self.holders.first());
        holders.into_iter().flatten().copied()
    }

    pub fn is_holder(&self, node: &NodeRef, key: RingId) -> bool {
        self.holders(key).any(|holder| holder == *node)
    }
}

/// Every key there is.
pub fn whole_circle() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}

/// The chunks that files consist of: 16 bytes for each run, however many chunks it has.
#[derive(Debug, Default)]
pub struct Referenced {
    runs: Vec<(Version, u32, u32)>,
    sorted: bool,
}

impl Referenced {
    pub fn add(&mut self, extent: &Extent) {
        self.runs.push((extent.version, extent.first, extent.count));
        self.sorted = false;
    }

    /// To be called after the last `add`.
    pub fn seal(mut self) -> Self {
        self.runs.sort_unstable();
        self.runs.dedup();
        self.sorted = true;
        self
    }

    /// Runs of one version do not overlap, but for one that was met twice while it grew; so a few are looked at.
    pub fn contains(&self, id: ChunkId) -> bool {
        debug_assert!(self.sorted, "sealed before it is asked");
        let upto = self.runs.partition_point(|&(version, first, _)| (version, first) <= (id.version, id.index));
        let same = self.runs[..upto].iter().rev().take_while(|(version, ..)| *version == id.version);
        same.take(MET_TWICE).any(|&(_, first, count)| id.index - first < count)
    }
}

/// A run met while others rewrite its file may be there in some shapes.
const MET_TWICE: usize = 8;

#[cfg(test)]
mod tests {
    use super::{
        Copy::{Absent, Damaged, Sound, Unknown},
        *,
    };

    #[test]
    fn every_chunk_has_one_verdict() {
        for (holders, others, wanted) in [
            (&[Sound, Sound, Sound][..], &[][..], Verdict::Sound),
            (&[Sound], &[], Verdict::Sound),
            (&[Sound, Absent, Sound], &[], Verdict::UnderReplicated),
            (&[Sound, Unknown, Sound], &[], Verdict::UnderReplicated),
            (&[Absent, Absent, Absent], &[Absent, Sound], Verdict::UnderReplicated),
            (&[Sound, Damaged, Sound], &[], Verdict::Damaged),
            (&[Damaged, Absent, Unknown], &[Sound], Verdict::Damaged),
            (&[Damaged, Damaged, Damaged], &[], Verdict::Missing),
            (&[Absent, Absent, Absent], &[], Verdict::Missing),
            (&[Absent, Unknown, Absent], &[], Verdict::Unreachable),
            (&[Absent, Absent, Absent], &[Unknown], Verdict::Unreachable),
            (&[], &[], Verdict::Missing),
        ] {
            assert_eq!(judge(holders, others), wanted, "{holders:?} {others:?}");
        }
    }

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port: 1, id: RingId(id) }
    }

    #[test]
    fn holders_come_round() {
        let circle = Circle::new([80, 20, 60, 40].map(node).to_vec());
        let holders = |key| circle.holders(RingId(key)).map(|node| node.id.0).collect::<Vec<_>>();
        assert_eq!(holders(41), [60, 80, 20]);
        assert_eq!(holders(80), [80, 20, 40]);
        assert_eq!(holders(81), [20, 40, 60]);
        assert!(circle.is_holder(&node(20), RingId(41)) && !circle.is_holder(&node(40), RingId(41)));
        assert_eq!(Circle::new(vec![node(7), node(9)]).holders(RingId(8)).count(), 2);
        assert_eq!(Circle::default().holders(RingId(8)).count(), 0);
    }

    /// What a file overwrote in the middle of a write is an orphan, though the rest of the version is not.
    #[test]
    fn a_single_overwritten_chunk_is_referenced_no_more() {
        let mut referenced = Referenced::default();
        for (first, count, version) in [(1, 4, 7), (5, 1, 8), (6, 15, 7)] {
            referenced.add(&Extent { first, count, version: Version(version) });
        }
        let referenced = referenced.seal();
        let not = |index: &u32| !referenced.contains(ChunkId { version: Version(7), index: *index });
        assert_eq!((1..=21).filter(not).collect::<Vec<u32>>(), [5, 21]);
    }

    #[test]
    fn a_run_references_its_chunks() {
        let mut referenced = Referenced::default();
        for (first, count, version) in [(1, 1000, 7), (1500, 1, 7), (1, 1, 8), (1, 1001, 7)] {
            referenced.add(&Extent { first, count, version: Version(version) });
        }
        let referenced = referenced.seal();
        let contains = |index, version| referenced.contains(ChunkId { version: Version(version), index });
        assert!(contains(1, 7) && contains(1001, 7) && contains(1500, 7) && contains(1, 8));
        assert!(!contains(1002, 7) && !contains(1499, 7) && !contains(1501, 7) && !contains(2, 8) && !contains(1, 6));
    }
}
