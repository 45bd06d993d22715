//! Rewrites segments: those with a failed sync, those with a large enough dead part, and those too small to be worth a
//! file (`compaction_policy` chooses).
//!
//! Live records are copied, piece by piece, to compaction's own segment, which always has a greater number (paging
//! relies on that). A step moves one piece, so that the caller can limit the rate, and compaction may stop after any
//! step: the copies are on the disk before the index points at them and the originals are listed as dead. A crash in
//! between leaves some chunks twice, which the next open detects. No chunk is deleted while its piece moves, so no copy
//! of a deleted chunk stays behind.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;

use super::compaction_policy::{CompactionLimits, CompactionReason, choose};
use crate::{
    error::StoreError,
    index::{IndexEntry, RecordLocation},
    reading::{
        catalog::{Catalog, living_in},
        spans::sound_records,
    },
    records::{RecordTable, removal::mark_records_dead},
    segment::{Segment, SegmentUsage, set::SegmentSet},
    writing::{segment_writer::SegmentWriter, space::SpaceLimits},
};

const PIECE_BYTES: u64 = 2 << 20;

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The bytes copied, not those freed.
    pub bytes: u64,
    pub reason: CompactionReason,
}

#[derive(Default)]
pub(crate) struct Compaction {
    pub writer: SegmentWriter,
    under_way: Option<CompactionSource>,
}

/// A segment that is being rewritten.
struct CompactionSource {
    segment: Arc<Segment>,
    /// The entries still to be moved.
    entries: Vec<IndexEntry>,
    reason: CompactionReason,
}

/// Moves a piece; returns `None` if no segment is worth rewriting. After an error the next step chooses again.
pub(crate) fn step(
    table: &RecordTable,
    catalog: &Catalog,
    space: SpaceLimits,
    limits: CompactionLimits,
    compaction: &mut Compaction,
) -> Result<Option<Rewritten>, StoreError> {
    table.segments.all().iter().for_each(|segment| table.segments.drop_if_dead(segment));
    let usages: Vec<SegmentUsage> = table.segments.all().iter().map(|segment| segment.usage()).collect();
    let choice = choose(&usages, space.disk_usage(&table.segments)?, limits);
    let Some(mut source) = compaction.under_way.take().or_else(|| begin(table, catalog, choice?)) else {
        return Ok(None);
    };
    // A rewrite that began for a weak reason continues at the rate of a stronger one, for example when the disk fills.
    let reason = source.reason.max(choice.map_or(source.reason, |(_, reason)| reason));
    let rest = source.entries.split_off(piece_len(&source.entries));
    let bytes = move_piece(table, &mut compaction.writer, &source.segment, &source.entries)?;
    if rest.is_empty() {
        table.segments.drop_if_dead(&source.segment);
        tracing::debug!(segment = source.segment.number, "segment rewritten");
    } else {
        compaction.under_way = Some(CompactionSource { entries: rest, ..source });
    }
    Ok(Some(Rewritten { bytes, reason }))
}

/// Returns `None` if the segment has gone meanwhile.
fn begin(
    table: &RecordTable,
    catalog: &Catalog,
    (number, reason): (u32, CompactionReason),
) -> Option<CompactionSource> {
    let segment = table.segments.get(number)?;
    Some(CompactionSource { entries: living_in(table, catalog, &segment), segment, reason })
}

fn piece_len(entries: &[IndexEntry]) -> usize {
    let mut sum = 0;
    let full = entries.iter().position(|entry| {
        sum += u64::from(entry.location.bytes);
        sum > PIECE_BYTES
    });
    full.unwrap_or(entries.len()).max(1).min(entries.len())
}

/// Returns how many bytes were moved.
fn move_piece(
    table: &RecordTable,
    writer: &mut SegmentWriter,
    source: &Segment,
    entries: &[IndexEntry],
) -> Result<u64, StoreError> {
    let mut records = sound_records(table, entries)?;
    let _gate = table.removal_gate.write();
    records.retain(|(entry, _)| table.index.get(entry.key, entry.id) == Some(entry.location));
    if records.is_empty() {
        return Ok(0);
    }
    let copies = copy(&table.segments, writer, source.number, &records)?;
    for ((entry, _), (segment, location)) in records.iter().zip(&copies) {
        segment.count_live(location);
        assert!(table.index.relocate(entry, *location), "no entry leaves the index while the gate is held");
    }
    mark_records_dead(table, records.iter().map(|(entry, _)| entry.location).collect());
    Ok(records.iter().map(|(entry, _)| u64::from(entry.location.bytes)).sum())
}

/// Writes the records to a segment with a number above `above`. Returns where each of them lies when they are on the
/// disk.
fn copy(
    segments: &SegmentSet,
    writer: &mut SegmentWriter,
    above: u32,
    records: &[(IndexEntry, Bytes)],
) -> Result<Vec<(Arc<Segment>, RecordLocation)>, StoreError> {
    let mut slices: Vec<IoSlice<'_>> = records.iter().map(|(_, record)| IoSlice::new(record)).collect();
    let bytes = records.iter().map(|(_, record)| record.len() as u64).sum();
    segments.take_space(bytes, u64::MAX);
    let appended = writer.append(segments, above, &mut slices, bytes).inspect_err(|_| {
        segments.return_space(bytes);
    })?;
    let copies = locations(records, appended.segment.number, appended.start);
    let moved = records.iter().zip(&copies).map(|((entry, _), to)| IndexEntry { location: *to, ..*entry });
    appended.segment.note(&moved.collect::<Vec<_>>());
    if let Some(full) = appended.full {
        full.seal(segments);
    }
    if let Err(error) = appended.segment.wait_durable(appended.end) {
        appended.segment.mark_dead(&copies.iter().map(|copy| copy.offset).collect::<Vec<_>>());
        return Err(error);
    }
    Ok(copies.into_iter().map(|location| (appended.segment.clone(), location)).collect())
}

fn locations(records: &[(IndexEntry, Bytes)], segment: u32, start: u64) -> Vec<RecordLocation> {
    let mut offset = start as u32;
    let next = |(entry, _): &(IndexEntry, Bytes)| {
        let location = RecordLocation { segment, offset, bytes: entry.location.bytes };
        offset = offset.wrapping_add(location.bytes);
        location
    };
    records.iter().map(next).collect()
}
