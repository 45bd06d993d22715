//! Bringing to disk what was stored without waiting for disks: `fsync` on a file whose chunks have left long ago.
//!
//! A put's answer names the nodes that have the batch, and when two of these have synced, two of three have it on disk.
//! That takes one small request to each node. Only if one of them is unresponsive, dead, or has restarted since is each
//! chunk checked by itself, in [`super::durability_check`]: another holder may have its copy late, by repair, or not
//! yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, chunk_key},
    chunk_api::{Synced, calls, write_quorum},
    fs_error::FsError,
    ring_id::NodeRef,
    route_table::Route,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    select,
    time::{Instant, sleep, timeout_at},
};
use tracing::debug;

use super::{ChunkClient, LocalCopies, NewChunk, PATIENCE, durability_check::DurabilityCheck, put::StoredBatch};
use crate::boot_clock::since_boot;

/// Beyond this many unsynced batches a put syncs first: the program never calls fsync, and memory is bounded.
const MAX_NOTES: usize = 1 << 16;
/// After such a sync has failed, puts go on for this long before one tries again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The chunks of `runs` with keys in the arc of `route` were stored by these nodes.
pub(super) struct UnsyncedBatch {
    runs: Arc<[ChunkRun]>,
    route: Arc<Route>,
    stored: Vec<NodeRef>,
    /// By the boot clock.
    sent: Duration,
}

impl UnsyncedBatch {
    pub(super) fn new(runs: &Arc<[ChunkRun]>, batch: StoredBatch) -> Self {
        Self { runs: runs.clone(), route: batch.route, stored: batch.stored, sent: batch.sent }
    }

    /// Whether enough of the nodes that have synced have been running since before the batch was sent.
    fn is_on_disk(&self, uptimes: &HashMap<NodeRef, NodeUptime>) -> bool {
        let synced = |node: &&NodeRef| uptimes.get(node).is_some_and(|uptime| uptime.began_before(self.sent));
        !self.stored.is_empty() && self.stored.iter().filter(synced).count() >= write_quorum(self.stored.len())
    }

    fn chunks(&self) -> impl Iterator<Item = DurabilityCheck> + '_ {
        let chunks = self.runs.iter().flat_map(|run| (0..run.count).map(move |step| (run, run.first + step)));
        chunks.filter_map(|(run, index)| {
            let key = chunk_key(&run.file, index);
            let chunk = || ChunkRef { file: run.file.clone(), id: ChunkId { version: run.version, index } };
            let endangered = || DurabilityCheck::new(key, chunk(), &self.stored, &self.route.holders, self.sent);
            self.route.arc.contains(key).then(endangered)
        })
    }
}

/// How long a node reported to have been running, and when it did by the boot clock.
#[derive(Clone, Copy)]
struct NodeUptime {
    running_for: Duration,
    at: Duration,
}

impl NodeUptime {
    fn began_before(&self, sent: Duration) -> bool {
        self.at.saturating_sub(sent) <= self.running_for
    }
}

/// The batches stored since the last sync. A sync takes them all, so syncs take turns: one that found none while
/// another was still at work would answer too early.
#[derive(Default)]
pub(super) struct UnsyncedBatches {
    notes: Mutex<Vec<UnsyncedBatch>>,
    /// When a put that found too many batches failed to sync them.
    tried: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
}

/// The batches that a sync has taken. They go back when it fails or is dropped.
struct BatchesBeingSynced<'a> {
    from: &'a UnsyncedBatches,
    notes: Vec<UnsyncedBatch>,
}

impl Drop for BatchesBeingSynced<'_> {
    fn drop(&mut self) {
        self.from.notes.lock().append(&mut self.notes);
    }
}

impl ChunkClient {
    pub(super) async fn add_unsynced(&self, notes: Vec<UnsyncedBatch>) {
        self.unsynced.notes.lock().extend(notes);
        let rests = self.unsynced.tried.lock().is_some_and(|tried| tried.elapsed() < TRY_AGAIN);
        if rests || self.unsynced.notes.lock().len() <= MAX_NOTES {
            return;
        }
        let done = self.sync(&|_| None).await;
        *self.unsynced.tried.lock() = done.is_err().then(Instant::now);
        if let Err(error) = done {
            debug!(%error, "cannot bring chunks to disk that have been unsynced for long; a later put tries again");
        }
    }

