//! Replacing damaged records by sound copies, whether a pass, a reader or compaction has found the damage.
//!
//! The store knows a damaged chunk only by key and id, because its NAME may be among the damaged bytes. Another holder
//! lists its chunks with that key, which yields the NAME, and sends the record, which is checked like any other from a
//! peer. If all nodes have answered and none has the chunk, it is either obsolete, which the namespace knows, or
//! unrecoverable. An unrecoverable chunk is re-fetched again later, because a node that is away may have a copy.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::{error_limited, info_limited, warn_limited};
use chordfs_store::DamagedChunk;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, VerifiedBatch},
    chunk_api::Durability,
    namespace::{Answer, Extent, Query},
    ring_id::{NodeRef, RingArc, RingId},
};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use tracing::debug;

use super::ScrubShared;
use crate::{blocking::with_store, replica::peer::PeerError};

/// A round without damage costs nothing: the damaged records are a list in memory.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const UNRECOVERABLE_RETRY_INTERVAL: Duration = Duration::from_secs(60);
const MAX_CONCURRENT: usize = 8;

type ChunkAddress = (RingId, ChunkId);

pub(super) struct DamageRepair {
    shared: Arc<ScrubShared>,
    /// The records that could not be repaired, and when to try again.
    failed: HashMap<ChunkAddress, RefetchError>,
}

struct RefetchError {
    retry_at: Instant,
    unrecoverable: bool,
}

/// The result of repairing one damaged chunk.
enum RepairOutcome {
    Repaired,
    /// The chunk no longer belongs to a file.
    Obsolete,
    /// No holder has a sound copy.
    Unrecoverable,
    /// A node did not answer.
    Unknown,
}

impl DamageRepair {
    pub(super) fn new(shared: Arc<ScrubShared>) -> Self {
        Self { shared, failed: HashMap::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.round().await;
            sleep(ROUND_INTERVAL).await;
        }
    }

    async fn round(&mut self) {
        let damaged = self.shared.parts.store.damaged_records();
        self.failed.retain(|name, _| damaged.iter().any(|damaged| address_of(damaged) == *name));
        let now = Instant::now();
        let due = |damaged: &DamagedChunk| {
            self.failed.get(&address_of(damaged)).is_none_or(|failure| failure.retry_at <= now)
        };
        let due: Vec<DamagedChunk> = damaged.into_iter().filter(due).collect();
        let shared = &self.shared;
        let outcomes: Vec<(DamagedChunk, RepairOutcome)> = stream::iter(due)
            .map(|damaged| async move { (damaged, repair_chunk(shared, &damaged).await) })
            .buffer_unordered(MAX_CONCURRENT)
            .collect()
            .await;
        self.settle(&outcomes);
    }

    fn settle(&mut self, outcomes: &[(DamagedChunk, RepairOutcome)]) {
        let (mut repaired, mut obsolete, mut done) = (0, 0, Vec::new());
        for (damaged, outcome) in outcomes {
            let name = address_of(damaged);
            match outcome {
                RepairOutcome::Repaired => repaired += 1,
                RepairOutcome::Obsolete => obsolete += 1,
                RepairOutcome::Unrecoverable => self.fail(damaged, true),
                RepairOutcome::Unknown => self.fail(damaged, false),
            }
            if matches!(outcome, RepairOutcome::Repaired | RepairOutcome::Obsolete) {
                self.failed.remove(&name);
                done.push(name);
            }
        }
        let store = &self.shared.parts.store;
        store.forget_damage(&done);
        let unrecoverable = self.failed.values().filter(|failure| failure.unrecoverable).count() as u64;
        self.shared.report.lock().repairing(store.stats().damaged, repaired, obsolete, unrecoverable);
    }

    /// Schedules the next attempt. An unrecoverable chunk is logged only once: it stays so until a node comes back.
    fn fail(&mut self, damaged: &DamagedChunk, unrecoverable: bool) {
        let pause = if unrecoverable { UNRECOVERABLE_RETRY_INTERVAL } else { RETRY_INTERVAL };
        let failure = RefetchError { retry_at: Instant::now() + pause, unrecoverable };
        let before = self.failed.insert(address_of(damaged), failure);
        if unrecoverable && !before.is_some_and(|before| before.unrecoverable) {
            let DamagedChunk { key, id, segment, offset } = *damaged;
            error_limited!(%key, version = id.version.0, index = id.index, segment, offset,
                "a damaged chunk has no sound copy on any node; bring back a node that is away, or restore the file");
        }
    }
}

