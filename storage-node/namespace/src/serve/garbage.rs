//! Garbage collection, on the leader: contents of files with neither a name nor a holder, then versions that no file
//! references.
//!
//! Nothing is logged unless there is something to collect; checking costs a query of the tables in memory.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_net::boot_clock::since_boot;
use chordfs_types::{
    chunk::ChunkRun,
    namespace::{Answer, Change, Query, Time},
    ring_id::NodeRef,
};

use super::deletions::Deletions;
use crate::{
    membership::guard::NamespaceGuard,
    raft::handle::RaftHandle,
    state::{applied_history::AppliedHistory, session_feed::SessionFeed},
};

/// The time between a version's death and its deletion: a reader may have looked the version up just before.
const READERS_GRACE: Duration = Duration::from_secs(10);
/// A session that renews its lease for this much longer than a lease, and does not answer whether it has a nameless
/// file open, no longer keeps the file.
const ANSWER_SLACK: Duration = Duration::from_secs(15);
/// The most items of one round; the next round follows at once.
const ROUND: u32 = 1024;

/// How often the leader checks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Deletes runs of chunks from storage nodes of the ring, and returns the nodes that may not have deleted them. An
/// error means that the members of the ring are unknown, so that no node was asked.
pub type Deleter = Arc<dyn Fn(Vec<ChunkRun>, DeletionTargets) -> DeleterFuture + Send + Sync>;
pub type DeleterFuture = Pin<Box<dyn Future<Output = Result<Vec<FailedDeletion>, String>> + Send>>;

/// The nodes that are asked to delete chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionTargets {
    /// All storage nodes of the ring without these.
    AllExcept(Vec<NodeRef>),
    /// Those of these nodes that are still members of the ring.
    Only(Vec<NodeRef>),
}

impl DeletionTargets {
    pub fn contain(&self, node: &NodeRef) -> bool {
        match self {
            Self::AllExcept(nodes) => !nodes.contains(node),
            Self::Only(nodes) => nodes.contains(node),
        }
    }
}

/// A node that did not confirm a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDeletion {
    pub node: NodeRef,
    /// Names the node.
    pub reason: String,
}

pub(crate) struct GarbageCollector {
    raft: Arc<RaftHandle>,
    guard: Arc<NamespaceGuard>,
    feed: Arc<SessionFeed>,
    deletions: Deletions,
    history: AppliedHistory,
}

impl GarbageCollector {
    pub(crate) fn new(
        raft: Arc<RaftHandle>,
        guard: Arc<NamespaceGuard>,
        feed: Arc<SessionFeed>,
        deleter: Deleter,
    ) -> Self {
        Self { raft, guard, feed, deletions: Deletions::new(deleter), history: AppliedHistory::default() }
    }

    /// Runs until it is dropped; does nothing while this node does not lead.
    pub(crate) async fn run(mut self) {
        let mut more = false;
        loop {
            if !more {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // Every node records this, so that a new leader knows the ages of what it takes over.
            self.history.record(since_boot(), self.raft.state().applied_index());
            // While there is another namespace in the ring, chunks that seem to be garbage may be the other's.
            let leads = self.guard.no_rival() && self.raft.has_lease();
            if leads {
                self.deletions.retry();
            } else {
                self.deletions.stop();
            }
            more = leads && self.collect(since_boot(), Time::now()).await;
        }
    }

    /// Collects one round. Returns true when there may be more to collect at once.
    async fn collect(&mut self, since_boot: Duration, now: Time) -> bool {
        let purged = self.purge_orphans(self.unneeded_before(since_boot), now).await;
        let dead = self.history.applied_before(since_boot, READERS_GRACE) + 1;
        let deleted = self.delete_dead(dead, now).await;
        purged || deleted >= ROUND as usize
    }

    /// Files that lost their last name or holder before this place in the log are open nowhere: each session that could
    /// have one open holds it, has answered that it does not, had nothing open, or has ended.
    fn unneeded_before(&self, since_boot: Duration) -> u64 {
        let state = self.raft.state();
        let (applied, sessions) = state.applied_and_sessions();
        let age = self.raft.settings().session_lease + ANSWER_SLACK;
        let excused = (self.history.applied_before(since_boot, age), age);
        let term = self.raft.holds_term().map_or(0, |leader| leader.term);
        self.feed.answered_by_all(&sessions, Instant::now(), term, excused).min(applied) + 1
    }

    /// Returns whether there is more to purge at once.
    async fn purge_orphans(&self, before: u64, now: Time) -> bool {
        if !self.raft.state().has_purgeable(before) {
            return false;
        }
        match self.raft.propose(Change::PurgeOrphans { before, limit: ROUND }, now).await {
            Ok(_) => self.raft.state().has_purgeable(before),
            Err(reason) => {
                tracing::debug!(reason, "could not purge files without a name; trying again");
                false
            }
        }
    }

    async fn delete_dead(&mut self, before: u64, now: Time) -> usize {
        let query = Query::Dead { before, limit: ROUND };
        let Ok(Answer::Dead(dead)) = self.raft.state().query(&query) else { return 0 };
        if dead.is_empty() {
            return 0;
        }
        let (ids, runs): (Vec<u64>, Vec<ChunkRun>) = dead.into_iter().unzip();
        let count = ids.len();
        if let Err(reason) = self.deletions.delete(runs).await {
            tracing::debug!(reason, count, "could not delete dead chunks; trying again");
            return 0;
        }
        match self.raft.propose(Change::ForgetDead { ids }, now).await {
            Ok(_) => count,
            Err(reason) => {
                tracing::debug!(reason, "could not forget deleted chunks; they will be deleted again");
                0
            }
        }
    }
}
