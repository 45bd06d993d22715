//! The namespace: who is called what, and which versions make a file.
//!
//! The tables are a pure state machine; Raft (openraft, in this room alone) keeps copies of them equal on a few storage
//! nodes. Every storage node starts a [`Namespace`]: most only know who leads, some vote, one leads. The leader answers
//! mounts, tells them what changed, keeps their leases, chooses who votes, and takes out the garbage.
//!
//! | file | what |
//! |---|---|
//! | `tables/` | the state machine, pure |
//! | `state_machine.rs`, `snapshot.rs` | the tables under Raft, and their file |
//! | `log_store.rs`, `log_writer.rs`, `log_file.rs`, `small_file.rs` | the log: in memory, its thread, its files |
//! | `network.rs`, `raft_api.rs`, `raft_types.rs` | Raft between nodes: client, server, messages |
//! | `namespace_id.rs`, `rival.rs` | which namespace this is, and what to do about another one in the ring |
//! | `membership.rs`, `membership_task.rs`, `leave.rs` | who votes: the decision (pure), doing it, leaving |
//! | `dead_leader.rs` | replacing a leader that has ended without waiting for its lease |
//! | `room.rs` | what a node does while its disk is full |
//! | `recover.rs` | going on when a majority is lost for ever, at an operator's word |
//! | `service.rs`, `feed.rs`, `leader.rs` | what mounts ask, what they are told, and where the leader is |
//! | `duties.rs`, `garbage.rs` | what a leader does without being asked |

mod dead_leader;
mod duties;
mod feed;
pub mod garbage;
mod leader;
mod leave;
mod log_file;
mod log_store;
mod log_writer;
mod membership;
mod membership_task;
mod namespace_id;
mod network;
mod raft_api;
mod raft_types;
mod recover;
mod rival;
mod room;
mod service;
mod small_file;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use chordfs_net::http_pool::HttpPool;
use chordfs_types::ring_id::Neighbours;
use feed::Feed;
use garbage::Deleter;
use leader::LeaderHint;
use log_store::LogStore;
use namespace_id::NamespaceId;
pub use network::Identity;
use network::Network;
use openraft::{
    Config, Instant as _, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    type_config::alias::{CommittedLeaderIdOf, WatchReceiverOf},
};
use parking_lot::Mutex;
use raft_types::{Member, Raft, TypeConfig};
pub use recover::{Recovered, Recovery, become_only_voter};
use state_machine::{State, StateMachine};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Raft names its clusters; ours needs no telling apart.
const CLUSTER: &str = "chordfs";
/// Entries sent to a member at once at most; their bytes are limited too.
const APPEND_ENTRIES: u64 = 1024;
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(600);

pub struct NamespaceConfig {
    /// The node's own id for ever: random, one for each data folder, never given to another.
    pub uid: u64,
    /// Its ring address.
    pub node: SocketAddr,
    /// Its data folder; the namespace lives in `namespace` below it.
    pub dir: PathBuf,
    pub neighbours: watch::Receiver<Neighbours>,
    /// This is a ring's first node: begin a namespace, unless there is one in the folder.
    pub create: bool,
    /// Ring addresses of the nodes it was told to join; empty for a ring's first node.
    pub join: Vec<SocketAddr>,
    pub pool: Arc<HttpPool>,
    /// How chunks are deleted from the ring; used while this node leads.
    pub deleter: Deleter,
    pub settings: Settings,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub heartbeat: Duration,
    /// A follower that hears nothing waits `election_timeout_max`, the leader's lease, and then between the two.
    pub election_timeout_min: Duration,
    pub election_timeout_max: Duration,
    /// How long a voter may be silent before another takes its place.
    pub member_patience: Duration,
    /// How long a member may take to answer a message.
    pub message_deadline: Duration,
    /// How long an operation or a query may take before its sender is told to ask again.
    pub call_deadline: Duration,
    /// How long a session may be silent before what it holds is released.
    pub session_lease: Duration,
    /// A snapshot is made after so many log entries, or so many bytes of them; they are in memory until then.
    pub snapshot_after_entries: u64,
    pub snapshot_after_bytes: u64,
    /// Entries that are kept all the same, for followers that lag.
    pub keep_entries: u64,
    pub log_file_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_timeout_min: Duration::from_millis(700),
            election_timeout_max: Duration::from_millis(1300),
            member_patience: Duration::from_secs(30),
            message_deadline: Duration::from_millis(1000),
            call_deadline: Duration::from_secs(10),
            session_lease: Duration::from_secs(60),
            snapshot_after_entries: 20_000,
            snapshot_after_bytes: 64 << 20,
            keep_entries: 2_000,
            log_file_bytes: 16 << 20,
        }
    }
}