    /// When this returns, everything put before through this client is on the disks of its holders. What the holders
    /// have lost they receive again from the local copies (`kept`).
    pub async fn sync(&self, kept: LocalCopies<'_>) -> Result<(), FsError> {
        let end = Instant::now() + self.deadline;
        let turn = timeout_at(end, self.unsynced.turn.lock()).await;
        let _turn =
            turn.map_err(|_| FsError::NoReplica { detail: "another sync is still waiting for disks".into() })?;
        let notes = std::mem::take(&mut *self.unsynced.notes.lock());
        let mut taken = BatchesBeingSynced { from: &self.unsynced, notes };
        self.sync_notes(&taken.notes, end, kept).await?;
        taken.notes.clear();
        Ok(())
    }

    async fn sync_notes(&self, notes: &[UnsyncedBatch], end: Instant, kept: LocalCopies<'_>) -> Result<(), FsError> {
        let nodes: HashSet<NodeRef> = notes.iter().flat_map(|note| &note.stored).copied().collect();
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| self.sync_node(*node, end)).collect();
        let (mut uptimes, mut open) = (HashMap::new(), notes.iter().collect::<Vec<_>>());
        let patience = sleep(PATIENCE);
        tokio::pin!(patience);
        while !open.is_empty() {
            select! {
                answer = asked.next() => match answer {
                    Some(answer) => count(answer, &mut uptimes, &mut open),
                    None => break,
                },
                () = &mut patience => break,
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        nodes.iter().filter(|node| !uptimes.contains_key(node)).for_each(|node| self.router.note_unresponsive(node));
        debug!(notes = open.len(), "not every node that stored chunks has synced them; checking each chunk");
        // Boxed: a rare path with much state.
        let mut ensured =
            Box::pin(self.ensure_durable(open.iter().flat_map(|note| note.chunks()).collect(), end, kept));
        loop {
            select! {
                result = &mut ensured => return result,
                Some(answer) = asked.next() => count(answer, &mut uptimes, &mut open),
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// How long the node has been running, once it has synced. A slow disk has time until `end`.
    async fn sync_node(&self, node: NodeRef, end: Instant) -> (NodeRef, Option<NodeUptime>) {
        let left = end.saturating_duration_since(Instant::now());
        let answer = self.pool.post(node.files_address(), calls::SYNC, vec![], left).await;
        let uptime = match answer {
            Ok(answer) if answer.status.is_success() => uptime(&node, &answer.body),
            Ok(answer) => {
                debug!(%node, status = %answer.status, reason = answer.text(), "sync refused");
                None
            }
            Err(error) => {
                debug!(%node, %error, "sync failed");
                None
            }
        };
        (node, uptime)
    }
}

/// Removes from `open` the batches that are on disk according to this answer.
fn count(
    (node, uptime): (NodeRef, Option<NodeUptime>),
    uptimes: &mut HashMap<NodeRef, NodeUptime>,
    open: &mut Vec<&UnsyncedBatch>,
) {
    uptimes.extend(uptime.map(|uptime| (node, uptime)));
    open.retain(|note| !note.is_on_disk(uptimes));
}

fn uptime(node: &NodeRef, answer: &[u8]) -> Option<NodeUptime> {
    let synced: Synced = postcard::from_bytes(answer)
        .inspect_err(|error| debug!(%node, %error, "the answer to a sync does not decode"))
        .ok()?;
    Some(NodeUptime { running_for: synced.running_for, at: since_boot() })
}

/// Joins consecutive chunks of one version to runs.
pub(super) fn runs_of(chunks: &[NewChunk]) -> Arc<[ChunkRun]> {
    let mut runs: Vec<ChunkRun> = Vec::new();
    for chunk in chunks {
        let follows = |run: &&mut ChunkRun| {
            run.version == chunk.id.version && run.first.checked_add(run.count) == Some(chunk.id.index)
        };
        match runs.last_mut().filter(follows) {
            Some(run) => run.count += 1,
            None => runs.push(ChunkRun {
                file: chunk.file.clone(),
                first: chunk.id.index,
                count: 1,
                version: chunk.id.version,
            }),
        }
    }
    runs.into()
}
