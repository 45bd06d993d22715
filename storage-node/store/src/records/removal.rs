//! Removes deleted chunks, copies that belong elsewhere, and damaged records.
//!
//! A removed record stays in its segment until the segment is rewritten or removed; until then it is in the list of
//! dead records. The index alone decides which of two concurrent callers removed it, so no record is counted twice.

use std::time::Instant;

use chordfs_log::warn_limited;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, chunk_key},
    compare_api::ChunkAt,
    ring_id::{RingArc, RingId},
};

use super::RecordTable;
use crate::index::{IndexEntry, RecordLocation};

/// A run longer than this, and with more chunks than the store, is found by a walk over the index.
const LONG_RUN_CHUNKS: u32 = 1 << 16;

pub(crate) fn delete(table: &RecordTable, runs: &[ChunkRun]) -> u64 {
    table.tombstones.add(runs, Instant::now());
    let _gate = table.removal_gate.read();
    let mut locations = Vec::new();
    for run in runs {
        if run.count > LONG_RUN_CHUNKS && run.count as usize > table.index.len() {
            remove_long_run(table, run, &mut locations);
        } else {
            remove_run(table, run, &mut locations);
        }
    }
    mark_records_dead(table, locations)
}

pub(crate) fn forget(table: &RecordTable, chunks: &[ChunkRef]) -> u64 {
    let _gate = table.removal_gate.read();
    let locations = chunks.iter().filter_map(|chunk| table.index.remove(chunk.key(), chunk.id)).collect();
    mark_records_dead(table, locations)
}

/// Drops this node's copies; returns how many there were.
pub(crate) fn drop_copies(table: &RecordTable, chunks: &[ChunkAt]) -> u64 {
    let _gate = table.removal_gate.read();
    let locations = chunks.iter().filter_map(|chunk| table.index.remove(chunk.key, chunk.id)).collect();
    mark_records_dead(table, locations)
}

/// Deletes chunks for good that another node reports as deleted; returns how many were here.
pub(crate) fn delete_at(table: &RecordTable, chunks: &[ChunkAt]) -> u64 {
    table.tombstones.add_chunks(chunks.iter().map(|chunk| chunk.id), Instant::now());
    drop_copies(table, chunks)
}

/// Marks records dead that were removed from the index, and drops segments that are wholly dead now.
pub(crate) fn mark_records_dead(table: &RecordTable, mut locations: Vec<RecordLocation>) -> u64 {
    locations.sort_unstable();
    for group in locations.chunk_by(|a, b| a.segment == b.segment) {
        // The segment exists: until now it counted these records as live.
        let Some(segment) = table.segments.get(group[0].segment) else { continue };
        segment.mark_dead(&group.iter().map(|location| location.offset).collect::<Vec<_>>());
        group.iter().for_each(|location| segment.discount_live(location));
        table.segments.drop_if_dead(&segment);
    }
    locations.len() as u64
}

fn remove_run(table: &RecordTable, run: &ChunkRun, locations: &mut Vec<RecordLocation>) {
    for index in run.first..=last_index(run) {
        let id = ChunkId { version: run.version, index };
        locations.extend(table.index.remove(chunk_key(&run.file, index), id));
    }
}

fn remove_long_run(table: &RecordTable, run: &ChunkRun, locations: &mut Vec<RecordLocation>) {
    let mut found = Vec::new();
    let everywhere = RingArc::new(RingId(0), RingId(0));
    table.index.each_in(everywhere, |IndexEntry { key, id, .. }| {
        let asked = id.version == run.version && (run.first..=last_index(run)).contains(&id.index);
        if asked && chunk_key(&run.file, id.index) == key {
            found.push((key, id));
        }
    });
    locations.extend(found.into_iter().filter_map(|(key, id)| table.index.remove(key, id)));
}

/// Returns the last index of a run; below `first` if the run is empty. A run that exceeds `u32::MAX` ends there.
pub(super) fn last_index(run: &ChunkRun) -> u32 {
    match run.count {
        0 => run.first.saturating_sub(1),
        count => run.first.saturating_add(count - 1),
    }
}

/// Why a record counts as damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes can be read and are wrong.
    Contents,
    /// The bytes cannot be read. They may become readable again, so the record is not listed as dead and its segment is
    /// kept.
    Unreadable,
}

impl Fault {
    fn label(self) -> &'static str {
        match self {
            Self::Contents => "wrong contents",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Removes a damaged record from the index, so that a sound copy can be put in its place. The damage is logged once, as
/// only one caller removes the record. The caller holds the removal gate, for reading or writing.
pub(crate) fn drop_damaged(table: &RecordTable, entry: &IndexEntry, fault: Fault) {
    if !table.index.remove_at(entry) {
        return;
    }
    table.damage.add(entry);
    let IndexEntry { key, id, location } = entry;
    warn_limited!(%key, version = id.version.0, index = id.index, segment = location.segment, offset = location.offset,
        fault = fault.label(), "damaged chunk dropped; it counts as absent until it is repaired");
    match fault {
        Fault::Contents => drop(mark_records_dead(table, vec![*location])),
        Fault::Unreadable => {
            if let Some(segment) = table.segments.get(location.segment) {
                segment.discount_unreadable(location);
            }
        }
    }
}
