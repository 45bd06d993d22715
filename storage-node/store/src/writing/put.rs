//! Adds a batch to the store.

use std::io::IoSlice;

use chordfs_types::{
    chunk::{RecordHeader, VerifiedBatch},
    chunk_api::Durability,
};

use super::{
    same_bytes::{self, StoredAgain},
    segment_writer::SegmentWriters,
    space::SpaceLimits,
};
use crate::{
    error::StoreError,
    index::IndexEntry,
    records::{RecordTable, removal::mark_records_dead},
    segment::Segment,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    pub stored: usize,
    /// Chunks that were here before, that are twice in the batch, or that were deleted recently.
    pub already: usize,
}

pub(crate) fn put(
    table: &RecordTable,
    writers: &SegmentWriters,
    space: SpaceLimits,
    batch: &VerifiedBatch,
    durability: Durability,
) -> Result<PutOutcome, StoreError> {
    let (mut fresh, mut here) = (Vec::with_capacity(batch.records.len()), Vec::new());
    for record in &batch.records {
        match table.index.get(record.0.key, record.0.id) {
            None if table.tombstones.holds(record.0.id) => {}
            None => fresh.push(*record),
            Some(location) => here.push((record.0, location)),
        }
    }
    same_bytes::check(table, &here)?;
    let checked = here.len();
    let mut stored = 0;
    if !fresh.is_empty() {
        space.take(&table.segments, record_bytes(&fresh))?;
        stored = append(table, writers, batch, &fresh, durability, &mut here)?;
    }
    same_bytes::check(table, &here[checked..])?;
    if durability.is_disk() {
        table.segments.wait_durable(here.into_iter().map(|(_, location)| location).collect())?;
    }
    Ok(PutOutcome { stored, already: batch.records.len() - stored })
}

/// Writes the `fresh` records of `batch`, for which space is already reserved, and enters them in the index. Returns
/// how many were new. Chunks that another put has stored meanwhile, or that are twice in the batch, are added to
/// `here`.
fn append(
    table: &RecordTable,
    writers: &SegmentWriters,
    batch: &VerifiedBatch,
    fresh: &[(RecordHeader, u32)],
    durability: Durability,
    here: &mut Vec<StoredAgain>,
) -> Result<usize, StoreError> {
    let bytes = record_bytes(fresh);
    let mut slices = slices(batch, fresh);
    let mut writer = writers.any();
    let appended = match writer.append(&table.segments, 0, &mut slices, bytes) {
        Ok(appended) => appended,
        Err(error) => {
            table.segments.return_space(bytes);
            return Err(error);
        }
    };
    let entries = entries(fresh, appended.segment.number, appended.start);
    appended.segment.note(&entries);
    let twice = enter(table, &appended.segment, fresh, &entries, here);
    drop(writer);
    // A chunk may have been deleted since the first lookup. Either the deletion has found the entry, or it is found
    // here.
    let late: Vec<_> = entries.iter().filter(|entry| table.tombstones.holds(entry.id)).collect();
    if !late.is_empty() {
        let _gate = table.removal_gate.read();
        mark_records_dead(
            table,
            late.into_iter().filter(|entry| table.index.remove_at(entry)).map(|entry| entry.location).collect(),
        );
    }
    table.damage.repaired(&entries);
    appended.segment.mark_dead(&twice);
    if let Some(full) = appended.full {
        full.seal(&table.segments);
    }
    if durability.is_disk() {
        appended.segment.wait_durable(appended.end)?;
    }
    Ok(entries.len() - twice.len())
}

fn record_bytes(fresh: &[(RecordHeader, u32)]) -> u64 {
    fresh.iter().map(|(header, _)| header.record_bytes() as u64).sum()
}

/// Returns the bytes of the fresh records in the batch, adjacent ones as one slice.
fn slices<'a>(batch: &'a VerifiedBatch, fresh: &[(RecordHeader, u32)]) -> Vec<IoSlice<'a>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (header, offset) in fresh {
        let (start, end) = (*offset as usize, *offset as usize + header.record_bytes());
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges.into_iter().map(|range| IoSlice::new(&batch.bytes[range])).collect()
}

fn entries(fresh: &[(RecordHeader, u32)], segment: u32, start: u64) -> Vec<IndexEntry> {
    let mut offset = start as u32;
    let location = |(header, _): &(RecordHeader, u32)| {
        let entry = IndexEntry::new(header, segment, offset);
        offset = offset.wrapping_add(entry.location.bytes);
        entry
    };
    fresh.iter().map(location).collect()
}

/// Enters the written records in the index. Returns the offsets of those whose chunks are here already, by another put
/// or because they are twice in the batch.
fn enter(
    table: &RecordTable,
    segment: &Segment,
    fresh: &[(RecordHeader, u32)],
    entries: &[IndexEntry],
    here: &mut Vec<StoredAgain>,
) -> Vec<u32> {
    let mut twice = Vec::new();
    for (entry, (header, _)) in entries.iter().zip(fresh) {
        // Counted before it can be found, as a deletion that finds it discounts it.
        segment.count_live(&entry.location);
        match table.index.insert(entry) {
            Ok(()) => {}
            Err(location) => {
                segment.discount_live(&entry.location);
                here.push((*header, location));
                twice.push(entry.location.offset);
            }
        }
    }
    twice
}
