//! Makes chunks durable that were stored in memory only: `fsync` on a file whose chunks were uploaded before.
//!
//! The answer to a put names the nodes that have the batch. When two of these have synced, two of three have it on
//! disk; this takes one small request to each node. Only if one of them is unresponsive, dead, or has restarted since,
//! each chunk is checked by itself in [`super::durability_check`]: another holder may get its copy later, by repair.
//!
//! Each file has its own notes of unsynced batches, and a sync waits for those of one file only. So a chunk that is
//! lost or an owner that is away fails the syncs of the files that have chunks there, and no others. A sync that finds
//! chunks of the file lost reports that once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chordfs_types::{
    chunk::{ChunkId, ChunkRef, ChunkRun, FileName, chunk_key},
    chunk_api::{Synced, calls, write_quorum},
    fs_error::FsError,
    ring_id::NodeRef,
    route_table::Route,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::debug;

use super::{
    ChunkClient, HEDGE_AFTER, LocalChunks, NewChunk, NoLocalChunks,
    durability_check::{DurabilityCheck, NotDurable},
    put::StoredBatch,
};
use crate::{boot_clock::since_boot, operation, tasks};

/// Beyond this many unsynced batches a task syncs them: some programs never call fsync, and memory is bounded.
const MAX_BATCHES: usize = if cfg!(test) { 64 } else { 1 << 14 };
/// After such a sync has failed, none is begun for this long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The chunks of `runs`, all of one file, whose keys are in the arc of `route`, and the nodes that stored them.
pub(super) struct UnsyncedBatch {
    runs: Arc<[ChunkRun]>,
    route: Arc<Route>,
    stored: Vec<NodeRef>,
    /// When the batch was sent, by the boot clock.
    sent: Duration,
}

impl UnsyncedBatch {
    pub(super) fn new(runs: &Arc<[ChunkRun]>, batch: &StoredBatch) -> Self {
        Self { runs: runs.clone(), route: batch.route.clone(), stored: batch.stored.clone(), sent: batch.sent }
    }

