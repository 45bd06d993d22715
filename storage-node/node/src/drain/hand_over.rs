//! Bringing what this node keeps to those who hold it without it. Set union, like repair: what a holder has already is
//! not sent again, so a pass may break off anywhere and the next one goes on from there.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use chordfs_replication::{
    descent::Left,
    drain::{DrainError, Heirs, Need},
};
use chordfs_store::{Store, StoreError};
use chordfs_types::{
    chunk::ChunkRef,
    chunk_api::{Durability, ListedChunk, MAX_BATCH_CHUNKS},
    ring_id::{NodeRef, RingArc},
};
use futures_util::future::join_all;

use super::pace::{MOVE_BYTES, Pace};
use crate::{
    node::Node,
    replica::{departure::Fresh, peer::PeerError},
};

/// Moved in one request at most.
const MOVE_CHUNKS: usize = 1024;

/// Why a step did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// Trying again will not help.
    Final(DrainError),
    /// It may go better in a moment.
    Again(String),
}

impl From<DrainError> for Trouble {
    fn from(error: DrainError) -> Self {
        Self::Final(error)
    }
}

/// An arc of which somebody lacks something.
pub struct Todo {
    arc: RingArc,
    lacking: Vec<NodeRef>,
}

/// What there is to do at the beginning of a pass.
#[derive(Default)]
pub struct Assay {
    pub todo: Vec<Todo>,
    pub needs: Vec<Need>,
    /// Copies that are missing, about.
    pub left: Left,
    /// All that hold something of what is here.
    pub holders: HashSet<NodeRef>,
}

/// Compares what is here, arc by arc, with what its future holders have.
pub async fn assay(node: &Node, heirs: &Heirs) -> Result<Assay, Trouble> {
    let stats = with_store(node, |store| Ok(store.stats())).await?;
    let record_bytes = stats.live_bytes / stats.chunks.max(1);
    let mut assay = Assay::default();
    for (arc, holders) in heirs.arcs() {
        let (count, digest) = with_store(node, move |store| Ok(store.digest(arc))).await?;
        if count == 0 {
            continue;
        }
        let mut lacking = Vec::new();
        let asked = holders.iter().map(|holder| node.peers.digest(holder, arc));
        for (holder, theirs) in holders.iter().zip(join_all(asked).await) {
            let theirs = theirs.map_err(|error| again(&error))?;
            if (theirs.count, theirs.digest) != (count, digest) {
                let missing = count.saturating_sub(theirs.count);
                let bytes = missing * record_bytes;
                assay.left = assay.left.and(Left { chunks: missing, bytes });
                assay.needs.push(Need { node: *holder, bytes });
                lacking.push(*holder);
            }
        }
        assay.holders.extend(holders);
        if !lacking.is_empty() {
            assay.todo.push(Todo { arc, lacking });
        }
    }
    Ok(assay)
}

/// Afterwards those that lacked something of the arc have all that was here when this began.
pub async fn hand_on(node: &Node, pace: &Pace, todo: &Todo) -> Result<(), Trouble> {
    let (arc, mut token) = (todo.arc, Some(0));
    while let Some(from) = token {
        let page = with_store(node, move |store| store.list(arc, from, MAX_BATCH_CHUNKS)).await?;
        bring_to_all(node, Some(pace), &todo.lacking, &page.chunks).await?;
        token = page.next;
    }
    Ok(())
}

/// The same for what was stored lately. At once, as writes go: programs may wait for it, and a drain that is slower than
/// they are would never end.
pub async fn hand_on_fresh(node: &Node, heirs: &Heirs, fresh: &Fresh) -> Result<HashSet<NodeRef>, Trouble> {
    let mut by_owner: BTreeMap<u32, Vec<ListedChunk>> = BTreeMap::new();
    for listed in &fresh.chunks {
        if let Some(owner) = heirs.holders_of(listed.chunk.key()).first() {
            by_owner.entry(owner.id.0).or_default().push(listed.clone());
        }
    }
    let mut touched = HashSet::new();
    for chunks in by_owner.into_values() {
        let holders = heirs.holders_of(chunks[0].chunk.key());
        bring_to_all(node, None, &holders, &chunks).await?;
        touched.extend(holders);
    }
    Ok(touched)
}

/// What these nodes have, they have on their disks.
pub async fn sync(node: &Node, holders: &HashSet<NodeRef>) -> Result<(), Trouble> {
    let synced = join_all(holders.iter().map(|holder| node.peers.sync(holder))).await;
    synced.into_iter().collect::<Result<(), PeerError>>().map_err(|error| again(&error))
}

async fn bring_to_all(
    node: &Node,
    pace: Option<&Pace>,
    holders: &[NodeRef],
    chunks: &[ListedChunk],
) -> Result<(), Trouble> {
    let brought = join_all(holders.iter().map(|holder| bring(node, pace, holder, chunks))).await;
    brought.into_iter().collect()
}

/// What is not here any more, because it was deleted meanwhile or is damaged, cannot be brought and is left out.
async fn bring(node: &Node, pace: Option<&Pace>, holder: &NodeRef, chunks: &[ListedChunk]) -> Result<(), Trouble> {
    for group in chunks.chunks(MAX_BATCH_CHUNKS) {
        let refs: Vec<ChunkRef> = group.iter().map(|listed| listed.chunk.clone()).collect();
        let has = node.peers.has(holder, &refs).await.map_err(|error| again(&error))?;
        let missing: Vec<&ListedChunk> =
            group.iter().zip(has).filter(|(_, has)| !has).map(|(listed, _)| listed).collect();
        for batch in batches(&missing, pace.map_or(MOVE_BYTES, Pace::batch_bytes)) {
            send(node, pace, holder, batch).await?;
        }
    }
    Ok(())
}

async fn send(node: &Node, pace: Option<&Pace>, holder: &NodeRef, batch: &[&ListedChunk]) -> Result<(), Trouble> {
    let moved =
        Left { chunks: batch.len() as u64, bytes: batch.iter().map(|listed| u64::from(listed.data_bytes)).sum() };
    if let Some(pace) = pace {
        pace.spend(moved.bytes).await;
    }
    let refs: Vec<ChunkRef> = batch.iter().map(|listed| listed.chunk.clone()).collect();
    let records = with_store(node, move |store| store.get(&refs)).await?;
    if records.is_empty() {
        return Ok(());
    }
    node.peers.put(holder, records, Durability::Disk).await.map_err(|error| match error {
        PeerError::NoSpace { node: full } => {
            let left = node.departure.status().map_or(0, |status| status.bytes_left);
            Trouble::Final(DrainError::NoSpace { node: full, needed_mib: left.div_ceil(1 << 20), free_mib: 0 })
        }
        other => again(&other),
    })?;
    node.departure.change_progress(|progress| progress.sent(moved, Instant::now()));
    Ok(())
}

/// As many as one request may carry, by number and by bytes.
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

fn again(error: &PeerError) -> Trouble {
    Trouble::Again(error.to_string())
}

async fn with_store<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Trouble> {
    let store = node.store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.expect("the store does not panic").map_err(|error| Trouble::Again(error.to_string()))
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
        assert_eq!(cut(2, 5 << 20), [1, 1], "one that is larger than a batch goes alone");
        assert!(cut(0, 1).is_empty());
    }
}
