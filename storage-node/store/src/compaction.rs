//! Rewriting segments: those that the disk refused to keep, those with enough dead in them, and those too small to be
//! worth a file (`relief` says which).
//!
//! Live records are copied, piece by piece, to a segment of compaction's own, always one with a greater number (pages
//! rest on that). A step moves one piece, so that whoever calls can keep to a rate, and may be the last: the copies are on
//! the disk before the originals are listed as dead and the index points at the copies. A crash in between leaves some
//! chunks twice, which the next open sees. While a piece moves, nothing is deleted; so no copy of a deleted chunk stays
//! behind.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;

use super::{
    Shared, StoreError,
    catalog::living_in,
    index::{Entry, Place},
    lane::Lane,
    put::disk,
    read::sound_records,
    relief::{Account, Limits, Why, choose},
    remove::bury,
    segment::Segment,
};

const PIECE_BYTES: u64 = 2 << 20;

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Copied, not freed.
    pub bytes: u64,
    pub why: Why,
}

#[derive(Default)]
pub struct Compaction {
    pub lane: Lane,
    under_way: Option<Source>,
}

/// A segment that is being rewritten.
struct Source {
    segment: Arc<Segment>,
    /// What is still to be moved.
    entries: Vec<Entry>,
    why: Why,
}

/// Moves a piece; `None` if nothing is worth it. After an error the next step chooses anew.
pub fn step(shared: &Shared, compaction: &mut Compaction) -> Result<Option<Rewritten>, StoreError> {
    shared.segments.all().iter().for_each(|segment| shared.segments.drop_if_dead(segment));
    let accounts: Vec<Account> = shared.segments.all().iter().map(|segment| segment.account()).collect();
    let choice = choose(&accounts, disk(shared)?, limits(shared));
    let Some(mut source) = compaction.under_way.take().or_else(|| begin(shared, choice?)) else { return Ok(None) };
    // What began without haste ends in haste when the disk fills.
    let why = source.why.max(choice.map_or(source.why, |(_, why)| why));
    let rest = source.entries.split_off(piece_len(&source.entries));
    let bytes = move_piece(shared, &mut compaction.lane, &source.segment, &source.entries)?;
    if rest.is_empty() {
        shared.segments.drop_if_dead(&source.segment);
        tracing::debug!(segment = source.segment.number, "segment rewritten");
    } else {
        compaction.under_way = Some(Source { entries: rest, ..source });
    }
    Ok(Some(Rewritten { bytes, why }))
}

pub fn limits(shared: &Shared) -> Limits {
    let options = &shared.options;
    Limits {
        dead_percent: options.compact_dead_percent,
        segment_bytes: options.segment_bytes,
        quiet: options.compact_quiet,
    }
}

/// `None` if the segment has gone meanwhile.
fn begin(shared: &Shared, (number, why): (u32, Why)) -> Option<Source> {
    let segment = shared.segments.get(number)?;
    Some(Source { entries: living_in(shared, &segment), segment, why })
}

fn piece_len(entries: &[Entry]) -> usize {
    let mut sum = 0;
    let full = entries.iter().position(|entry| {
        sum += u64::from(entry.place.bytes);
        sum > PIECE_BYTES
    });
    full.unwrap_or(entries.len()).max(1).min(entries.len())
}

/// Says how many bytes that were.
fn move_piece(shared: &Shared, lane: &mut Lane, source: &Segment, entries: &[Entry]) -> Result<u64, StoreError> {
    let mut records = sound_records(shared, entries)?;
    let _gate = shared.moving.write();
    records.retain(|(entry, _)| shared.index.get(entry.key, entry.id) == Some(entry.place));
    if records.is_empty() {
        return Ok(0);
    }
    let copies = copy(shared, lane, source.number, &records)?;
    for ((entry, _), (segment, place)) in records.iter().zip(&copies) {
        segment.count_live(place);
        assert!(shared.index.relocate(entry, *place), "nothing leaves the index while the gate is held");
    }
    bury(shared, records.iter().map(|(entry, _)| entry.place).collect());
    Ok(records.iter().map(|(entry, _)| u64::from(entry.place.bytes)).sum())
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
    let moved = records.iter().zip(&copies).map(|((entry, _), to)| Entry { place: *to, ..*entry });
    appended.segment.note(&moved.collect::<Vec<_>>());
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
