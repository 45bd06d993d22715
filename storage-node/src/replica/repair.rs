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
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    peer::{ArcDigest, PeerError, Peers},
    plan::{compare, holds},
};
use crate::store::{Store, StoreError};

/// Chunks moved in one request: about 2 MiB.
const MOVE_CHUNKS: usize = 512;
/// In a ring too large to see whole, nodes far away come and go unseen; so surplus is looked for this often anyway.
const SURPLUS_ROUNDS: u64 = 8;
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
}

impl Repair {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut settled = None;
        let mut rounds = 0;
        loop {
            let view = self.neighbours.borrow_and_update().clone();
            let moved = settled.as_ref() != Some(&view);
            let round = self.round(&view, moved || rounds % SURPLUS_ROUNDS == 0);
            let done = tokio::select! { done = round => done, () = stop.cancelled() => return };
            match done {
                Ok(()) => settled = Some(view),
                Err(error) => debug!(%error, "repair goes on in the next round"),
            }
            rounds += 1;
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
        for holder in view.successors.iter().take(REPLICAS - 1) {
            self.make_equal(holder, view.arc()).await?;
        }
        if surplus { self.hand_on_surplus(view).await } else { Ok(()) }
    }

    /// Afterwards the peer and this node have the same chunks in the arc.
    async fn make_equal(&self, peer: &NodeRef, arc: RingArc) -> Result<(), RepairError> {
        if self.peers.digest(peer, arc).await? == self.digest(arc).await? {
            return Ok(());
        }
        let (ours, theirs) = (self.list(arc).await?, self.list_of(peer, arc).await?);
        let difference = compare(&ours, &theirs);
        for batch in difference.push.chunks(MOVE_CHUNKS) {
            self.push(peer, &refs(batch)).await?;
        }
        for batch in difference.pull.chunks(MOVE_CHUNKS) {
            self.pull(peer, &refs(batch)).await?;
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
        for batch in surplus.chunks(MOVE_CHUNKS) {
            let batch = refs(batch);
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

fn refs(listed: &[ListedChunk]) -> Vec<ChunkRef> {
    listed.iter().map(|listed| listed.chunk.clone()).collect()
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
