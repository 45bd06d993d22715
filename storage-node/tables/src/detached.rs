//! Contents of very many extents that a file has lost at once: it was removed, or truncated to (nearly) nothing. Taking
//! them apart in the log entry that removed them would stop every voter for seconds. So the file gets an empty place
//! for its extents, and the old place is dissolved by later entries, a bounded number of extents at a time.
//!
//! Until then these chunks are neither current nor on the dead list. They never become current again either.

use chordfs_types::{
    chunk::{ChunkRun, FileName},
    namespace::{Extent, Ino, SessionId},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    Tables, Transaction,
    extents::{ALL_CHUNKS, ExtentMath},
    map,
};

/// How many extents or holds one log entry takes apart; some microseconds each.
pub(super) const STEP: usize = if cfg!(test) { 3 } else { 1024 };
/// Places other than inodes' own numbers begin here, far beyond any inode.
pub(super) const FIRST_PLACE: u64 = 1 << 63;
/// How many holds of a closing session one log entry releases.
pub(super) const HOLDS_STEP: usize = 1024;

/// What the runs of detached contents need in order to be deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DetachedContents {
    pub(super) file: FileName,
    pub(super) chunk_bytes: u32,
}

/// The holds of a session that has ended and had very many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EndedHolds(#[serde(with = "map")] pub(super) OrdMap<Ino, ()>);

impl Transaction<'_> {
    /// Detaches the contents from chunk `first` on, if they are many and those before it few. Returns whether it did.
    pub(super) fn detach(&mut self, ino: Ino, first: u32, at_once: usize) -> bool {
        if self.tables.extents_from(ino, first).take(at_once + 1).count() <= at_once {
            return false;
        }
        let kept: Vec<Extent> =
            self.tables.extents_from(ino, 1).take_while(|extent| extent.first < first).take(STEP + 1).collect();
        if kept.len() > STEP {
            return false;
        }
        for extent in &kept {
            self.tables.remove_extent(ino, *extent);
            // The part of an extent behind the cut stays with the others.
            if let Some(lost) = extent.part(first, u32::MAX) {
                self.tables.insert_extent(ino, lost);
            }
        }
        let attr = &self.tables.inodes[&ino].attr;
        let detached = DetachedContents { file: attr.file.clone(), chunk_bytes: attr.chunk_bytes };
        let old = self.tables.place_of(ino);
        self.tables.detached.insert((ino, old), detached);
        self.tables.places.insert(ino, Ino(self.tables.next.place));
        self.tables.next.place += 1;
        for extent in kept {
            self.tables.insert_extent(ino, extent.part(1, first - 1).expect("it begins before the cut"));
        }
        true
    }

    /// Takes a bounded part of what earlier entries left behind apart. Returns how much of `budget` is left.
    pub(super) fn dissolve(&mut self, budget: usize) -> usize {
        let mut left = budget;
        while left > 0
            && let Some(((ino, place), contents)) = self.tables.detached.get_min().cloned()
        {
            let extents: Vec<Extent> = self.tables.extents_at(place, ALL_CHUNKS).take(left).collect();
            left -= extents.len();
            for extent in &extents {
                self.tables.remove_at(place, contents.chunk_bytes, *extent);
                let Extent { first, count, version } = *extent;
                self.add_dead(ChunkRun { file: contents.file.clone(), first, count, version });
            }
            if self.tables.extents_at(place, ALL_CHUNKS).next().is_none() {
                self.tables.detached.remove(&(ino, place));
            }
        }
        left
    }

    /// Releases a bounded number of the holds of sessions that have ended.
    pub(super) fn release_ended(&mut self) {
        let Some((session, holds)) = self.tables.ended.get_min().cloned() else { return };
        let inos: Vec<Ino> = holds.0.keys().take(HOLDS_STEP).copied().collect();
        for ino in &inos {
            self.release(*ino, session);
            self.tables.forget_hold(session, *ino);
        }
    }
}

impl Tables {
    /// Returns whether something is left to take apart.
    pub(super) fn has_leftovers(&self) -> bool {
        !self.detached.is_empty() || !self.ended.is_empty()
    }

    /// Where the extents of a file are: under its own number unless it has been given another place.
    pub(super) fn place_of(&self, ino: Ino) -> Ino {
        self.places.get(&ino).copied().unwrap_or(ino)
    }

    /// Iterates over the detached extents of a file that overlap `run`.
    pub(super) fn detached_under(&self, ino: Ino, run: &Extent) -> impl Iterator<Item = Extent> {
        let (first, last) = (run.first, run.last());
        let places = self.detached.range::<_, (Ino, Ino)>((ino, Ino(0))..=(ino, Ino(u64::MAX)));
        places.flat_map(move |((_, place), _)| {
            self.extents_at(*place, (first, last)).take_while(move |extent| extent.first <= last)
        })
    }

    /// Forgets a hold of a session that has ended.
    pub(super) fn forget_hold(&mut self, session: SessionId, ino: Ino) {
        let Some(holds) = self.ended.get_mut(&session) else { return };
        holds.0.remove(&ino);
        if holds.0.is_empty() {
            self.ended.remove(&session);
        }
    }
}
