//! The chunks that have been here for long enough to be orphans.
//!
//! The age of a chunk is the age of its segment: no record is younger than the last change of its file. That survives a
//! restart, needs no byte in a record, and errs on the side of young: a segment that is still being filled, or that was
//! rewritten, counts from then. A version with any young chunk here counts as young, as its writer may still be
//! writing.
//!
//! A node may have one version per chunk, so the versions are not gathered all at once but in [`VersionShare`]s; each
//! share costs a pass over the index in memory.

use std::{io, time::SystemTime};

use chordfs_types::{
    chunk::{ChunkId, ChunkRun, Version},
    ring_id::{RingArc, RingId},
};
use hashbrown::{HashMap, HashSet};

use crate::{
    error::StoreError,
    index::{Index, IndexEntry},
    reading::list::chunks_at,
    records::RecordTable,
};

/// About how many chunks one share has: a few dozen megabytes.
const SHARE_CHUNKS: usize = 1 << 20;

/// A share of all versions: those with the remainder `number` modulo `of`.
#[derive(Clone, Copy, Debug)]
pub struct VersionShare {
    number: u64,
    of: u64,
}

impl VersionShare {
    fn has(self, version: Version) -> bool {
        version.0 % self.of == self.number
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

/// Returns shares that together contain every version.
pub(crate) fn version_shares(index: &Index) -> impl Iterator<Item = VersionShare> + use<> {
    let of = (index.len() / SHARE_CHUNKS + 1) as u64;
    (0..of).map(move |number| VersionShare { number, of })
}

/// Returns the chunks of those versions of which every chunk here was stored before `before`, ascending.
pub(crate) fn old_chunks(
    table: &RecordTable,
    share: VersionShare,
    before: SystemTime,
) -> Result<Vec<HeldChunk>, StoreError> {
    let old = old_segments(table, before)?;
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let (mut held, mut young) = (Vec::new(), HashSet::new());
    table.index.each_in(everywhere(), |IndexEntry { key, id, location }| match old.contains(&location.segment) {
        _ if !share.has(id.version) => {}
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

fn old_segments(table: &RecordTable, before: SystemTime) -> Result<HashSet<u32>, StoreError> {
    let mut old = HashSet::new();
    for segment in table.segments.all() {
        match std::fs::metadata(segment.path()).and_then(|found| found.modified()) {
            Ok(changed) if changed < before => drop(old.insert(segment.number)),
            Ok(_) => {}
            // The segment was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::io("read the age of", segment.path(), source)),
        }
    }
    Ok(old)
}

fn everywhere() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}
