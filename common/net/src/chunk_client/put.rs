//! Storing: each batch goes once to its owner, and is retried by a fresh route until the deadline.
//!
//! An owner that does not answer at once is not waited for: the batch goes to the other two holders as well, and two of
//! three have it either way. Chunks never change, so a copy that arrives twice is the same copy.

use std::{sync::Arc, time::Duration};

use chordfs_types::{
    chunk::chunk_key,
    chunk_api::{Durability, PutQuery, REPLICAS, STORED_HEADER},
    fs_error::FsError,
    ring_id::NodeRef,
    route_table::Route,
};
use futures_util::future::{BoxFuture, join_all};
use hyper::StatusCode;
use tokio::{select, time::timeout};
use tracing::debug;

use super::{
    ChunkClient, NewChunk, PATIENCE, Rounds,
    batch::{KeyedChunk, OwnerBatch},
    sync::{UnsyncedBatch, runs_of},
    try_deadline,
};
use crate::{boot_clock::since_boot, http_pool::HttpAnswer};

/// An owner gets time for its bytes at this rate before others are asked as well: the network may just be busy.
const PATIENT_BYTES_PER_SECOND: usize = 8 << 20;

impl ChunkClient {
    /// Returns when every chunk has its quorum of holders, in memory or on their disks.
    pub async fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> Result<(), FsError> {
        let mut rounds = Rounds::new(self.deadline);
        let runs = if durability.is_disk() { Arc::default() } else { runs_of(&chunks) };
        let mut notes = Vec::new();
        let mut pending: Vec<KeyedChunk> =
            chunks.into_iter().map(|chunk| (chunk_key(&chunk.file, chunk.id.index), chunk)).collect();
        loop {
            let (groups, unrouted) = self.group_by_owner(pending).await;
            let sent = join_all(groups.into_iter().map(|batch| self.put_batch(batch, durability))).await;
            let mut failure = None;
            pending = unrouted;
            for result in sent {
                match result {
                    Ok(stored_batch) => notes.push(UnsyncedBatch::new(&runs, stored_batch)),
                    Err(PutFailure::Retry { group, reason }) => {
                        pending.extend(group);
                        failure = Some(reason);
                    }
                    Err(PutFailure::Final(error)) => return Err(error),
                }
            }
            if pending.is_empty() {
                break;
            }
            let reason = failure.unwrap_or_else(|| "no route to the owner".into());
            rounds.pause(|| format!("{} chunks not stored, {reason}", pending.len())).await?;
        }
        if durability == Durability::Memory {
            // Not earlier: a sync that runs meanwhile would take the batches and bring nothing to disk.
            self.add_unsynced(notes).await;
        }
        Ok(())
    }

    async fn put_batch(&self, batch: OwnerBatch, durability: Durability) -> Result<StoredBatch, PutFailure> {
        let put = BatchPut { route: batch.route.clone(), body: batch.encode(), durability, sent: since_boot() };
        self.put_with_fallback(&put).await.map_err(|error| match error {
            BatchError::Retry(reason) => PutFailure::Retry { group: batch.chunks, reason },
            BatchError::Final(error) => PutFailure::Final(error),
        })
    }

    /// Puts to the owner, and to the other holders if it does not answer at once.
    async fn put_with_fallback(&self, put: &BatchPut) -> Result<StoredBatch, BatchError> {
        let owner = put.route.owner();
        let mut at_owner: BoxFuture<'_, _> = Box::pin(self.put_at_owner(put));
        let patience = if self.router.is_unresponsive(owner) { Duration::ZERO } else { put.patience() };
        if let Ok(answer) = timeout(patience, &mut at_owner).await {
            return match answer {
                Err(BatchError::Retry(reason)) if self.router.is_unresponsive(owner) => {
                    self.put_without_owner(put, reason).await
                }
                answer => answer,
            };
        }
        self.router.note_unresponsive(owner);
        if put.route.holders.len() < REPLICAS {
            return at_owner.await;
        }
        let Ok(_permit) = self.doubled.try_acquire() else { return at_owner.await };
        let mut beside: BoxFuture<'_, _> = Box::pin(self.put_to_replicas(put));
        select! {
            answer = &mut at_owner => match answer {
                Err(BatchError::Retry(reason)) if self.router.is_unresponsive(owner) => {
                    beside.await.ok_or_else(|| self.invalidate_route(owner, reason))
                }
                answer => answer,
            },
            stored_batch = &mut beside => match stored_batch {
                Some(stored_batch) => Ok(stored_batch),
                None => at_owner.await,
            },
        }
    }

