//! Where a file's extents are among those of all files: under the file's own number, in general.
//!
//! Some operations take very many extents away from a file at once: it is truncated, or one commit covers a range that
//! was written in small pieces. Removing them one by one in that log entry would stop every voter for seconds. So the
//! range gets another place for its extents, an empty one, and those at the old place are taken apart by later entries
//! (`detached`). A file then consists of segments, each with a place; no extent crosses from one into the next.

use std::ops::Bound::{Excluded, Included};

use chordfs_types::namespace::Ino;

use super::{
    Tables,
    extents::{ChunkRange, ExtentMath},
    work,
};

/// Places other than inodes' own numbers begin here, far beyond any inode.
pub(super) const FIRST_PLACE: u64 = 1 << 63;

/// Consecutive chunks of a file, from the first to the last, whose extents are at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FileSegment {
    pub(super) place: Ino,
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Tables {
    /// Returns the segment of a file that contains this chunk.
    pub(super) fn segment(&self, ino: Ino, chunk: u32) -> FileSegment {
        let before = self.places.get_prev(&(ino, chunk)).filter(|((of, _), _)| *of == ino);
        let (first, place) = before.map_or((1, ino), |((_, first), place)| (*first, *place));
        let after = (Excluded((ino, chunk)), Included((ino, u32::MAX)));
        let next = self.places.range::<_, (Ino, u32)>(after).next();
        FileSegment { place, first, last: next.map_or(u32::MAX, |((_, next), _)| next - 1) }
    }

    /// Iterates over the segments that overlap a range, ascending.
    pub(super) fn segments(&self, ino: Ino, (first, last): ChunkRange) -> impl Iterator<Item = FileSegment> {
        let next = move |segment: &FileSegment| {
            let next = segment.last.checked_add(1).filter(|next| *next <= last)?;
            Some(self.segment(ino, next))
        };
        std::iter::successors(Some(self.segment(ino, first)), next)
    }

    /// Gives a range a place at which it has no extents, and returns where they were. The caller has made sure that no
    /// extent crosses an end of the range.
    pub(super) fn move_to_empty_place(&mut self, ino: Ino, (first, last): ChunkRange) -> Vec<FileSegment> {
        let former: Vec<FileSegment> = self
            .segments(ino, (first, last))
            .map(|it| FileSegment { first: it.first.max(first), last: it.last.min(last), ..it })
            .collect();
        work::count(former.len());
        let after = last.checked_add(1).map(|next| (next, self.segment(ino, next).place));
        let before = self.segment(ino, first - 1).place;
        let place = self.empty_place(ino, [before, ino], (first, last));
        for segment in &former {
            self.places.remove(&(ino, segment.first));
        }
        self.set_place(ino, first, place);
        if let Some((next, place)) = after {
            self.set_place(ino, next, place);
        }
        former
    }

    /// Lets the segment that begins with this chunk be at `place`; it is one with the segment before if that is, too.
    fn set_place(&mut self, ino: Ino, first: u32, place: Ino) {
        self.places.remove(&(ino, first));
        if self.segment(ino, first).place != place {
            self.places.insert((ino, first), place);
        }
    }

    /// Prefers `known` places over a new one, so that a file that is rewritten from its beginning to its end remains in
    /// few segments.
    fn empty_place(&mut self, ino: Ino, known: [Ino; 2], range: ChunkRange) -> Ino {
        if let Some(empty) = known.into_iter().find(|place| self.is_empty_at(ino, *place, range)) {
            return empty;
        }
        self.next.place += 1;
        Ino(self.next.place - 1)
    }

    /// Whether a place of a file has neither extents in the range nor detached contents, which are about to go.
    fn is_empty_at(&self, ino: Ino, place: Ino, (first, last): ChunkRange) -> bool {
        let before = self.detached.get_prev(&(ino, place, last)).filter(|((of, at, _), _)| (*of, *at) == (ino, place));
        let detached = before.is_some_and(|(_, contents)| contents.last >= first);
        !detached && self.extents_at(place, (first, last)).next().is_none()
    }

    /// Splits the extent that crosses from the chunk before `chunk` to it, if there is one.
    pub(super) fn split_extent(&mut self, ino: Ino, chunk: u32) {
        let Some(extent) = self.extent_at(ino, chunk).filter(|extent| extent.first < chunk) else { return };
        self.remove_extent(ino, extent);
        for part in [extent.part(1, chunk - 1), extent.part(chunk, u32::MAX)].into_iter().flatten() {
            self.insert_extent(ino, part);
        }
    }

    /// Forgets the segments of a file that is removed.
    pub(super) fn forget_places(&mut self, ino: Ino) {
        let firsts: Vec<(Ino, u32)> =
            self.places.range::<_, (Ino, u32)>((ino, 0)..=(ino, u32::MAX)).map(|(at, _)| *at).collect();
        work::count(firsts.len());
        for first in &firsts {
            self.places.remove(first);
        }
    }
}
