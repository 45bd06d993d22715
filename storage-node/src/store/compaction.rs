//! Rewriting segments that are mostly dead, or too small to be worth a file.
//!
//! Live records are copied, piece by piece, to a segment of compaction's own, always one with a greater number (`list`
//! rests on that). Each piece is a step that may be the last: the copies are on the disk before the originals are listed
//! as dead and the index points at the copies. A crash in between leaves some chunks twice, which the next open sees.
//! While a piece moves, nothing is deleted; so no copy of a deleted chunk stays behind.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;
use common::ring_id::{RingArc, RingId};

use super::{
    Shared, StoreError,
    index::{Entry, Place},
    lane::Lane,
    read::sound_records,
    remove::bury,
    segment::Segment,
};

const PIECE_BYTES: u64 = 2 << 20;
/// Segments below this part of a full one are small,
const SMALL_PART: u64 = 8;
/// and rewritten together when there are this many.
const SMALL_SEGMENTS: usize = 8;

pub fn step(shared: &Shared, lane: &mut Lane) -> Result<bool, StoreError> {
    let Some(source) = choose(shared) else { return Ok(false) };
    let mut entries = entries_of(shared, &source);
    while !entries.is_empty() {
        let rest = entries.split_off(piece_len(&entries));
        move_piece(shared, lane, &source, &entries)?;
        entries = rest;
    }
    shared.segments.drop_if_dead(&source);
    tracing::debug!(segment = source.number, "segment rewritten");
    Ok(true)
}

/// The segment with the largest part dead, if that is enough; else the first small one, if there are many.
fn choose(shared: &Shared) -> Option<Arc<Segment>> {
    let sealed: Vec<_> = shared.segments.all().into_iter().filter(|segment| segment.is_sealed()).collect();
    let dead_percent = |segment: &Segment| segment.dead_bytes() * 100 / segment.written_bytes().max(1);
    let worst = sealed.iter().max_by_key(|segment| dead_percent(segment));
    if let Some(worst) = worst.filter(|worst| dead_percent(worst) > shared.options.compact_dead_percent) {
        return Some(worst.clone());
    }
    let small = |segment: &&Arc<Segment>| segment.written_bytes() < shared.options.segment_bytes / SMALL_PART;
    let many = sealed.iter().filter(small).count() >= SMALL_SEGMENTS;
    sealed.iter().find(small).filter(|_| many).cloned()
}

/// What lives in `source`, in the order in which it lies.
fn entries_of(shared: &Shared, source: &Segment) -> Vec<Entry> {
    let mut entries = Vec::new();
    shared.index.each_in(RingArc::new(RingId(0), RingId(0)), |entry| {
        if entry.place.segment == source.number {
            entries.push(entry);
        }
    });
    entries.sort_unstable_by_key(|entry| entry.place);
    entries
}

fn piece_len(entries: &[Entry]) -> usize {
    let mut sum = 0;
    let full = entries.iter().position(|entry| {
        sum += u64::from(entry.place.bytes);
        sum > PIECE_BYTES
    });
    full.unwrap_or(entries.len()).max(1)
}

fn move_piece(shared: &Shared, lane: &mut Lane, source: &Segment, entries: &[Entry]) -> Result<(), StoreError> {
    let mut records = sound_records(shared, entries)?;
    let _gate = shared.moving.write();
    records.retain(|(entry, _)| shared.index.get(entry.key, entry.id) == Some(entry.place));
    if records.is_empty() {
        return Ok(());
    }
    let copies = copy(shared, lane, source.number, &records)?;
    for ((entry, _), (segment, place)) in records.iter().zip(&copies) {
        segment.count_live(place);
        assert!(shared.index.relocate(entry, *place), "nothing leaves the index while the gate is held");
    }
    bury(shared, records.iter().map(|(entry, _)| entry.place).collect());
    Ok(())
}

/// Writes the records to a segment above `above`, on the disk when this returns, and says where each one is.
fn copy(
    shared: &Shared,
    lane: &mut Lane,
    above: u32,
    records: &[(Entry, Bytes)],
) -> Result<Vec<(Arc<Segment>, Place)>, StoreError> {
    let mut slices: Vec<IoSlice<'_>> = records.iter().map(|(_, record)| IoSlice::new(record)).collect();
    let bytes = records.iter().map(|(_, record)| record.len() as u64).sum();
    shared.segments.take_space(bytes, u64::MAX);
    let appended = lane.append(shared, above, &mut slices, bytes).inspect_err(|_| {
        shared.segments.return_space(bytes);
    })?;
    let copies = places(records, appended.segment.number, appended.start);
    lane.entered(
        &records.iter().zip(&copies).map(|((entry, _), to)| Entry { place: *to, ..*entry }).collect::<Vec<_>>(),
    );
    if let Some(full) = appended.full {
        full.seal(shared);
    }
    if let Err(error) = appended.segment.wait_durable(appended.end) {
        appended.segment.mark_dead(&copies.iter().map(|copy| copy.offset).collect::<Vec<_>>());
        return Err(error);
    }
    Ok(copies.into_iter().map(|place| (appended.segment.clone(), place)).collect())
}

fn places(records: &[(Entry, Bytes)], segment: u32, start: u64) -> Vec<Place> {
    let mut offset = start as u32;
    let next = |(entry, _): &(Entry, Bytes)| {
        let place = Place { segment, offset, bytes: entry.place.bytes };
        offset = offset.wrapping_add(place.bytes);
        place
    };
    records.iter().map(next).collect()
}