    /// Puts to the other holders after the owner has failed.
    async fn put_without_owner(&self, put: &BatchPut, reason: String) -> Result<StoredBatch, BatchError> {
        let stored_batch = if put.route.holders.len() < REPLICAS { None } else { self.put_to_replicas(put).await };
        stored_batch.ok_or_else(|| self.invalidate_route(put.route.owner(), reason))
    }

    /// Neither the owner nor the other holders took the batch: its route is looked up again.
    fn invalidate_route(&self, owner: &NodeRef, reason: String) -> BatchError {
        self.router.invalidate(owner);
        BatchError::Retry(reason)
    }

    async fn put_at_owner(&self, put: &BatchPut) -> Result<StoredBatch, BatchError> {
        let owner = put.route.owner();
        let target = PutQuery::as_owner(put.durability).target();
        let deadline = try_deadline(put.body.len());
        let answer = match self.pool.post(owner.files_address(), &target, vec![put.body.clone()], deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                self.router.note_unresponsive(owner);
                return Err(BatchError::Retry(error.to_string()));
            }
        };
        self.router.note_responsive(owner);
        match answer.status {
            status if status.is_success() => Ok(put.stored_batch(stored_by(owner, &answer))),
            StatusCode::MISDIRECTED_REQUEST => {
                self.learn_from(owner, &answer.body);
                Err(BatchError::Retry(format!("{owner} is not the owner")))
            }
            StatusCode::INSUFFICIENT_STORAGE => Err(BatchError::Final(FsError::NoSpace)),
            StatusCode::BAD_REQUEST => Err(BatchError::Final(refused(owner, &answer))),
            _ => {
                self.router.invalidate(owner);
                self.router.note_responsive(owner);
                Err(BatchError::Retry(format!("{owner} answered {}: {}", answer.status, answer.text())))
            }
        }
    }

    /// Puts to the two holders after the owner; repair brings the owner its copy. `None` unless both have the batch.
    async fn put_to_replicas(&self, put: &BatchPut) -> Option<StoredBatch> {
        let others = &put.route.holders[1..REPLICAS];
        self.refresh_from(others[0]);
        let target = &PutQuery::local(put.durability).target();
        let deadline = try_deadline(put.body.len());
        let sent = others.iter().map(|node| async move {
            let answer = self.pool.post(node.files_address(), target, vec![put.body.clone()], deadline).await;
            match answer {
                Ok(answer) if answer.status.is_success() => return true,
                Ok(answer) => {
                    debug!(%node, status = %answer.status, reason = answer.text(), "refused in place of the owner")
                }
                Err(error) => debug!(%node, %error, "no answer in place of the owner"),
            }
            false
        });
        let all = join_all(sent).await.into_iter().all(|stored| stored);
        all.then(|| put.stored_batch(others.to_vec()))
    }
}

/// A batch on its way.
struct BatchPut {
    route: Arc<Route>,
    body: bytes::Bytes,
    durability: Durability,
    /// By the [boot clock](crate::boot_clock).
    sent: Duration,
}

impl BatchPut {
    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_secs_f64(self.body.len() as f64 / PATIENT_BYTES_PER_SECOND as f64)
    }

    fn stored_batch(&self, stored: Vec<NodeRef>) -> StoredBatch {
        StoredBatch { route: self.route.clone(), stored, sent: self.sent }
    }
}

/// A batch that has its quorum.
pub(super) struct StoredBatch {
    pub route: Arc<Route>,
    /// The nodes known to have it.
    pub stored: Vec<NodeRef>,
    /// When it was sent, before any node had it, by the [boot clock](crate::boot_clock).
    pub sent: Duration,
}

enum BatchError {
    Retry(String),
    Final(FsError),
}

enum PutFailure {
    Retry { group: Vec<KeyedChunk>, reason: String },
    Final(FsError),
}

/// The nodes that have the batch, as the owner reports them. If it reports none, a sync checks every chunk.
fn stored_by(owner: &NodeRef, answer: &HttpAnswer) -> Vec<NodeRef> {
    let Some(header) = answer.headers.get(STORED_HEADER) else { return Vec::new() };
    serde_json::from_slice(header.as_bytes()).unwrap_or_else(|error| {
        debug!(node = %owner, %error, "the list of nodes that have a batch does not decode");
        Vec::new()
    })
}

fn refused(node: &NodeRef, answer: &HttpAnswer) -> FsError {
    FsError::Internal { detail: format!("{node} refused a batch: {}", answer.text()) }
}
