//! The server side of [`super::network`]: routes for the administration plane.

use std::{io, path::PathBuf, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Body, BodyDataStream},
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::{
    Inner,
    network::Identity,
    raft_types::{Snapshot, SnapshotMeta, TypeConfig, Vote, pack, unpack},
    snapshot::{SnapshotFile, incoming_path},
};

/// An append carries about a MiB of operations, or one larger one.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const MAX_SNAPSHOT_HEAD_BYTES: usize = 1 << 20;

pub(super) fn routes(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/raft/append", post(append))
        .route("/raft/vote", post(vote))
        .route("/raft/prevote", post(prevote))
        .route("/raft/transfer", post(transfer))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .route("/raft/snapshot", post(snapshot).layer(DefaultBodyLimit::disable()))
        .route("/raft/identity", get(identity))
        .route("/raft/leave", post(leave))
        .with_state(inner)
}

#[derive(Deserialize)]
struct To {
    /// The node it is for.
    to: u64,
    /// The sender's namespace.
    of: u64,
}

#[derive(Deserialize)]
struct Leaver {
    uid: u64,
    /// False: it stays after all.
    #[serde(default = "yes")]
    leaving: bool,
}

fn yes() -> bool {
    true
}

/// Why a message was not dealt with.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Refusal {
    fn bad(reason: impl std::fmt::Display) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("the message cannot be read: {reason}"))
    }

    fn stopped(reason: impl std::fmt::Display) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("this node's namespace has stopped: {reason}"))
    }
}

type Answer = Result<Bytes, Refusal>;

async fn append(State(inner): State<Arc<Inner>>, Query(to): Query<To>, body: Bytes) -> Answer {
    check(&inner, &to)?;
    let request: AppendEntriesRequest<TypeConfig> = unpack(&body).map_err(Refusal::bad)?;
    check_leader(&inner, &request.vote)?;
    answer(inner.raft.append_entries(request).await)
}

/// A leader that this voter has called dead is not followed for a while: see `dead_leader`.
fn check_leader(inner: &Inner, vote: &Vote) -> Result<(), Refusal> {
    let term = vote.leader_id.term;
    match inner.dead_leader.lock().is_given_up(term, Instant::now()) {
        true => Err(Refusal(StatusCode::CONFLICT, format!("the leader of term {term} has been taken for dead"))),
        false => Ok(()),
    }
}

async fn vote(State(inner): State<Arc<Inner>>, Query(to): Query<To>, body: Bytes) -> Answer {
    check(&inner, &to)?;
    check_lease(&inner)?;
    let request = unpack(&body).map_err(Refusal::bad)?;
    answer(inner.raft.vote(request).await)
}

async fn prevote(State(inner): State<Arc<Inner>>, Query(to): Query<To>, body: Bytes) -> Answer {
    check(&inner, &to)?;
    check_lease(&inner)?;
    let request = unpack(&body).map_err(Refusal::bad)?;
    answer(inner.raft.pre_vote(request).await)
}

async fn transfer(State(inner): State<Arc<Inner>>, Query(to): Query<To>, body: Bytes) -> Answer {
    check(&inner, &to)?;
    let request = unpack(&body).map_err(Refusal::bad)?;
    answer(inner.raft.handle_transfer_leader(request).await)
}

async fn identity(State(inner): State<Arc<Inner>>) -> Json<Identity> {
    Json(inner.identity())
}

async fn leave(State(inner): State<Arc<Inner>>, Query(leaver): Query<Leaver>) -> Result<StatusCode, Refusal> {
    if !inner.leads() {
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, "this node does not lead the namespace".into()));
    }
    inner.leaving.lock().push((leaver.uid, leaver.leaving));
    Ok(StatusCode::ACCEPTED)
}

async fn snapshot(State(inner): State<Arc<Inner>>, Query(to): Query<To>, body: Body) -> Answer {
    check(&inner, &to)?;
    let mut body = body.into_data_stream();
    let (head, rest) = read_head(&mut body).await?;
    let (vote, meta): (Vote, SnapshotMeta) = unpack(&head).map_err(Refusal::bad)?;
    check_leader(&inner, &vote)?;
    let path = incoming_path(&inner.dir, rand::random());
    let received = receive(&path, rest, body).await.map_err(|error| {
        let _ = std::fs::remove_file(&path);
        Refusal(StatusCode::INSUFFICIENT_STORAGE, format!("receiving the snapshot failed: {error}"))
    })?;
    // Checked here, so that a damaged one is this message's failure and does not stop Raft.
    let checked = tokio::task::spawn_blocking(move || super::snapshot::load(&received).map(|_| received)).await;
    let file = checked.map_err(Refusal::stopped)?.map_err(Refusal::bad)?;
    answer(inner.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await)
}

/// A node without a namespace belongs, from now on, to that of the first message for it: only who added it knows its id.
fn check(inner: &Inner, to: &To) -> Result<(), Refusal> {
    let refuse = |text| Err(Refusal(StatusCode::MISDIRECTED_REQUEST, text));
    if to.to != inner.uid {
        return refuse(format!("this is node {:016x}, the message is for {:016x}", inner.uid, to.to));
    }
    let other = |found: u64| refuse(format!("this node belongs to the namespace {found:016x}, not to {:016x}", to.of));
    if let Some(found) = inner.namespace().filter(|found| *found != to.of) {
        return other(found);
    }
    match inner.id.learn(to.of) {
        Ok(found) if found == to.of => Ok(()),
        Ok(found) => other(found),
        Err(error) => Err(Refusal(StatusCode::INSUFFICIENT_STORAGE, format!("cannot note the namespace: {error}"))),
    }
}

/// A leader answers reads without asking for as long as its followers have promised to elect nobody else; a follower that
/// was restarted has forgotten when it last did.
fn check_lease(inner: &Inner) -> Result<(), Refusal> {
    match inner.no_vote_before.filter(|end| Instant::now() < *end) {
        Some(_) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "this node has only just started".into())),
        None => Ok(()),
    }
}

fn answer<A: Serialize, E: std::fmt::Display>(result: Result<A, E>) -> Answer {
    result.map(|answer| pack(&answer)).map_err(Refusal::stopped)
}

/// The head, and what of the file came with it.
async fn read_head(body: &mut BodyDataStream) -> Result<(Bytes, Bytes), Refusal> {
    let mut read = BytesMut::new();
    loop {
        let need = match read.first_chunk::<4>() {
            Some(len) => 4 + u32::from_le_bytes(*len) as usize,
            None => 4,
        };
        if need > MAX_SNAPSHOT_HEAD_BYTES {
            return Err(Refusal::bad("its head is too long"));
        }
        if need > 4 && read.len() >= need {
            let mut head = read.split_to(need).freeze();
            head.advance(4);
            return Ok((head, read.freeze()));
        }
        let piece = body.next().await.ok_or_else(|| Refusal::bad("it is cut off"))?;
        read.extend_from_slice(&piece.map_err(Refusal::bad)?);
    }
}

async fn receive(path: &PathBuf, first: Bytes, mut rest: BodyDataStream) -> io::Result<SnapshotFile> {
    let mut file = tokio::fs::File::create(path).await?;
    file.write_all(&first).await?;
    while let Some(piece) = rest.next().await {
        file.write_all(&piece.map_err(io::Error::other)?).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    SnapshotFile::open_arrived(path.clone())
}
