//! The location of each chunk: a hash table in memory, rebuilt from the segments at every open.
//!
//! It is sharded by the top bits of the chunk's key. That spreads the locks, and lets the tables grow one small shard
//! at a time (`table`). As an arc of the ring is a range of keys, a query about an arc (digest, list) uses the running
//! sums of whole shards, and examines the entries of at most two. A slot takes 33 bytes, so a chunk costs 38 to 75
//! bytes, about 50 on average. Other modules read and write the segments.

mod table;

use chordfs_types::{
    chunk::{ChunkId, RecordHeader, Version},
    compare_api::ArcSum,
    ring_id::{RingArc, RingId},
};
use parking_lot::RwLock;

use self::table::LocationTable;

const SHARD_BITS: u32 = 12;
const SHARD_KEYS: u32 = 1 << (32 - SHARD_BITS);

/// Where a record lies. Ordered as on disk; a record only ever moves to a greater location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordLocation {
    pub segment: u32,
    pub offset: u32,
    /// Length of the whole record, header included.
    pub bytes: u32,
}

impl RecordLocation {
    /// Segment and offset as one number, for paging.
    pub(crate) fn position(&self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub key: RingId,
    pub id: ChunkId,
    pub location: RecordLocation,
}

impl IndexEntry {
    pub(crate) fn new(header: &RecordHeader, segment: u32, offset: u32) -> Self {
        let location = RecordLocation { segment, offset, bytes: header.record_bytes() as u32 };
        Self { key: header.key, id: header.id, location }
    }
}

pub(crate) struct Index {
    shards: Box<[RwLock<IndexShard>]>,
}

#[derive(Default)]
struct IndexShard {
    locations: LocationTable,
    /// Wrapping sum of [`fingerprint`] over all entries.
    sum: u64,
    /// Sum over all records.
    bytes: u64,
}

/// Identifies a chunk: the id, with the key in place of NAME.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ChunkKey {
    version: u64,
    index: u32,
    key: u32,
}

/// How much of a shard's key range lies in an arc.
#[derive(PartialEq, Eq, Debug)]
enum Overlap {
    None,
    Partial,
    Whole,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..1 << SHARD_BITS).map(|_| RwLock::default()).collect() }
    }
}

impl Index {
    pub(crate) fn get(&self, key: RingId, id: ChunkId) -> Option<RecordLocation> {
        self.shard(key).read().locations.get(&ChunkKey::new(key, id)).copied()
    }

    /// Adds an entry. If the chunk is here already, returns its location as `Err` and changes nothing.
    pub(crate) fn insert(&self, entry: &IndexEntry) -> Result<(), RecordLocation> {
        let mut shard = self.shard(entry.key).write();
        shard.locations.insert(ChunkKey::new(entry.key, entry.id), entry.location)?;
        shard.sum = shard.sum.wrapping_add(fingerprint(entry.key, entry.id));
        shard.bytes = shard.bytes.wrapping_add(u64::from(entry.location.bytes));
        Ok(())
    }

    /// Points `entry` at `to`. Returns false if the entry is gone or has another location by now.
    pub(crate) fn relocate(&self, entry: &IndexEntry, to: RecordLocation) -> bool {
        let mut shard = self.shard(entry.key).write();
        match shard.locations.get_mut(&ChunkKey::new(entry.key, entry.id)) {
            Some(location) if *location == entry.location => *location = to,
            _ => return false,
        }
        let grown = u64::from(to.bytes).wrapping_sub(u64::from(entry.location.bytes));
        shard.bytes = shard.bytes.wrapping_add(grown);
        true
    }

    pub(crate) fn remove(&self, key: RingId, id: ChunkId) -> Option<RecordLocation> {
        let mut shard = self.shard(key).write();
        let location = shard.locations.remove(&ChunkKey::new(key, id))?;
        shard.sum = shard.sum.wrapping_sub(fingerprint(key, id));
        shard.bytes = shard.bytes.wrapping_sub(u64::from(location.bytes));
        Some(location)
    }

