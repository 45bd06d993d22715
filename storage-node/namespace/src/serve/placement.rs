//! Storing logged chunks on their holders, on the leader. A program that called `fsync` was answered when its few bytes
//! were in the log (`Change::CommitWithData`); from there they move to the nodes that the ring says.
//!
//! They stay in the log for half a second, because what is synced is often written again soon: chunks that are replaced
//! meanwhile need not be stored at all. Then they are stored durably, many in one request, and forgotten. If storing
//! fails, smaller requests follow, so that one chunk whose holders are full or away delays no other.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use chordfs_log::warn_limited;
use chordfs_net::boot_clock::since_boot;
use chordfs_tables::ChunkToPlace;
use chordfs_types::{
    chunk::ChunkId,
    namespace::{Change, Time},
};

use crate::{raft::handle::RaftHandle, state::applied_history::AppliedHistory};

/// How long a chunk stays in the log at least.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause after a request that has failed.
const PAUSE: Duration = Duration::from_millis(500);
/// The most chunks of one request.
const PAGE: usize = 256;

/// Stores chunks durably on their holders. Ends within a deadline; an error means that some may not be stored.
pub type ChunkPlacer = Arc<dyn Fn(Vec<ChunkToPlace>) -> ChunkPlacerFuture + Send + Sync>;
pub type ChunkPlacerFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

pub(crate) struct Placement {
    raft: Arc<RaftHandle>,
    placer: ChunkPlacer,
    history: AppliedHistory,
    cursor: PlacementCursor,
}

impl Placement {
    pub(crate) fn new(raft: Arc<RaftHandle>, placer: ChunkPlacer) -> Self {
        Self { raft, placer, history: AppliedHistory::default(), cursor: PlacementCursor::default() }
    }

    /// Runs until it is dropped; does nothing while this node does not lead.
    pub(crate) async fn run(mut self) {
        loop {
            self.history.record(since_boot(), self.raft.state().applied_index());
            let pause = if self.raft.has_lease() { self.place_page().await } else { Some(SETTLED_AFTER) };
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Stores one page. Returns how long to wait before the next one; `None` if more may be due already.
    async fn place_page(&mut self) -> Option<Duration> {
        let before = self.history.applied_before(since_boot(), SETTLED_AFTER) + 1;
        let (after, limit) = self.cursor.next_page();
        let page = self.raft.state().chunks_to_place(after, before, limit);
        let Some(last) = page.last().map(|chunk| chunk.chunk.id) else {
            let is_at_end = after.is_none();
            self.cursor.restart();
            return is_at_end.then_some(LOOK_EVERY);
        };
        let (count, ids) = (page.len(), page.iter().map(|chunk| chunk.chunk.id).collect());
        let placed = match (self.placer)(page).await {
            Ok(()) => self.raft.propose(Change::ForgetLogged { chunks: ids }, Time::now()).await.map(drop),
            Err(reason) => Err(reason),
        };
        self.cursor.note(last, placed.is_ok());
        match placed {
            Ok(()) => None,
            Err(reason) => {
                warn_limited!(
                    reason,
                    count,
                    "written data stays in the namespace's log, because it cannot be stored on its nodes yet"
                );
                Some(PAUSE)
            }
        }
    }
}

/// Which chunks are next. A page that fails is left behind, and comes again when all others had their turn.
struct PlacementCursor {
    after: Option<ChunkId>,
    limit: usize,
}

impl Default for PlacementCursor {
    fn default() -> Self {
        Self { after: None, limit: PAGE }
    }
}

impl PlacementCursor {
    fn next_page(&self) -> (Option<ChunkId>, usize) {
        (self.after, self.limit)
    }

    fn note(&mut self, last: ChunkId, is_placed: bool) {
        self.after = Some(last);
        self.limit = if is_placed { (self.limit * 2).min(PAGE) } else { (self.limit / 4).max(1) };
    }

    fn restart(&mut self) {
        self.after = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chordfs_types::chunk::Version;

    use super::*;

    /// One chunk of a thousand cannot be stored: all others are, and it is tried again and again.
    #[test]
    fn a_chunk_that_cannot_be_stored_delays_no_other() {
        let id = |version| ChunkId { version: Version(version), index: 1 };
        let bad = id(500);
        let mut left: BTreeSet<ChunkId> = (0..1000).map(id).collect();
        let (mut cursor, mut tries, mut pages) = (PlacementCursor::default(), 0, 0);
        while tries < 3 || left.len() > 1 {
            pages += 1;
            assert!(pages < 100, "{} chunks are left", left.len());
            let (after, limit) = cursor.next_page();
            let page: Vec<ChunkId> =
                left.iter().copied().filter(|id| after.is_none_or(|after| *id > after)).take(limit).collect();
            let Some(last) = page.last() else {
                cursor.restart();
                continue;
            };
            let is_placed = !page.contains(&bad);
            if is_placed {
                left.retain(|id| !page.contains(id));
            } else if page.len() == 1 {
                tries += 1;
            }
            cursor.note(*last, is_placed);
        }
        assert_eq!(left, BTreeSet::from([bad]));
    }
}
