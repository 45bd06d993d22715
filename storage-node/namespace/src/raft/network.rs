//! Messages to the other members: HTTP/1.1 POSTs to their administration plane.
//!
//! ```text
//! POST /raft/{append,vote,prevote,transfer}?to=UID&of=NAMESPACE   body and answer: a format byte, then postcard
//! POST /raft/snapshot?to=UID&of=NAMESPACE                         body: length n u32 LE | packed (vote, meta), n bytes | the file
//! GET  /raft/identity                                             answer: JSON, see [`MemberIdentity`]
//! ```
//! A message names its addressee. A node with another id (it lost its disk, and with it its promises), or of another
//! namespace, answers 421, which Raft treats as an unreachable member. Snapshots are streamed from disk on
//! connections of their own; all other messages share the kept connections of the pool.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use chordfs_net::{
    http_pool::{HttpClientError, HttpPool},
    transport::Connector,
};
use futures_util::{
    Stream,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use hyper::{Method, StatusCode};
use openraft::{
    RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::commit_merge::merge_commits;
use crate::{
    raft_types::{LogId, RaftMember, TypeConfig, Vote, pack, unpack},
    state::state_machine::Snapshot,
    storage::{namespace_id::NamespaceId, snapshot::SnapshotFile},
};

/// How many bytes of a snapshot are read and sent at a time.
const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;

/// The identity of a node as a member, and what it knows about the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberIdentity {
    pub uid: u64,
    /// The namespace that the node belongs to, or follows without a vote; `None` for a new node.
    pub namespace: Option<u64>,
    /// The node's ring address.
    pub ring: SocketAddr,
    pub term: u64,
    pub voter: bool,
    /// The node is the leader, and a majority has confirmed that recently.
    pub leads: bool,
    /// The leader's ring address, as far as the node knows.
    pub leader: Option<SocketAddr>,
    /// Ring addresses of the voters, as far as the node knows.
    pub voters: Vec<SocketAddr>,
    /// Ids of the voters and the learners, as far as the node knows.
    #[serde(default)]
    pub members: Vec<u64>,
    /// A majority has stored that these are the members.
    #[serde(default)]
    pub members_committed: bool,
    /// The term whose leader the node finds dead, and does not follow at present.
    #[serde(default)]
    pub dead_leader: Option<u64>,
}

/// The client side, shared by all connections to members.
#[derive(Clone)]
pub(crate) struct Network {
    uid: u64,
    id: Arc<NamespaceId>,
    pool: Arc<HttpPool>,
    /// Streams snapshots in a ring without identities; with them the pool does, which knows the certificates.
    streams: Option<reqwest::Client>,
    /// How long a member may take to answer any message except a snapshot.
    deadline: Duration,
}

impl Network {
    pub(crate) fn new(uid: u64, id: Arc<NamespaceId>, pool: Arc<HttpPool>, deadline: Duration) -> Self {
        let streams = matches!(pool.connector(), Connector::Plain).then(reqwest::Client::new);
        Self { uid, id, pool, streams, deadline }
    }

    /// Asks the node at `admin` for its identity.
    pub(crate) async fn identity(&self, admin: SocketAddr) -> Result<MemberIdentity, String> {
        let headers = Default::default();
        let answer = self.pool.request(admin, Method::GET, "/raft/identity", headers, Vec::new(), self.deadline).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("{admin} answered {} when asked for its identity: {}", answer.status, answer.text()));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{admin} is no namespace node: {error}"))
    }

    /// Reports to the leader at `admin` that the node `uid` is leaving, or that it stays.
    pub(crate) async fn report_leaving(&self, admin: SocketAddr, uid: u64, leaving: bool) -> Result<(), String> {
        let path = format!("/raft/leave?uid={uid}&leaving={leaving}");
        let answer =
            self.pool.post(admin, &path, Vec::new(), self.deadline).await.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(format!("{admin} answered {}: {}", answer.status, answer.text()))
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = MemberClient;

    async fn new_client(&mut self, target: u64, node: &RaftMember) -> MemberClient {
        MemberClient { network: self.clone(), target, address: node.admin_address(), conflicts: Conflicts::default() }
    }
}

/// The client for one member.
pub(crate) struct MemberClient {
    network: Network,
    target: u64,
    address: SocketAddr,
    conflicts: Conflicts,
}

type RaftRpcError = RPCError<TypeConfig>;
type AppendOutcome = Result<StreamAppendResult<TypeConfig>, RaftRpcError>;

impl MemberClient {
    async fn call<M: Serialize, A: DeserializeOwned>(
        &self,
        kind: RPCTypes,
        name: &str,
        message: &M,
        option: &RPCOption,
    ) -> Result<A, RaftRpcError> {
        // Raft's own limit is one heartbeat, which a busy disk exceeds; a late answer is better than a repeated
        // message.
        let deadline = option.hard_ttl().max(self.network.deadline);
        let path = self.path(name).map_err(RPCError::Unreachable)?;
        let answer = self.network.pool.post(self.address, &path, vec![pack(message)], deadline).await;
        let answer = answer.map_err(|error| self.rpc_error(kind, error))?;
        if answer.status != StatusCode::OK {
            return Err(refused(self.address, answer.status, &answer.text()));
        }
        unpack(&answer.body).map_err(|reason| {
            RPCError::Network(NetworkError::from_string(format!(
                "the answer of {} cannot be read: {reason}",
                self.address
            )))
        })
    }

    fn path(&self, name: &str) -> Result<String, Unreachable<TypeConfig>> {
        let id = self.network.id.get();
        let id = id.ok_or_else(|| Unreachable::from_string("this node belongs to no namespace yet"))?;
        Ok(format!("/raft/{name}?to={}&of={id}", self.target))
    }

    fn rpc_error(&self, action: RPCTypes, error: HttpClientError) -> RaftRpcError {
        match error {
            HttpClientError::Deadline { deadline, .. } => {
                RPCError::Timeout(Timeout { action, id: self.network.uid, target: self.target, timeout: deadline })
            }
            HttpClientError::Connect { .. } => RPCError::Unreachable(Unreachable::new(&error)),
            HttpClientError::Broken { .. } => RPCError::Network(NetworkError::new(&error)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        deadline: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let path = self.path("snapshot").map_err(StreamingError::Unreachable)?;
        let sent = self.post_stream(&path, snapshot_body(vote, snapshot), deadline).await;
        let (status, answer) = sent.map_err(StreamingError::Unreachable)?;
        if status != StatusCode::OK {
            return Err(refused(self.address, status, &String::from_utf8_lossy(&answer)).into());
        }
        unpack(&answer).map_err(|reason| {
            StreamingError::Network(NetworkError::from_string(format!(
                "{} answered a snapshot: {reason}",
                self.address
            )))
        })
    }
}

impl MemberClient {
    /// Returns the status and the body of the answer.
    async fn post_stream(
        &self,
        path: &str,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        deadline: Duration,
    ) -> Result<(StatusCode, Bytes), Unreachable<TypeConfig>> {
        let Some(client) = &self.network.streams else {
            let answer = self.network.pool.post_stream(self.address, path, body, deadline).await;
            return answer.map(|answer| (answer.status, answer.body)).map_err(|error| Unreachable::new(&error));
        };
        let request = client.post(format!("http://{}{path}", self.address)).timeout(deadline);
        let broken = |error: reqwest::Error| Unreachable::new(&error);
        let answer = request.body(reqwest::Body::wrap_stream(body)).send().await.map_err(broken)?;
        let status = answer.status();
        Ok((status, answer.bytes().await.map_err(broken)?))
    }
}

impl RaftNetworkV2<TypeConfig> for MemberClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RaftRpcError> {
        let answer = self.call(RPCTypes::AppendEntries, "append", &rpc, &option).await?;
        if self.conflicts.is_stuck(rpc.prev_log_id, matches!(answer, AppendEntriesResponse::Conflict)) {
            let text = format!(
                "{}: its log lacks entry {:?}, which it had acknowledged; stop it and run `storage-node rejoin` there",
                self.address,
                rpc.prev_log_id.map(|id| id.index)
            );
            return Err(RPCError::Unreachable(Unreachable::from_string(text)));
        }
        Ok(answer)
    }

    /// One message at a time.
    fn stream_append<'s, S>(
        &'s mut self,
        messages: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendOutcome>, RaftRpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        stream_append_sequential(self, merge_commits(messages), option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.call(RPCTypes::Vote, "vote", &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.call(RPCTypes::Vote, "prevote", &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            result = self.send_snapshot(vote, snapshot, option.hard_ttl()) => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RaftRpcError> {
        self.call(RPCTypes::TransferLeader, "transfer", &request, &option).await
    }
}

/// A member's answers that the entry before those sent is not in its log. Raft then sends earlier ones, except when the
/// member had acknowledged the entry before: it has lost a part of its log, and Raft would repeat the message at once
/// and for ever.
#[derive(Default)]
struct Conflicts {
    before: Option<LogId>,
    repeated: u32,
}

impl Conflicts {
    const MANY: u32 = 3;

    /// Records an answer about the entries after `before`. Returns whether the member conflicts at one and the same
    /// entry again and again.
    fn is_stuck(&mut self, before: Option<LogId>, conflicts: bool) -> bool {
        self.repeated = match conflicts {
            false => 0,
            true if self.before == before => self.repeated + 1,
            true => 1,
        };
        self.before = before;
        self.repeated > Self::MANY
    }
}

/// Treats a refusal as an unreachable member: Raft waits a little before it retries.
fn refused(address: SocketAddr, status: StatusCode, text: &str) -> RaftRpcError {
    RPCError::Unreachable(Unreachable::from_string(format!("{address} answered {status}: {text}")))
}

/// Streams the head of a snapshot's message, then its file piece by piece.
fn snapshot_body(vote: Vote, snapshot: Snapshot) -> impl stream::Stream<Item = std::io::Result<Bytes>> + Send {
    let head = pack(&(vote, snapshot.meta));
    let mut first = Vec::with_capacity(4 + head.len());
    first.extend_from_slice(&(head.len() as u32).to_le_bytes());
    first.extend_from_slice(&head);
    let file = snapshot.snapshot;
    let pieces = stream::try_unfold(0, move |at| {
        let file = file.clone();
        async move {
            let piece = tokio::task::spawn_blocking(move || read_piece(&file, at)).await??;
            let next = at + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((piece, next)))
        }
    });
    use futures_util::StreamExt;
    stream::iter([Ok(Bytes::from(first))]).chain(pieces)
}

fn read_piece(snapshot: &SnapshotFile, at: u64) -> std::io::Result<Bytes> {
    let len = (snapshot.bytes.saturating_sub(at) as usize).min(SNAPSHOT_PIECE_BYTES);
    let mut piece = vec![0; len];
    std::os::unix::fs::FileExt::read_exact_at(&*snapshot.file, &mut piece, at)?;
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use openraft::{type_config::alias::LeaderIdOf, vote::RaftLeaderIdExt};

    use super::*;

    /// A voter that came back without its log was sent the same message 4,400 times a second.
    #[test]
    fn a_member_that_lacks_what_it_acknowledged_is_recognized_and_one_that_lags_is_not() {
        let id = |index| Some(LogId::new(LeaderIdOf::<TypeConfig>::new_committed(1, 1), index));
        let mut conflicts = Conflicts::default();
        assert!((0..100).rev().all(|index| !conflicts.is_stuck(id(index), true)), "a search for the last common entry");
        let mut conflicts = Conflicts::default();
        let stuck: Vec<bool> = (0..6).map(|_| conflicts.is_stuck(id(7), true)).collect();
        assert_eq!(stuck, [false, false, false, true, true, true]);
        assert!(!conflicts.is_stuck(id(7), false) && !conflicts.is_stuck(id(7), true), "it has caught up meanwhile");
    }
}