    /// Removes exactly this entry. Returns false if it is gone or has another location by now.
    pub(crate) fn remove_at(&self, entry: &IndexEntry) -> bool {
        let mut shard = self.shard(entry.key).write();
        let name = ChunkKey::new(entry.key, entry.id);
        if shard.locations.get(&name) != Some(&entry.location) {
            return false;
        }
        shard.locations.remove(&name);
        shard.sum = shard.sum.wrapping_sub(fingerprint(entry.key, entry.id));
        shard.bytes = shard.bytes.wrapping_sub(u64::from(entry.location.bytes));
        true
    }

    /// How many chunks have keys in `arc`, and the wrapping sum of their fingerprints.
    pub(crate) fn digest(&self, arc: RingArc) -> (u64, u64) {
        let (mut count, mut sum) = (0, 0u64);
        for (number, shard) in self.shards.iter().enumerate() {
            match overlap(number, arc) {
                Overlap::None => {}
                Overlap::Whole => {
                    let shard = shard.read();
                    count += shard.locations.len() as u64;
                    sum = sum.wrapping_add(shard.sum);
                }
                Overlap::Partial => shard.read().each_in(arc, |entry| {
                    count += 1;
                    sum = sum.wrapping_add(fingerprint(entry.key, entry.id));
                }),
            }
        }
        (count, sum)
    }

    /// Returns count, bytes and digest of the chunks in each arc, and how many entries were examined: those of the
    /// shards that an arc covers in part. The arcs must not overlap.
    pub(crate) fn sums(&self, arcs: &[RingArc]) -> (Vec<ArcSum>, u64) {
        let mut sums = vec![ArcSum::default(); arcs.len()];
        let mut parts = Vec::new();
        for (number, arc) in arcs.iter().enumerate() {
            for (shard, first, last) in pieces(*arc) {
                if last - first == SHARD_KEYS - 1 {
                    self.shards[shard].read().add_to(&mut sums[number]);
                } else {
                    parts.push(ShardRange { shard, first, last, number });
                }
            }
        }
        parts.sort_unstable_by_key(|part| part.first);
        let groups = parts.chunk_by(|a, b| a.shard == b.shard);
        let examined = groups.map(|group| self.shards[group[0].shard].read().add_parts(group, &mut sums)).sum();
        (sums, examined)
    }

    /// Visits every chunk with its key in `arc`, like [`Index::each_in`], but only visits the shards of the arc.
    pub(crate) fn each_in_pieces(&self, arc: RingArc, mut visit: impl FnMut(IndexEntry)) {
        for (number, first, last) in pieces(arc) {
            self.shards[number].read().locations.each(|name, location| {
                if (first..=last).contains(&name.key) {
                    visit(name.entry(*location));
                }
            });
        }
    }

    /// Visits the chunks with their keys in `arc`, shard by shard clockwise, in no order within a shard. Ends after the
    /// first shard for which `visit` returned true at its last chunk. Returns how many entries were examined.
    pub(crate) fn each_clockwise(&self, arc: RingArc, mut visit: impl FnMut(IndexEntry) -> bool) -> u64 {
        let mut examined = 0;
        for (number, first, last) in clockwise_pieces(arc) {
            let (shard, mut is_enough) = (self.shards[number].read(), false);
            shard.locations.each(|name, location| {
                if (first..=last).contains(&name.key) {
                    is_enough = visit(name.entry(*location));
                }
            });
            examined += shard.locations.len() as u64;
            if is_enough {
                break;
            }
        }
        examined
    }

