//! The chunks that have been here for long enough to be orphans.
//!
//! The age of a chunk is the age of its segment: no record is younger than the last change of its file. That survives a
//! restart, needs no byte in a record, and errs on the side of young: a segment that is still being filled, or that was
//! rewritten, counts from then. A version with any young chunk here counts as young, as its writer may still be
//! writing.
//!
//! A node may have one version per chunk, so the versions are not gathered all at once but in [`VersionShare`]s; each
//! share costs one or two passes over the index in memory. An [`AgeSpan`] leaves out what was old before.

use std::{io, time::SystemTime};

use chordfs_types::{
    chunk::{ChunkId, ChunkRun, Version},
    ring_id::{RingArc, RingId},
};
use hashbrown::{HashMap, HashSet};

use crate::{error::StoreError, index::IndexEntry, reading::list::chunks_at, records::RecordTable};

/// About how many chunks one share has: a few dozen megabytes.
const SHARE_CHUNKS: usize = 1 << 20;

/// A share of all versions: those with the remainder `number` modulo `of`.
#[derive(Clone, Copy, Debug)]
pub struct VersionShare {
    number: u64,
    of: u64,
}

impl VersionShare {
    /// The versions with the remainder `number` modulo `of`.
    pub fn new(number: u64, of: u64) -> Self {
        Self { number, of: of.max(1) }
    }

    fn has(self, version: Version) -> bool {
        version.0 % self.of == self.number
    }
}

/// A time at which chunks were stored: from `since` (or ever) to `before`, which is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeSpan {
    pub since: Option<SystemTime>,
    pub before: SystemTime,
}

impl AgeSpan {
    pub fn until(before: SystemTime) -> Self {
        Self { since: None, before }
    }
}

/// A chunk that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldChunk {
    pub id: ChunkId,
    pub key: RingId,
}

/// Chunks of one version from `first` to `last`, both of which are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRun {
    pub first: HeldChunk,
    pub last: u32,
}

/// Returns shares that together contain every version with a chunk that was stored in `span`.
pub(crate) fn version_shares(table: &RecordTable, span: AgeSpan) -> Result<Vec<VersionShare>, StoreError> {
    let aged = aged_segments(table, span)?;
    let live = table.segments.all().into_iter().filter(|segment| aged.contains(&segment.number));
    let chunks: usize = live.map(|segment| segment.live_chunks() as usize).sum();
    let of = if aged.is_empty() { 0 } else { (chunks / SHARE_CHUNKS + 1) as u64 };
    Ok((0..of).map(|number| VersionShare { number, of }).collect())
}

/// Returns the chunks, ascending, of those versions of which every chunk here was stored before the end of `span` and
/// at least one in `span`.
pub(crate) fn old_chunks(
    table: &RecordTable,
    share: VersionShare,
    span: AgeSpan,
) -> Result<Vec<HeldChunk>, StoreError> {
    if span.since.is_none() {
        return chunks_of_old_versions(table, |version| share.has(version), span.before);
    }
    let (aged, mut versions) = (aged_segments(table, span)?, HashSet::new());
    table.index.each_in(everywhere(), |IndexEntry { id, location, .. }| {
        if share.has(id.version) && aged.contains(&location.segment) {
            versions.insert(id.version);
        }
    });
    chunks_of_old_versions(table, |version| versions.contains(&version), span.before)
}

/// Returns the chunks, ascending, of those of `versions` and of `share` of which every chunk here was stored before
/// `before`.
pub(crate) fn old_chunks_of(
    table: &RecordTable,
    versions: &[Version],
    share: VersionShare,
    before: SystemTime,
) -> Result<Vec<HeldChunk>, StoreError> {
    let versions: HashSet<Version> = versions.iter().copied().collect();
    chunks_of_old_versions(table, |version| share.has(version) || versions.contains(&version), before)
}

fn chunks_of_old_versions(
    table: &RecordTable,
    is_wanted: impl Fn(Version) -> bool,
    before: SystemTime,
) -> Result<Vec<HeldChunk>, StoreError> {
    let old = aged_segments(table, AgeSpan::until(before))?;
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let (mut held, mut young) = (Vec::new(), HashSet::new());
    table.index.each_in(everywhere(), |IndexEntry { key, id, location }| match old.contains(&location.segment) {
        _ if !is_wanted(id.version) => {}
        true => held.push(HeldChunk { id, key }),
        false => drop(young.insert(id.version)),
    });
    held.retain(|chunk| !young.contains(&chunk.id.version));
    held.sort_unstable_by_key(|chunk| chunk.id);
    Ok(held)
}

/// Returns these runs with the NAME of their first chunk, without those whose first chunk is gone or damaged.
pub(crate) fn named(table: &RecordTable, runs: &[HeldRun]) -> Result<Vec<ChunkRun>, StoreError> {
    let here = |run: &HeldRun| {
        let HeldChunk { id, key } = run.first;
        Some(IndexEntry { key, id, location: table.index.get(key, id)? })
    };
    let last: HashMap<ChunkId, u32> = runs.iter().map(|run| (run.first.id, run.last)).collect();
    let firsts = chunks_at(table, runs.iter().filter_map(here).collect())?;
    let run = |ChunkId { version, index: first }, file| {
        let count = last.get(&ChunkId { version, index: first })?.checked_sub(first)?.checked_add(1)?;
        Some(ChunkRun { file, first, count, version })
    };
    Ok(firsts.into_iter().filter_map(|listed| run(listed.chunk.id, listed.chunk.file)).collect())
}

/// Returns the segments whose last change was in `span`.
fn aged_segments(table: &RecordTable, span: AgeSpan) -> Result<HashSet<u32>, StoreError> {
    let is_aged = |changed| changed < span.before && span.since.is_none_or(|since| changed >= since);
    let mut aged = HashSet::new();
    for segment in table.segments.all() {
        match std::fs::metadata(segment.path()).and_then(|found| found.modified()) {
            Ok(changed) if is_aged(changed) => drop(aged.insert(segment.number)),
            Ok(_) => {}
            // The segment was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::io("read the age of", segment.path(), source)),
        }
    }
    Ok(aged)
}

fn everywhere() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}
