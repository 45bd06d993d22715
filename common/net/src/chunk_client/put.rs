//! Storing: each batch once, to its owner, again by a fresh route until the deadline.
//!
//! An owner that is silent for a moment, or not there, is not waited for: the batch goes to the other two holders as
//! well, and two of three have it either way. Chunks never change, so what then arrives twice is one.

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
    batch::{Batch, Keyed},
    sync::{Note, runs_of},
    try_deadline,
};
use crate::{boot_clock::since_boot, http_pool::HttpAnswer};

/// An owner gets time for its bytes at this rate before others are asked as well: a busy network is no silent node.
const PATIENT_BYTES_PER_SECOND: usize = 8 << 20;

impl ChunkClient {
    /// Returns when every chunk has its quorum of holders, in memory or on their disks.
    pub async fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> Result<(), FsError> {
        let mut rounds = Rounds::new(self.deadline);
        let runs = if durability.is_disk() { Arc::default() } else { runs_of(&chunks) };
        let mut notes = Vec::new();
        let mut pending: Vec<Keyed> =
            chunks.into_iter().map(|chunk| (chunk_key(&chunk.file, chunk.id.index), chunk)).collect();
        loop {
            let (groups, unrouted) = self.group_by_owner(pending).await;
            let sent = join_all(groups.into_iter().map(|batch| self.put_batch(batch, durability))).await;
            let mut failure = None;
            pending = unrouted;
            for result in sent {
                match result {
                    Ok(placed) => notes.push(Note::new(&runs, placed)),
                    Err(PutFailure::Again { group, reason }) => {
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
            // Not before: a sync that runs meanwhile would take the notes away and have brought nothing to disk.
            self.note_unsynced(notes).await;
        }
        Ok(())
    }

    async fn put_batch(&self, batch: Batch, durability: Durability) -> Result<Placed, PutFailure> {
        let put = Put { route: batch.route.clone(), body: batch.encode(), durability, sent: since_boot() };
        self.place(&put).await.map_err(|refusal| match refusal {
            Refusal::Again(reason) => PutFailure::Again { group: batch.chunks, reason },
            Refusal::Final(error) => PutFailure::Final(error),
        })
    }

    /// At the owner, or beside it where it does not answer.
    async fn place(&self, put: &Put) -> Result<Placed, Refusal> {
        let owner = put.route.owner();
        let mut at_owner: BoxFuture<'_, _> = Box::pin(self.put_at_owner(put));
        let patience = if self.router.is_quiet(owner) { Duration::ZERO } else { put.patience() };
        if let Ok(answer) = timeout(patience, &mut at_owner).await {
            return match answer {
                Err(Refusal::Again(reason)) if self.router.is_quiet(owner) => self.instead(put, reason).await,
                answer => answer,
            };
        }
        self.router.note_quiet(owner);
        if put.route.holders.len() < REPLICAS {
            return at_owner.await;
        }
        let Ok(_permit) = self.doubled.try_acquire() else { return at_owner.await };
        let mut beside: BoxFuture<'_, _> = Box::pin(self.put_beside(put));
        select! {
            answer = &mut at_owner => match answer {
                Err(Refusal::Again(reason)) if self.router.is_quiet(owner) => {
                    beside.await.ok_or_else(|| self.lost(owner, reason))
                }
                answer => answer,
            },
            placed = &mut beside => match placed {
                Some(placed) => Ok(placed),
                None => at_owner.await,
            },
        }
    }

    /// The owner is not there.
    async fn instead(&self, put: &Put, reason: String) -> Result<Placed, Refusal> {
        let placed = if put.route.holders.len() < REPLICAS { None } else { self.put_beside(put).await };
        placed.ok_or_else(|| self.lost(put.route.owner(), reason))
    }

    /// Neither the owner nor those after it: the ring is asked anew.
    fn lost(&self, owner: &NodeRef, reason: String) -> Refusal {
        self.router.suspect(owner);
        Refusal::Again(reason)
    }

    async fn put_at_owner(&self, put: &Put) -> Result<Placed, Refusal> {
        let owner = put.route.owner();
        let target = PutQuery::as_owner(put.durability).target();
        let deadline = try_deadline(put.body.len());
        let answer = match self.pool.post(owner.files_address(), &target, vec![put.body.clone()], deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                self.router.note_quiet(owner);
                return Err(Refusal::Again(error.to_string()));
            }
        };
        self.router.note_heard(owner);
        match answer.status {
            status if status.is_success() => Ok(put.placed(stored_by(owner, &answer))),
            StatusCode::MISDIRECTED_REQUEST => {
                self.learn_from(owner, &answer.body);
                Err(Refusal::Again(format!("{owner} is not the owner")))
            }
            StatusCode::INSUFFICIENT_STORAGE => Err(Refusal::Final(FsError::NoSpace)),
            StatusCode::BAD_REQUEST => Err(Refusal::Final(refused(owner, &answer))),
            _ => {
                self.router.suspect(owner);
                self.router.note_heard(owner);
                Err(Refusal::Again(format!("{owner} answered {}: {}", answer.status, answer.text())))
            }
        }
    }

    /// To the two holders after the owner; the owner's copy is for repair to bring. None unless both have it.
    async fn put_beside(&self, put: &Put) -> Option<Placed> {
        let others = &put.route.holders[1..REPLICAS];
        self.refresh_from(others[0]);
        let target = &PutQuery::local(put.durability).target();
        let deadline = try_deadline(put.body.len());
        let sent = others.iter().map(|node| async move {
            let answer = self.pool.post(node.files_address(), target, vec![put.body.clone()], deadline).await;
            match answer {
                Ok(answer) if answer.status.is_success() => return true,
                Ok(answer) => debug!(%node, status = %answer.status, reason = answer.text(), "refused in its place"),
                Err(error) => debug!(%node, %error, "no answer in its place"),
            }
            false
        });
        let all = join_all(sent).await.into_iter().all(|stored| stored);
        all.then(|| put.placed(others.to_vec()))
    }
}

/// A batch on its way.
struct Put {
    route: Arc<Route>,
    body: bytes::Bytes,
    durability: Durability,
    /// By the [boot clock](crate::boot_clock).
    sent: Duration,
}

impl Put {
    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_secs_f64(self.body.len() as f64 / PATIENT_BYTES_PER_SECOND as f64)
    }

    fn placed(&self, stored: Vec<NodeRef>) -> Placed {
        Placed { route: self.route.clone(), stored, sent: self.sent }
    }
}

/// A batch that has its quorum.
pub struct Placed {
    pub route: Arc<Route>,
    /// Who is known to have it.
    pub stored: Vec<NodeRef>,
    /// Before anybody had it, by the [boot clock](crate::boot_clock).
    pub sent: Duration,
}

enum Refusal {
    Again(String),
    Final(FsError),
}

enum PutFailure {
    Again { group: Vec<Keyed>, reason: String },
    Final(FsError),
}

/// Where the owner does not say it, nobody is known to have the batch, and a sync asks for every chunk.
fn stored_by(owner: &NodeRef, answer: &HttpAnswer) -> Vec<NodeRef> {
    let Some(header) = answer.headers.get(STORED_HEADER) else { return Vec::new() };
    serde_json::from_slice(header.as_bytes()).unwrap_or_else(|error| {
        debug!(node = %owner, %error, "who has a batch does not decode");
        Vec::new()
    })
}

fn refused(node: &NodeRef, answer: &HttpAnswer) -> FsError {
    FsError::Internal { detail: format!("{node} refused a batch: {}", answer.text()) }
}