#[derive(Debug, Error)]
pub enum NamespaceError {
    #[error("cannot open the namespace in {}: {source}", dir.display())]
    Open { dir: PathBuf, source: io::Error },
    #[error("the namespace's settings do not fit together: {0}")]
    Settings(String),
    #[error("the namespace cannot start: {0}")]
    Start(String),
    #[error("the namespace cannot leave: {0}")]
    Leave(String),
}

/// Whether and how this node takes part, for people and for metrics.
#[derive(Clone, Debug)]
pub struct Status {
    pub uid: u64,
    pub term: u64,
    pub leads: bool,
    pub voter: bool,
    pub leader: Option<SocketAddr>,
    pub voters: BTreeMap<u64, SocketAddr>,
    pub last_log_index: Option<u64>,
    pub applied_index: Option<u64>,
    pub snapshot_index: Option<u64>,
    pub attached_sessions: usize,
    /// Why Raft has stopped here, if it has; it does not start again by itself.
    pub failed: Option<String>,
}

/// This node's part in the namespace. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

/// One reign: term and leader.
type Leadership = CommittedLeaderIdOf<TypeConfig>;

struct Inner {
    uid: u64,
    id: Arc<NamespaceId>,
    ring: SocketAddr,
    dir: PathBuf,
    raft: Raft,
    metrics: WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>,
    state: State,
    feed: Arc<Feed>,
    log: LogStore,
    network: Network,
    neighbours: watch::Receiver<Neighbours>,
    join: Vec<SocketAddr>,
    settings: Settings,
    hint: LeaderHint,
    /// Nodes that asked to be let go, or to be kept after all; the leader's membership task takes them from here.
    leaving: Mutex<Vec<(u64, bool)>>,
    /// The reign that is being handed over: the next leader need not wait for its lease to end.
    handed_over: Mutex<Option<Leadership>>,
    /// The term whose leader this voter finds dead; see [`dead_leader`].
    dead_leader: Mutex<dead_leader::DeadLeader>,
    /// Until then it grants no vote: before it was restarted it may have confirmed the leader's lease.
    no_vote_before: Option<Instant>,
    /// When last looked at, the neighbours knew of no other namespace than this node's; see [`rival`].
    peaceful: AtomicBool,
    /// Why this node takes no part any more, if Raft itself goes on.
    failure: watch::Sender<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Namespace {
    /// Opens what is in the folder, or begins; takes its place among the members as soon as they call.
    pub async fn start(config: NamespaceConfig) -> Result<Self, NamespaceError> {
        let NamespaceConfig { uid, node, dir, neighbours, create, join, pool, deleter, settings } = config;
        let dir = dir.join("namespace");
        // Only a ring's first node may lead before it has looked around.
        let raft_config = Arc::new(Config { enable_elect: create, ..raft_config(&settings)? });
        let (state, feed) = (State::default(), Arc::new(Feed::default()));
        let opened = open(dir.clone(), uid, settings.log_file_bytes, state.clone(), feed.clone()).await;
        let cannot_open = |source| NamespaceError::Open { dir: dir.clone(), source };
        let (log, machine) = opened.map_err(cannot_open)?;
        let id = Arc::new(NamespaceId::open(&dir, log.is_pristine()).map_err(cannot_open)?);
        let begin = create && log.is_pristine();
        let no_vote_before = (!log.is_pristine()).then(|| Instant::now() + settings.election_timeout_max);
        if begin {
            id.found().map_err(cannot_open)?;
        }
        let network = Network::new(uid, id.clone(), pool, settings.message_deadline);
        let raft = Raft::new(uid, raft_config, network.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| NamespaceError::Start(error.to_string()))?;
        if begin {
            let first = BTreeMap::from([(uid, Member { ring: node })]);
            raft.initialize(first).await.map_err(|error| NamespaceError::Start(error.to_string()))?;
        }
        let inner = Arc::new(Inner {
            uid,
            id,
            ring: node,
            dir,
            metrics: raft.metrics(),
            raft,
            state,
            feed,
            log,
            network,
            neighbours,
            join,
            settings,
            hint: LeaderHint::default(),
            leaving: Mutex::default(),
            handed_over: Mutex::default(),
            dead_leader: Mutex::default(),
            no_vote_before,
            peaceful: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        duties::spawn(&inner, deleter);
        Ok(Self { inner })
    }

    /// Raft's routes, to be served on the administration plane.
    pub fn routes(&self) -> axum::Router {
        raft_api::routes(self.inner.clone())
    }

    /// Stops taking part, without leaving. When this returns the folder may be opened again.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!(%error, "the namespace's Raft did not stop cleanly");
        }
        if let Err(error) = inner.log.close().await {
            tracing::debug!(%error, "the namespace's log was closed already");
        }
    }

    /// Gives up this node's vote, and the lead, before it goes away for good.
    pub async fn leave(&self, deadline: Duration) -> Result<(), NamespaceError> {
        let left = tokio::time::timeout(deadline, leave::leave(&self.inner)).await;
        left.unwrap_or_else(|_| Err(format!("not done within {deadline:?}"))).map_err(NamespaceError::Leave)
    }

    /// Takes [`Namespace::leave`] back, wherever it was broken off: this node may be chosen as a voter again. To be called
    /// until it returns true.
    pub async fn stay(&self) -> bool {
        leave::stay(&self.inner).await
    }

    /// Tells the leader, while this node drains, not to choose it as a voter; or that it may again.
    pub async fn decline(&self, leaving: bool) {
        leave::decline(&self.inner, leaving).await;
    }

    /// Resolves, with the reason, when the namespace has failed on this node: a broken disk, a damaged file, a ring that
    /// has another namespace. It does not recover by itself; the process should end.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.failure.subscribe();
        tokio::select! {
            Ok(reason) = failure.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
            reason = self.raft_failed() => reason,
        }
    }

