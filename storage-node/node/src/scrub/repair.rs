//! Sound copies in the place of damaged records, whoever found them: a pass, a reader, or a segment being rewritten.
//!
//! The store knows a damaged chunk by key and id alone, as its NAME may be among the damaged bytes. Another holder
//! lists what it has under that key, which tells the NAME, and gives the record, which is checked like any other that
//! comes from a peer. When all nodes have answered and none has it, it is either no longer needed, which the namespace
//! knows, or lost; a lost one is asked for again, since a node that is away may have it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_store::DamagedChunk;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, VerifiedBatch},
    chunk_api::Durability,
    namespace::{Answer, Extent, Query},
    ring_id::{NodeRef, RingArc, RingId},
};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::ScrubShared;
use crate::{blocking::with_store, replica::peer::PeerError};

/// Looking costs nothing: what is damaged is a list in memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TRY_AGAIN: Duration = Duration::from_secs(5);
const TRY_LOST_AGAIN: Duration = Duration::from_secs(60);
const SIDE_BY_SIDE: usize = 8;

type ChunkAddress = (RingId, ChunkId);

pub(super) struct DamageRepair {
    shared: Arc<ScrubShared>,
    /// What could not be repaired, and when to try again.
    failed: HashMap<ChunkAddress, RefetchError>,
}

struct RefetchError {
    again: Instant,
    lost: bool,
}

/// What came of one damaged chunk.
enum Outcome {
    Repaired,
    /// No file has it any more.
    Obsolete,
    /// No holder has a sound copy.
    Unrecoverable,
    /// A holder could not be asked.
    Unknown,
}

impl DamageRepair {
    pub(super) fn new(shared: Arc<ScrubShared>) -> Self {
        Self { shared, failed: HashMap::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.round().await;
            sleep(LOOK_EVERY).await;
        }
    }

    async fn round(&mut self) {
        let damaged = self.shared.parts.store.damaged_records();
        self.failed.retain(|name, _| damaged.iter().any(|damaged| address_of(damaged) == *name));
        let now = Instant::now();
        let due =
            |damaged: &DamagedChunk| self.failed.get(&address_of(damaged)).is_none_or(|failure| failure.again <= now);
        let due: Vec<DamagedChunk> = damaged.into_iter().filter(due).collect();
        let shared = &self.shared;
        let outcomes: Vec<(DamagedChunk, Outcome)> = stream::iter(due)
            .map(|damaged| async move { (damaged, repair_chunk(shared, &damaged).await) })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        self.settle(&outcomes);
    }

    fn settle(&mut self, outcomes: &[(DamagedChunk, Outcome)]) {
        let (mut repaired, mut obsolete, mut done) = (0, 0, Vec::new());
        for (damaged, outcome) in outcomes {
            let name = address_of(damaged);
            match outcome {
                Outcome::Repaired => repaired += 1,
                Outcome::Obsolete => obsolete += 1,
                Outcome::Unrecoverable => self.fail(damaged, true),
                Outcome::Unknown => self.fail(damaged, false),
            }
            if matches!(outcome, Outcome::Repaired | Outcome::Obsolete) {
                self.failed.remove(&name);
                done.push(name);
            }
        }
        let store = &self.shared.parts.store;
        store.forget_damage(&done);
        let lost = self.failed.values().filter(|failure| failure.lost).count() as u64;
        self.shared.report.lock().repairing(store.stats().damaged, repaired, obsolete, lost);
    }

    /// Said once for each: it may take until somebody brings back a node.
    fn fail(&mut self, damaged: &DamagedChunk, lost: bool) {
        let patience = if lost { TRY_LOST_AGAIN } else { TRY_AGAIN };
        let before = self.failed.insert(address_of(damaged), RefetchError { again: Instant::now() + patience, lost });
        if lost && !before.is_some_and(|before| before.lost) {
            let DamagedChunk { key, id, segment, offset } = *damaged;
            error!(%key, version = id.version.0, index = id.index, segment, offset,
                "a damaged chunk has no sound copy on any node; bring back a node that is away, or restore the file");
        }
    }
}

fn address_of(damaged: &DamagedChunk) -> ChunkAddress {
    (damaged.key, damaged.id)
}

async fn repair_chunk(shared: &ScrubShared, damaged: &DamagedChunk) -> Outcome {
    let mut all_answered = true;
    for nodes in [holders(shared, damaged.key).await, members(shared).await] {
        let Some(nodes) = nodes else {
            all_answered = false;
            continue;
        };
        for node in nodes {
            match replace_from(shared, &node, damaged).await {
                Ok(true) => return Outcome::Repaired,
                Ok(false) => {}
                Err(error) => {
                    debug!(peer = %node, %error, "a damaged chunk was not replaced from there");
                    all_answered = false;
                }
            }
        }
    }
    if all_answered { judge(shared, damaged.id).await } else { Outcome::Unknown }
}

/// Decides about a chunk of which no holder has a sound copy.
async fn judge(shared: &ScrubShared, ChunkId { version, index }: ChunkId) -> Outcome {
    let runs = vec![Extent { first: index, count: 1, version }];
    match shared.parts.session.query(Query::Unreferenced { runs }).await {
        Ok(Answer::Unreferenced { pieces, .. }) if !pieces.is_empty() => Outcome::Obsolete,
        Ok(_) => Outcome::Unrecoverable,
        Err(error) => {
            debug!(%error, "the namespace does not say whether a damaged chunk is needed");
            Outcome::Unknown
        }
    }
}

/// Those who should have it come first; this node's route to them need not be right.
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

/// False if that node does not have it, or not sound.
async fn replace_from(shared: &ScrubShared, node: &NodeRef, damaged: &DamagedChunk) -> Result<bool, PeerError> {
    let Some(chunk) = named_there(shared, node, damaged).await? else { return Ok(false) };
    let record = shared.parts.peers.get(node, std::slice::from_ref(&chunk)).await?;
    let batch = match VerifiedBatch::verify(record) {
        Ok(batch) if batch.records.len() == 1 && batch.records[0].0.id == damaged.id => batch,
        Ok(_) => return Ok(false),
        Err(error) => return Err(PeerError::Answer { node: *node, reason: error.to_string() }),
    };
    if let Err(error) = with_store(&shared.parts.store, move |store| store.put(&batch, Durability::Disk)).await {
        warn!(%error, chunk = %shown(&chunk), "a sound copy of a damaged chunk could not be stored");
        let reason = format!("the copy was not stored here: {error}");
        return Err(PeerError::Answer { node: *node, reason });
    }
    info!(chunk = %shown(&chunk), version = chunk.id.version.0, segment = damaged.segment, offset = damaged.offset,
        peer = %node, "damaged chunk replaced from another holder");
    Ok(true)
}

/// The chunk by its name, if that node has it.
async fn named_there(
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
