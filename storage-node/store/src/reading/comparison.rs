//! The queries for reconciling two nodes: ids from the index alone, records by id, and the confirmation that a copy is
//! on the disk and was read back sound.

use std::cmp::Ordering;

use bytes::Bytes;
use chordfs_types::{
    chunk::ChunkId,
    compare_api::{ChunkAt, IdsPage, IdsRequest, order_in},
    ring_id::{RingArc, RingId},
};
use hashbrown::HashSet;

use super::spans::sound_records;
use crate::{
    error::StoreError,
    index::{Index, IndexEntry},
    records::RecordTable,
};

/// How many bytes are read at a time to confirm copies.
const CONFIRM_BYTES: u64 = 8 << 20;

pub(crate) fn ids(index: &Index, request: &IdsRequest, limit: usize) -> IdsPage {
    let mut page = IdsPage::default();
    let mut after = request.after;
    let first = after.and_then(|after| request.arcs.iter().position(|arc| arc.contains(after.key)));
    for arc in &request.arcs[first.unwrap_or(0)..] {
        let left = limit.max(1) - page.chunks.len();
        // One entry more than fits shows whether there is another page.
        let mut found = smallest(index, *arc, after.take(), left + 1).0;
        page.more = found.len() > left;
        found.truncate(left);
        page.chunks.extend(found);
        if page.more {
            break;
        }
    }
    page
}

/// Returns the records of these chunks that are here and sound, up to about `limit_bytes` in total.
pub(crate) fn records_at(table: &RecordTable, chunks: &[ChunkAt], limit_bytes: u64) -> Result<Vec<Bytes>, StoreError> {
    let mut entries = entries(table, chunks);
    entries.truncate(fitting(&entries, limit_bytes));
    Ok(sound_records(table, &entries)?.into_iter().map(|(_, record)| record).collect())
}

/// Returns for each chunk whether it is on the disk and its record was read back sound.
pub(crate) fn confirm(table: &RecordTable, chunks: &[ChunkAt]) -> Result<Vec<bool>, StoreError> {
    let entries = entries(table, chunks);
    table.segments.wait_durable(entries.iter().map(|entry| entry.location).collect())?;
    let (mut sound, mut rest) = (HashSet::<(u32, ChunkId)>::new(), &entries[..]);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest, CONFIRM_BYTES));
        sound.extend(sound_records(table, now)?.iter().map(|(entry, _)| (entry.key.0, entry.id)));
        rest = later;
    }
    Ok(chunks.iter().map(|chunk| sound.contains(&(chunk.key.0, chunk.id))).collect())
}

/// Returns the first `limit` chunks of an arc after `after`, in order, and how many index entries were examined: those
/// of the shards from `after` to the last chunk returned. Keeps no more than about twice as many chunks in memory.
fn smallest(index: &Index, arc: RingArc, after: Option<ChunkAt>, limit: usize) -> (Vec<ChunkAt>, u64) {
    let order = |a: &ChunkAt, b: &ChunkAt| -> Ordering { order_in(arc, a).cmp(&order_in(arc, b)) };
    let mut found: Vec<ChunkAt> = Vec::new();
    // More chunks may have the key of `after`.
    let rest = after.map_or(arc, |after| RingArc::new(RingId(after.key.0.wrapping_sub(1)), arc.upto));
    let examined = index.each_clockwise(rest, |IndexEntry { key, id, location }| {
        let chunk = ChunkAt { key, id, bytes: location.bytes };
        if after.is_none_or(|after| order(&chunk, &after).is_gt()) {
            found.push(chunk);
            if found.len() > limit.saturating_mul(2) {
                found.select_nth_unstable_by(limit, order);
                found.truncate(limit);
            }
        }
        found.len() >= limit
    });
    found.sort_unstable_by(order);
    found.truncate(limit);
    (found, examined)
}

fn entries(table: &RecordTable, chunks: &[ChunkAt]) -> Vec<IndexEntry> {
    let here = |(key, id): (RingId, ChunkId)| Some(IndexEntry { key, id, location: table.index.get(key, id)? });
    chunks.iter().filter_map(|chunk| here((chunk.key, chunk.id))).collect()
}

/// Returns how many of these fit in `limit_bytes`; at least one.
fn fitting(entries: &[IndexEntry], limit_bytes: u64) -> usize {
    let mut sum = 0;
    let over = entries.iter().position(|entry| {
        sum += u64::from(entry.location.bytes);
        sum > limit_bytes
    });
    over.unwrap_or(entries.len()).max(entries.len().min(1))
}

#[cfg(test)]
mod tests {
    use chordfs_replication::arc_comparison::{ArcComparison, ComparisonStep};
    use chordfs_types::chunk::Version;