    async fn raft_failed(&self) -> String {
        let stopped = self.inner.raft.wait(None).metrics(|metrics| metrics.running_state.is_err(), "failure").await;
        match stopped.map(|metrics| metrics.running_state) {
            Ok(Err(fatal)) => fatal.to_string(),
            Ok(Ok(())) => "Raft has stopped".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Which namespace this node belongs to, or follows by hearsay.
    pub fn id(&self) -> Option<u64> {
        self.inner.namespace()
    }

    pub fn is_voter(&self) -> bool {
        self.inner.is_voter()
    }

    pub fn is_leader(&self) -> bool {
        self.inner.leads()
    }

    /// Tells the leader that this node goes away; whether nothing is left for it to give up.
    pub async fn is_let_go(&self) -> bool {
        leave::is_let_go(&self.inner).await
    }

    /// The leader's ring address, as far as this node knows.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.inner.leader()
    }

    /// Ring addresses of the voters, as far as this node knows.
    pub fn voters(&self) -> Vec<SocketAddr> {
        self.inner.voters()
    }

    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let metrics = inner.metrics.borrow_watched().clone();
        let members = &metrics.membership_config;
        let address = |uid: u64| members.get_node(&uid).map(|member| (uid, member.ring));
        Status {
            uid: inner.uid,
            term: metrics.current_term,
            leads: inner.leads(),
            voter: inner.is_voter(),
            leader: inner.leader(),
            voters: members.voter_ids().filter_map(address).collect(),
            last_log_index: metrics.last_log_index,
            applied_index: inner.state.last_applied().map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.map(|log_id| log_id.index),
            attached_sessions: inner.feed.attached_sessions(),
            failed: inner
                .failure
                .borrow()
                .clone()
                .or_else(|| metrics.running_state.err().map(|fatal| fatal.to_string())),
        }
    }
}

