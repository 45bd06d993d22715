//! What a storage node does with a mount's request: on the leader it is done, elsewhere the way is shown.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use chordfs_net::rpc::RpcPeer;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, NamespaceOp, OpId, Query, Reply, Request, Response, SessionId, Time, decode, encode},
};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use tokio::time::timeout;

use super::{
    Inner, Namespace,
    feed::Connection,
    leader::named,
    raft_types::{LoggedOp, Outcome},
};

/// Larger operations are refused: they would hold up everybody else's.
const MAX_OP_BYTES: usize = 4 << 20;

impl Namespace {
    /// Answers the call `calls::NAMESPACE` of the mount at the other end of `peer`.
    pub async fn handle(&self, peer: &RpcPeer, request: &[u8]) -> Vec<u8> {
        self.handle_on(peer, request).await.into()
    }

    pub(super) async fn handle_on<C: Connection + Clone>(&self, peer: &C, request: &[u8]) -> Bytes {
        let inner = &self.inner;
        inner.feed.renew(peer.id(), Instant::now());
        let response = match decode(request) {
            Err(error) => Response::Answered(Err(FsError::Invalid { reason: format!("the request: {error}") })),
            Ok(Request::Leader) => Response::NotLeader { leader: inner.leader() },
            Ok(Request::Attach { session }) => inner.attach(session, peer).await,
            Ok(Request::KeepAlive) => inner.keep_alive(peer.id()).await,
            Ok(Request::Apply(op)) => inner.apply(op).await,
            Ok(Request::Query(query)) => inner.query(&query).await,
        };
        encode(&response)
    }
}

impl Inner {
    async fn attach<C: Connection + Clone>(&self, session: SessionId, peer: &C) -> Response {
        if let Err(response) = self.ensure_current().await {
            return response;
        }
        if !self.state.has_session(session) {
            return Response::Answered(Err(FsError::NoSession));
        }
        if !self.feed.attach(session, Arc::new(peer.clone()), Instant::now()) {
            return Response::Attached;
        }
        let (feed, closed, id) = (self.feed.clone(), peer.clone(), peer.id());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = closed.closed() => feed.detach(id),
                () = stop.cancelled() => {}
            }
        });
        Response::Attached
    }

    async fn keep_alive(&self, connection: u64) -> Response {
        if let Err(response) = self.ensure_current().await {
            return response;
        }
        match self.feed.renew(connection, Instant::now()) {
            Some(session) if self.state.has_session(session) => Response::Alive,
            Some(_) => Response::Answered(Err(FsError::NoSession)),
            None => Response::Unavailable { reason: "this connection is not attached to a session".into() },
        }
    }

    async fn query(&self, query: &Query) -> Response {
        // While the lease holds nobody else can have changed anything, and what this leader has answered is applied.
        if let Some(leader) = self.leased() {
            let own_term = |last: Option<super::raft_types::LogId>| last.is_some_and(|last| last.leader_id == leader);
            if let Some(answer) = self.state.query_if(own_term, query) {
                return Response::Answered(answer);
            }
        }
        match self.ensure_current().await {
            Ok(()) => Response::Answered(self.state.query(query)),
            Err(response) => response,
        }
    }

    /// Returns when the tables here hold everything that was answered anywhere before the call.
    async fn ensure_current(&self) -> Result<(), Response> {
        if self.leads() {
            return Ok(());
        }
        if self.reigns().is_none() {
            return Err(self.not_leader(self.leader()));
        }
        let current = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match timeout(self.settings.call_deadline, current).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(self.not_leader(named(&forward)))
            }
            Ok(Err(error)) => Err(unavailable(format!("the leader cannot make sure that it still leads: {error}"))),
            Err(_) => Err(unavailable("no majority of the namespace's voters answers".into())),
        }
    }

    async fn apply(&self, op: NamespaceOp) -> Response {
        if let Err(error) = admit(&op) {
            return Response::Applied(Err(error));
        }
        if self.reigns().is_none() {
            return self.not_leader(self.leader());
        }
        let logged = LoggedOp::new(&op, Time::now());
        if logged.bytes() > MAX_OP_BYTES {
            let reason = format!("an operation of {} bytes; at most {MAX_OP_BYTES} are allowed", logged.bytes());
            return Response::Applied(Err(FsError::Invalid { reason }));
        }
        match timeout(self.settings.call_deadline, self.raft.client_write(logged)).await {
            Err(_) => unavailable("no majority of the namespace's voters answers".into()),
            Ok(Ok(written)) => match written.data {
                Outcome(Some(reply)) => Response::Applied(reply),
                Outcome(None) => unavailable("the operation came to nothing".into()),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                self.not_leader(named(&forward))
            }
            Ok(Err(error)) => unavailable(error.to_string()),
        }
    }

    /// Logs a change of the namespace's own. Only the leader can.
    pub(super) async fn propose(&self, change: Change, now: Time) -> Result<Reply, String> {
        let op = LoggedOp::new(&NamespaceOp { origin: None, now, change }, now);
        let written = timeout(self.settings.call_deadline, self.raft.client_write(op)).await;
        let written = written.map_err(|_| "no majority of the namespace's voters answers".to_owned())?;
        match written.map_err(|error| error.to_string())?.data {
            Outcome(Some(reply)) => reply.map_err(|error| error.to_string()),
            Outcome(None) => Err("the operation came to nothing".into()),
        }
    }

    /// Never names this node itself: it has just said that it is not.
    fn not_leader(&self, leader: Option<SocketAddr>) -> Response {
        let leader = leader.or_else(|| self.leader()).filter(|leader| *leader != self.ring);
        if leader.is_none() {
            self.want_leader();
        }
        Response::NotLeader { leader }
    }
}

/// Some changes are the namespace's own, and all others but opening and closing need a session to answer for them.
fn admit(op: &NamespaceOp) -> Result<(), FsError> {
    let refuse = |reason: &str| Err(FsError::Invalid { reason: reason.into() });
    match (&op.change, op.origin) {
        (Change::PurgeOrphans { .. } | Change::ForgetDead { .. }, _) => refuse("only the namespace itself may do this"),
        (Change::OpenSession { .. } | Change::CloseSession { .. }, _) | (_, Some(OpId { .. })) => Ok(()),
        (_, None) => refuse("the change names no session"),
    }
}

fn unavailable(reason: String) -> Response {
    Response::Unavailable { reason }
}
