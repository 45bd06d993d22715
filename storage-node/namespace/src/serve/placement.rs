//! Storing logged chunks on their holders, on the leader. A program that called `fsync` was answered when its few bytes
//! were in the log (`Change::CommitWithData`); from there they move to the nodes that the ring says.
//!
//! They stay in the log for half a second, because what is synced is often written again soon: chunks that are replaced
//! meanwhile need not be stored at all. Then they are stored durably, many in one request, and forgotten. A request
//! that fails is repeated in parts, so that in the end only the chunks wait whose holders are full or away
//! (`placement_plan`).

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chordfs_log::warn_limited;
use chordfs_net::boot_clock::since_boot;
use chordfs_tables::Tables;
use chordfs_types::{
    chunk::{ChunkId, FileName},
    namespace::{Change, Time},
};
use tokio::task::JoinSet;

use super::placement_plan::PlacementPlan;
use crate::{membership::guard::NamespaceGuard, raft::handle::RaftHandle, state::applied_history::AppliedHistory};

/// How long a chunk stays in the log at least.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After an operator has let one voter continue alone, nodes may have deleted chunks that are current again. They
/// remember for ten minutes that they have, and store none of these.
const AFTER_RECOVERY: Duration = Duration::from_secs(15 * 60);
/// Requests at a time: one that waits for holders must not hold up the others.
const PARALLEL: usize = 4;

/// A chunk to store on its holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkToPlace {
    pub file: FileName,
    pub id: ChunkId,
    pub data: Bytes,
}

/// Stores chunks durably on their holders. Ends within a deadline; an error means that some may not be stored.
pub type ChunkPlacer = Arc<dyn Fn(Vec<ChunkToPlace>) -> ChunkPlacerFuture + Send + Sync>;
pub type ChunkPlacerFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

pub(crate) struct Placement {
    raft: Arc<RaftHandle>,
    guard: Arc<NamespaceGuard>,
    placer: ChunkPlacer,
    history: AppliedHistory,
    plan: PlacementPlan,
    requests: JoinSet<(Vec<ChunkId>, Result<(), String>)>,
}

impl Placement {
    pub(crate) fn new(raft: Arc<RaftHandle>, guard: Arc<NamespaceGuard>, placer: ChunkPlacer) -> Self {
        let (history, plan, requests) = (AppliedHistory::default(), PlacementPlan::default(), JoinSet::new());
        Self { raft, guard, placer, history, plan, requests }
    }

    /// Runs until it is dropped; does nothing while this node does not lead.
    pub(crate) async fn run(mut self) {
        loop {
            self.history.record(since_boot(), self.raft.state().applied_index());
            let pause = if self.may_place() {
                self.start_requests();
                LOOK_EVERY
            } else {
                self.requests.abort_all();
                self.plan = PlacementPlan::default();
                SETTLED_AFTER
            };
            tokio::select! {
                Some(ended) = self.requests.join_next() => {
                    if let Ok((ids, outcome)) = ended {
                        self.note(ids, outcome).await;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// While there is another namespace in the ring, a node may have other bytes under the same id.
    fn may_place(&self) -> bool {
        let recovered = self.raft.state().jumped_at().map(|at| Time::now().secs.saturating_sub(at.secs));
        let is_recent = recovered.is_some_and(|secs| (0..AFTER_RECOVERY.as_secs() as i64).contains(&secs));
        self.raft.has_lease() && self.guard.no_rival() && !is_recent
    }

    fn start_requests(&mut self) {
        let before = self.history.applied_before(since_boot(), SETTLED_AFTER) + 1;
        while self.requests.len() < PARALLEL {
            let Some(tables) = self.raft.state().tables_with_chunks_to_place() else { return };
            let page = self.next_page(&tables, before);
            if page.is_empty() {
                return;
            }
            let ids = page.iter().map(|chunk| chunk.id).collect();
            let placed = (self.placer)(page);
            self.requests.spawn(async move { (ids, placed.await) });
        }
    }

    /// The next page of chunks that were logged before this place.
    fn next_page(&mut self, tables: &Tables, before: u64) -> Vec<ChunkToPlace> {
        if self.plan.has_failed() {
            let kept: BTreeSet<ChunkId> = tables.chunks_to_place(u64::MAX).map(|(id, ..)| id).collect();
            self.plan.retain(|id| kept.contains(id));
        }
        let due: Vec<(ChunkId, usize)> = tables.chunks_to_place(before).map(|(id, _, data)| (id, data.len())).collect();
        let page = self.plan.next_page(due.iter().copied(), Instant::now());
        let chosen = tables.chunks_to_place(before).filter(|(id, ..)| page.contains(id));
        chosen.map(|(id, file, data)| ChunkToPlace { file: file.clone(), id, data: data.clone() }).collect()
    }

    async fn note(&mut self, ids: Vec<ChunkId>, outcome: Result<(), String>) {
        let outcome = match outcome {
            Ok(()) => self.raft.propose(Change::ForgetLogged { chunks: ids.clone() }, Time::now()).await.map(drop),
            failed => failed,
        };
        self.plan.note(&ids, outcome.is_ok(), Instant::now());
        if let Err(reason) = outcome {
            let count = ids.len();
            warn_limited!(
                reason,
                count,
                "written data stays in the namespace's log, because it cannot be stored on its nodes yet"
            );
        }
    }
}