    /// Visits every chunk with its key in `arc`, in no order. One shard is locked at a time; `visit` must not call back
    /// into the index.
    pub(crate) fn each_in(&self, arc: RingArc, mut visit: impl FnMut(IndexEntry)) {
        for (number, shard) in self.shards.iter().enumerate() {
            if overlap(number, arc) != Overlap::None {
                shard.read().each_in(arc, &mut visit);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().locations.len()).sum()
    }

    fn shard(&self, key: RingId) -> &RwLock<IndexShard> {
        &self.shards[(key.0 / SHARD_KEYS) as usize]
    }
}

/// The keys of a shard that an arc covers, both ends included, and the number of that arc.
struct ShardRange {
    shard: usize,
    first: u32,
    last: u32,
    number: usize,
}

impl IndexShard {
    fn add_to(&self, sum: &mut ArcSum) {
        sum.count += self.locations.len() as u64;
        sum.bytes = sum.bytes.wrapping_add(self.bytes);
        sum.digest = sum.digest.wrapping_add(self.sum);
    }

    /// Adds up all parts of this shard in one pass; they are sorted and do not overlap. Returns how many entries were
    /// examined.
    fn add_parts(&self, parts: &[ShardRange], sums: &mut [ArcSum]) -> u64 {
        self.locations.each(|name, location| {
            let next = parts.partition_point(|part| part.first <= name.key);
            let Some(part) = parts[..next].last().filter(|part| name.key <= part.last) else { return };
            let sum = &mut sums[part.number];
            sum.count += 1;
            sum.bytes += u64::from(location.bytes);
            sum.digest = sum.digest.wrapping_add(name.fingerprint());
        });
        self.locations.len() as u64
    }

    fn each_in(&self, arc: RingArc, mut visit: impl FnMut(IndexEntry)) {
        self.locations.each(|name, location| {
            if arc.contains(RingId(name.key)) {
                visit(name.entry(*location));
            }
        });
    }
}

impl ChunkKey {
    fn new(key: RingId, id: ChunkId) -> Self {
        Self { version: id.version.0, index: id.index, key: key.0 }
    }

    fn entry(&self, location: RecordLocation) -> IndexEntry {
        IndexEntry { key: RingId(self.key), id: self.id(), location }
    }

    fn id(&self) -> ChunkId {
        ChunkId { version: Version(self.version), index: self.index }
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(RingId(self.key), self.id())
    }
}

/// Cuts an arc at the edges of the shards: each shard with the first and the last key in it. The whole circle begins
/// with the first shard.
fn pieces(arc: RingArc) -> impl Iterator<Item = (usize, u32, u32)> {
    let is_whole_circle = arc.after == arc.upto;
    clockwise_pieces(if is_whole_circle { RingArc::new(RingId(u32::MAX), RingId(u32::MAX)) } else { arc })
}

/// Like [`pieces`], beginning with the first key of the arc also if the arc is the whole circle.
fn clockwise_pieces(arc: RingArc) -> impl Iterator<Item = (usize, u32, u32)> {
    let (first, last) = (arc.after.advance(1).0, arc.upto.0);
    let runs = if first <= last { [Some((first, last)), None] } else { [Some((first, u32::MAX)), Some((0, last))] };
    runs.into_iter().flatten().flat_map(|(first, last)| {
        (first / SHARD_KEYS..=last / SHARD_KEYS).map(move |shard| {
            let start = shard * SHARD_KEYS;
            (shard as usize, first.max(start), last.min(start + (SHARD_KEYS - 1)))
        })
    })
}

fn overlap(shard: usize, arc: RingArc) -> Overlap {
    if arc.after == arc.upto {
        return Overlap::Whole;
    }
    let first = RingId(shard as u32 * SHARD_KEYS);
    let (near, far) = (arc.after.steps_to(first), arc.after.steps_to(first.advance(SHARD_KEYS - 1)));
    let arc_keys = arc.after.steps_to(arc.upto);
    match near {
        _ if near > far => Overlap::Partial, // `after` itself is in here
        _ if near > arc_keys => Overlap::None,
        0 => Overlap::Partial,
        _ if far <= arc_keys => Overlap::Whole,
        _ => Overlap::Partial,
    }
}

/// Spreads an id over 64 bits, the same on every node.
fn fingerprint(key: RingId, id: ChunkId) -> u64 {
    let location = u64::from(id.index) << 32 | u64::from(key.0);
    mix(mix(id.version.0.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ location)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): one-to-one, every input bit reaches every output bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u32, version: u64) -> IndexEntry {
        let location = RecordLocation { segment: 1, offset: version as u32, bytes: 50 };
        IndexEntry { key: RingId(key), id: ChunkId { version: Version(version), index: 1 }, location }
    }

