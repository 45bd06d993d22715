//! The verdict on a chunk from the answers of its holders, as pure functions.
#![deny(clippy::disallowed_methods)]

use chordfs_types::{
    chunk::{ChunkId, Version},
    chunk_api::REPLICAS,
    namespace::Extent,
    placement,
    ring_id::{NodeRef, RingArc, RingId},
};

/// The copy of one chunk on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyFinding {
    Absent,
    Sound,
    Damaged,
    /// The node does not answer.
    Unknown,
}

impl CopyFinding {
    /// Decodes a byte of the answer to `/chunks/has`; an unknown value counts as no copy.
    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Sound,
            2 => Self::Damaged,
            _ => Self::Absent,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkVerdict {
    Sound,
    /// There are fewer sound copies than holders, or fewer holders than copies of a chunk.
    UnderReplicated,
    /// At least one copy is damaged, and at least one is sound.
    Damaged,
    /// No node that answers has a sound copy, and not all nodes answer.
    Unreachable,
    /// All nodes answer, and none has a sound copy.
    Missing,
}

/// `holders`: the copies of the chunk's holders. `others`: the copies of all other nodes, which are asked only if no
/// holder has a sound copy; during a join a former holder may still have one.
pub(super) fn judge(holders: &[CopyFinding], others: &[CopyFinding]) -> ChunkVerdict {
    let all = || holders.iter().chain(others);
    let sound = |copies: &[CopyFinding]| copies.iter().filter(|copy| **copy == CopyFinding::Sound).count();
    let damaged = all().any(|copy| *copy == CopyFinding::Damaged);
    match sound(holders) + sound(others) {
        0 if all().any(|copy| *copy == CopyFinding::Unknown) => ChunkVerdict::Unreachable,
        0 => ChunkVerdict::Missing,
        _ if damaged => ChunkVerdict::Damaged,
        _ if sound(holders) < holders.len().max(REPLICAS) => ChunkVerdict::UnderReplicated,
        _ => ChunkVerdict::Sound,
    }
}

/// The nodes that keep chunks, in the order of their ids, and the holders of every key.
#[derive(Clone, Debug, Default)]
pub(super) struct HolderMap {
    nodes: Vec<NodeRef>,
    /// For each node the holders of the keys that it owns, beginning with the node itself.
    holders: Vec<Vec<NodeRef>>,
}

impl HolderMap {
    pub(super) fn new(mut nodes: Vec<NodeRef>) -> Self {
        nodes.sort_by_key(|node| node.id.0);
        let holders = |at| placement::holders(&placement::onwards(&nodes, at));
        let holders = (0..nodes.len()).map(holders).collect();
        Self { nodes, holders }
    }

    pub(super) fn nodes(&self) -> &[NodeRef] {
        &self.nodes
    }

    /// The holders of the key, beginning with its owner.
    pub(super) fn holders(&self, key: RingId) -> impl Iterator<Item = NodeRef> + '_ {
        let owner = self.nodes.partition_point(|node| node.id.0 < key.0);
        let holders = self.holders.get(owner).or(self.holders.first());
        holders.into_iter().flatten().copied()
    }

    pub(super) fn is_holder(&self, node: &NodeRef, key: RingId) -> bool {
        self.holders(key).any(|holder| holder == *node)
    }
}

/// The arc of all keys.
pub(super) fn whole_circle() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}

/// The chunks that belong to files. Takes 16 bytes for each run, regardless of its length.
#[derive(Debug, Default)]
pub(super) struct Referenced {
    runs: Vec<(Version, u32, u32)>,
    sorted: bool,
}

impl Referenced {
    pub(super) fn add(&mut self, extent: &Extent) {
        self.runs.push((extent.version, extent.first, extent.count));
        self.sorted = false;
    }

    /// Sorts the runs. To be called after the last `add`.
    pub(super) fn seal(mut self) -> Self {
        self.runs.sort_unstable();
        self.runs.dedup();
        self.sorted = true;
        self
    }

    /// Runs of one version overlap only if a file was read again while it grew, so only a few of them are compared.
    pub(super) fn contains(&self, id: ChunkId) -> bool {
        debug_assert!(self.sorted, "`seal` comes before `contains`");
        let upto = self.runs.partition_point(|&(version, first, _)| (version, first) <= (id.version, id.index));
        let same = self.runs[..upto].iter().rev().take_while(|(version, ..)| *version == id.version);
        same.take(MAX_OVERLAPPING_RUNS).any(|&(_, first, count)| id.index - first < count)
    }
}

/// A run that was read while its file was rewritten may be present in several shapes.
const MAX_OVERLAPPING_RUNS: usize = 8;

#[cfg(test)]
mod tests {
    use super::{
        CopyFinding::{Absent, Damaged, Sound, Unknown},
        *,
    };

    #[test]
    fn every_chunk_has_one_verdict() {
        for (holders, others, expected) in [
            (&[Sound, Sound, Sound][..], &[][..], ChunkVerdict::Sound),
            (&[Sound, Sound], &[], ChunkVerdict::UnderReplicated),
            (&[Sound], &[], ChunkVerdict::UnderReplicated),
            (&[Sound, Absent, Sound], &[], ChunkVerdict::UnderReplicated),
            (&[Sound, Unknown, Sound], &[], ChunkVerdict::UnderReplicated),
            (&[Absent, Absent, Absent], &[Absent, Sound], ChunkVerdict::UnderReplicated),
            (&[Sound, Damaged, Sound], &[], ChunkVerdict::Damaged),
            (&[Damaged, Absent, Unknown], &[Sound], ChunkVerdict::Damaged),
            (&[Damaged, Damaged, Damaged], &[], ChunkVerdict::Missing),
            (&[Absent, Absent, Absent], &[], ChunkVerdict::Missing),
            (&[Absent, Unknown, Absent], &[], ChunkVerdict::Unreachable),
            (&[Absent, Absent, Absent], &[Unknown], ChunkVerdict::Unreachable),
            (&[], &[], ChunkVerdict::Missing),
        ] {
            assert_eq!(judge(holders, others), expected, "{holders:?} {others:?}");
        }
    }

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port: 1, id: RingId(id) }
    }

    #[test]
    fn holders_wrap_around_the_circle() {
        let map = HolderMap::new([80, 20, 60, 40].map(node).to_vec());
        let holders = |key| map.holders(RingId(key)).map(|node| node.id.0).collect::<Vec<_>>();
        assert_eq!(holders(41), [60, 80, 20]);
        assert_eq!(holders(80), [80, 20, 40]);
        assert_eq!(holders(81), [20, 40, 60]);
        assert!(map.is_holder(&node(20), RingId(41)) && !map.is_holder(&node(40), RingId(41)));
        assert_eq!(HolderMap::new(vec![node(7), node(9)]).holders(RingId(8)).count(), 2);
        assert_eq!(HolderMap::default().holders(RingId(8)).count(), 0);
    }

    /// A chunk that was overwritten in the middle of a version is an orphan, though the rest of the version is not.
    #[test]
    fn a_single_overwritten_chunk_is_no_longer_referenced() {
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
