//! Makes chunks durable that were stored in memory only: `fsync` on a file whose chunks were uploaded before.
//!
//! The answer to a put names the nodes that have the batch. When two of these have synced, two of three have it on
//! disk; this takes one small request to each node. Only if one of them is unresponsive, dead, or has restarted since,
//! each chunk is checked by itself in [`super::durability_check`]: another holder may get its copy later, by repair.

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

use super::{ChunkClient, HEDGE_AFTER, LocalCopies, NewChunk, durability_check::DurabilityCheck, put::StoredBatch};
use crate::boot_clock::since_boot;

/// Beyond this many unsynced batches a put syncs them: some programs never call fsync, and memory is bounded.
const MAX_BATCHES: usize = 1 << 16;
/// After such a sync has failed, no put tries again for this long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The chunks of `runs` whose keys are in the arc of `route`, and the nodes that stored them.
pub(super) struct UnsyncedBatch {
    runs: Arc<[ChunkRun]>,
    route: Arc<Route>,
    stored: Vec<NodeRef>,
    /// When the batch was sent, by the boot clock.
    sent: Duration,
}

impl UnsyncedBatch {
    pub(super) fn new(runs: &Arc<[ChunkRun]>, batch: StoredBatch) -> Self {
        Self { runs: runs.clone(), route: batch.route, stored: batch.stored, sent: batch.sent }
    }

    /// Whether enough of the nodes that have synced have been running since before the batch was sent.
    fn is_on_disk(&self, uptimes: &HashMap<NodeRef, NodeUptime>) -> bool {
        let synced = |node: &&NodeRef| uptimes.get(node).is_some_and(|uptime| uptime.started_before(self.sent));
        !self.stored.is_empty() && self.stored.iter().filter(synced).count() >= write_quorum(self.stored.len())
    }

    fn checks(&self) -> impl Iterator<Item = DurabilityCheck> + '_ {
        let chunks = self.runs.iter().flat_map(|run| (0..run.count).map(move |step| (run, run.first + step)));
        chunks.filter_map(|(run, index)| {
            let key = chunk_key(&run.file, index);
            let chunk = || ChunkRef { file: run.file.clone(), id: ChunkId { version: run.version, index } };
            let check = || DurabilityCheck::new(key, chunk(), &self.stored, &self.route.holders, self.sent);
            self.route.arc.contains(key).then(check)
        })
    }
}

/// The uptime that a node reported, and when it did so by this machine's boot clock.
#[derive(Clone, Copy)]
struct NodeUptime {
    running_for: Duration,
    at: Duration,
}

impl NodeUptime {
    fn started_before(&self, sent: Duration) -> bool {
        self.at.saturating_sub(sent) <= self.running_for
    }
}

/// The batches stored since the last sync. A sync takes them all, so syncs run one at a time: a second one that found
/// none while the first was running would return too early.
#[derive(Default)]
pub(super) struct UnsyncedBatches {
    batches: Mutex<Vec<UnsyncedBatch>>,
    /// When the last put that found too many batches failed to sync them.
    failed_at: Mutex<Option<Instant>>,
    sync_lock: tokio::sync::Mutex<()>,
}

/// The batches that a sync has taken. They are put back if it fails or is cancelled.
struct BatchesBeingSynced<'a> {
    from: &'a UnsyncedBatches,
    batches: Vec<UnsyncedBatch>,
}

impl Drop for BatchesBeingSynced<'_> {
    fn drop(&mut self) {
        self.from.batches.lock().append(&mut self.batches);
    }
}

impl ChunkClient {
    pub(super) async fn add_unsynced(&self, batches: Vec<UnsyncedBatch>) {
        self.unsynced.batches.lock().extend(batches);
        let has_just_failed = self.unsynced.failed_at.lock().is_some_and(|at| at.elapsed() < RETRY_AFTER);
        if has_just_failed || self.unsynced.batches.lock().len() <= MAX_BATCHES {
            return;
        }
        let done = self.sync(&|_| None).await;
        *self.unsynced.failed_at.lock() = done.is_err().then(Instant::now);
        if let Err(error) = done {
            debug!(%error, "cannot sync the oldest unsynced chunks; a later put tries again");
        }
    }

    /// Returns when everything put before through this client is on the disks of its holders. Chunks that the holders
    /// have lost are sent again from the local copies (`local_copies`).
    pub async fn sync(&self, local_copies: LocalCopies<'_>) -> Result<(), FsError> {
        let end = Instant::now() + self.deadline;
        let guard = timeout_at(end, self.unsynced.sync_lock.lock()).await;
        let _guard =
            guard.map_err(|_| FsError::NoReplica { detail: "another sync is still waiting for disks".into() })?;
        let batches = std::mem::take(&mut *self.unsynced.batches.lock());
        let mut taken = BatchesBeingSynced { from: &self.unsynced, batches };
        self.sync_batches(&taken.batches, end, local_copies).await?;
        taken.batches.clear();
        Ok(())
    }

    async fn sync_batches(
        &self,
        batches: &[UnsyncedBatch],
        end: Instant,
        local_copies: LocalCopies<'_>,
    ) -> Result<(), FsError> {
        let nodes: HashSet<NodeRef> = batches.iter().flat_map(|batch| &batch.stored).copied().collect();
        let mut requests: FuturesUnordered<_> = nodes.iter().map(|node| self.sync_node(*node, end)).collect();
        let (mut uptimes, mut open) = (HashMap::new(), batches.iter().collect::<Vec<_>>());
        let timer = sleep(HEDGE_AFTER);
        tokio::pin!(timer);
        while !open.is_empty() {
            select! {
                answer = requests.next() => match answer {
                    Some(answer) => note_uptime(answer, &mut uptimes, &mut open),
                    None => break,
                },
                () = &mut timer => break,
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        nodes.iter().filter(|node| !uptimes.contains_key(node)).for_each(|node| self.router.note_unresponsive(node));
        debug!(batches = open.len(), "not every node that stored chunks has synced them; checking each chunk");
        // Boxed, because this rare path has a large future.
        let mut ensured =
            Box::pin(self.ensure_durable(open.iter().flat_map(|batch| batch.checks()).collect(), end, local_copies));
        loop {
            select! {
                result = &mut ensured => return result,
                Some(answer) = requests.next() => note_uptime(answer, &mut uptimes, &mut open),
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// Syncs a node and returns its uptime. A slow disk has time until `end`.
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

/// Adds a node's answer, and removes the batches from `open` that are on disk according to it.
fn note_uptime(
    (node, uptime): (NodeRef, Option<NodeUptime>),
    uptimes: &mut HashMap<NodeRef, NodeUptime>,
    open: &mut Vec<&UnsyncedBatch>,
) {
    uptimes.extend(uptime.map(|uptime| (node, uptime)));
    open.retain(|batch| !batch.is_on_disk(uptimes));
}

fn uptime(node: &NodeRef, answer: &[u8]) -> Option<NodeUptime> {
    let synced: Synced = postcard::from_bytes(answer)
        .inspect_err(|error| debug!(%node, %error, "cannot decode the answer to a sync"))
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