    fn has_any_of(&self, chunks: &HashSet<ChunkId>) -> bool {
        let has = |run: &ChunkRun| {
            (0..run.count).any(|step| chunks.contains(&ChunkId { version: run.version, index: run.first + step }))
        };
        self.runs.iter().any(has)
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

/// The batches that were stored in memory only. Each stays until a sync has found all of it on disks.
#[derive(Default)]
pub(super) struct UnsyncedBatches {
    batches: Mutex<BatchesByFile>,
    /// Held by the task that syncs the batches because there are too many. When the last such sync failed.
    overflow: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct BatchesByFile {
    by_file: HashMap<FileName, Vec<Arc<UnsyncedBatch>>>,
    count: usize,
}

impl BatchesByFile {
    fn add(&mut self, batch: UnsyncedBatch) {
        let Some(run) = batch.runs.first() else { return };
        self.by_file.entry(run.file.clone()).or_default().push(Arc::new(batch));
        self.count += 1;
    }

    fn share(&mut self, from: &FileName, to: &FileName) {
        let mut shared = self.by_file.get(from).filter(|_| from != to).cloned().unwrap_or_default();
        let known: HashSet<_> = self.by_file.get(to).into_iter().flatten().map(Arc::as_ptr).collect();
        shared.retain(|batch| !known.contains(&Arc::as_ptr(batch)));
        if !shared.is_empty() {
            self.count += shared.len();
            self.by_file.entry(to.clone()).or_default().extend(shared);
        }
    }

    fn all(&self) -> Vec<Arc<UnsyncedBatch>> {
        self.by_file.values().flatten().cloned().collect()
    }

    fn remove(&mut self, done: &[Arc<UnsyncedBatch>]) {
        let done: HashSet<*const UnsyncedBatch> = done.iter().map(Arc::as_ptr).collect();
        self.by_file.retain(|_, batches| {
            batches.retain(|batch| !done.contains(&Arc::as_ptr(batch)));
            !batches.is_empty()
        });
        self.count = self.by_file.values().map(Vec::len).sum();
    }

    fn remove_of(&mut self, file: &FileName, done: &[Arc<UnsyncedBatch>]) {
        let Some(batches) = self.by_file.get_mut(file) else { return };
        let before = batches.len();
        // Both lists ascend by age, so this rarely compares more than one pair for each batch.
        batches.retain(|batch| !done.iter().any(|done| Arc::ptr_eq(batch, done)));
        self.count -= before - batches.len();
        if batches.is_empty() {
            self.by_file.remove(file);
        }
    }
}

impl ChunkClient {
    /// Never waits for a sync: a node that does not answer would hold up a put of which it has nothing.
    pub(super) fn add_unsynced(&self, batches: impl Iterator<Item = UnsyncedBatch>) {
        let count = {
            let mut all = self.unsynced.batches.lock();
            batches.for_each(|batch| all.add(batch));
            all.count
        };
        if count > MAX_BATCHES
            && let Some(this) = self.this.upgrade()
        {
            tasks::spawn(async move { this.sync_overflow().await });
        }
    }

    /// Lets a sync of the file `to` wait for the chunks of `from` as well: it has got some of them by a clone.
    pub fn share_unsynced(&self, from: &FileName, to: &FileName) {
        self.unsynced.batches.lock().share(from, to);
    }

    /// The batches that no sync has found on disks yet.
    #[cfg(test)]
    pub(super) fn unsynced_count(&self) -> usize {
        self.unsynced.batches.lock().count
    }

    /// Syncs the batches of all files, because there are too many. Those that cannot be synced stay, for the syncs of
    /// their files to report.
    async fn sync_overflow(&self) {
        let Ok(mut failed_at) = self.unsynced.overflow.try_lock() else { return };
        if failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return;
        }
        let mut batches = self.unsynced.batches.lock().all();
        let synced = self.sync_batches(&batches, Instant::now() + self.deadline, &NoLocalChunks).await;
        *failed_at = synced.is_err().then(Instant::now);
        if let Err(NotDurable { chunks, error, .. }) = synced {
            debug!(%error, "cannot sync all unsynced chunks; a later put tries again");
            batches.retain(|batch| !batch.has_any_of(&chunks));
        }
        self.unsynced.batches.lock().remove(&batches);
    }

    /// Returns when every chunk of `file` that was put before through this client is on the disks of its holders.
    /// Chunks that the holders have lost are sent again from the local copies (`local_copies`).
    ///
    /// Errors: `NoReplica` if that could not be found out by the deadline; `Lost` if all members of the ring have
    /// reported that they lack the chunks in question. Such a loss is reported once.
    pub async fn sync(&self, file: &FileName, local_copies: &dyn LocalChunks) -> Result<(), FsError> {
        let batches = self.unsynced.batches.lock().by_file.get(file).cloned().unwrap_or_default();
        let synced = self.sync_batches(&batches, operation::end_of_wait(self.deadline), local_copies).await;
        if synced.as_ref().map_or_else(NotDurable::is_loss, |()| true) {
            self.unsynced.batches.lock().remove_of(file, &batches);
        }
        synced.map_err(|failure| failure.error)
    }

    async fn sync_batches(
        &self,
        batches: &[Arc<UnsyncedBatch>],
        end: Instant,
        local_copies: &dyn LocalChunks,
    ) -> Result<(), NotDurable> {
        let nodes: HashSet<NodeRef> = batches.iter().flat_map(|batch| &batch.stored).copied().collect();
        let mut requests: FuturesUnordered<_> = nodes.iter().map(|node| self.sync_node(*node, end)).collect();
        let (mut uptimes, mut open) = (HashMap::new(), batches.iter().map(|batch| &**batch).collect::<Vec<_>>());
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

/// Joins consecutive chunks of one version to runs; one list for each file.
pub(super) fn runs_by_file(chunks: &[NewChunk]) -> Vec<Arc<[ChunkRun]>> {
    let mut by_file: HashMap<&FileName, Vec<ChunkRun>> = HashMap::new();
    for chunk in chunks {
        let runs = by_file.entry(&chunk.file).or_default();
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
    by_file.into_values().map(Arc::from).collect()
}
