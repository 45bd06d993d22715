//! Chunks that a session has stored and that no commit of it will name: a later write replaced them before the commit,
//! a truncation cut them off, or their data had to be given up. Only the session knows of them; without its word a node
//! would keep them until they are an hour old and found to be orphans.
//!
//! A session may discard only versions that were allocated to it, and nothing that is current: a commit without an
//! answer may have been applied.

use chordfs_types::{
    chunk::{ChunkRun, Version},
    fs_error::FsError,
    namespace::{DiscardedRuns, Extent, Reply, SessionId, VersionBlock},
};

use super::{
    Tables, Transaction,
    extents::check_range,
    orphan_chunks::{MAX_EXAMINED_TO_COLLECT, check_count},
    sessions::SessionRecord,
};

/// The most blocks of versions that a session is known to have; its oldest ones are forgotten.
const MAX_BLOCKS: usize = 4096;

impl Transaction<'_> {
    pub(super) fn discard(&mut self, files: &[DiscardedRuns]) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        check_count(files.iter().map(|file| file.runs.len()).sum())?;
        files.iter().flat_map(|file| &file.runs).try_for_each(check_range)?;
        let (mut discarded, mut left) = (0, MAX_EXAMINED_TO_COLLECT);
        for (file, run) in files.iter().flat_map(|file| file.runs.iter().map(move |run| (&file.file, run))) {
            if !self.tables.owns(session, run.version) {
                continue;
            }
            for Extent { first, count, version } in self.tables.orphaned(run, &mut left) {
                self.add_dead(ChunkRun { file: file.clone(), first, count, version });
                discarded += 1;
            }
        }
        Ok(Reply::Collected { runs: discarded })
    }
}

impl Tables {
    /// Whether the version was allocated to this session.
    pub(super) fn owns(&self, session: SessionId, version: Version) -> bool {
        let Some(session) = self.sessions.get(&session) else { return false };
        // Versions are allocated in ascending order.
        let later = session.blocks.partition_point(|block| block.first <= version);
        later.checked_sub(1).is_some_and(|at| contains(&session.blocks[at], version))
    }
}

impl SessionRecord {
    pub(super) fn add_block(&mut self, block: VersionBlock) {
        if let Some(last) = self.blocks.back_mut()
            && last.first.0 + u64::from(last.count) == block.first.0
            && let Some(count) = last.count.checked_add(block.count)
        {
            last.count = count;
            return;
        }
        self.blocks.push_back(block);
        if self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_front();
        }
    }
}

fn contains(block: &VersionBlock, version: Version) -> bool {
    (block.first.0..block.first.0 + u64::from(block.count)).contains(&version.0)
}
