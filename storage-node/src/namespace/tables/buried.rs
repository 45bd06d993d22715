//! Orphans: chunks that a node has kept for long and that no file has. Their writer crashed before it committed them, or
//! the node was away while they were deleted.
//!
//! The nodes judge their age; here it is made sure, in the order of the log, that nothing a file has is touched and that
//! nothing buried comes to life again. A writer may have slept through all of it, its laptop's lid closed, and commit when
//! it wakes: its versions are closed, so it gets a `Conflict` instead of a file with holes. A version never handed out by
//! this namespace is another's, or comes from a state that this one has lost: it is left alone.

use common::{
    chunk::ChunkRun,
    fs_error::FsError,
    namespace::{Extent, Reply},
};

use super::{
    Step, Tables,
    extents::{Chunks, Span},
    invalid,
};

/// How long a writer may sleep before its commit is no longer recognized as too late.
const CLOSED_FOR_SECS: i64 = 30 * 24 * 3600;

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
        let gone: Vec<_> = self.tables.closed.iter().filter(|(_, since)| old(since.secs)).map(|(v, _)| *v).collect();
        for version in gone {
            self.tables.closed.remove(&version);
        }
    }
}

impl Tables {
    /// What of a run is neither current nor dead already.
    fn orphaned(&self, run: &ChunkRun) -> Vec<Chunks> {
        if self.check_version(run.version).is_err() {
            return Vec::new();
        }
        let last = run.first + (run.count - 1);
        let current = self.versions.get(&run.version).into_iter().flat_map(|used| {
            let there = self.extents_from(used.ino, run.first).take_while(move |extent| extent.first <= last);
            there.filter(|extent| extent.version == run.version)
        });
        let kept = current.chain(self.dead_of(run.version));
        kept.fold(vec![(run.first, last)], |pieces, kept| without(pieces, &kept))
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
