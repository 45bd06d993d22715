//! Orphans: chunks that a node has kept for long and that no file has. Their writer crashed before it committed them or
//! wrote them once more before it did, or the node was away while they were deleted.
//!
//! A node asks which of its chunks these are, and hands them over when they have been so for long. The question costs a
//! look at the extents where the chunks would be, never a walk; it is about chunks, since a file often keeps the rest of
//! the same write. The answer is as of a moment that is over when it arrives, so everything is made sure once more here,
//! in the order of the log:
//!
//! - A commit that comes first makes its chunks current; what is current in any file, by whatever names it is reached, or
//!   in one that has lost its last name and is still held open, is not touched. Renames and links move no extent.
//! - A commit that comes later finds the chunks on the dead list, and when they have been deleted, their version closed:
//!   it gets a `Conflict`, an error that its program sees, instead of a file with holes. So does a writer who slept through
//!   all of it, its laptop's lid closed, and one that lives and had a part of a version committed an hour before the rest.
//!   A whole version is closed, because its writer stores a rest anew anyway; what is current of it stays so.
//! - What was cut from a file meanwhile is on the dead list already, and not put there a second time.
//! - A version never handed out by this namespace is another's; one from before a leap (`leap`) may come from a state that
//!   this one has lost: they are left alone.

use chordfs_types::{
    chunk::{ChunkRun, Version},
    fs_error::FsError,
    namespace::{Answer, Extent, Reply},
};

use super::{
    Step, Tables,
    extents::{Chunks, Span, check_range},
    invalid,
};

/// How long a writer may sleep before its commit is no longer recognized as too late; where few versions are closed,
/// longer, because a clock that jumps must not open them all.
const CLOSED_FOR_SECS: i64 = 30 * 24 * 3600;
const CLOSED_AT_LEAST: usize = 1 << 14;
/// Runs and extents looked at for one question.
const LOOKED_AT: u32 = 1 << 15;

impl Step<'_> {
    pub(super) fn bury_orphans(&mut self, runs: &[ChunkRun]) -> Result<Reply, FsError> {
        runs.iter().try_for_each(check_run)?;
        self.reopen_old();
        let mut buried = 0;
        for run in runs {
            // What is new on the list counts for the next run, should one come twice.
            for (first, last) in self.tables.orphaned(run) {
                self.tables.closed.insert(run.version, self.logged);
                self.add_dead(ChunkRun { first, count: last - first + 1, ..run.clone() });
                buried += 1;
            }
        }
        Ok(Reply::Buried { runs: buried })
    }

    fn reopen_old(&mut self) {
        let logged = self.logged.secs;
        let old = |since: i64| since < logged.saturating_sub(CLOSED_FOR_SECS);
        let most = self.tables.closed.len().saturating_sub(CLOSED_AT_LEAST);
        let closed = self.tables.closed.iter().filter(|(_, since)| old(since.secs));
        // The lowest were given out first.
        let gone: Vec<_> = closed.map(|(version, _)| *version).take(most).collect();
        for version in gone {
            self.tables.closed.remove(&version);
        }
        self.tables.spare_no_longer(self.logged);
    }
}

impl Tables {
    pub(super) fn unreferenced(&self, runs: &[Extent]) -> Result<Answer, FsError> {
        runs.iter().try_for_each(check_range)?;
        let (mut pieces, mut left) = (Vec::new(), LOOKED_AT);
        for (number, run) in (0..).zip(runs) {
            if let Some(chunk) = self.add_unreferenced(run, &mut left, &mut pieces) {
                return Ok(Answer::Unreferenced { pieces, next: Some((number, chunk)) });
            }
        }
        Ok(Answer::Unreferenced { pieces, next: None })
    }

    /// The chunk to go on from when nothing is left to be spent.
    fn add_unreferenced(&self, run: &Extent, left: &mut u32, pieces: &mut Vec<Extent>) -> Option<u32> {
        let Some(rest) = left.checked_sub(1) else { return Some(run.first) };
        *left = rest;
        if !self.may_bury(run.version) {
            return None;
        }
        let mut from = run.first;
        for extent in self.extents_under(run) {
            let before = run.part(from, extent.first - 1);
            let Some(rest) = left.checked_sub(1) else {
                pieces.extend(before);
                return Some(from.max(extent.first));
            };
            *left = rest;
            if extent.version == run.version {
                pieces.extend(before);
                from = extent.last().checked_add(1)?;
            }
        }
        pieces.extend(run.part(from, run.last()));
        None
    }

    /// The extents that lie where a run would, in the one file that has something of its version; none if no file has.
    fn extents_under(&self, run: &Extent) -> impl Iterator<Item = Extent> {
        let (first, last) = (run.first, run.last());
        let used = self.versions.get(&run.version).into_iter();
        used.flat_map(move |used| self.extents_from(used.ino, first).take_while(move |extent| extent.first <= last))
    }

    fn may_bury(&self, version: Version) -> bool {
        self.check_version(version).is_ok() && !self.is_skipped(version)
    }

    /// What of a run is neither current nor dead already.
    fn orphaned(&self, run: &ChunkRun) -> Vec<Chunks> {
        if !self.may_bury(run.version) {
            return Vec::new();
        }
        let run = Extent { first: run.first, count: run.count, version: run.version };
        let current = self.extents_under(&run).filter(|extent| extent.version == run.version);
        let kept = current.chain(self.dead_of(run.version));
        kept.fold(vec![(run.first, run.last())], |pieces, kept| without(pieces, &kept))
    }
}

fn without(pieces: Vec<Chunks>, kept: &Extent) -> Vec<Chunks> {
    let cut = |(first, last): Chunks| {
        let before = kept.first.checked_sub(1).map(|end| (first, last.min(end)));
        let after = kept.last().checked_add(1).map(|start| (first.max(start), last));
        before.into_iter().chain(after).filter(|(first, last)| first <= last)
    };
    pieces.into_iter().flat_map(cut).collect()
}

fn check_run(run: &ChunkRun) -> Result<(), FsError> {
    let counts = run.first > 0 && run.count > 0 && run.first.checked_add(run.count - 1).is_some();
    if counts { Ok(()) } else { Err(invalid("a run has at least one chunk, and chunks count from 1 to 2^32 - 1")) }
}
