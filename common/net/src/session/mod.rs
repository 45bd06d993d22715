//! A session with the namespace: finds the leader, sends each operation until it is answered, always under the same
//! sequence number, and receives the change feed. Used by mounts, and by nodes on behalf of scripts and browsers.
//!
//! `link` keeps the connection, `open_session` counts operations and versions, `feed` delivers the changes of other
//! sessions. This file has the steps of an operation: wait for a connection, send, and retry until the deadline. The
//! caller interprets the answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chordfs_log::warn_limited;
use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    namespace::{
        Answer, Change, ClientReport, ClonedRun, Extent, FeedEvent, Ino, LoggedChunk, NamespaceOp, Query, Reply,
        Request, Response, SessionId, Time, VersionBlock, encode,
    },
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    backoff::Backoff,
    chunk_client::ChunkReferences,
    operation,
    rpc::{Dialer, RpcError},
    tasks,
    transport::Connector,
};

mod acknowledgement;
mod candidates;
mod feed;
mod link;
mod memory;
mod open_session;
mod receipts;
mod request;
#[cfg(test)]
mod tests;

pub use acknowledgement::EventAcknowledgement;
use feed::ChangeFeed;
use link::{LeaderConnection, LeaderLink};
use memory::Moment;
use open_session::{BLOCK_VERSIONS, OpenSession};
pub use receipts::EventReceipt;
use request::{RequestError, send_request};

/// Half of the calls that a server executes at a time for one connection, so that keepalives are never blocked.
const MAX_IN_FLIGHT: usize = 128;
/// An operation unanswered for this long is sent again. This time doubles with each attempt.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Ring addresses of any nodes.
    pub nodes: Vec<SocketAddr>,
    /// Shown to operators: "host:/mount/point".
    pub client: String,
    /// After this long without an answer an operation fails with `NoQuorum`.
    pub deadline: Duration,
    /// Whether the session may hold leases on directories and inodes: mounts may. False by default, for clients that
    /// let the namespace answer everything; a new leader of the namespace does not wait for them.
    pub holds_leases: bool,
}

impl SessionOptions {
    pub const DEADLINE: Duration = Duration::from_secs(30);

    pub fn new(nodes: Vec<SocketAddr>, client: impl Into<String>) -> Self {
        Self { nodes, client: client.into(), deadline: Self::DEADLINE, holds_leases: false }
    }
}

/// After each the receiver calls `Session::note_handled`: until then nothing that it remembers may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    Feed(Vec<FeedEvent>, EventAcknowledgement),
    /// The feed was interrupted: everything cached about the namespace may be stale. If `Session::id` has changed, too,
    /// the former session has expired, with everything that it held.
    Reset,
}

/// Cheap to clone. Its connection ends with the last clone; `close` also ends the session at the namespace.
#[derive(Clone)]
pub struct Session(Arc<SessionInner>);

struct SessionInner {
    link: LeaderLink,
    feed: Arc<ChangeFeed>,
    deadline: Duration,
    in_flight: Semaphore,
}

impl Session {
    /// Opens a session over plain connections.
    ///
    /// Errors: `NoQuorum` if the leader cannot be found by the deadline.
    pub async fn open(options: SessionOptions) -> Result<(Self, mpsc::UnboundedReceiver<SessionEvent>), FsError> {
        Self::open_over(Arc::new(Connector::Plain), options).await
    }

    /// Like `open`, over connections that `dialer` makes.
    pub async fn open_over(
        dialer: Arc<dyn Dialer>,
        options: SessionOptions,
    ) -> Result<(Self, mpsc::UnboundedReceiver<SessionEvent>), FsError> {
        if options.nodes.is_empty() {
            return Err(FsError::Invalid { reason: "no node was given to reach the namespace through".to_owned() });
        }
        let (sender, events) = mpsc::unbounded_channel();
        let feed = Arc::new(ChangeFeed::new(sender));
        let deadline = options.deadline;
        let link = LeaderLink::start(dialer, options, feed.clone());
        let session = Self(Arc::new(SessionInner { link, feed, deadline, in_flight: Semaphore::new(MAX_IN_FLIGHT) }));
        OperationAttempts::new(deadline).attached(&session.0.link).await?;
        Ok((session, events))
    }

    pub fn id(&self) -> SessionId {
        self.0.link.session().id
    }

    /// Whether the session has a connection to the leader now.
    pub fn is_attached(&self) -> bool {
        self.0.link.is_attached()
    }

