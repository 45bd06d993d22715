//! Requests of mounts: the leader carries them out, and the other nodes return its address.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use chordfs_history::latency::LatencyMeter;
use chordfs_net::transport::RemoteCaller;
use chordfs_tables::Tables;
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Change, Granted, Ino, NamespaceOp, OpId, Query, Reply, Request, Response, SessionId, SessionRequests, Time,
        decode, encode,
    },
};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    impls::ProgressResponder,
    raft::ClientWriteResult,
};
use tokio::time::{timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{access, confinement, confinement::is_bound, lease_waits::LeaseWaits};
use crate::{
    answer_terms::{AnswerTerms, Wait},
    raft::{
        handle::{NO_MAJORITY, NO_OPERATION, RaftHandle, write_failure},
        leader::{LeaderTracking, named_leader},
    },
    raft_types::{EntryResult, LeaderTerm, LogId, LoggedOp, TypeConfig},
    state::{
        change_intent::{ChangeIntent, NotReady},
        session_feed::{FeedConnection, SessionFeed},
        state_machine::AttachOutcome,
    },
};

/// Larger operations are refused, because they would delay all others; so are lists that are larger together.
const MAX_OP_BYTES: usize = 4 << 20;
const STOPPING: &str = "this node is stopping";
/// The most operations of a list. All queries wait while they are applied.
const MAX_LIST: usize = 1024;

pub(crate) struct RequestHandler {
    pub raft: Arc<RaftHandle>,
    pub leader: Arc<LeaderTracking>,
    pub feed: Arc<SessionFeed>,
    /// The operations and queries that this node has carried out.
    pub latency: Arc<LatencyMeter>,
    /// How long requests have waited for other mounts.
    pub waits: LeaseWaits,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl RequestHandler {
    pub(crate) async fn handle<C: FeedConnection + Clone>(
        &self,
        peer: &C,
        caller: &RemoteCaller,
        request: &[u8],
    ) -> Bytes {
        let began = Instant::now();
        let mut request = decode(request);
        if let Ok(request) = &mut request
            && let Err(response) = self.admit_caller(caller, request).await
        {
            return encode(&response);
        }
        self.feed.renew(peer.id(), began);
        let is_operation = request.as_ref().is_ok_and(may_open_a_file);
        // With an acknowledgement a lease may end that a file was opened under.
        if is_operation || matches!(request, Ok(Request::Acknowledge { .. })) {
            self.feed.count_request(peer.id());
        }
        let response = match request {
            Err(error) => Response::refused(FsError::Invalid { reason: format!("the request: {error}") }),
            Ok(Request::Leader) => Response::NotLeader { leader: self.leader.leader() },
            Ok(Request::Attach { session, claims }) => self.attach((session, is_bound(caller)), &claims, peer).await,
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
            Ok(Request::ApplyList(ops)) => self.apply_list(ops).await,
            Ok(Request::Query(query)) => self.query(self.reader(peer.id(), caller, &query), caller, &query).await,
        };
        if is_operation
            && matches!(response, Response::Applied(..) | Response::AppliedList(..) | Response::Answered(..))
        {
            self.latency.record(began.elapsed());
        }
        encode(&response)
    }

    /// Checks whether the caller may send the request, and makes it the owner of a session that it opens.
    async fn admit_caller(&self, caller: &RemoteCaller, request: &mut Request) -> Result<(), Response> {
        access::check(caller, request, SystemTime::now()).map_err(|error| refusal(request, error))?;
        let Some(identity) = confinement::confined(caller) else { return Ok(()) };
        let check = |request: &Request| self.raft.state().look(|tables| confinement::check(tables, identity, request));
        // These tables may lack what was answered elsewhere, and then refuse too much.
        if check(request).is_err() {
            self.ensure_current().await?;
            check(request).map_err(|error| refusal(request, error))?;
        }
        if let Request::Apply(op) = request {
            confinement::own(identity, op);
        }
        Ok(())
    }

    /// `bound`: the session sees one folder only.
    async fn attach<C: FeedConnection + Clone>(
        &self,
        (session, bound): (SessionId, bool),
        claims: &[Ino],
        peer: &C,
    ) -> Response {
        if let Err(response) = self.ensure_current().await {
            return response;
        }
        match self.raft.state().attach(session, bound, claims, Arc::new(peer.clone()), &self.feed) {
            AttachOutcome::NoSession => return Response::refused(FsError::NoSession),
            // Before it holds any lease: the next leader has to know that it may.
            AttachOutcome::Suspended => {
                return match self.raft.propose(Change::ResumeSession { session }, Time::now()).await {
                    Ok(_) => Box::pin(self.attach((session, bound), claims, peer)).await,
                    Err(reason) => unavailable(reason),
                };
            }
            AttachOutcome::Attached { is_new: false } => return Response::Attached,
            AttachOutcome::Attached { is_new: true } => {}
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
                let count = self.feed.answer(session, connection, answered, nothing_open, Instant::now());
                let requests = SessionRequests { term, count };
                Response::Alive { applied: self.raft.state().applied_index(), requests }
            }
            Some(_) => Response::refused(FsError::NoSession),
            None => unavailable("this connection is not attached to a session"),
        }
    }

    /// The session that remembers the answer. What is outside of a caller's folder it may look up on its way, and must
    /// not remember: it would hear of all changes there.
    fn reader(&self, connection: u64, caller: &RemoteCaller, query: &Query) -> Option<SessionId> {
        let may_remember = || match confinement::confined(caller) {
            Some(identity) => self.raft.state().look(|tables| confinement::may_remember(tables, identity, query)),
            None => true,
        };
        self.feed.session_of(connection).filter(|_| may_remember())
    }

    async fn query(&self, reader: Option<SessionId>, caller: &RemoteCaller, query: &Query) -> Response {
        let ask = |tables: &Tables| confinement::answer(tables, caller, query);
        let mut asked = BTreeSet::new();
        let end = self.deadline();
        while Instant::now() < end {
            // Until the lease expires, no other leader can have changed anything, and every operation that this leader
            // has answered is applied.
            let leader = self.raft.leased_term();
            let own_term = |last: Option<LogId>| leader.is_some() && last.map(|last| last.leader_id) == leader;
            let read = match self.raft.state().read(own_term, (query, ask), (reader, &mut asked), &self.feed) {
                Some(read) => Some(read),
                None => match self.ensure_current().await {
                    Ok(()) => self.raft.state().read(|_| true, (query, ask), (reader, &mut asked), &self.feed),
                    Err(response) => return response,
                },
            };
            match read {
                Some(Ok((answer, terms))) => {
                    return self.after_wait(terms, |granted| Response::Answered(answer, granted)).await;
                }
                Some(Err(recall)) => self.waits.measure(recall.over_by(end)).await,
                None => {}
            }
        }
        unavailable("another mount does not let go of what the query is about")
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.raft.settings().call_deadline
    }

    /// Gives an answer when nobody remembers any longer what it contradicts.
    async fn after_wait(&self, terms: AnswerTerms, respond: impl FnOnce(Granted) -> Response) -> Response {
        if terms.waits.is_empty() {
            return respond(terms.granted);
        }
        let all_over = async {
            for wait in terms.waits {
                wait.over().await;
            }
        };
        self.waits.measure(all_over).await;
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
        match self.log(std::slice::from_ref(&op)).await {
            Ok(EntryResult { mut replies, terms }) => match replies.pop() {
                Some(reply) => self.after_wait(terms, |granted| Response::Applied(reply, granted)).await,
                None => unavailable(NO_OPERATION),
            },
            Err(NotLogged::Refused(error)) => Response::Applied(Err(error), Granted::default()),
            Err(NotLogged::Otherwise(response)) => response,
        }
    }

    /// Refuses operations one by one, or the whole list if it is none: nothing of it is logged then.
    async fn apply_list(&self, ops: Vec<NamespaceOp>) -> Response {
        if let Err(error) = check_list(&ops) {
            return Response::refused(error);
        }
        let admissions: Vec<Result<(), FsError>> = ops.iter().map(admit).collect();
        let admitted = ops.into_iter().zip(&admissions).filter(|(_, admission)| admission.is_ok());
        let admitted: Vec<NamespaceOp> = admitted.map(|(op, _)| op).collect();
        if admitted.is_empty() {
            return Response::AppliedList(with_refused(admissions, Vec::new()), Granted::default());
        }
        match self.log(&admitted).await {
            Ok(EntryResult { replies, .. }) if replies.len() != admitted.len() => unavailable(NO_OPERATION),
            Ok(EntryResult { replies, terms }) => {
                let replies = with_refused(admissions, replies);
                self.after_wait(terms, |granted| Response::AppliedList(replies, granted)).await
            }
            Err(NotLogged::Refused(error)) => Response::refused(error),
            Err(NotLogged::Otherwise(response)) => response,
        }
    }

    /// Logs and applies operations of one session in one entry.
    async fn log(&self, ops: &[NamespaceOp]) -> Result<EntryResult, NotLogged> {
        if self.raft.holds_term().is_none() {
            return Err(NotLogged::Otherwise(self.not_leader(self.leader.leader())));
        }
        let mut logged = LoggedOp::list(ops, Time::now());
        if logged.bytes() > MAX_OP_BYTES {
            let reason = format!("operations of {} bytes; at most {MAX_OP_BYTES} are allowed", logged.bytes());
            return Err(NotLogged::Refused(FsError::Invalid { reason }));
        }
        let end = self.deadline();
        let (intent, term) = self.prepare(ops, end).await.map_err(NotLogged::Otherwise)?;
        logged.at = Time::now();
        self.write(logged, term, intent, end).await.map_err(NotLogged::Otherwise)
    }

    /// Waits until nobody else holds anything alone that the operations concern, who may have answered changes that
    /// come first. As long as the intent exists it stays so.
    async fn prepare(&self, ops: &[NamespaceOp], end: Instant) -> Result<(ChangeIntent, LeaderTerm), Response> {
        let mut intent = ChangeIntent::new(self.feed.clone());
        let mut is_current = false;
        while Instant::now() < end {
            match self.raft.state().prepare(ops, &mut intent) {
                Ok(term) => return Ok((intent, term)),
                Err(NotReady::Wait(wait)) => self.waits.measure(wait.over_by(end)).await,
                Err(NotReady::NotLeading) if is_current => break,
                Err(NotReady::NotLeading) => {
                    self.ensure_current().await?;
                    is_current = true;
                }
            }
        }
        Err(unavailable("another mount does not let go of what the operation changes"))
    }

    /// Logs and applies an entry in `term`. Its intent ends when it is applied, even if nobody waits for that.
    async fn write(
        &self,
        logged: LoggedOp,
        term: LeaderTerm,
        intent: ChangeIntent,
        end: Instant,
    ) -> Result<EntryResult, Response> {
        let (responder, written) = ProgressResponder::complete_only();
        let sent = self.raft.openraft().write(logged).with_leader(term).responder(responder).await;
        sent.map_err(|error| unavailable(write_failure(&RaftError::Fatal(error))))?;
        let stop = self.stop.clone();
        let applied = self.tasks.spawn(async move {
            let written: Option<ClientWriteResult<TypeConfig>> = tokio::select! {
                written = written => written.ok(),
                () = stop.cancelled() => None,
            };
            written.map(|written| written.map(|written| with_wait(written.data, intent.settled())))
        });
        match timeout_at(end.into(), applied).await {
            Ok(Ok(Some(Ok(result)))) => Ok(result),
            Ok(Ok(Some(Err(ClientWriteError::ForwardToLeader(forward))))) => {
                Err(self.not_leader(named_leader(&forward)))
            }
            Ok(Ok(Some(Err(error)))) => Err(unavailable(write_failure(&RaftError::APIError(error)))),
            Ok(Ok(None) | Err(_)) => Err(unavailable(STOPPING)),
            Err(_) => Err(unavailable(NO_MAJORITY)),
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

/// Why operations were not logged.
#[allow(clippy::large_enum_variant, reason = "one at a time, and only until it is answered")]
enum NotLogged {
    Refused(FsError),
    Otherwise(Response),
}

/// A node asks for the ring's settings every few seconds, which must not make it look as if it opened files.
fn may_open_a_file(request: &Request) -> bool {
    match request {
        Request::Query(query) => !matches!(
            query,
            Query::RingConfig | Query::OperatorTokens | Query::PoolSize | Query::Identities | Query::RevokedIdentities
        ),
        request => matches!(request, Request::Apply(_) | Request::ApplyList(_)),
    }
}

/// Checks that a mount may send the change: some are reserved to the namespace, and all others except opening and
/// closing need a session.
fn admit(op: &NamespaceOp) -> Result<(), FsError> {
    let refuse = |reason: &str| Err(FsError::Invalid { reason: reason.into() });
    match (&op.change, op.origin) {
        (
            Change::PurgeOrphans { .. }
            | Change::ForgetDead { .. }
            | Change::ForgetLogged { .. }
            | Change::FoundRoot { .. }
            | Change::SuspendSession { .. }
            | Change::ResumeSession { .. },
            _,
        ) => refuse("only the namespace itself may do this"),
        (Change::OpenSession { .. } | Change::OpenOwnedSession { .. } | Change::CloseSession { .. }, _)
        | (_, Some(OpId { .. })) => Ok(()),
        (_, None) => refuse("the change names no session"),
    }
}

/// Checks that the operations can be one entry.
fn check_list(ops: &[NamespaceOp]) -> Result<(), FsError> {
    let refuse = |reason: String| Err(FsError::Invalid { reason });
    if ops.len() > MAX_LIST {
        return refuse(format!("a list of {} operations; at most {MAX_LIST} are allowed", ops.len()));
    }
    let session = |op: &NamespaceOp| op.origin.map(|id| id.session);
    let first = ops.first().and_then(session);
    if ops.iter().any(|op| session(op).is_none() || session(op) != first) {
        return refuse("the operations of a list have to be of one session".into());
    }
    Ok(())
}

/// The results of a list: the replies to the admitted operations, and the refusals of the others, in its order.
fn with_refused(
    admissions: Vec<Result<(), FsError>>,
    replies: Vec<Result<Reply, FsError>>,
) -> Vec<Result<Reply, FsError>> {
    let mut replies = replies.into_iter();
    let unanswered = || Err(FsError::Internal { detail: "an operation has no result".into() });
    let result = |admission: Result<(), FsError>| admission.and_then(|()| replies.next().unwrap_or_else(unanswered));
    admissions.into_iter().map(result).collect()
}

fn with_wait(mut result: EntryResult, wait: Option<Wait>) -> EntryResult {
    result.terms.waits.extend(wait);
    result
}

/// A refusal as the sender of this request expects its answer.
fn refusal(request: &Request, error: FsError) -> Response {
    match request {
        Request::Apply(_) => Response::Applied(Err(error), Granted::default()),
        Request::ApplyList(ops) => Response::AppliedList(vec![Err(error); ops.len()], Granted::default()),
        _ => Response::refused(error),
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
