//! Storing chunks: each batch is sent once to its owner, and retried by a new route until the deadline.
//!
//! If the owner does not answer soon, the batch is also sent to the other two holders, so two of three have it either
//! way. Chunks never change, so a copy may arrive twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chordfs_types::{
    chunk::{ChunkRun, FileName, chunk_key},
    chunk_api::{Durability, PutQuery, REPLICAS, STORED_HEADER},
    fs_error::FsError,
    ring_id::NodeRef,
    route_table::Route,
};
use futures_util::future::{BoxFuture, join_all};
use hyper::StatusCode;
use tokio::{
    select,
    time::{timeout, timeout_at},
};
use tracing::debug;

use super::{
    ChunkAttempts, ChunkClient, HEDGE_AFTER, NewChunk, attempt_deadline,
    batch::{KeyedChunk, OwnerBatch},
    sync::{UnsyncedBatch, runs_by_file},
};
use crate::{boot_clock::since_boot, http_pool::HttpAnswer, operation};

/// An owner gets time for the batch's bytes at this rate before the put is hedged: the network may just be busy.
const HEDGE_BYTES_PER_SECOND: usize = 8 << 20;

impl ChunkClient {
    /// Returns when a quorum of holders has each chunk, in memory or on disk. Ends by the deadline, or after the time
    /// of one attempt if that is longer.
    pub async fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> Result<(), FsError> {
        let bytes = chunks.iter().map(|chunk| chunk.data.len()).sum();
        let (end, count) = (operation::end_of_wait(self.deadline.max(attempt_deadline(bytes))), chunks.len());
        let files = if durability.is_disk() { Vec::new() } else { runs_by_file(&chunks) };
        let stored = timeout_at(end, self.put_all(chunks, durability)).await;
        let stored =
            stored.map_err(|_| FsError::NoReplica { detail: format!("{count} chunks not stored in time") })??;
        // Not earlier: a sync that runs in between would take the batches before the nodes have them.
        if durability == Durability::Memory {
            let of_batch = |stored: &StoredBatch, runs: &Arc<[ChunkRun]>| {
                stored.files.contains(&runs[0].file).then(|| UnsyncedBatch::new(runs, stored))
            };
            let batches = stored.iter().flat_map(|stored| files.iter().filter_map(|runs| of_batch(stored, runs)));
            self.add_unsynced(batches);
        }
        Ok(())
    }

    /// Stores the chunks, by new routes where that fails.
    async fn put_all(&self, chunks: Vec<NewChunk>, durability: Durability) -> Result<Vec<StoredBatch>, FsError> {
        let mut attempts = ChunkAttempts::new(self.deadline);
        let mut batches = Vec::new();
        let mut pending: Vec<KeyedChunk> =
            chunks.into_iter().map(|chunk| (chunk_key(&chunk.file, chunk.id.index), chunk)).collect();
        loop {
            let (groups, unrouted) = self.group_by_owner(pending).await;
            let sent = join_all(groups.into_iter().map(|batch| self.put_batch(batch, durability))).await;
            let mut failure = None;
            pending = unrouted;
            for result in sent {
                match result {
                    Ok(stored) => batches.push(stored),
                    Err(PutFailure::Retry { group, reason }) => {
                        pending.extend(group);
                        failure = Some(reason);
                    }
                    Err(PutFailure::Final(error)) => return Err(error),
                }
            }
            if pending.is_empty() {
                return Ok(batches);
            }
            let reason = failure.unwrap_or_else(|| "no route to the owner".into());
            attempts.pause(|| format!("{} chunks not stored, {reason}", pending.len())).await?;
        }
    }

    async fn put_batch(&self, batch: OwnerBatch, durability: Durability) -> Result<StoredBatch, PutFailure> {
        let files = batch.chunks.iter().map(|(_, chunk)| chunk.file.clone()).collect();
        let put = BatchPut { route: batch.route.clone(), files, body: batch.encode(), durability, sent: since_boot() };
        self.put_with_fallback(&put).await.map_err(|error| match error {
            BatchError::Retry(reason) => PutFailure::Retry { group: batch.chunks, reason },
            BatchError::Final(error) => PutFailure::Final(error),
        })
    }

