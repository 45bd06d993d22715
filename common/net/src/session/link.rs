//! The one connection to the leader, kept by a task of its own: it finds the leader, opens or attaches the session,
//! monitors the connection, and starts over when the connection is lost.
//!
//! Operations never look for the leader themselves. They wait for a [`LeaderConnection`] and report failures to it; the
//! task decides what follows.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chordfs_log::info_limited;
use chordfs_types::{
    fs_error::FsError,
    namespace::{
        Change, ClientReport, Ino, NamespaceOp, Reply, Request, Response, SessionId, SessionRequests, Time, encode,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{
    SessionOptions, acknowledgement::NoticeDone, candidates::LeaderCandidates, feed::ChangeFeed, memory::Moment,
    open_session::OpenSession, request::send_request,
};
use crate::{
    backoff::Backoff,
    rpc::{Dialer, RpcClient},
    tasks,
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// For finding out whether a node leads.
const ATTACH_DEADLINE: Duration = Duration::from_secs(2);
/// For opening a session, which needs a majority.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// A leader that does not answer a keepalive for this long is dropped.
const KEEPALIVE_DEADLINE: Duration = Duration::from_millis(2500);
/// A leader that answers only "unavailable" for this long may be cut off from the other voters, and is left.
const UNAVAILABLE_LIMIT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Most failed leaders are replaced within a second, and the new leader should be found soon after.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// Redirects followed without a pause; nodes that disagree about the leader get time to agree.
const MAX_REDIRECTS: u32 = 3;

/// A connection to the leader that belongs to the session.
#[derive(Clone)]
pub(super) struct LeaderConnection {
    pub client: RpcClient,
    pub session: Arc<OpenSession>,
    health: Arc<ConnectionHealth>,
    /// Notices that came on this connection and are handled.
    done: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<NoticeDone>>>,
}

#[derive(Default)]
struct ConnectionHealth {
    /// Requests a keepalive now.
    check: Notify,
    leader: Mutex<Option<SocketAddr>>,
    expired: AtomicBool,
    unavailable_since: Mutex<Option<Instant>>,
}

/// Reports of operations about the connection.
impl LeaderConnection {
    pub(super) fn note_moved(&self, leader: Option<SocketAddr>) {
        *self.health.leader.lock() = leader;
        self.client.close();
    }

    pub(super) fn note_expired(&self) {
        self.health.expired.store(true, Ordering::SeqCst);
        self.client.close();
    }

    /// Notes an overdue answer: a keepalive checks the connection.
    pub(super) fn note_overdue(&self) {
        self.health.check.notify_one();
    }

    pub(super) fn note_unavailable(&self) {
        let since = *self.health.unavailable_since.lock().get_or_insert_with(Instant::now);
        if since.elapsed() > UNAVAILABLE_LIMIT {
            self.client.close();
        }
    }

    pub(super) fn note_answered(&self) {
        *self.health.unavailable_since.lock() = None;
    }
}

/// The handle to the connection task that operations use. The task stops when the handle is dropped.
pub(super) struct LeaderLink {
    shared: Arc<LinkState>,
    attached: watch::Receiver<Option<LeaderConnection>>,
    _stop: DropGuard,
}

struct LinkState {
    feed: Arc<ChangeFeed>,
    session: Mutex<Option<Arc<OpenSession>>>,
    /// The reason why there is no connection, for the errors of operations.
    failure: Mutex<String>,
    closing: AtomicBool,
    /// They take the place of the nodes given at the start.
    given: Mutex<Option<Vec<SocketAddr>>>,
    nothing_open: OnceLock<NothingOpen>,
    report: OnceLock<ReportSource>,
    claims: OnceLock<ClaimSource>,
    stop: CancellationToken,
}

type NothingOpen = Box<dyn Fn() -> bool + Send + Sync>;
type ReportSource = Box<dyn Fn() -> ClientReport + Send + Sync>;
type ClaimSource = Box<dyn Fn() -> Vec<Ino> + Send + Sync>;

impl LeaderLink {
    /// `options.nodes` must not be empty.
    pub(super) fn start(dialer: Arc<dyn Dialer>, options: SessionOptions, feed: Arc<ChangeFeed>) -> Self {
        let stop = CancellationToken::new();
        let shared = Arc::new(LinkState {
            feed,
            session: Mutex::default(),
            failure: Mutex::new("no node was asked yet".to_owned()),
            closing: AtomicBool::new(false),
            given: Mutex::default(),
            nothing_open: OnceLock::new(),
            report: OnceLock::new(),
            claims: OnceLock::new(),
            stop: stop.clone(),
        });
        let (publish, attached) = watch::channel(None);
        let turn = rand::random_range(0..options.nodes.len());
        let task = ConnectionTask {
            shared: shared.clone(),
            dialer,
            candidates: LeaderCandidates::new(options.nodes, turn),
            client: options.client,
            holds_leases: options.holds_leases,
            nonce: rand::random(),
            session: None,
            publish,
        };
        tasks::spawn(async move { stop.run_until_cancelled_owned(task.run()).await });
        let _stop = shared.stop.clone().drop_guard();
        Self { shared, attached, _stop }
    }

    /// Whether there is a connection.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.borrow().as_ref().is_some_and(|attached| !attached.client.is_closed())
    }

    /// `nodes` must not be empty.
    pub(super) fn replace_nodes(&self, nodes: Vec<SocketAddr>) {
        *self.shared.given.lock() = Some(nodes);
    }

    /// Ring address of the leader; `None` while there is no connection.
    pub(super) fn leader(&self) -> Option<SocketAddr> {
        self.attached.borrow().as_ref().map(|attached| attached.client.address())
    }

    /// Waits for a connection; `None` if the session is closed.
    pub(super) async fn attached(&self) -> Option<LeaderConnection> {
        let mut attached = self.attached.clone();
        let usable = |attached: &Option<LeaderConnection>| attached.as_ref().is_some_and(|it| !it.client.is_closed());
        let found = self.shared.stop.run_until_cancelled(attached.wait_for(usable)).await?.ok()?;
        found.clone()
    }

    pub(super) fn session(&self) -> Arc<OpenSession> {
        self.shared.session.lock().clone().expect("there is a session since the first connection")
    }

    pub(super) fn failure(&self) -> String {
        self.shared.failure.lock().clone()
    }

    /// Only the first function counts.
    pub(super) fn report_nothing_open(&self, nothing_open: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.shared.nothing_open.set(Box::new(nothing_open));
    }

    /// Only the first function counts.
    pub(super) fn report_state(&self, state: impl Fn() -> ClientReport + Send + Sync + 'static) {
        let _ = self.shared.report.set(Box::new(state));
    }

    /// Only the first function counts.
    pub(super) fn claim_leases(&self, claims: impl Fn() -> Vec<Ino> + Send + Sync + 'static) {
        let _ = self.shared.claims.set(Box::new(claims));
    }

    /// Prevents that an expired session is replaced from now on.
    pub(super) fn set_closing(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn stop(&self) {
        self.shared.stop.cancel();
    }
}

struct ConnectionTask {
    shared: Arc<LinkState>,
    dialer: Arc<dyn Dialer>,
    candidates: LeaderCandidates,
    client: String,
    holds_leases: bool,
    nonce: u64,
    session: Option<Arc<OpenSession>>,
    publish: watch::Sender<Option<LeaderConnection>>,
}

/// The reason why attaching to a node failed.
enum AttachError {
    Moved(SocketAddr),
    Failed(String),
    Closing,
}

impl ConnectionTask {
    /// Runs until the session is closed.
    async fn run(mut self) {
        while let Some(attached) = self.attach().await {
            info_limited!(leader = %attached.client.address(), session = attached.session.id.0, "attached to the namespace");
            self.shared.feed.memory.set_attached(true);
            self.publish.send_replace(Some(attached.clone()));
            self.monitor(&attached).await;
            self.shared.feed.memory.set_attached(false);
            info_limited!(leader = %attached.client.address(), "the connection to the namespace is lost");
            self.publish.send_replace(None);
            self.learn_from(&attached);
            self.shared.feed.interrupt();
        }
    }

    async fn attach(&mut self) -> Option<LeaderConnection> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut redirects = 0;
        loop {
            if let Some(given) = self.shared.given.lock().take() {
                self.candidates.replace_seeds(given);
            }
            let node = self.candidates.next();
            match self.try_attach(node).await {
                Ok(attached) => {
                    self.candidates.prefer(node);
                    return Some(attached);
                }
                Err(AttachError::Closing) => return None,
                Err(AttachError::Moved(leader)) => {
                    self.note_failure(format!("{node} reports that the leader is {leader}"));
                    self.candidates.prefer(leader);
                    redirects += 1;
                    if redirects <= MAX_REDIRECTS {
                        continue;
                    }
                }
                Err(AttachError::Failed(reason)) => self.note_failure(reason),
            }
            redirects = 0;
            sleep(backoff.pause()).await;
        }
    }

    fn note_failure(&self, reason: String) {
        debug!(reason, "looking for the namespace's leader");
        *self.shared.failure.lock() = reason;
    }

    async fn try_attach(&mut self, node: SocketAddr) -> Result<LeaderConnection, AttachError> {
        let feed = self.shared.feed.clone();
        let (handled, done) = mpsc::unbounded_channel();
        let done = Arc::new(tokio::sync::Mutex::new(done));
        let handler = move |event| feed.receive(event, &handled);
        let client = RpcClient::connect_over(&*self.dialer, node, CONNECT_DEADLINE, handler)
            .await
            .map_err(|error| AttachError::Failed(error.to_string()))?;
        loop {
            let session = match &self.session {
                Some(session) => session.clone(),
                None => self.open(&client).await?,
            };
            self.kernel_has_forgotten().await;
            let sent = Moment::now();
            let claims = self.shared.claims.get().map_or_else(Vec::new, |claims| claims());
            match self.send_request(&client, Request::Attach { session: session.id, claims }, ATTACH_DEADLINE).await? {
                Response::Attached => {
                    self.shared.feed.memory.note_answered(sent);
                    return Ok(LeaderConnection { client, session, health: Arc::default(), done });
                }
                response if is_no_session(&response) => self.forget_session(),
                response => return Err(unexpected(node, &response)),
            }
        }
    }

    /// Waits until the kernel answers nothing from its memory that the former connection allowed.
    async fn kernel_has_forgotten(&self) {
        if let Some(until) = self.shared.feed.memory.kernel_until() {
            sleep_until(until).await;
        }
    }

    /// Opens a session. The nonce stays the same until an answer arrives, so that a lost answer leaves no session
    /// behind.
    async fn open(&mut self, client: &RpcClient) -> Result<Arc<OpenSession>, AttachError> {
        if self.shared.closing.load(Ordering::SeqCst) {
            return Err(AttachError::Closing);
        }
        let change =
            Change::OpenSession { nonce: self.nonce, client: self.client.clone(), holds_leases: self.holds_leases };
        let request = Request::Apply(NamespaceOp { origin: None, now: Time::now(), change });
        match self.send_request(client, request, OPEN_DEADLINE).await? {
            Response::Applied(Ok(Reply::Session { session, versions }), _) => {
                Ok(self.begin(OpenSession::new(session, versions)))
            }
            response => Err(unexpected(client.address(), &response)),
        }
    }

    fn begin(&mut self, session: OpenSession) -> Arc<OpenSession> {
        let session = Arc::new(session);
        self.session = Some(session.clone());
        let former = self.shared.session.lock().replace(session.clone());
        if let Some(SessionId(former)) = former.map(|former| former.id) {
            info_limited!(former, session = session.id.0, "the session has expired; a new one takes its place");
            self.shared.feed.interrupt();
        }
        session
    }

    async fn send_request(
        &self,
        client: &RpcClient,
        request: Request,
        deadline: Duration,
    ) -> Result<Response, AttachError> {
        let node = client.address();
        match send_request(client, &encode(&request), deadline).await {
            Ok(Response::NotLeader { leader: Some(leader) }) if leader != node => Err(AttachError::Moved(leader)),
            Ok(Response::NotLeader { .. }) => Err(AttachError::Failed(format!("{node} knows no leader"))),
            Ok(Response::Unavailable { reason }) => Err(AttachError::Failed(format!("{node}: {reason}"))),
            Ok(response) => Ok(response),
            Err(error) => Err(AttachError::Failed(error.to_string())),
        }
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.nonce = rand::random();
    }

    /// Sends keepalives until the connection is closed.
    async fn monitor(&self, attached: &LeaderConnection) {
        let mut tick = interval_at(Instant::now() + KEEPALIVE_EVERY, KEEPALIVE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut answers, mut requests) = (FeedAnswers::default(), None);
        let reported = Arc::<Mutex<Option<ClientReport>>>::default();
        let mut done = attached.done.lock().await;
        loop {
            tokio::select! {
                biased;
                () = attached.client.closed() => return,
                Some(done) = done.recv() => {
                    self.acknowledge(&attached.client, done);
                    continue;
                }
                () = attached.health.check.notified() => {}
                _ = tick.tick() => {}
            }
            self.report_changes(&attached.client, &reported);
            let answered = answers.current(&self.shared.feed);
            let sent = Moment::now();
            let keepalive = encode(&Request::KeepAlive { answered, nothing_open: self.nothing_open_at(requests) });
            match send_request(&attached.client, &keepalive, KEEPALIVE_DEADLINE).await {
                Ok(Response::Alive { applied, requests: count }) => {
                    self.shared.feed.memory.note_answered(sent);
                    answers.note(applied, &self.shared.feed);
                    requests = Some(count);
                }
                Ok(Response::NotLeader { leader }) => attached.note_moved(leader),
                Ok(Response::Unavailable { .. }) => attached.note_unavailable(),
                Ok(response) if is_no_session(&response) => attached.note_expired(),
                Ok(response) => self.drop_connection(attached, format!("an unexpected answer: {response:?}")),
                Err(error) => self.drop_connection(attached, error.to_string()),
            }
        }
    }

    /// Tells the leader that a notice is handled. If that is lost, the leader waits until the lease has run out.
    fn acknowledge(&self, client: &RpcClient, NoticeDone { notice, keeps }: NoticeDone) {
        let client = client.clone();
        tasks::spawn(async move {
            let request = encode(&Request::Acknowledge { notice, keeps });
            if let Err(error) = send_request(&client, &request, KEEPALIVE_DEADLINE).await {
                debug!(%error, notice, "the leader did not confirm an acknowledgement");
            }
        });
    }

    /// Sends the client's report beside the keepalive, unless the leader has received the same one on this connection.
    /// Its loss does no harm, so nothing waits for it.
    fn report_changes(&self, client: &RpcClient, reported: &Arc<Mutex<Option<ClientReport>>>) {
        let Some(report) = self.shared.report.get().map(|report| report()) else { return };
        if *reported.lock() == Some(report) {
            return;
        }
        let (client, reported) = (client.clone(), reported.clone());
        tasks::spawn(async move {
            let sent = send_request(&client, &encode(&Request::Report(report)), KEEPALIVE_DEADLINE).await;
            if matches!(sent, Ok(Response::Reported)) {
                *reported.lock() = Some(report);
            }
        });
    }

    /// Returns the count of requests that the leader has sent, if the session has nothing open after all of them.
    fn nothing_open_at(&self, requests: Option<SessionRequests>) -> Option<SessionRequests> {
        requests.filter(|_| self.shared.nothing_open.get().is_some_and(|nothing_open| nothing_open()))
    }

    fn drop_connection(&self, attached: &LeaderConnection, reason: String) {
        self.note_failure(reason);
        attached.client.close();
    }

    fn learn_from(&mut self, attached: &LeaderConnection) {
        if attached.health.expired.load(Ordering::SeqCst) {
            self.forget_session();
            self.candidates.prefer(attached.client.address());
        } else if let Some(leader) = *attached.health.leader.lock() {
            self.candidates.prefer(leader);
        } else {
            self.candidates.avoid(attached.client.address());
        }
    }
}

/// How much of the feed on one connection has been answered, in terms of the leader's log.
#[derive(Default)]
struct FeedAnswers {
    answered: u64,
    /// A place in the log, and how many events had been received when every event up to that place had been.
    received: Option<(u64, u64)>,
}

impl FeedAnswers {
    /// Notes that all events up to `applied` have been received.
    fn note(&mut self, applied: u64, feed: &ChangeFeed) {
        self.received.get_or_insert_with(|| (applied, feed.received()));
    }

    /// Returns the place in the log up to which all events have been handled.
    fn current(&mut self, feed: &ChangeFeed) -> u64 {
        if let Some((applied, _)) = self.received.take_if(|(_, received)| feed.has_handled(*received)) {
            self.answered = applied;
        }
        self.answered
    }
}

fn is_no_session(response: &Response) -> bool {
    matches!(response, Response::Applied(Err(FsError::NoSession), _) | Response::Answered(Err(FsError::NoSession), _))
}

fn unexpected(node: SocketAddr, response: &Response) -> AttachError {
    AttachError::Failed(match response {
        Response::Applied(Err(error), _) | Response::Answered(Err(error), _) => format!("{node}: {error}"),
        other => format!("{node} answered {other:?}"),
    })
}
