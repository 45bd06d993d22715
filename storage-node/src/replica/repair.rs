//! Background work that keeps three holders of every chunk.
//!
//! Two duties, run at any change of neighbours, when a write passed over a holder, and every few seconds anyway:
//! - for the arc it owns, a node makes its next two holders and itself equal (set union, after comparing digests);
//! - chunks in arcs it has no part in any more go to the three holders, and are dropped here only after all three have
//!   said that they have them.
//!
//! A failed step is left for the next round; nothing here is needed for a write to be acknowledged.

use std::{sync::Arc, time::Duration};

use common::{
    chunk::{ChunkRef, VerifiedBatch},
    chunk_api::{ListedChunk, MAX_BATCH_CHUNKS, REPLICAS},
    ring_id::{Neighbours, NodeRef, RingArc},
    router::{Route, Router},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    peer::{ArcDigest, PeerError, Peers},
    plan::{compare, holds},
};
use crate::{
    drain::Departure,
    store::{Store, StoreError},
};

/// Moved in one request at most.
const MOVE_CHUNKS: usize = 1024;
const MOVE_BYTES: usize = 4 << 20;
/// The ring's view has to stand still for this long before anything is dropped by it: while nodes come and go it would
/// be fetched again a moment later.
const SETTLED: Duration = Duration::from_secs(6);
/// In a ring too large to see whole, nodes far away come and go unseen; so surplus is looked for this often anyway.
const SURPLUS_PERIOD: Duration = Duration::from_secs(64);
/// A walk round the ring ends here, whatever the answers say.
const MAX_ARCS: usize = 4096;

#[derive(Debug, Error)]
pub enum RepairError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a peer sent a damaged record: {0}")]
    Damaged(#[from] common::chunk::RecordError),
    #[error("no route round the ring: {0}")]
    Route(#[from] common::router::RouteError),
}

pub struct Repair {
    pub store: Arc<Store>,
    pub peers: Peers,
    pub router: Arc<Router>,
    pub neighbours: watch::Receiver<Neighbours>,
    pub wake: Arc<Notify>,
    pub period: Duration,
    /// Nothing counts as surplus while another node hands its chunks over: it may have just brought them here.
    pub departure: Arc<Departure>,
}

impl Repair {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut surplus = Surplus::new(Instant::now());
        let mut complaints = Complaints::default();
        loop {
            let view = self.neighbours.borrow_and_update().clone();
            let due = surplus.is_due(&view, Instant::now()) && !self.departure.any_peer_drains();
            let done = tokio::select! { done = self.round(&view, due) => done, () = stop.cancelled() => return };
            match done {
                Ok(()) => {
                    surplus.looked(due, Instant::now());
                    complaints = Complaints::default();
                }
                Err(error) => complaints.hear(&error),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.neighbours.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = sleep(self.period) => {}
            }
        }
    }

    /// One pass; surplus is looked for only now and then, and after a change of the ring until it came to its end.
    async fn round(&self, view: &Neighbours, surplus: bool) -> Result<(), RepairError> {
        // One holder that is full or silent must not keep the others from getting their copies.
        let mut outcome = Ok(());
        for holder in view.successors.iter().take(REPLICAS - 1) {
            outcome = outcome.and(self.make_equal(holder, view.arc()).await);
        }
        if surplus { outcome.and(self.hand_on_surplus(view).await) } else { outcome }
    }

    /// Afterwards the peer and this node have the same chunks in the arc.
    async fn make_equal(&self, peer: &NodeRef, arc: RingArc) -> Result<(), RepairError> {
        if self.peers.digest(peer, arc).await? == self.digest(arc).await? {
            return Ok(());
        }
        let (ours, theirs) = (self.list(arc).await?, self.list_of(peer, arc).await?);
        let difference = compare(&ours, &theirs);
        for batch in batches(&difference.push) {
            self.push(peer, &batch).await?;
        }
        for batch in batches(&difference.pull) {
            self.pull(peer, &batch).await?;
        }
        if difference.push.len() + difference.pull.len() > 0 {
            let (pushed, pulled) = (difference.push.len(), difference.pull.len());
            info!(%peer, pushed, pulled, "made equal with the next holder");
        }
        Ok(())
    }

    /// Everything in arcs that this node is no holder of goes to the holders, then away from here.
    async fn hand_on_surplus(&self, view: &Neighbours) -> Result<(), RepairError> {
        if view.successors.len() < REPLICAS {
            return Ok(());
        }
        // What was learnt before the change must not decide what is dropped.
        self.router.forget_all();
        self.router.learn(view);
        let mut after = view.node.id;
        for _ in 0..MAX_ARCS {
            let route = self.router.route(after.advance(1)).await?;
            if !holds(&route, &view.node) {
                self.hand_on(&route).await?;
            }
            if route.arc.contains(view.node.id) {
                return Ok(());
            }
            after = route.arc.upto;
        }
        Ok(())
    }

    async fn hand_on(&self, route: &Route) -> Result<(), RepairError> {
        if route.holders.len() < REPLICAS || self.digest(route.arc).await?.count == 0 {
            return Ok(());
        }
        let surplus = self.list(route.arc).await?;
        for batch in batches(&surplus) {
            for holder in &route.holders {
                self.bring(holder, &batch).await?;
            }
            let store = self.store.clone();
            blocking(move || store.forget(&batch)).await?;
        }
        info!(arc = ?route.arc, chunks = surplus.len(), "dropped copies beyond the third");
        Ok(())
    }

    /// Returns when the holder has said that it has all of these.
    async fn bring(&self, holder: &NodeRef, chunks: &[ChunkRef]) -> Result<(), RepairError> {
        let missing = lacking(chunks, &self.peers.has(holder, chunks).await?);
        if missing.is_empty() {
            return Ok(());
        }
        self.push(holder, &missing).await?;
        let still = lacking(&missing, &self.peers.has(holder, &missing).await?);
        if still.is_empty() {
            return Ok(());
        }
        let status = hyper::StatusCode::CONFLICT;
        let text = format!("{} chunks are still missing after they were sent", still.len());
        Err(PeerError::Refused { node: *holder, status, text }.into())
    }

    async fn push(&self, peer: &NodeRef, chunks: &[ChunkRef]) -> Result<(), RepairError> {
        let (store, wanted) = (self.store.clone(), chunks.to_vec());
        let records = blocking(move || store.get(&wanted)).await?;
        Ok(self.peers.put(peer, records, true).await?)
    }

    async fn pull(&self, peer: &NodeRef, chunks: &[ChunkRef]) -> Result<(), RepairError> {
        let batch = VerifiedBatch::verify(self.peers.get(peer, chunks).await?)?;
        let store = self.store.clone();
        blocking(move || store.put(&batch, true)).await?;
        Ok(())
    }

    async fn digest(&self, arc: RingArc) -> Result<ArcDigest, RepairError> {
        let store = self.store.clone();
        let (count, digest) = blocking(move || Ok(store.digest(arc))).await?;
        Ok(ArcDigest { count, digest })
    }

    async fn list(&self, arc: RingArc) -> Result<Vec<ListedChunk>, RepairError> {
        let mut all = Vec::new();
        let mut token = Some(0);
        while let Some(from) = token {
            let store = self.store.clone();
            let page = blocking(move || store.list(arc, from, MAX_BATCH_CHUNKS)).await?;
            all.extend(page.chunks);
            token = page.next;
        }
        Ok(all)
    }

    async fn list_of(&self, peer: &NodeRef, arc: RingArc) -> Result<Vec<ListedChunk>, RepairError> {
        let mut all = Vec::new();
        let mut token = Some(0);
        while let Some(from) = token {
            let page = self.peers.list(peer, arc, from).await?;
            all.extend(page.chunks);
            token = page.next;
        }
        Ok(all)
    }
}