    use super::*;
    use crate::index::RecordLocation;

    const CHUNKS: u64 = 1_000_000;

    fn entry(number: u64) -> IndexEntry {
        // Odd factors are one-to-one, and spread the keys.
        let key = RingId((number as u32).wrapping_mul(2_654_435_761));
        let location = RecordLocation { segment: 1, offset: number as u32, bytes: 4140 };
        IndexEntry { key, id: ChunkId { version: Version(number / 256), index: number as u32 + 1 }, location }
    }

    fn index(numbers: impl Iterator<Item = u64>) -> Index {
        let index = Index::default();
        numbers.for_each(|number| index.insert(&entry(number)).expect("each is new"));
        index
    }

    #[derive(Debug, Default)]
    struct Cost {
        requests: u64,
        sums: u64,
        examined: u64,
        ids: u64,
        found: usize,
    }

    /// The whole comparison of two nodes, without the network between them.
    fn cost(ours: &Index, theirs: &Index, arc: RingArc) -> Cost {
        let mut cost = Cost::default();
        let mut sums = |arcs: &[RingArc]| {
            let ((ours, examined), (theirs, _)) = (ours.sums(arcs), theirs.sums(arcs));
            (cost.requests, cost.sums) = (cost.requests + 1, cost.sums + arcs.len() as u64);
            cost.examined += examined;
            (ours, theirs)
        };
        let (first, other) = sums(&[arc]);
        let mut comparison = ArcComparison::new(arc, first[0], other[0]);
        let (mut ids, mut found, mut pages) = (0, 0, 0);
        while let Some(step) = comparison.next_step() {
            match step {
                ComparisonStep::Sums(arcs) => {
                    let (ours, theirs) = sums(&arcs);
                    comparison.learn(&arcs, &ours, &theirs);
                }
                ComparisonStep::Ids { arcs, .. } => {
                    let count = |index: &Index| arcs.iter().map(|arc| count_in(index, *arc)).sum::<u64>();
                    (ids, pages) = (ids + count(theirs), pages + 1);
                    found += (count(theirs) as i64 - count(ours) as i64).unsigned_abs() as usize;
                }
            }
        }
        Cost { ids, found, requests: cost.requests + pages, ..cost }
    }

    fn count_in(index: &Index, arc: RingArc) -> u64 {
        let mut count = 0;
        index.each_in_pieces(arc, |_| count += 1);
        count
    }

    /// Each page used to pass over the whole arc, so that listing it took time in proportion to the square of its
    /// chunks.
    #[test]
    fn the_pages_of_an_arc_together_examine_each_entry_a_few_times() {
        const PAGE: usize = 8192;
        let index = index(0..CHUNKS);
        for arc in [RingArc::new(RingId(77), RingId(77)), RingArc::new(RingId(0xc000_0123), RingId(0x4000_0456))] {
            let (mut after, mut listed, mut examined) = (None, 0, 0);
            loop {
                let (page, cost) = smallest(&index, arc, after, PAGE);
                let is_ordered = |pair: &[ChunkAt]| order_in(arc, &pair[0]) < order_in(arc, &pair[1]);
                assert!(after.into_iter().chain(page.iter().copied()).collect::<Vec<_>>().windows(2).all(is_ordered));
                (after, listed, examined) = (page.last().copied(), listed + page.len() as u64, examined + cost);
                if page.len() < PAGE {
                    break;
                }
            }
            assert_eq!(listed, count_in(&index, arc));
            assert!(examined < 2 * listed, "{examined} entries examined for {listed} chunks");
        }
    }

    /// A comparison used to need the lists of all chunks of both nodes, with the front of each record read from the
    /// disk.
    #[test]
    fn a_million_chunks_are_compared_by_a_few_sums() {
        let ours = index(0..CHUNKS);
        let arc = RingArc::new(RingId(0xc000_0123), RingId(0xbfff_ff45));
        let equal = cost(&ours, &index(0..CHUNKS), arc);
        println!("equal: {equal:?}");
        assert!(equal.requests == 1 && equal.sums == 1 && equal.ids == 0 && equal.examined < 1000, "{equal:?}");
        let one = cost(&ours, &index(0..CHUNKS + 1), arc);
        println!("one more: {one:?}");
        assert!(one.requests <= 6 && one.sums <= 200 && one.ids <= 128 && one.found == 1, "{one:?}");
        let run = cost(&ours, &index(1000..CHUNKS), arc);
        println!("a thousand missing: {run:?}");
        assert!(run.requests <= 100 && run.found == 1000 && run.ids < 100_000, "{run:?}");
    }
}
