//! Requests of mounts: the leader carries them out, and the other nodes return its address.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use chordfs_history::latency::LatencyMeter;
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Change, Granted, NamespaceOp, OpId, Query, Request, Response, SessionId, SessionRequests, Time, decode, encode,
    },
};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer_terms::AnswerTerms,
    raft::{
        handle::{NO_MAJORITY, NO_OPERATION, RaftHandle, write_failure},
        leader::{LeaderTracking, named_leader},
    },
    raft_types::{EntryResult, LogId, LoggedOp, TypeConfig},
    state::session_feed::{FeedConnection, SessionFeed},
};

/// Larger operations are refused, because they would delay all others.
const MAX_OP_BYTES: usize = 4 << 20;

pub(crate) struct RequestHandler {
    pub raft: Arc<RaftHandle>,
    pub leader: Arc<LeaderTracking>,
    pub feed: Arc<SessionFeed>,
    /// The operations and queries that this node has carried out.
    pub latency: Arc<LatencyMeter>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl RequestHandler {
    pub(crate) async fn handle<C: FeedConnection + Clone>(&self, peer: &C, request: &[u8]) -> Bytes {
        let began = Instant::now();
        self.feed.renew(peer.id(), began);
        let request = decode(request);
        let is_operation = request.as_ref().is_ok_and(may_open_a_file);
        if is_operation {
            self.feed.count_request(peer.id());
        }
        let response = match request {
            Err(error) => Response::refused(FsError::Invalid { reason: format!("the request: {error}") }),
            Ok(Request::Leader) => Response::NotLeader { leader: self.leader.leader() },
            Ok(Request::Attach { session }) => self.attach(session, peer).await,
            Ok(Request::KeepAlive { answered, nothing_open }) => {
                self.keep_alive(peer.id(), answered, nothing_open).await
            }
            Ok(Request::Report(report)) if self.raft.holds_term().is_some() => {
                self.feed.note_report(peer.id(), report);
                Response::Reported
            }
            Ok(Request::Report(_)) => self.not_leader(self.leader.leader()),
            Ok(Request::Acknowledge { notice, keeps }) => {
                self.feed.acknowledge(peer.id(), notice, keeps);
                Response::Acknowledged
            }
            Ok(Request::Apply(op)) => self.apply(op).await,
            Ok(Request::Query(query)) => self.query(peer.id(), &query).await,
        };
        if is_operation && matches!(response, Response::Applied(..) | Response::Answered(..)) {
            self.latency.record(began.elapsed());
        }
        encode(&response)
    }

    async fn attach<C: FeedConnection + Clone>(&self, session: SessionId, peer: &C) -> Response {
        if let Err(response) = self.ensure_current().await {
            return response;
        }
        if !self.raft.state().has_session(session) {
            return Response::refused(FsError::NoSession);
        }
        let holds_leases = self.raft.state().may_hold_leases(session);
        if !self.feed.attach(session, holds_leases, Arc::new(peer.clone()), Instant::now()) {
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

    async fn keep_alive(&self, connection: u64, answered: u64, nothing_open: Option<SessionRequests>) -> Response {
        if let Err(response) = self.ensure_current().await {
            return response;
        }
        match self.feed.renew(connection, Instant::now()) {
            Some(session) if self.raft.state().has_session(session) => {
                let term = self.raft.holds_term().map_or(0, |leader| leader.term);
                let count = self.feed.answer(session, answered, nothing_open, Instant::now());
                let requests = SessionRequests { term, count };
                Response::Alive { applied: self.raft.state().applied_index(), requests }
            }
            Some(_) => Response::refused(FsError::NoSession),
            None => unavailable("this connection is not attached to a session"),
        }
    }

    async fn query(&self, connection: u64, query: &Query) -> Response {
        let reader = self.feed.session_of(connection);
        let end = Instant::now() + self.raft.settings().call_deadline;
        while Instant::now() < end {
            // Until the lease expires, no other leader can have changed anything, and every operation that this leader
            // has answered is applied.
            let leader = self.raft.leased_term();
            let own_term = |last: Option<LogId>| leader.is_some() && last.map(|last| last.leader_id) == leader;
            let read = match self.raft.state().read(own_term, query, reader, &self.feed) {
                Some(read) => Some(read),
                None => match self.ensure_current().await {
                    Ok(()) => self.raft.state().read(|_| true, query, reader, &self.feed),
                    Err(response) => return response,
                },
            };
            match read {
                Some(Ok((answer, terms))) => {
                    return self.after_wait(terms, |granted| Response::Answered(answer, granted)).await;
                }
                Some(Err(recall)) => recall.over().await,
                None => {}
            }
        }
        unavailable("another mount takes its lease again and again")
    }

    /// Gives an answer when nobody remembers any longer what it contradicts.
    async fn after_wait(&self, terms: AnswerTerms, respond: impl FnOnce(Granted) -> Response) -> Response {
        let Some(wait) = terms.wait else { return respond(terms.granted) };
        wait.over().await;
        if self.feed.generation() != terms.generation {
            return unavailable("the leader has changed before the answer could be given");
        }
        respond(terms.granted)
    }

    /// Returns when this node's tables contain every operation that any node answered before the call.
    async fn ensure_current(&self) -> Result<(), Response> {
        if self.raft.has_lease() {
            return Ok(());
        }
        if self.raft.holds_term().is_none() {
            return Err(self.not_leader(self.leader.leader()));
        }
        let current = self.raft.openraft().ensure_linearizable(ReadPolicy::ReadIndex);
        match timeout(self.raft.settings().call_deadline, current).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(self.not_leader(named_leader(&forward)))
            }
            Ok(Err(error)) => Err(unavailable(read_failure(&error))),
            Err(_) => Err(unavailable(NO_MAJORITY)),
        }
    }

    async fn apply(&self, op: NamespaceOp) -> Response {
        if let Err(error) = admit(&op) {
            return Response::Applied(Err(error), Granted::default());
        }
        if self.raft.holds_term().is_none() {
            return self.not_leader(self.leader.leader());
        }
        let logged = LoggedOp::new(&op, Time::now());
        if logged.bytes() > MAX_OP_BYTES {
            let reason = format!("an operation of {} bytes; at most {MAX_OP_BYTES} are allowed", logged.bytes());
            return Response::Applied(Err(FsError::Invalid { reason }), Granted::default());
        }
        match timeout(self.raft.settings().call_deadline, self.raft.openraft().client_write(logged)).await {
            Err(_) => unavailable(NO_MAJORITY),
            Ok(Ok(written)) => match written.data {
                EntryResult { reply: Some(reply), terms } => {
                    self.after_wait(terms, |granted| Response::Applied(reply, granted)).await
                }
                EntryResult { reply: None, .. } => unavailable(NO_OPERATION),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                self.not_leader(named_leader(&forward))
            }
            Ok(Err(error)) => unavailable(write_failure(&error)),
        }
    }

    /// Never names this node itself: it has just reported that it does not lead.
    fn not_leader(&self, leader: Option<SocketAddr>) -> Response {
        let leader = leader.or_else(|| self.leader.leader()).filter(|leader| *leader != self.raft.ring());
        if leader.is_none() {
            self.leader.search_now();
        }
        Response::NotLeader { leader }
    }
}

/// A node asks for the ring's settings every few seconds, which must not make it look as if it opened files.
fn may_open_a_file(request: &Request) -> bool {
    match request {
        Request::Query(query) => !matches!(query, Query::RingConfig | Query::OperatorTokens | Query::PoolSize),
        request => matches!(request, Request::Apply(_)),
    }
}

/// Checks that a mount may send the change: some are reserved to the namespace, and all others except opening and
/// closing need a session.
fn admit(op: &NamespaceOp) -> Result<(), FsError> {
    let refuse = |reason: &str| Err(FsError::Invalid { reason: reason.into() });
    match (&op.change, op.origin) {
        (Change::PurgeOrphans { .. } | Change::ForgetDead { .. } | Change::FoundRoot { .. }, _) => {
            refuse("only the namespace itself may do this")
        }
        (Change::OpenSession { .. } | Change::CloseSession { .. }, _) | (_, Some(OpId { .. })) => Ok(()),
        (_, None) => refuse("the change names no session"),
    }
}

fn unavailable(reason: impl Into<String>) -> Response {
    Response::Unavailable { reason: reason.into() }
}

/// Why the leader cannot answer a query, for people.
fn read_failure(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> String {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(_)) => {
            "this node does not lead the namespace".into()
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
            format!("this node cannot confirm that it still leads: {NO_MAJORITY}")
        }
        RaftError::Fatal(fatal) => format!("this node's namespace has stopped: {fatal}"),
    }
}
