//! Taking chunks out: deleted ones, copies no longer wanted here, and damaged ones.
//!
//! A removed record stays in its segment until that is rewritten or goes as a whole; the list of dead records says that
//! it is dead. Only the index decides who removed it, so two at once never count one record twice.

use std::{collections::VecDeque, time::Instant};

use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, chunk_key},
    ring_id::{RingArc, RingId},
};
use hashbrown::HashSet;
use parking_lot::Mutex;

use super::{
    Shared,
    index::{Entry, Place},
};

/// A run longer than this, and than the store, is looked for from the index's side.
const LONG_RUN_CHUNKS: u32 = 1 << 16;
/// How many damaged chunks are remembered for repair.
const REMEMBERED: usize = 4096;

pub fn delete(shared: &Shared, runs: &[ChunkRun]) -> u64 {
    shared.graves.add(runs, Instant::now());
    let _gate = shared.moving.read();
    let mut places = Vec::new();
    for run in runs {
        if run.count > LONG_RUN_CHUNKS && run.count as usize > shared.index.len() {
            remove_long_run(shared, run, &mut places);
        } else {
            remove_run(shared, run, &mut places);
        }
    }
    bury(shared, places)
}

pub fn forget(shared: &Shared, chunks: &[ChunkRef]) -> u64 {
    let _gate = shared.moving.read();
    let places = chunks.iter().filter_map(|chunk| shared.index.remove(chunk.key(), chunk.id)).collect();
    bury(shared, places)
}

/// Marks records dead that the index no longer knows, and drops segments that are wholly dead now.
pub fn bury(shared: &Shared, mut places: Vec<Place>) -> u64 {
    places.sort_unstable();
    for group in places.chunk_by(|a, b| a.segment == b.segment) {
        // It is there: what the index pointed at counted as living until now.
        let Some(segment) = shared.segments.get(group[0].segment) else { continue };
        segment.mark_dead(&group.iter().map(|place| place.offset).collect::<Vec<_>>());
        group.iter().for_each(|place| segment.discount_live(place));
        shared.segments.drop_if_dead(&segment);
    }
    places.len() as u64
}

fn remove_run(shared: &Shared, run: &ChunkRun, places: &mut Vec<Place>) {
    for index in run.first..=last(run) {
        let id = ChunkId { version: run.version, index };
        places.extend(shared.index.remove(chunk_key(&run.file, index), id));
    }
}

fn remove_long_run(shared: &Shared, run: &ChunkRun, places: &mut Vec<Place>) {
    let mut found = Vec::new();
    let everywhere = RingArc::new(RingId(0), RingId(0));
    shared.index.each_in(everywhere, |Entry { key, id, .. }| {
        let asked = id.version == run.version && (run.first..=last(run)).contains(&id.index);
        if asked && chunk_key(&run.file, id.index) == key {
            found.push((key, id));
        }
    });
    places.extend(found.into_iter().filter_map(|(key, id)| shared.index.remove(key, id)));
}

/// The last index of a run; below `first` if it is empty. A run that claims more than there are numbers ends with them.
fn last(run: &ChunkRun) -> u32 {
    match run.count {
        0 => run.first.saturating_sub(1),
        count => run.first.saturating_add(count - 1),
    }
}

/// What was found damaged since the open.
#[derive(Default)]
pub struct Damage {
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    count: u64,
    chunks: VecDeque<Damaged>,
}

/// A chunk whose record was found damaged, and where that lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub key: RingId,
    pub id: ChunkId,
    pub segment: u32,
    pub offset: u32,
}

impl Damage {
    pub fn list(&self) -> Vec<(RingId, ChunkId)> {
        self.found.lock().chunks.iter().map(|damaged| (damaged.key, damaged.id)).collect()
    }

    pub fn records(&self) -> Vec<Damaged> {
        self.found.lock().chunks.iter().copied().collect()
    }

    pub fn forget(&self, chunks: &[(RingId, ChunkId)]) {
        self.found.lock().chunks.retain(|damaged| !chunks.contains(&(damaged.key, damaged.id)));
    }

    pub fn count(&self) -> u64 {
        self.found.lock().count
    }

    /// Damage of which nobody can say which chunk it hit.
    pub fn add_unnamed(&self, count: u64) {
        self.found.lock().count += count;
    }

    /// These chunks were stored anew.
    pub fn mended(&self, entries: &[Entry]) {
        let mut found = self.found.lock();
        if !found.chunks.is_empty() {
            let stored: HashSet<_> = entries.iter().map(|entry| (entry.key.0, entry.id)).collect();
            found.chunks.retain(|damaged| !stored.contains(&(damaged.key.0, damaged.id)));
        }
    }

    fn add(&self, Entry { key, id, place }: &Entry) {
        let damaged = Damaged { key: *key, id: *id, segment: place.segment, offset: place.offset };
        let mut found = self.found.lock();
        found.count += 1;
        if found.chunks.len() == REMEMBERED {
            found.chunks.pop_front();
        }
        found.chunks.push_back(damaged);
    }
}

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are there and wrong.
    Contents,
    /// The disk did not give them. It may again one day, so the record is not listed as dead and its segment is kept.
    Unreadable,
}

/// Takes a damaged record out of the index, so that a sound copy can be put in its place. Logged once, here, as only the
/// one who took it out gets there. The caller holds the gate `moving`, for reading or writing.
pub fn condemn(shared: &Shared, entry: &Entry, fault: Fault) {
    if !shared.index.remove_at(entry) {
        return;
    }
    shared.damage.add(entry);
    let Entry { key, id, place } = entry;
    tracing::warn!(%key, version = id.version.0, index = id.index, segment = place.segment, offset = place.offset, ?fault,
        "damaged chunk dropped; it counts as absent until it is repaired");
    match fault {
        Fault::Contents => drop(bury(shared, vec![*place])),
        Fault::Unreadable => {
            if let Some(segment) = shared.segments.get(place.segment) {
                segment.discount_unreadable(place);
            }
        }
    }
}
