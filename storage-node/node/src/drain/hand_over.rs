//! Copies the chunks of this node to their future holders, which hold them after it has left.
//!
//! The result is a set union, as in repair: a chunk that its holder already has is not sent again, so a pass may be
//! interrupted anywhere and the next one continues from there.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use chordfs_replication::{
    arc_comparison::CopyAmount,
    drain::{DrainError, Need, RemainingNodes},
};
use chordfs_store::StoreError;
use chordfs_types::{
    chunk::ChunkRef,
    chunk_api::{Durability, ListedChunk, MAX_BATCH_CHUNKS},
    ring_id::{NodeRef, RingArc},
};
use futures_util::future::join_all;

use super::{
    context::DrainContext,
    pace::{DrainPace, MOVE_BYTES},
};
use crate::{
    blocking::with_store,
    replica::{departure::Fresh, peer::PeerError},
};

/// The most chunks that one request carries.
const MOVE_CHUNKS: usize = 1024;

/// Why a step of a drain failed.
#[derive(Debug)]
pub(super) enum StepError {
    /// A retry would fail as well.
    Final(DrainError),
    /// A retry may succeed.
    Retry(String),
}

impl From<DrainError> for StepError {
    fn from(error: DrainError) -> Self {
        Self::Final(error)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Retry(error.to_string())
    }
}

/// An arc, and those of its future holders that lack some of its chunks.
pub(super) struct IncompleteArc {
    arc: RingArc,
    lacking: Vec<NodeRef>,
}

/// What a pass has to copy, estimated at its beginning.
#[derive(Default)]
pub(super) struct Estimate {
    pub incomplete: Vec<IncompleteArc>,
    pub needs: Vec<Need>,
    /// About how many copies are missing.
    pub left: CopyAmount,
    /// All future holders of the chunks of this node.
    pub holders: HashSet<NodeRef>,
}

/// Compares the chunks of this node, arc by arc, with those of their future holders.
pub(super) async fn estimate(context: &DrainContext, remaining: &RemainingNodes) -> Result<Estimate, StepError> {
    let stats = with_store(&context.store, |store| Ok(store.stats())).await?;
    let record_bytes = stats.live_bytes / stats.chunks.max(1);
    let mut estimate = Estimate::default();
    for (arc, holders) in remaining.arcs() {
        let (count, digest) = with_store(&context.store, move |store| Ok(store.digest(arc))).await?;
        if count == 0 {
            continue;
        }
        let mut lacking = Vec::new();
        let asked = holders.iter().map(|holder| context.peers.digest(holder, arc));
        for (holder, theirs) in holders.iter().zip(join_all(asked).await) {
            let theirs = theirs.map_err(|error| retry(&error))?;
            if (theirs.count, theirs.digest) != (count, digest) {
                let missing = count.saturating_sub(theirs.count);
                let bytes = missing * record_bytes;
                estimate.left = estimate.left.and(CopyAmount { chunks: missing, bytes });
                estimate.needs.push(Need { node: *holder, bytes });
                lacking.push(*holder);
            }
        }
        estimate.holders.extend(holders);
        if !lacking.is_empty() {
            estimate.incomplete.push(IncompleteArc { arc, lacking });
        }
    }
    Ok(estimate)
}

/// Copies an arc. Afterwards its future holders have every chunk that was here when the call began.
pub(super) async fn hand_over_arc(
    context: &DrainContext,
    pace: &DrainPace,
    incomplete: &IncompleteArc,
) -> Result<(), StepError> {
    let (arc, mut token) = (incomplete.arc, Some(0));
    while let Some(from) = token {
        let page = with_store(&context.store, move |store| store.list(arc, from, MAX_BATCH_CHUNKS)).await?;
        copy_to_all(context, Some(pace), &incomplete.lacking, &page.chunks).await?;
        token = page.next;
    }
    Ok(())
}

/// Copies chunks that were stored during the drain. Like writes, this is not rate-limited: programs may wait for it,
/// and a drain that is slower than the writers would never end.
pub(super) async fn hand_over_fresh(
    context: &DrainContext,
    remaining: &RemainingNodes,
    fresh: &Fresh,
) -> Result<HashSet<NodeRef>, StepError> {
    let mut by_owner: BTreeMap<u32, Vec<ListedChunk>> = BTreeMap::new();
    for listed in &fresh.chunks {
        if let Some(owner) = remaining.holders_of(listed.chunk.key()).first() {
            by_owner.entry(owner.id.0).or_default().push(listed.clone());
        }
    }
    let mut touched = HashSet::new();
    for chunks in by_owner.into_values() {
        let holders = remaining.holders_of(chunks[0].chunk.key());
        copy_to_all(context, None, &holders, &chunks).await?;
        touched.extend(holders);
    }
    Ok(touched)
}