fn address_of(damaged: &DamagedChunk) -> ChunkAddress {
    (damaged.key, damaged.id)
}

async fn repair_chunk(shared: &ScrubShared, damaged: &DamagedChunk) -> RepairOutcome {
    let mut all_answered = true;
    for nodes in [holders(shared, damaged.key).await, members(shared).await] {
        let Some(nodes) = nodes else {
            all_answered = false;
            continue;
        };
        for node in nodes {
            match replace_from(shared, &node, damaged).await {
                Ok(true) => return RepairOutcome::Repaired,
                Ok(false) => {}
                Err(error) => {
                    debug!(peer = %node, %error, "cannot replace a damaged chunk from this node");
                    all_answered = false;
                }
            }
        }
    }
    if all_answered { judge(shared, damaged.id).await } else { RepairOutcome::Unknown }
}

/// Decides whether a chunk without a sound copy on any node is obsolete or unrecoverable.
async fn judge(shared: &ScrubShared, ChunkId { version, index }: ChunkId) -> RepairOutcome {
    let runs = vec![Extent { first: index, count: 1, version }];
    match shared.parts.session.query(Query::Unreferenced { runs }).await {
        Ok(Answer::Unreferenced { pieces, .. }) if !pieces.is_empty() => RepairOutcome::Obsolete,
        Ok(_) => RepairOutcome::Unrecoverable,
        Err(error) => {
            debug!(%error, "cannot find out from the namespace whether a damaged chunk is needed");
            RepairOutcome::Unknown
        }
    }
}

/// The holders of the key by this node's route, which may be outdated.
async fn holders(shared: &ScrubShared, key: RingId) -> Option<Vec<NodeRef>> {
    let route = shared.parts.router.route(key).await.ok()?;
    Some(others(shared, &route.holders))
}

async fn members(shared: &ScrubShared) -> Option<Vec<NodeRef>> {
    Some(others(shared, &shared.parts.ring.members().await.ok()?))
}

fn others(shared: &ScrubShared, nodes: &[NodeRef]) -> Vec<NodeRef> {
    let me = shared.parts.ring.me().ring_address();
    nodes.iter().filter(|node| node.ring_address() != me).copied().collect()
}

/// Replaces the record by that node's copy. False if the node has no sound copy.
async fn replace_from(shared: &ScrubShared, node: &NodeRef, damaged: &DamagedChunk) -> Result<bool, PeerError> {
    let Some(chunk) = find_name(shared, node, damaged).await? else { return Ok(false) };
    let record = shared.parts.peers.get(node, std::slice::from_ref(&chunk)).await?;
    let batch = match VerifiedBatch::verify(record) {
        Ok(batch) if batch.records.len() == 1 && batch.records[0].0.id == damaged.id => batch,
        Ok(_) => return Ok(false),
        Err(error) => return Err(PeerError::Answer { node: *node, reason: error.to_string() }),
    };
    if let Err(error) = with_store(&shared.parts.store, move |store| store.put(&batch, Durability::Disk)).await {
        warn_limited!(%error, chunk = %shown(&chunk), "cannot store the sound copy of a damaged chunk");
        let reason = format!("the copy was not stored here: {error}");
        return Err(PeerError::Answer { node: *node, reason });
    }
    info_limited!(chunk = %shown(&chunk), version = chunk.id.version.0, segment = damaged.segment, offset = damaged.offset,
        peer = %node, "damaged chunk replaced from another holder");
    Ok(true)
}

/// Finds the name of the chunk in that node's list. `None` if the node does not have the chunk.
async fn find_name(
    shared: &ScrubShared,
    node: &NodeRef,
    damaged: &DamagedChunk,
) -> Result<Option<ChunkRef>, PeerError> {
    let only_key = RingArc::new(damaged.key.advance(u32::MAX), damaged.key);
    let mut token = Some(0);
    while let Some(from) = token {
        let page = shared.parts.peers.list(node, only_key, from).await?;
        let found = page.chunks.into_iter().find(|listed| listed.chunk.id == damaged.id);
        if let Some(listed) = found.filter(|listed| listed.chunk.key() == damaged.key) {
            return Ok(Some(listed.chunk));
        }
        token = page.next.filter(|next| *next > from);
    }
    Ok(None)
}

fn shown(chunk: &ChunkRef) -> String {
    format!("{}_chunk_{}", chunk.file, chunk.id.index)
}
