//! Storing: each batch once, to its owner, again by a fresh route until the deadline.

use futures_util::future::join_all;
use hyper::StatusCode;

use super::{
    ChunkClient, NewChunk, Rounds,
    batch::{Batch, Keyed},
    try_deadline,
};
use crate::{chunk::chunk_key, fs_error::FsError, http_pool::HttpAnswer, ring_id::NodeRef};

impl ChunkClient {
    /// Returns when every chunk has its quorum of holders; with `durable`, on their disks.
    pub async fn put(&self, chunks: Vec<NewChunk>, durable: bool) -> Result<(), FsError> {
        let mut rounds = Rounds::new(self.deadline);
        let mut pending: Vec<Keyed> =
            chunks.into_iter().map(|chunk| (chunk_key(&chunk.file, chunk.id.index), chunk)).collect();
        loop {
            let (groups, unrouted) = self.group_by_owner(pending).await;
            let sent = join_all(groups.into_iter().map(|batch| self.put_batch(batch, durable))).await;
            let mut failure = None;
            pending = unrouted;
            for result in sent {
                match result {
                    Ok(()) => {}
                    Err(PutFailure::Again { group, reason }) => {
                        pending.extend(group);
                        failure = Some(reason);
                    }
                    Err(PutFailure::Final(error)) => return Err(error),
                }
            }
            if pending.is_empty() {
                return Ok(());
            }
            let reason = failure.unwrap_or_else(|| "no route to the owner".into());
            rounds.pause(|| format!("{} chunks not stored, {reason}", pending.len())).await?;
        }
    }

    async fn put_batch(&self, batch: Batch, durable: bool) -> Result<(), PutFailure> {
        let owner = *batch.route.owner();
        let body = batch.encode();
        let path = if durable { "/chunks/put?copies=3&durable=true" } else { "/chunks/put?copies=3&durable=false" };
        let deadline = try_deadline(body.len());
        let answer = self.pool.post(owner.files_address(), path, vec![body], deadline).await;
        if !durable {
            // Also after a failure: the batch may have arrived. Not before: a sync that runs meanwhile would take the
            // note away and have brought nothing to disk.
            self.unsynced.note(&batch.route);
        }
        let again = |reason| Err(PutFailure::Again { group: batch.chunks, reason });
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => match answer.status {
                StatusCode::MISDIRECTED_REQUEST => {
                    self.learn_from(&owner, &answer.body);
                    again(format!("{owner} is not the owner"))
                }
                StatusCode::INSUFFICIENT_STORAGE => Err(PutFailure::Final(FsError::NoSpace)),
                StatusCode::BAD_REQUEST => Err(PutFailure::Final(refused(&owner, &answer))),
                _ => {
                    self.router.suspect(&owner);
                    again(format!("{owner} answered {}: {}", answer.status, answer.text()))
                }
            },
            Err(error) => {
                self.router.suspect(&owner);
                again(error.to_string())
            }
        }
    }
}

enum PutFailure {
    Again { group: Vec<Keyed>, reason: String },
    Final(FsError),
}

fn refused(node: &NodeRef, answer: &HttpAnswer) -> FsError {
    FsError::Internal { detail: format!("{node} refused a batch: {}", answer.text()) }
}