/// Makes these nodes write everything they have to their disks.
pub(super) async fn sync(context: &DrainContext, holders: &HashSet<NodeRef>) -> Result<(), StepError> {
    let synced = join_all(holders.iter().map(|holder| context.peers.sync(holder))).await;
    synced.into_iter().collect::<Result<(), PeerError>>().map_err(|error| retry(&error))
}

async fn copy_to_all(
    context: &DrainContext,
    pace: Option<&DrainPace>,
    holders: &[NodeRef],
    chunks: &[ListedChunk],
) -> Result<(), StepError> {
    let copied = join_all(holders.iter().map(|holder| copy_missing(context, pace, holder, chunks))).await;
    copied.into_iter().collect()
}

/// Skips chunks that are no longer here because they were deleted meanwhile or are damaged.
async fn copy_missing(
    context: &DrainContext,
    pace: Option<&DrainPace>,
    holder: &NodeRef,
    chunks: &[ListedChunk],
) -> Result<(), StepError> {
    for group in chunks.chunks(MAX_BATCH_CHUNKS) {
        let refs: Vec<ChunkRef> = group.iter().map(|listed| listed.chunk.clone()).collect();
        let has = context.peers.has(holder, &refs).await.map_err(|error| retry(&error))?;
        let missing: Vec<&ListedChunk> =
            group.iter().zip(has).filter(|(_, has)| !has).map(|(listed, _)| listed).collect();
        for batch in batches(&missing, pace.map_or(MOVE_BYTES, DrainPace::batch_bytes)) {
            send(context, pace, holder, batch).await?;
        }
    }
    Ok(())
}

async fn send(
    context: &DrainContext,
    pace: Option<&DrainPace>,
    holder: &NodeRef,
    batch: &[&ListedChunk],
) -> Result<(), StepError> {
    let moved =
        CopyAmount { chunks: batch.len() as u64, bytes: batch.iter().map(|listed| u64::from(listed.data_bytes)).sum() };
    if let Some(pace) = pace {
        pace.spend(moved.bytes).await;
    }
    let refs: Vec<ChunkRef> = batch.iter().map(|listed| listed.chunk.clone()).collect();
    let records = with_store(&context.store, move |store| store.get(&refs)).await?;
    if records.is_empty() {
        return Ok(());
    }
    context.peers.put(holder, records, Durability::Disk).await.map_err(|error| match error {
        PeerError::NoSpace { node: full } => {
            let left = context.departure.status().map_or(0, |status| status.bytes_left);
            StepError::Final(DrainError::NoSpace { node: full, needed_mib: left.div_ceil(1 << 20), free_mib: 0 })
        }
        other => retry(&other),
    })?;
    context.departure.change_progress(|progress| progress.sent(moved, Instant::now()));
    Ok(())
}

/// Cuts `listed` into what one request may carry, by number and by bytes.
fn batches<'a, 'b>(listed: &'b [&'a ListedChunk], most_bytes: u64) -> Vec<&'b [&'a ListedChunk]> {
    let (mut rest, mut batches) = (listed, Vec::new());
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(MOVE_CHUNKS).take_while(|item| {
            bytes += u64::from(item.data_bytes);
            bytes <= most_bytes
        });
        let (batch, others) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = others;
    }
    batches
}

fn retry(error: &PeerError) -> StepError {
    StepError::Retry(error.to_string())
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::{ChunkId, FileName, Version};

    use super::*;

    #[test]
    fn batches_are_cut_by_number_and_bytes_and_lose_nothing() {
        let listed = |index, data_bytes| ListedChunk {
            chunk: ChunkRef { file: FileName::new("f").unwrap(), id: ChunkId { version: Version(1), index } },
            data_bytes,
        };
        let cut = |count: u32, data_bytes| {
            let all: Vec<_> = (1..=count).map(|index| listed(index, data_bytes)).collect();
            batches(&all.iter().collect::<Vec<_>>(), MOVE_BYTES).iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(cut(9, 1 << 20), [4, 4, 1]);
        assert_eq!(cut(1500, 10), [1024, 476]);
        assert_eq!(cut(2, 5 << 20), [1, 1], "a chunk that is larger than a batch is sent alone");
        assert!(cut(0, 1).is_empty());
    }
}
