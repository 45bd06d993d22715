//! The way of a write at its owner: into the own store and to the next holders at the same time, acknowledged when
//! enough of them have it. What is still missing then goes on in the background, and repair is told.

use std::{sync::Arc, time::Duration};

use common::{
    chunk::VerifiedBatch,
    ring_id::{Neighbours, NodeRef},
};
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use super::{
    peer::{PeerError, Peers},
    plan::{PutVerdict, judge_put},
    traffic::Traffic,
};
use crate::{
    drain::{Departure, plan::recipients},
    store::{Store, StoreError},
};

#[derive(Debug, Error)]
pub enum PutError {
    #[error("this node does not own all keys of the batch")]
    Misdirected { neighbours: Neighbours },
    #[error("no space left on enough holders")]
    NoSpace,
    #[error("only {stored} of {required} holders have the batch: {reason}")]
    NoQuorum { stored: usize, required: usize, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies below which nothing is acknowledged at this moment; see [`judge_put`].
pub type Floor = Arc<dyn Fn() -> usize + Send + Sync>;

pub struct Writer {
    pub store: Arc<Store>,
    pub peers: Peers,
    pub neighbours: watch::Receiver<Neighbours>,
    pub floor: Floor,
    /// Wakes repair when a holder was passed over.
    pub repair: Arc<Notify>,
    pub traffic: Arc<Traffic>,
    pub deadline: Duration,
    pub departure: Arc<Departure>,
}

impl Writer {
    /// What this node knows of the ring; after it has left, what the next one does.
    pub fn neighbours(&self) -> Neighbours {
        self.departure.heir().unwrap_or_else(|| self.neighbours.borrow().clone())
    }

    /// Stores a batch here only.
    pub async fn put_local(&self, batch: VerifiedBatch, durable: bool) -> Result<(), PutError> {
        let admitted = self.departure.admit().await;
        let _admitted = admitted.map_err(|neighbours| PutError::Misdirected { neighbours })?;
        Ok(self.store_here(batch, durable).await?)
    }

    async fn store_here(&self, batch: VerifiedBatch, durable: bool) -> Result<(), StoreError> {
        let (store, departure) = (self.store.clone(), self.departure.clone());
        let stored = tokio::task::spawn_blocking(move || {
            let stored = store.put(&batch, durable)?;
            departure.note(&batch);
            Ok(stored)
        });
        stored.await.expect("storing does not panic").map(drop)
    }

    /// Stores a batch as its owner; says who has it by now.
    pub async fn put(&self, batch: VerifiedBatch, durable: bool) -> Result<Vec<NodeRef>, PutError> {
        let admitted = self.departure.admit().await;
        let _admitted = admitted.map_err(|neighbours| PutError::Misdirected { neighbours })?;
        let neighbours = self.neighbours();
        let floor = (self.floor)();
        match judge_put(&neighbours, batch.keys(), floor) {
            PutVerdict::Misdirected => Err(PutError::Misdirected { neighbours }),
            PutVerdict::TooFewNodes { required } => {
                Err(PutError::NoQuorum { stored: 0, required, reason: "the ring is still coming together".into() })
            }
            PutVerdict::Own { others, required } => {
                let mut stored = self.spread(batch, others, required, durable).await?;
                stored.insert(0, neighbours.node);
                Ok(stored)
            }
        }
    }

    /// Which of `others` have it when enough have.
    async fn spread(
        &self,
        batch: VerifiedBatch,
        others: Vec<NodeRef>,
        required: usize,
        durable: bool,
    ) -> Result<Vec<NodeRef>, PutError> {
        let (copies, arrived) = mpsc::unbounded_channel();
        let mut spread = Spread { arrived, stored: Vec::new(), full: 0, open: 0, reason: String::new() };
        let wanted = recipients(&others, |node| self.departure.peer_drains(node), self.departure.drains());
        let mut others = others.into_iter();
        for node in others.by_ref().take(wanted) {
            spread.open += 1;
            self.pass_on(node, batch.clone(), durable, copies.clone());
        }
        // Without room here the batch is refused, even if others have room: the owner answers for its arc.
        self.store_here(batch.clone(), durable).await?;
        let end = Instant::now() + self.deadline;
        // This node has it, too.
        while spread.stored.len() + 1 < required {
            if spread.open == 0 {
                // A holder failed: the next node takes its place.
                let Some(node) = others.next() else { return Err(spread.failure(required)) };
                spread.open += 1;
                self.pass_on(node, batch.clone(), durable, copies.clone());
            }
            match timeout_at(end, spread.arrived.recv()).await {
                Ok(Some(result)) => spread.count(result),
                _ => {
                    spread.reason = format!("no answer within {:?}", self.deadline);
                    return Err(spread.failure(required));
                }
            }
        }
        Ok(spread.stored)
    }

    /// Goes on after the acknowledgement, too: the third copy is only late, not dropped.
    fn pass_on(
        &self,
        node: NodeRef,
        batch: VerifiedBatch,
        durable: bool,
        copies: mpsc::UnboundedSender<Result<NodeRef, PeerError>>,
    ) {
        let (peers, repair) = (self.peers.clone(), self.repair.clone());
        let flight = self.traffic.depart(&node, batch);
        tokio::spawn(async move {
            let result = peers.put(&node, vec![flight.bytes()], durable).await;
            drop(flight);
            if let Err(error) = &result {
                debug!(peer = %node, %error, "a copy was not taken; repair will bring it");
                repair.notify_one();
            }
            // Nobody waits for a copy beyond the quorum.
            let _ = copies.send(result.map(|()| node));
        });
    }
}

/// How far one batch has got.
struct Spread {
    arrived: mpsc::UnboundedReceiver<Result<NodeRef, PeerError>>,
    stored: Vec<NodeRef>,
    full: usize,
    open: usize,
    reason: String,
}

impl Spread {
    fn count(&mut self, result: Result<NodeRef, PeerError>) {
        self.open -= 1;
        match result {
            Ok(node) => self.stored.push(node),
            Err(error) => {
                self.full += usize::from(matches!(error, PeerError::NoSpace { .. }));
                self.reason = error.to_string();
            }
        }
    }

    fn failure(self, required: usize) -> PutError {
        if self.full > 0 {
            return PutError::NoSpace;
        }
        let stored = self.stored.len() + 1;
        warn!(stored, required, reason = self.reason, "a batch has too few copies");
        PutError::NoQuorum { stored, required, reason: self.reason }
    }
}
