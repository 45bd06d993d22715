//! Orphan chunks: chunks that a node has stored for a long time and that no file has. Their writer crashed before it
//! committed them, or replaced them before the commit, or the node was away while they were deleted.
//!
//! A node queries which of its chunks are unreferenced, and reports them for collection when they have been so for a
//! long time. The query looks up the extents where the chunks would be and never walks a table; it concerns single
//! chunks, since a file often keeps the rest of the same write. Its answer may be out of date when it arrives, so the
//! collection checks everything again, in the order of the log:
//!
//! - A commit that comes first makes its chunks current. Chunks that are current in any file are not touched, even if
//!   the file has lost its last name and is only held open. Renames and links move no extent.
//! - A commit that comes later finds the chunks on the dead list, and after their deletion their version retired: it
//!   gets a `Conflict`, an error that its program sees, instead of a file with holes. So does a writer that was
//!   suspended meanwhile (a laptop with its lid closed), and one that committed a part of a version an hour before the
//!   rest. The whole version is retired, because its writer stores the rest again anyway; its current chunks stay
//!   current.
//! - Chunks that were removed from a file meanwhile are on the dead list already, and are not added a second time.
//! - A version that this namespace never allocated is another namespace's, and one from before a jump
//!   ([`super::id_jump`]) may belong to lost operations: both are left alone.

use chordfs_types::{
    chunk::ChunkRun,
    fs_error::FsError,
    namespace::{Answer, Extent, MAX_COLLECTED_RUNS, Reply},
};

use super::{
    Tables, Transaction,
    extents::{ExtentMath, check_range},
    invalid, work,
};

/// How many runs and extents one query examines.
const MAX_EXAMINED: u32 = 1 << 15;
/// How many extents one log entry examines. Runs beyond that are left out, and found again at the next look.
pub(super) const MAX_EXAMINED_TO_COLLECT: usize = 4096;

impl Transaction<'_> {
    pub(super) fn collect_orphans(&mut self, runs: &[ChunkRun]) -> Result<Reply, FsError> {
        check_count(runs.len())?;
        runs.iter().try_for_each(check_run)?;
        self.tables.expire_skipped(self.logged);
        let (mut collected, mut left) = (0, MAX_EXAMINED_TO_COLLECT);
        for run in runs {
            // Pieces of earlier runs are on the dead list by now, so a chunk that is listed twice is added once.
            for Extent { first, count, version } in self.tables.orphaned(&run.into(), &mut left) {
                self.tables.retire(version);
                self.add_dead(ChunkRun { file: run.file.clone(), first, count, version });
                collected += 1;
            }
        }
        Ok(Reply::Collected { runs: collected })
    }
}

impl Tables {
    pub(super) fn unreferenced(&self, runs: &[Extent]) -> Result<Answer, FsError> {
        runs.iter().try_for_each(check_range)?;
        let (mut pieces, mut left) = (Vec::new(), MAX_EXAMINED);
        for (number, run) in (0..).zip(runs) {
            if let Some(chunk) = self.add_unreferenced(run, &mut left, &mut pieces) {
                return Ok(Answer::Unreferenced { pieces, next: Some((number, chunk)) });
            }
        }
        Ok(Answer::Unreferenced { pieces, next: None })
    }

    /// Returns the chunk to continue from when the limit is reached.
    fn add_unreferenced(&self, run: &Extent, left: &mut u32, pieces: &mut Vec<Extent>) -> Option<u32> {
        let Some(rest) = left.checked_sub(1) else { return Some(run.first) };
        *left = rest;
        if !self.may_be_orphaned(run) {
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

    /// Iterates over the extents in the range of a run, in the one file that has chunks of its version, if any.
    fn extents_under(&self, run: &Extent) -> impl Iterator<Item = Extent> {
        let (first, last) = (run.first, run.last());
        let user = self.user_of(run.version).into_iter();
        user.flat_map(move |ino| self.extents_from(ino, first).take_while(move |extent| extent.first <= last))
    }

    /// Shared chunks are counted, and dead when nothing has them any more; chunks beside them in a run wait for that.
    fn may_be_orphaned(&self, run: &Extent) -> bool {
        self.check_version(run.version).is_ok() && !self.is_skipped(run.version) && !self.is_shared(run)
    }

    /// Returns the parts of a run that are neither current nor already dead. Examines at most `left` extents, and
    /// returns nothing if they are not enough.
    pub(super) fn orphaned(&self, run: &Extent, left: &mut usize) -> Vec<Extent> {
        if !self.may_be_orphaned(run) {
            return Vec::new();
        }
        let user = self.versions.get(&run.version).into_iter();
        let detached = user.flat_map(|used| self.detached_under(used.ino, run));
        let existing = self.extents_under(run).chain(detached).chain(self.dead_under(run));
        let mut kept: Vec<Extent> = existing.take(*left).collect();
        work::count(kept.len());
        *left -= kept.len();
        if *left == 0 {
            return Vec::new();
        }
        kept.retain(|extent| extent.version == run.version);
        kept.sort_by_key(|extent| extent.first);
        without(run, &kept)
    }
}

/// Returns the parts of a run that are in none of `kept`, which ascend.
pub(super) fn without(run: &Extent, kept: &[Extent]) -> Vec<Extent> {
    let (mut parts, mut from) = (Vec::new(), Some(run.first));
    for kept in kept {
        let Some(start) = from else { break };
        parts.extend(run.part(start, kept.first - 1));
        from = kept.last().checked_add(1).map(|next| next.max(start));
    }
    parts.extend(from.and_then(|start| run.part(start, u32::MAX)));
    parts
}

/// Refuses very many runs at once, because each takes time.
pub(super) fn check_count(runs: usize) -> Result<(), FsError> {
    if runs > MAX_COLLECTED_RUNS {
        return Err(invalid(format!("{runs} runs to collect; at most {MAX_COLLECTED_RUNS} are allowed")));
    }
    Ok(())
}

fn check_run(run: &ChunkRun) -> Result<(), FsError> {
    let refused = |_| invalid("a run has at least one chunk, and chunks count from 1 to 2^32 - 1");
    check_range(&run.into()).map_err(refused)
}