impl Inner {
    /// A node that was voted out may never have been told, so the leader's word counts against its own.
    fn is_voter(&self) -> bool {
        let voter = self.metrics.borrow_watched().membership_config.voter_ids().any(|uid| uid == self.uid);
        voter && (self.leads() || self.hint_says_voter().unwrap_or(true))
    }

    /// Leads, and no other can before the lease has ended.
    fn leads(&self) -> bool {
        self.leadership().is_some()
    }

    /// The same, and which leadership it is: another one is another reign, though of the same node.
    fn leadership(&self) -> Option<Leadership> {
        let leader = self.leased();
        leader.filter(|leader| self.state.last_applied().is_some_and(|last| last.leader_id == *leader))
    }

    /// The leadership this node holds, if a majority has confirmed it so lately that no other can have been elected.
    fn leased(&self) -> Option<Leadership> {
        let metrics = self.metrics.borrow_watched();
        let vote = &metrics.vote;
        if !metrics.state.is_leader() || !vote.committed || vote.leader_id.node_id != self.uid {
            return None;
        }
        let configs = metrics.membership_config.get_joint_config();
        let alone = configs.len() == 1 && configs[0].len() == 1 && configs[0].contains(&self.uid);
        let confirmed = metrics.last_quorum_acked.is_some_and(|at| at.into_inner().elapsed() < self.lease_of_leader());
        let leased = (alone || confirmed) && !self.has_failed() && *self.handed_over.lock() != Some(vote.leader_id);
        leased.then_some(vote.leader_id)
    }

    /// Raft says that this node leads, with or without a lease.
    fn reigns(&self) -> Option<Leadership> {
        let metrics = self.metrics.borrow_watched();
        let reigns = metrics.state.is_leader() && metrics.vote.leader_id.node_id == self.uid;
        (reigns && !self.has_failed()).then_some(metrics.vote.leader_id)
    }

    fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    fn identity(&self) -> Identity {
        Identity {
            uid: self.uid,
            namespace: self.namespace(),
            ring: self.ring,
            term: self.leader_term(),
            voter: self.is_voter(),
            leads: self.leads(),
            leader: self.leader(),
            voters: self.voters(),
            members: self.metrics.borrow_watched().membership_config.nodes().map(|(uid, _)| *uid).collect(),
            dead_leader: self.dead_leader.lock().told(Instant::now()),
        }
    }
}

async fn open(
    dir: PathBuf,
    uid: u64,
    file_bytes: u64,
    state: State,
    feed: Arc<Feed>,
) -> io::Result<(LogStore, StateMachine)> {
    let opening = move || {
        let log = LogStore::open(&dir, uid, file_bytes)?;
        Ok((log, StateMachine::open(&dir, state, feed)?))
    };
    tokio::task::spawn_blocking(opening).await.map_err(io::Error::other)?
}

fn raft_config(settings: &Settings) -> Result<Config, NamespaceError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = Config {
        cluster_name: CLUSTER.into(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_timeout_min),
        election_timeout_max: millis(settings.election_timeout_max),
        install_snapshot_timeout: millis(SNAPSHOT_DEADLINE),
        max_payload_entries: APPEND_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_after_entries),
        max_in_snapshot_log_to_keep: settings.keep_entries,
        // A member behind the kept entries needs the snapshot; one within them never does.
        replication_lag_threshold: settings.snapshot_after_entries.saturating_mul(4),
        purge_batch_size: settings.keep_entries.clamp(1, 256),
        enable_pre_vote: Some(true),
        // The tables are not durable by themselves, so a leader that restarts has to be elected anew.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| NamespaceError::Settings(error.to_string()))
}
