//! The server of Raft messages, for the client in `raft/network.rs`: routes for the administration plane.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use axum::{
    Json, Router,
    body::{Body, BodyDataStream, HttpBody},
    extract::{DefaultBodyLimit, FromRef, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use crate::{
    Namespace,
    membership::voter_manager::LeaveRequests,
    raft::{dead_leader::DeadLeaderDetector, handle::RaftHandle, leader::LeaderTracking, network::MemberIdentity},
    raft_types::{SnapshotMeta, TypeConfig, Vote, pack, unpack},
    state::state_machine::Snapshot,
    storage::{
        namespace_id::NamespaceId,
        snapshot::{self, SYNC_EVERY_BYTES, SnapshotFile, incoming_path},
    },
};

/// An append carries about a MiB of operations, or one larger one.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Allocated at once for a message of known length. The buffer of a longer one grows as bytes arrive.
const FIRST_MESSAGE_BYTES: usize = 8 << 20;
const MAX_SNAPSHOT_HEAD_BYTES: usize = 1 << 20;

pub(crate) struct RaftApi {
    pub raft: Arc<RaftHandle>,
    pub leader: Arc<LeaderTracking>,
    pub dead_leader: Arc<DeadLeaderDetector>,
    pub requests: Arc<LeaveRequests>,
    pub id: Arc<NamespaceId>,
    pub dir: PathBuf,
    /// This node grants no vote before that time, because it may have confirmed the leader's lease before its restart.
    pub no_vote_before: Option<Instant>,
}

/// `namespace` replaces its API when it begins anew.
pub(crate) fn routes(namespace: Namespace) -> Router {
    Router::new()
        .route("/raft/append", post(append))
        .route("/raft/vote", post(vote))
        .route("/raft/prevote", post(prevote))
        .route("/raft/transfer", post(transfer))
        .route("/raft/snapshot", post(install_snapshot).layer(DefaultBodyLimit::disable()))
        .route("/raft/identity", get(identity))
        .route("/raft/leave", post(leave))
        .with_state(namespace)
}

impl FromRef<Namespace> for Arc<RaftApi> {
    fn from_ref(namespace: &Namespace) -> Self {
        namespace.services().api.clone()
    }
}

#[derive(Deserialize)]
struct Destination {
    /// The id of the addressed node.
    to: u64,
    /// The sender's namespace.
    of: u64,
}

#[derive(Deserialize)]
struct LeaveQuery {
    uid: u64,
    /// False if the node stays after all.
    #[serde(default = "yes")]
    leaving: bool,
}

fn yes() -> bool {
    true
}

/// The status and the reason for which a message was refused.
struct RaftRefusal(StatusCode, String);

impl IntoResponse for RaftRefusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl RaftRefusal {
    fn bad(reason: impl std::fmt::Display) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("the message cannot be read: {reason}"))
    }

    fn stopped(reason: impl std::fmt::Display) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("this node's namespace has stopped: {reason}"))
    }
}

type RaftResponse = Result<Bytes, RaftRefusal>;

async fn append(State(api): State<Arc<RaftApi>>, Query(to): Query<Destination>, body: Body) -> RaftResponse {
    check(&api, &to)?;
    let body = read_message(body).await?;
    let request: AppendEntriesRequest<TypeConfig> = unpack(&body).map_err(RaftRefusal::bad)?;
    check_leader(&api, &request.vote)?;
    answer(api.raft.openraft().append_entries(request).await)
}

/// Refuses messages of a leader that this voter has reported dead: see `dead_leader`.
fn check_leader(api: &RaftApi, vote: &Vote) -> Result<(), RaftRefusal> {
    let term = vote.leader_id.term;
    if api.dead_leader.is_given_up(term) {
        Err(RaftRefusal(StatusCode::CONFLICT, format!("the leader of term {term} was found dead")))
    } else {
        Ok(())
    }
}

async fn vote(State(api): State<Arc<RaftApi>>, Query(to): Query<Destination>, body: Body) -> RaftResponse {
    check(&api, &to)?;
    let body = read_message(body).await?;
    check_lease(&api)?;
    let request = unpack(&body).map_err(RaftRefusal::bad)?;
    answer(api.raft.openraft().vote(request).await)
}

async fn prevote(State(api): State<Arc<RaftApi>>, Query(to): Query<Destination>, body: Body) -> RaftResponse {
    check(&api, &to)?;
    let body = read_message(body).await?;
    check_lease(&api)?;
    let request = unpack(&body).map_err(RaftRefusal::bad)?;
    answer(api.raft.openraft().pre_vote(request).await)
}

async fn transfer(State(api): State<Arc<RaftApi>>, Query(to): Query<Destination>, body: Body) -> RaftResponse {
    check(&api, &to)?;
    let body = read_message(body).await?;
    let request = unpack(&body).map_err(RaftRefusal::bad)?;
    answer(api.raft.openraft().handle_transfer_leader(request).await)
}

async fn identity(State(api): State<Arc<RaftApi>>) -> Json<MemberIdentity> {
    Json(api.identity())
}

async fn leave(State(api): State<Arc<RaftApi>>, Query(query): Query<LeaveQuery>) -> Result<StatusCode, RaftRefusal> {
    if !api.raft.has_lease() {
        return Err(RaftRefusal(StatusCode::MISDIRECTED_REQUEST, "this node does not lead the namespace".into()));
    }
    api.requests.add(query.uid, query.leaving);
    Ok(StatusCode::ACCEPTED)
}

