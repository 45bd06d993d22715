//! Contents of very many extents that a file has lost at once: it was removed or truncated, or one commit covered them.
//! Their range of the file has got another place for its extents (`segments`), and what is at the old place is taken
//! apart by later log entries, a bounded number of extents at a time.
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
    extents::{ChunkRange, ExtentMath},
    map,
    segments::FileSegment,
    work,
};

/// How many extents or holds one log entry takes apart; some microseconds each.
pub(super) const STEP: usize = if cfg!(test) { 3 } else { 1024 };
/// How many holds of a closing session one log entry releases.
pub(super) const HOLDS_STEP: usize = 1024;

/// Where detached contents are: the file that had them, their place among the extents, and their first chunk.
pub(super) type DetachedKey = (Ino, Ino, u32);

/// What the runs of detached contents need in order to be deleted, and their last chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DetachedContents {
    pub(super) file: FileName,
    pub(super) chunk_bytes: u32,
    pub(super) last: u32,
}

/// The holds of a session that has ended and had very many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EndedHolds(#[serde(with = "map")] pub(super) OrdMap<Ino, ()>);

impl Transaction<'_> {
    /// Detaches a range of a file if more than `at_once` extents are in it. Returns whether it did.
    pub(super) fn detach(&mut self, ino: Ino, range: ChunkRange, at_once: usize) -> bool {
        let (first, last) = range;
        let covered = self.tables.extents_from(ino, first).take_while(|extent| extent.first <= last);
        let found = covered.take(at_once.saturating_add(1)).count();
        work::count(found);
        if found <= at_once {
            return false;
        }
        self.tables.split_extent(ino, first);
        if let Some(next) = last.checked_add(1) {
            self.tables.split_extent(ino, next);
        }
        // Looking at all of them is fast; taking them away is not.
        let covered = self.tables.extents_from(ino, first).take_while(|extent| extent.first <= last);
        self.gained -= covered.map(|extent| i64::from(extent.count)).sum::<i64>();
        let attr = &self.tables.inodes[&ino].attr;
        let (file, chunk_bytes) = (attr.file.clone(), attr.chunk_bytes);
        for FileSegment { place, first, last } in self.tables.move_to_empty_place(ino, range) {
            let contents = DetachedContents { file: file.clone(), chunk_bytes, last };
            self.tables.detached.insert((ino, place, first), contents);
        }
        true
    }

    /// Takes a bounded part of what earlier entries left behind apart. Returns how much of `budget` is left.
    pub(super) fn dissolve(&mut self, budget: usize) -> usize {
        let mut left = budget;
        while left > 0
            && let Some(((ino, place, first), contents)) = self.tables.detached.get_min().cloned()
        {
            let range = (first, contents.last);
            let extents: Vec<Extent> = self.tables.extents_at(place, range).take(left).collect();
            left -= extents.len();
            for extent in &extents {
                self.tables.remove_at(place, contents.chunk_bytes, *extent);
                let Extent { first, count, version } = *extent;
                let run = ChunkRun { file: contents.file.clone(), first, count, version };
                self.release_chunks(run, contents.chunk_bytes);
            }
            if self.tables.extents_at(place, range).next().is_none() {
                self.tables.detached.remove(&(ino, place, first));
            }
            work::count(1);
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

    /// Iterates over the detached extents of a file that overlap `run`.
    pub(super) fn detached_under(&self, ino: Ino, run: &Extent) -> impl Iterator<Item = Extent> {
        let (first, last) = (run.first, run.last());
        let of_file = self.detached.range::<_, DetachedKey>((ino, Ino(0), 0)..=(ino, Ino(u64::MAX), u32::MAX));
        let overlap = of_file.filter(move |((_, _, from), contents)| *from <= last && contents.last >= first);
        overlap.flat_map(move |((_, place, from), contents)| {
            self.extents_at(*place, (first.max(*from), last.min(contents.last)))
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