    /// Puts to the owner, and to the other holders, too, if it does not answer soon.
    async fn put_with_fallback(&self, put: &BatchPut) -> Result<StoredBatch, BatchError> {
        let owner = put.route.owner();
        let mut at_owner: BoxFuture<'_, _> = Box::pin(self.put_at_owner(put));
        let hedge_after = if self.router.is_unresponsive(owner) { Duration::ZERO } else { put.hedge_after() };
        if let Ok(answer) = timeout(hedge_after, &mut at_owner).await {
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
        let Ok(_permit) = self.hedged.try_acquire() else { return at_owner.await };
        let mut at_replicas: BoxFuture<'_, _> = Box::pin(self.put_to_replicas(put));
        select! {
            answer = &mut at_owner => match answer {
                Err(BatchError::Retry(reason)) if self.router.is_unresponsive(owner) => {
                    at_replicas.await.ok_or_else(|| self.invalidate_route(owner, reason))
                }
                answer => answer,
            },
            stored_batch = &mut at_replicas => match stored_batch {
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

    /// Drops the route of a batch that neither the owner nor the other holders stored, so that it is looked up again.
    fn invalidate_route(&self, owner: &NodeRef, reason: String) -> BatchError {
        self.router.invalidate(owner);
        BatchError::Retry(reason)
    }

    async fn put_at_owner(&self, put: &BatchPut) -> Result<StoredBatch, BatchError> {
        let owner = put.route.owner();
        let target = PutQuery::as_owner(put.durability).target();
        let deadline = attempt_deadline(put.body.len());
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
            // With a conflict, a retry under the same version is useless; the caller stores the data under a fresh one.
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => Err(BatchError::Final(refusal_error(owner, &answer))),
            _ => {
                self.router.invalidate(owner);
                self.router.note_responsive(owner);
                Err(BatchError::Retry(format!("{owner} answered {}: {}", answer.status, answer.text())))
            }
        }
    }

    /// Puts to the two holders after the owner; repair copies the batch to the owner later. `None` unless both stored
    /// it.
    async fn put_to_replicas(&self, put: &BatchPut) -> Option<StoredBatch> {
        let others = &put.route.holders[1..REPLICAS];
        self.refresh_from(others[0]);
        let target = &PutQuery::local(put.durability).target();
        let deadline = attempt_deadline(put.body.len());
        let sent = others.iter().map(|node| async move {
            let answer = self.pool.post(node.files_address(), target, vec![put.body.clone()], deadline).await;
            match answer {
                Ok(answer) if answer.status.is_success() => return true,
                Ok(answer) => {
                    debug!(%node, status = %answer.status, reason = answer.text(), "a replica refused a batch")
                }
                Err(error) => debug!(%node, %error, "no answer from a replica to a batch"),
            }
            false
        });
        let all = join_all(sent).await.into_iter().all(|stored| stored);
        all.then(|| put.stored_batch(others.to_vec()))
    }
}

/// A batch that is being sent.
struct BatchPut {
    route: Arc<Route>,
    files: HashSet<FileName>,
    body: bytes::Bytes,
    durability: Durability,
    /// When the batch was sent, by the [boot clock](crate::boot_clock).
    sent: Duration,
}

impl BatchPut {
    fn hedge_after(&self) -> Duration {
        HEDGE_AFTER + Duration::from_secs_f64(self.body.len() as f64 / HEDGE_BYTES_PER_SECOND as f64)
    }

    fn stored_batch(&self, stored: Vec<NodeRef>) -> StoredBatch {
        StoredBatch { route: self.route.clone(), files: self.files.clone(), stored, sent: self.sent }
    }
}

/// A batch that a quorum has stored.
pub(super) struct StoredBatch {
    pub route: Arc<Route>,
    /// The files of its chunks.
    pub files: HashSet<FileName>,
    /// The nodes that are known to have the batch.
    pub stored: Vec<NodeRef>,
    /// When the batch was sent, before any node had it, by the [boot clock](crate::boot_clock).
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

/// The nodes that have the batch, as the owner reported. If it reported none, a sync checks every chunk.
fn stored_by(owner: &NodeRef, answer: &HttpAnswer) -> Vec<NodeRef> {
    let Some(header) = answer.headers.get(STORED_HEADER) else { return Vec::new() };
    serde_json::from_slice(header.as_bytes()).unwrap_or_else(|error| {
        debug!(node = %owner, %error, "cannot decode the list of nodes that have a batch");
        Vec::new()
    })
}

fn refusal_error(node: &NodeRef, answer: &HttpAnswer) -> FsError {
    FsError::Internal { detail: format!("{node} refused a batch: {}", answer.text()) }
}