/// When to look for copies beyond the third: once after each change of the ring has settled, and now and then.
struct Surplus {
    view: Option<Neighbours>,
    since: Instant,
    looked: Option<Instant>,
}

impl Surplus {
    fn new(now: Instant) -> Self {
        Self { view: None, since: now, looked: None }
    }

    fn is_due(&mut self, view: &Neighbours, now: Instant) -> bool {
        if self.view.as_ref() != Some(view) {
            (self.view, self.since, self.looked) = (Some(view.clone()), now, None);
        }
        now - self.since >= SETTLED && self.looked.is_none_or(|looked| now - looked >= SURPLUS_PERIOD)
    }

    fn looked(&mut self, done: bool, now: Instant) {
        if done {
            self.looked = Some(now);
        }
    }
}

/// A node that has just gone is no news; a repair that fails for longer is, once.
#[derive(Default)]
struct Complaints {
    in_a_row: u32,
}

impl Complaints {
    const PATIENCE: u32 = 5;

    fn hear(&mut self, error: &RepairError) {
        self.in_a_row += 1;
        match self.in_a_row {
            Self::PATIENCE => warn!(%error, "some chunks have fewer holders than they should; repair goes on trying"),
            _ => debug!(%error, "repair goes on in the next round"),
        }
    }
}

/// As many as one request may carry, by number and by bytes.
fn batches(listed: &[ListedChunk]) -> Vec<Vec<ChunkRef>> {
    let mut batches: Vec<Vec<ChunkRef>> = Vec::new();
    let mut bytes = 0;
    for item in listed {
        bytes += item.data_bytes as usize;
        match batches.last_mut().filter(|batch| bytes <= MOVE_BYTES && batch.len() < MOVE_CHUNKS) {
            Some(batch) => batch.push(item.chunk.clone()),
            None => {
                bytes = item.data_bytes as usize;
                batches.push(vec![item.chunk.clone()]);
            }
        }
    }
    batches
}

fn lacking(chunks: &[ChunkRef], has: &[bool]) -> Vec<ChunkRef> {
    chunks.iter().zip(has).filter(|(_, has)| !**has).map(|(chunk, _)| chunk.clone()).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RepairError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.expect("the store does not panic")?)
}

#[cfg(test)]
mod tests {
    use common::chunk::{ChunkId, FileName, Version};

    use super::*;

    #[test]
    fn nothing_is_dropped_while_the_ring_moves() {
        let view = |id| {
            let node = NodeRef { ip: [127, 0, 0, 1].into(), port: 5057, id: common::ring_id::RingId(id) };
            Neighbours { predecessor: None, node, successors: vec![] }
        };
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut surplus = Surplus::new(start);
        assert!(!surplus.is_due(&view(1), at(0)));
        assert!(!surplus.is_due(&view(2), at(7)), "it has just changed");
        assert!(surplus.is_due(&view(2), at(14)));
        surplus.looked(true, at(14));
        assert!(!surplus.is_due(&view(2), at(20)) && surplus.is_due(&view(2), at(90)));
    }

    #[test]
    fn batches_are_cut_by_bytes() {
        let listed = |index, data_bytes| ListedChunk {
            chunk: ChunkRef { file: FileName::new("f").expect("a name"), id: ChunkId { version: Version(1), index } },
            data_bytes,
        };
        let large: Vec<_> = (1..=9).map(|index| listed(index, 1 << 20)).collect();
        assert_eq!(batches(&large).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 1]);
        let small: Vec<_> = (1..=1500).map(|index| listed(index, 10)).collect();
        assert_eq!(batches(&small).iter().map(Vec::len).collect::<Vec<_>>(), [1024, 476]);
    }
}
