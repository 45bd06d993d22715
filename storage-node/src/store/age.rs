//! Which versions have lain here for long, and what is here of them: the questions of whoever looks for orphans.
//!
//! How long a chunk has been here is told by its segment: nothing in it is younger than its file's last change. That
//! survives a restart, needs no byte in a record, and errs on the side of young: a segment that is still being filled, or
//! was rewritten, counts from then.

use std::{io, time::SystemTime};

use common::{
    chunk::{ChunkRef, ChunkRun, Version},
    ring_id::{RingArc, RingId},
};
use hashbrown::{HashMap, HashSet};

use super::{Shared, StoreError, index::Entry, list::chunks_at};

/// The versions of all chunks here that were stored before `before`, each once, ascending.
pub fn versions_stored_before(shared: &Shared, before: SystemTime) -> Result<Vec<Version>, StoreError> {
    let old = old_segments(shared, before)?;
    let mut versions = HashSet::new();
    if !old.is_empty() {
        shared.index.each_in(everywhere(), |entry| {
            if old.contains(&entry.place.segment) {
                versions.insert(entry.id.version);
            }
        });
    }
    let mut versions: Vec<Version> = versions.into_iter().collect();
    versions.sort_unstable();
    Ok(versions)
}

/// For each of `versions` of which all that is here was stored before `before`: the run from its first chunk here to its
/// last. There may be gaps in it, as other nodes keep the rest.
pub fn old_runs(shared: &Shared, versions: &[Version], before: SystemTime) -> Result<Vec<ChunkRun>, StoreError> {
    let old = old_segments(shared, before)?;
    let wanted: HashSet<Version> = versions.iter().copied().collect();
    let mut held: HashMap<Version, Held> = HashMap::new();
    shared.index.each_in(everywhere(), |entry| {
        if wanted.contains(&entry.id.version) {
            let held = held.entry(entry.id.version).or_insert_with(|| Held::new(entry));
            held.add(entry, old.contains(&entry.place.segment));
        }
    });
    held.retain(|_, held| held.old);
    let firsts = chunks_at(shared, held.values().map(|held| held.first).collect())?;
    Ok(firsts.into_iter().filter_map(|listed| run(&held, listed.chunk)).collect())
}

/// What is here of one version.
struct Held {
    first: Entry,
    last_index: u32,
    old: bool,
}

impl Held {
    fn new(entry: Entry) -> Self {
        Self { first: entry, last_index: entry.id.index, old: true }
    }

    fn add(&mut self, entry: Entry, old: bool) {
        if entry.id.index < self.first.id.index {
            self.first = entry;
        }
        self.last_index = self.last_index.max(entry.id.index);
        self.old &= old;
    }
}

fn run(held: &HashMap<Version, Held>, first: ChunkRef) -> Option<ChunkRun> {
    let ChunkRef { file, id } = first;
    let last = held.get(&id.version)?.last_index;
    Some(ChunkRun { file, first: id.index, count: last.checked_sub(id.index)?.checked_add(1)?, version: id.version })
}

fn old_segments(shared: &Shared, before: SystemTime) -> Result<HashSet<u32>, StoreError> {
    let mut old = HashSet::new();
    for segment in shared.segments.all() {
        match std::fs::metadata(segment.path()).and_then(|found| found.modified()) {
            Ok(changed) if changed < before => drop(old.insert(segment.number)),
            Ok(_) => {}
            // One that was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::io("look at", segment.path(), source)),
        }
    }
    Ok(old)
}

fn everywhere() -> RingArc {
    RingArc::new(RingId(0), RingId(0))
}