    /// Looks for the leader at these nodes from now on, instead of at those given at the start, and at the leaders that
    /// it has learnt of. No nodes change nothing.
    pub fn replace_nodes(&self, nodes: Vec<SocketAddr>) {
        if !nodes.is_empty() {
            self.0.link.replace_nodes(nodes);
        }
    }

    /// Ring address of the namespace's leader, a member of the ring; `None` while there is no connection to it.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.0.link.leader()
    }

    /// Applies a change exactly once, even if connections and leaders fail in between.
    ///
    /// Errors: those of the change; `NoQuorum` if it was not answered by the deadline, and `NoSession` if the session
    /// expired before the answer came. In these two cases it may have been applied or not.
    pub async fn apply(&self, change: Change) -> Result<Reply, FsError> {
        let mut attempts = OperationAttempts::new(self.0.deadline);
        let mut request = unsigned(change);
        loop {
            let session = attempts.attached(&self.0.link).await?.session;
            match self.apply_under(&session, &mut request, &mut attempts).await {
                // It was not applied, for example because the machine slept for longer than the session was kept: the
                // new session applies it.
                Err(FsError::NoSession) if attempts.is_surely_unapplied() => {}
                outcome => return outcome,
            }
        }
    }

    /// Applies changes in this order, each exactly once and with a result of its own. `inos` are those that they
    /// concern: a sole lease on one of them that the answer does not confirm has ended.
    ///
    /// There is no deadline: the caller has answered for these changes already.
    ///
    /// Errors: `NoSession` if the session expired before the answer came. Each may have been applied or not.
    pub async fn apply_list(
        &self,
        changes: Vec<(Time, Change)>,
        inos: &[Ino],
    ) -> Result<Vec<Result<Reply, FsError>>, FsError> {
        let session = self.0.link.session();
        let count = changes.len();
        let (mut pending, mut ops) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (now, change) in changes {
            let operation = session.begin();
            ops.push(NamespaceOp { origin: Some(operation.op), now, change });
            pending.push(operation);
        }
        let request = encode(&Request::ApplyList(ops));
        loop {
            let mut attempts = OperationAttempts::new(self.0.deadline).about(inos);
            match self.exchange(&request, Some(session.id), &mut attempts).await {
                Ok(Response::AppliedList(results, _)) if results.len() == count => return Ok(results),
                Ok(Response::Answered(Err(error), _) | Response::Applied(Err(error), _)) => return Err(error),
                Ok(response) => return Err(unexpected(&response)),
                Err(FsError::NoQuorum { detail }) => {
                    warn_limited!("changes that programs were told of are not logged yet, trying again: {detail}");
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn query(&self, query: Query) -> Result<Answer, FsError> {
        let request = encode(&Request::Query(query));
        match self.exchange(&request, None, &mut OperationAttempts::new(self.0.deadline)).await? {
            Response::Answered(result, _) => result,
            response => Err(unexpected(&response)),
        }
    }

    /// Returns a version for one run of chunks of one file, usually without a round trip: blocks are fetched ahead.
    pub async fn next_version(&self) -> Result<Version, FsError> {
        loop {
            let session = self.0.link.session();
            match session.take_version() {
                Some(taken) => {
                    if taken.fetch {
                        tasks::spawn(self.clone().refill(session));
                    }
                    return Ok(taken.version);
                }
                None => match self.fetch_versions(&session).await {
                    Ok(block) => session.add_versions(block),
                    // The next session has its own versions.
                    Err(FsError::NoSession) if self.0.link.attached().await.is_some() => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Grows with every feed event or reset, before the answers that follow it are delivered. An answer may be cached
    /// only if the epoch has not changed since its query was sent.
    pub fn feed_epoch(&self) -> u64 {
        self.0.feed.epoch()
    }

    /// Notes that the receiver has forgotten what the next event contradicts.
    pub fn note_handled(&self) {
        self.0.feed.memory.note_handled();
    }

    /// How long answers that were cached may be used from now on; zero if they may not.
    pub fn memory_usable_for(&self) -> Duration {
        self.0.feed.memory.usable_for()
    }

    /// Whether no other session uses the inode: a kernel may keep the names of such a directory, and this session may
    /// change the inode before the change is logged.
    pub fn is_sole(&self, ino: Ino) -> bool {
        self.0.feed.memory.is_sole(ino)
    }

    /// Notes that this session has created the inode in a directory on which it has a sole lease, so that no other one
    /// can know it.
    pub fn note_created(&self, ino: Ino) {
        self.0.feed.memory.note_created(ino);
    }

    /// Ends the use of the leases on these inodes. To be called before they are given back with
    /// [`EventAcknowledgement::give_back`]: from then on the leader tells this session nothing about them.
    pub fn return_leases(&self, inos: &[Ino]) {
        self.0.feed.memory.note_returned(inos);
    }

    /// From now on the session claims the leases on these inodes when it attaches to a leader.
    pub fn claim_leases(&self, claims: impl Fn() -> Vec<Ino> + Send + Sync + 'static) {
        self.0.link.claim_leases(claims);
    }

    /// Notes that the kernel may answer from its own memory for `time` from now on. After a lost connection the session
    /// waits for that before it attaches: the leader then counts on nobody remembering anything.
    pub fn note_kernel(&self, time: Duration) {
        self.0.feed.memory.note_kernel(time);
    }

    /// Taken for each event, in their order, and dropped when the event has been handled: when every file that is open
    /// here and lost its last name by that event is held.
    pub fn event_receipt(&self) -> EventReceipt {
        self.0.feed.receipt()
    }

    /// Taken before a change is sent by which a file may lose its last name, and dropped when that file is held if it
    /// is open here: the feed reports no changes of this session.
    pub fn own_change_receipt(&self) -> EventReceipt {
        self.0.feed.own_change_receipt()
    }

    /// From now on the keepalives report when `nothing_open` returns true. A session that has sent nothing else since
    /// then delays no deletion of removed files when it falls silent.
    ///
    /// It must return false from before the first request by which a file may be opened until the file is closed.
    pub fn report_nothing_open(&self, nothing_open: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.link.report_nothing_open(nothing_open);
    }

    /// From now on the leader receives what `state` returns, for operators, soon after it has changed.
    pub fn report_state(&self, state: impl Fn() -> ClientReport + Send + Sync + 'static) {
        self.0.link.report_state(state);
    }

    /// Ends the session at the namespace.
    pub async fn close(&self) -> Result<(), FsError> {
        self.0.link.set_closing();
        let result = self.apply(Change::CloseSession { session: self.id() }).await;
        self.0.link.stop();
        match result {
            Ok(_) | Err(FsError::NoSession) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn refill(self, session: Arc<OpenSession>) {
        // After a failure, a caller that finds no version left fetches a block itself and gets the error.
        let block = self.fetch_versions(&session).await.ok();
        session.refill(block);
    }

    async fn fetch_versions(&self, session: &Arc<OpenSession>) -> Result<VersionBlock, FsError> {
        let change = Change::AllocateVersions { count: BLOCK_VERSIONS };
        match self.apply_under(session, &mut unsigned(change), &mut OperationAttempts::new(self.0.deadline)).await? {
            Reply::Versions(block) if block.count > 0 => Ok(block),
            reply => Err(FsError::Internal { detail: format!("asked for versions, got {reply:?}") }),
        }
    }

    /// Gives `request`, which applies a change, its sequence number in the session, and sends it.
    async fn apply_under(
        &self,
        session: &Arc<OpenSession>,
        request: &mut Request,
        attempts: &mut OperationAttempts,
    ) -> Result<Reply, FsError> {
        let pending = session.begin();
        if let Request::Apply(op) = request {
            op.origin = Some(pending.op);
        }
        match self.exchange(&encode(request), Some(session.id), attempts).await? {
            Response::Applied(result, _) => result,
            response => Err(unexpected(&response)),
        }
    }

    /// Sends the request, in the same bytes each time, until there is an answer. If a session is given, fails as soon
    /// as it is not the current one.
    async fn exchange(
        &self,
        request: &[u8],
        session: Option<SessionId>,
        attempts: &mut OperationAttempts,
    ) -> Result<Response, FsError> {
        let Ok(slot) = timeout_at(attempts.end, self.0.in_flight.acquire()).await else {
            return Err(attempts.no_quorum());
        };
        let _slot = slot.expect("the semaphore is never closed");
        loop {
            let attached = attempts.attached(&self.0.link).await?;
            if session.is_some_and(|session| session != attached.session.id) {
                return Err(FsError::NoSession);
            }
            match attempts.send_once(&attached, &self.0.feed, request).await {
                Some(response) => return Ok(response),
                None => attempts.pause().await?,
            }
        }
    }
}

impl ChunkReferences for Session {
    fn unreferenced(&self, runs: Vec<Extent>) -> BoxFuture<'_, Result<Vec<Extent>, FsError>> {
        Box::pin(async move {
            match self.query(Query::Unreferenced { runs }).await? {
                Answer::Unreferenced { pieces, .. } => Ok(pieces),
                other => Err(FsError::Internal { detail: format!("asked for unreferenced runs, got {other:?}") }),
            }
        })
    }

    fn logged(&self, ids: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<LoggedChunk>, FsError>> {
        Box::pin(async move {
            match self.query(Query::LoggedChunks { ids }).await? {
                Answer::LoggedChunks(logged) => Ok(logged),
                other => Err(FsError::Internal { detail: format!("asked for logged chunks, got {other:?}") }),
            }
        })
    }

    fn clones(&self, versions: Vec<Version>) -> BoxFuture<'_, Result<Vec<ClonedRun>, FsError>> {
        Box::pin(async move {
            match self.query(Query::Clones { versions }).await? {
                Answer::Clones(clones) => Ok(clones),
                other => Err(FsError::Internal { detail: format!("asked for clones, got {other:?}") }),
            }
        })
    }
}

/// The attempts of one operation.
struct OperationAttempts {
    begun: Instant,
    end: Instant,
    attempt_deadline: Duration,
    backoff: Backoff,
    /// How often the request was sent.
    sent: u32,
    /// How often the request reached a leader that did not know its session.
    refused: u32,
    /// The last failure.
    detail: String,
    /// The inodes of a list of changes.
    inos: Vec<Ino>,
}

impl OperationAttempts {
    fn new(total: Duration) -> Self {
        Self {
            begun: Instant::now(),
            end: operation::end_of_wait(total),
            attempt_deadline: ATTEMPT_DEADLINE,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            sent: 0,
            refused: 0,
            detail: "too many operations are waiting".to_owned(),
            inos: Vec::new(),
        }
    }

    fn about(self, inos: &[Ino]) -> Self {
        Self { inos: inos.to_vec(), ..self }
    }

    async fn attached(&mut self, link: &LeaderLink) -> Result<LeaderConnection, FsError> {
        match timeout_at(self.end, link.attached()).await {
            Ok(attached) => attached.ok_or(FsError::NoSession),
            Err(_) => {
                self.detail = link.failure();
                Err(self.no_quorum())
            }
        }
    }

    /// Sends the request once; `None` if it has to be sent again.
    async fn send_once(&mut self, attached: &LeaderConnection, feed: &ChangeFeed, request: &[u8]) -> Option<Response> {
        let left = self.end.saturating_duration_since(Instant::now());
        let leader = attached.client.address();
        self.sent += 1;
        let (sent, epoch) = (Moment::now(), feed.epoch());
        match send_request(&attached.client, request, self.attempt_deadline.min(left)).await {
            Ok(Response::NotLeader { leader: next }) => {
                self.detail = format!("{leader} is no longer the leader");
                attached.note_moved(next);
            }
            Ok(Response::Unavailable { reason }) => {
                self.detail = format!("{leader}: {reason}");
                attached.note_unavailable();
            }
            Ok(response) => {
                match response {
                    Response::Applied(Err(FsError::NoSession), _) => {
                        self.refused += 1;
                        attached.note_expired();
                    }
                    _ => attached.note_answered(),
                }
                feed.memory.note_answered(sent);
                match &response {
                    Response::Applied(_, granted) | Response::Answered(_, granted) => {
                        feed.memory.note_granted(epoch, granted);
                    }
                    Response::AppliedList(_, granted) => feed.memory.note_logged(epoch, &self.inos, granted),
                    _ => {}
                }
                return Some(response);
            }
            Err(error) => {
                if matches!(error, RequestError::Rpc(RpcError::Deadline { .. })) {
                    attached.note_overdue();
                    self.attempt_deadline *= 2;
                }
                self.detail = error.to_string();
            }
        }
        None
    }

    /// Whether the request was refused each time it was sent, or never sent: its session ended before.
    fn is_surely_unapplied(&self) -> bool {
        self.sent == self.refused
    }

    async fn pause(&mut self) -> Result<(), FsError> {
        let pause = self.backoff.pause();
        if Instant::now() + pause >= self.end {
            return Err(self.no_quorum());
        }
        sleep(pause).await;
        Ok(())
    }

    fn no_quorum(&self) -> FsError {
        FsError::NoQuorum { detail: format!("{} (gave up after {:?})", self.detail, self.begun.elapsed()) }
    }
}

/// A change that belongs to no session yet.
fn unsigned(change: Change) -> Request {
    Request::Apply(NamespaceOp { origin: None, now: Time::now(), change })
}

fn unexpected(response: &Response) -> FsError {
    FsError::Internal { detail: format!("the namespace sent an unexpected kind of answer: {response:?}") }
}