async fn install_snapshot(State(api): State<Arc<RaftApi>>, Query(to): Query<Destination>, body: Body) -> RaftResponse {
    check(&api, &to)?;
    let mut body = body.into_data_stream();
    let (head, rest) = read_head(&mut body).await?;
    let (vote, meta): (Vote, SnapshotMeta) = unpack(&head).map_err(RaftRefusal::bad)?;
    check_leader(&api, &vote)?;
    let path = incoming_path(&api.dir, rand::random());
    let received = receive(&path, rest, body).await.map_err(|error| {
        let _ = std::fs::remove_file(&path);
        RaftRefusal(StatusCode::INSUFFICIENT_STORAGE, format!("receiving the snapshot failed: {error}"))
    })?;
    // The snapshot is checked here, so that a damaged one fails this message and does not stop Raft.
    let checked = tokio::task::spawn_blocking(move || snapshot::verify(&received).map(|()| received)).await;
    let file = checked.map_err(RaftRefusal::stopped)?.map_err(RaftRefusal::bad)?;
    answer(api.raft.openraft().install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await)
}

impl RaftApi {
    fn identity(&self) -> MemberIdentity {
        MemberIdentity {
            uid: self.raft.uid(),
            namespace: self.leader.namespace(),
            ring: self.raft.ring(),
            term: self.leader.leader_term(),
            voter: self.leader.is_voter(),
            leads: self.raft.has_lease(),
            leader: self.leader.leader(),
            voters: self.leader.voters(),
            members: self.raft.look(|metrics| metrics.membership_config.nodes().map(|(uid, _)| *uid).collect()),
            members_committed: self.raft.members_are_committed(),
            dead_leader: self.dead_leader.report(),
        }
    }
}

/// Checks the addressee and the namespace of a message. A node without a namespace joins that of the first message to
/// it: only a leader that added the node knows the node's id.
fn check(api: &RaftApi, to: &Destination) -> Result<(), RaftRefusal> {
    let refuse = |text| Err(RaftRefusal(StatusCode::MISDIRECTED_REQUEST, text));
    if to.to != api.raft.uid() {
        return refuse(format!("this is node {:016x}, the message is for {:016x}", api.raft.uid(), to.to));
    }
    let other = |found: u64| refuse(format!("this node belongs to the namespace {found:016x}, not to {:016x}", to.of));
    if let Some(found) = api.leader.namespace().filter(|found| *found != to.of) {
        return other(found);
    }
    match api.id.learn(to.of) {
        Ok(found) if found == to.of => Ok(()),
        Ok(found) => other(found),
        Err(error) => {
            Err(RaftRefusal(StatusCode::INSUFFICIENT_STORAGE, format!("cannot store the id of the namespace: {error}")))
        }
    }
}

/// Refuses votes shortly after a restart. A leader answers reads on its own for as long as its followers have promised
/// not to elect another; a follower that was restarted has forgotten when it last promised that.
fn check_lease(api: &RaftApi) -> Result<(), RaftRefusal> {
    match api.no_vote_before.filter(|end| Instant::now() < *end) {
        Some(_) => Err(RaftRefusal(StatusCode::SERVICE_UNAVAILABLE, "this node has only just started".into())),
        None => Ok(()),
    }
}

fn answer<A: Serialize, E: std::fmt::Display>(result: Result<A, E>) -> RaftResponse {
    result.map(|answer| pack(&answer)).map_err(RaftRefusal::stopped)
}

/// Reads a message into one buffer. A message that arrives in one piece, as most do, is not copied.
async fn read_message(body: Body) -> Result<Bytes, RaftRefusal> {
    let announced = body.size_hint().lower() as usize;
    let mut body = body.into_data_stream();
    let Some(first) = body.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(RaftRefusal::bad)?;
    if first.len() >= announced && body.is_end_stream() {
        return Ok(first);
    }
    let mut message = BytesMut::with_capacity(announced.min(FIRST_MESSAGE_BYTES).max(first.len()));
    message.extend_from_slice(&first);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(RaftRefusal::bad)?;
        if message.len() + piece.len() > MAX_MESSAGE_BYTES {
            let text = format!("a message has at most {MAX_MESSAGE_BYTES} bytes");
            return Err(RaftRefusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        message.extend_from_slice(&piece);
    }
    Ok(message.freeze())
}

/// Reads the head, and returns it with the part of the file that came with it.
async fn read_head(body: &mut BodyDataStream) -> Result<(Bytes, Bytes), RaftRefusal> {
    let mut read = BytesMut::new();
    loop {
        let need = match read.first_chunk::<4>() {
            Some(len) => 4 + u32::from_le_bytes(*len) as usize,
            None => 4,
        };
        if need > MAX_SNAPSHOT_HEAD_BYTES {
            return Err(RaftRefusal::bad("its head is too long"));
        }
        if need > 4 && read.len() >= need {
            let mut head = read.split_to(need).freeze();
            head.advance(4);
            return Ok((head, read.freeze()));
        }
        let piece = body.next().await.ok_or_else(|| RaftRefusal::bad("it is cut off"))?;
        read.extend_from_slice(&piece.map_err(RaftRefusal::bad)?);
    }
}

async fn receive(path: &Path, first: Bytes, mut rest: BodyDataStream) -> io::Result<SnapshotFile> {
    let mut file = tokio::fs::File::create(path).await?;
    file.write_all(&first).await?;
    let mut unsynced = first.len();
    while let Some(piece) = rest.next().await {
        let piece = piece.map_err(io::Error::other)?;
        file.write_all(&piece).await?;
        unsynced += piece.len();
        if unsynced >= SYNC_EVERY_BYTES {
            file.flush().await?;
            file.sync_data().await?;
            unsynced = 0;
        }
    }
    file.flush().await?;
    file.sync_all().await?;
    SnapshotFile::open_received(path.to_owned())
}