    #[test]
    fn a_digest_equals_the_sum_over_the_single_entries() {
        let index = Index::default();
        let edges = [0, 1, SHARD_KEYS - 1, SHARD_KEYS, SHARD_KEYS + 1, 77 * SHARD_KEYS + 5, u32::MAX - 1, u32::MAX];
        for (at, key) in edges.into_iter().enumerate() {
            index.insert(&entry(key, at as u64)).unwrap();
        }
        for after in edges {
            for upto in edges {
                let arc = RingArc::new(RingId(after), RingId(upto));
                let inside: Vec<_> = (0..edges.len()).filter(|at| arc.contains(RingId(edges[*at]))).collect();
                let sum = inside
                    .iter()
                    .fold(0u64, |sum, at| sum.wrapping_add(fingerprint(RingId(edges[*at]), entry(0, *at as u64).id)));
                assert_eq!(index.digest(arc), (inside.len() as u64, sum), "({after}, {upto}]");
                let count = inside.len() as u64;
                let expected = ArcSum { count, bytes: 50 * count, digest: sum };
                assert_eq!(index.sums(&[arc]).0, [expected], "({after}, {upto}]");
                let mut pieces = 0;
                index.each_in_pieces(arc, |_| pieces += 1);
                assert_eq!(pieces, inside.len(), "({after}, {upto}]");
                let mut seen = 0;
                index.each_in(arc, |_| seen += 1);
                assert_eq!(seen, inside.len(), "({after}, {upto}]");
            }
        }
    }

    #[test]
    fn a_digest_does_not_count_removed_entries() {
        let (index, whole) = (Index::default(), RingArc::new(RingId(0), RingId(0)));
        index.insert(&entry(5, 1)).unwrap();
        let before = index.digest(whole);
        index.insert(&entry(6, 2)).unwrap();
        assert_ne!(index.digest(whole).1, before.1);
        assert_eq!(index.insert(&entry(6, 2)), Err(entry(6, 2).location));
        index.remove(RingId(6), entry(6, 2).id).unwrap();
        assert_eq!(index.digest(whole), before);
    }

    #[test]
    fn the_sums_of_a_million_chunks_examine_the_entries_of_at_most_two_shards() {
        const CHUNKS: u64 = 1_000_000;
        let index = Index::default();
        for number in 0..CHUNKS {
            index.insert(&entry(mix(number) as u32, number)).unwrap();
        }
        let (whole, examined) = index.sums(&[RingArc::new(RingId(77), RingId(77))]);
        assert_eq!((whole[0].count, whole[0].bytes, examined), (CHUNKS, 50 * CHUNKS, 0));
        let arc = RingArc::new(RingId(0xc000_0123), RingId(0x4000_0456));
        let (part, examined) = index.sums(&[arc]);
        assert!((400_000..600_000).contains(&part[0].count), "{part:?}");
        assert!(examined < 2 * 400, "{examined} entries of two shards");
        assert_eq!((part[0].count, part[0].digest), index.digest(arc));
    }

    #[test]
    fn an_entry_is_only_changed_if_its_location_is_still_the_expected_one() {
        let index = Index::default();
        let (old, mut new) = (entry(5, 1), entry(5, 1));
        new.location.segment = 9;
        index.insert(&old).unwrap();
        assert!(!index.remove_at(&new) && !index.relocate(&new, old.location));
        assert!(index.relocate(&old, new.location));
        assert!(!index.remove_at(&old) && index.remove_at(&new));
        assert_eq!(index.len(), 0);
    }
}
