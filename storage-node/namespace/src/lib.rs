//! The namespace: the names of files, and the versions that make up their contents.
//!
//! The tables (`chordfs-tables`) are a pure state machine; Raft (openraft, in this crate alone) keeps copies of them
//! equal on a few storage nodes. Every storage node starts a [`Namespace`]: most only know the leader, some vote, one
//! leads. The leader answers mounts, sends them the change feed, keeps their leases, chooses the voters, and collects
//! the garbage.
//!
//! A room uses only those above it.
//!
//! | room or file | what |
//! |---|---|
//! | `settings.rs`, `raft_types.rs` | settings; the types that parametrize openraft |
//! | `storage/` | log, snapshot and namespace id on disk |
//! | `state/` | the tables under Raft, and the change feed |
//! | `raft/` | this node's Raft, the network to the other members, where the leader is |
//! | `membership/` | which nodes vote; giving up the vote; another namespace in the ring |
//! | `serve/` | requests of mounts, Raft messages, leases, garbage collection |
//! | `recover.rs` | continuing when a majority is lost for ever, on an operator's request |
//! | `duties.rs` | the background tasks |

mod duties;
mod membership;
mod raft;
#[expect(unreachable_pub, reason = "a public trait of openraft names these types")]
mod raft_types;
mod recover;
mod serve;
mod settings;
mod state;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_net::{http_pool::HttpPool, rpc::RpcPeer};
use chordfs_types::ring_id::Neighbours;
use duties::DutyStarter;
pub use membership::missing::NO_NAMESPACE;
use membership::{
    full_disk,
    guard::NamespaceGuard,
    missing,
    resignation::VoterResignation,
    voter_manager::{LeaveRequests, VoterManager},
};
use raft::{
    dead_leader::DeadLeaderDetector,
    handle::{Raft, RaftHandle},
    leader::LeaderTracking,
    network::Network,
};
use raft_types::RaftMember;
pub use recover::{Recovered, Recovery, become_only_voter};
pub use serve::garbage::{Deleter, DeleterFuture};
use serve::{
    garbage::GarbageCollector,
    leases::SessionLeases,
    raft_api::{self, RaftApi},
    requests::RequestHandler,
    root_owner,
};
pub use settings::{NamespaceSettings, RootOwner};
use state::{
    session_feed::SessionFeed,
    state_machine::{NamespaceState, StateMachine},
};
use storage::{log_store::LogStore, namespace_id::NamespaceId};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct NamespaceConfig {
    /// The node's own id for ever: random, one for each data folder, never given to another.
    pub uid: u64,
    /// Its ring address.
    pub node: SocketAddr,
    /// Its data folder; the namespace is stored in `namespace` below it.
    pub dir: PathBuf,
    pub neighbours: watch::Receiver<Neighbours>,
    /// Whether this node founds a namespace, unless there is one in its folder.
    pub create: bool,
    /// Ring addresses of the nodes that it was started to join; empty for a ring's first node.
    pub join: Vec<SocketAddr>,
    pub pool: Arc<HttpPool>,
    /// Deletes chunks from the ring; used while this node leads.
    pub deleter: Deleter,
    pub settings: NamespaceSettings,
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

/// This node's part in the namespace, for operators and metrics.
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
    services: Arc<NamespaceServices>,
}

struct NamespaceServices {
    raft: Arc<RaftHandle>,
    leader: Arc<LeaderTracking>,
    resignation: Arc<VoterResignation>,
    requests: RequestHandler,
    api: Arc<RaftApi>,
    feed: Arc<SessionFeed>,
    log: LogStore,
    duties: DutyStarter,
}

impl Namespace {
    /// Opens the namespace in the folder, or founds one; this node becomes a member as soon as the leader calls it.
    pub async fn start(config: NamespaceConfig) -> Result<Self, NamespaceError> {
        let NamespaceConfig { uid, node, dir, neighbours, create, join, pool, deleter, settings } = config;
        let dir = dir.join("namespace");
        // Only a ring's first node may lead before it has asked its neighbours.
        let raft_config = settings::raft_config(&settings, join.is_empty()).map_err(NamespaceError::Settings)?;
        let (state, feed) = (NamespaceState::default(), Arc::new(SessionFeed::default()));
        let opened = open(dir.clone(), uid, settings.log_file_bytes, state.clone(), feed.clone()).await;
        let cannot_open = |source| NamespaceError::Open { dir: dir.clone(), source };
        let (log, machine) = opened.map_err(cannot_open)?;
        let id = Arc::new(NamespaceId::open(&dir, log.is_pristine()).map_err(cannot_open)?);
        let founds = create && log.is_pristine();
        let no_vote_before = (!log.is_pristine()).then(|| Instant::now() + settings.election_timeout_max);
        if founds {
            id.found().map_err(cannot_open)?;
        }
        let network = Network::new(uid, id.clone(), pool, settings.message_deadline);
        let raft = Raft::new(uid, Arc::new(raft_config), network.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| NamespaceError::Start(error.to_string()))?;
        if founds {
            let first = BTreeMap::from([(uid, RaftMember { ring: node })]);
            raft.initialize(first).await.map_err(|error| NamespaceError::Start(error.to_string()))?;
        }
        let raft = Arc::new(RaftHandle::new(uid, node, raft, state, settings));
        let leader = Arc::new(LeaderTracking::new(raft.clone(), id.clone(), network.clone(), neighbours.clone()));
        let disk = log.disk_space().clone();
        let dead_leader =
            Arc::new(DeadLeaderDetector::new(raft.clone(), leader.clone(), network.clone(), disk.clone()));
        let guard =
            NamespaceGuard::new(raft.clone(), leader.clone(), id.clone(), neighbours.clone(), join, dir.clone());
        let guard = Arc::new(guard);
        let leave_requests = Arc::new(LeaveRequests::default());
        let manager = VoterManager::new(raft.clone(), leave_requests.clone(), id.clone(), network.clone(), neighbours);
        let resignation = Arc::new(VoterResignation { raft: raft.clone(), leader: leader.clone(), network });
        let api = Arc::new(RaftApi {
            raft: raft.clone(),
            leader: leader.clone(),
            dead_leader: dead_leader.clone(),
            requests: leave_requests,
            id,
            dir,
            no_vote_before,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let requests = RequestHandler {
            raft: raft.clone(),
            leader: leader.clone(),
            feed: feed.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let duties = DutyStarter { stop, tasks };
        duties.start({
            let leader = leader.clone();
            async move { leader.follow().await }
        });
        duties.start({
            let guard = guard.clone();
            async move { guard.watch().await }
        });
        duties.start(duties::bound_log(raft.clone(), log.clone()));
        duties.start(async move { dead_leader.watch().await });
        duties.start(full_disk::step_aside(disk, resignation.clone()));
        duties.start(missing::report(leader.clone()));
        duties.start(root_owner::give_root(raft.clone(), guard.clone()));
        duties.start(SessionLeases { raft: raft.clone(), feed: feed.clone() }.run());
        duties.start(manager.run());
        duties.start(GarbageCollector::new(raft.clone(), guard, deleter).run());
        let services = NamespaceServices { raft, leader, resignation, requests, api, feed, log, duties };
        Ok(Self { services: Arc::new(services) })
    }

    /// Raft's routes, to be served on the administration plane.
    pub fn routes(&self) -> axum::Router {
        raft_api::routes(self.services.api.clone())
    }

    /// Answers the call `calls::NAMESPACE` of the mount at the other end of `peer`.
    pub async fn handle(&self, peer: &RpcPeer, request: &[u8]) -> Vec<u8> {
        self.services.requests.handle(peer, request).await.into()
    }

    /// Stops taking part, without leaving. When this returns the folder may be opened again.
    pub async fn shutdown(&self) {
        let NamespaceServices { raft, log, duties, .. } = &*self.services;
        duties.stop.cancel();
        duties.tasks.close();
        duties.tasks.wait().await;
        if let Err(error) = raft.openraft().shutdown().await {
            tracing::warn!(%error, "the namespace's Raft did not stop cleanly");
        }
        if let Err(error) = log.close().await {
            tracing::debug!(%error, "the namespace's log was closed already");
        }
    }

    /// Gives up this node's vote, and the lead, before it goes away for good.
    pub async fn leave(&self, deadline: Duration) -> Result<(), NamespaceError> {
        let left = tokio::time::timeout(deadline, self.services.resignation.leave()).await;
        left.unwrap_or_else(|_| Err(format!("not done within {deadline:?}"))).map_err(NamespaceError::Leave)
    }

    /// Reverts [`Namespace::leave`], wherever it was interrupted: this node may be chosen as a voter again. It has to
    /// be called until it returns true.
    pub async fn stay(&self) -> bool {
        self.services.resignation.stay().await
    }

    /// Tells the leader, while this node drains, not to choose it as a voter; or that it may again.
    pub async fn decline(&self, leaving: bool) {
        self.services.resignation.decline(leaving).await;
    }

    /// Resolves, with the reason, when the namespace has failed on this node: a broken disk, a damaged file, a ring
    /// that has another namespace. It does not recover by itself; the process should end.
    pub async fn failed(&self) -> String {
        self.services.raft.failed().await
    }

    /// The namespace that this node belongs to, or otherwise the last known leader's.
    pub fn id(&self) -> Option<u64> {
        self.services.leader.namespace()
    }

    pub fn is_voter(&self) -> bool {
        self.services.leader.is_voter()
    }

    pub fn is_leader(&self) -> bool {
        self.services.raft.has_lease()
    }

    /// Tells the leader that this node goes away; returns whether it has nothing left to give up.
    pub async fn is_let_go(&self) -> bool {
        self.services.resignation.is_let_go().await
    }

    /// The leader's ring address, as far as this node knows.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.services.leader.leader()
    }

    /// Ring addresses of the voters, as far as this node knows.
    pub fn voters(&self) -> Vec<SocketAddr> {
        self.services.leader.voters()
    }

    pub fn status(&self) -> Status {
        let NamespaceServices { raft, leader, feed, .. } = &*self.services;
        let metrics = raft.metrics().clone();
        let members = &metrics.membership_config;
        let address = |uid: u64| members.get_node(&uid).map(|member| (uid, member.ring));
        Status {
            uid: raft.uid(),
            term: metrics.current_term,
            leads: raft.has_lease(),
            voter: leader.is_voter(),
            leader: leader.leader(),
            voters: members.voter_ids().filter_map(address).collect(),
            last_log_index: metrics.last_log_index,
            applied_index: raft.state().last_applied().map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.map(|log_id| log_id.index),
            attached_sessions: feed.attached_sessions(),
            failed: raft.failure(),
        }
    }
}

async fn open(
    dir: PathBuf,
    uid: u64,
    file_bytes: u64,
    state: NamespaceState,
    feed: Arc<SessionFeed>,
) -> io::Result<(LogStore, StateMachine)> {
    let opening = move || {
        let log = LogStore::open(&dir, uid, file_bytes)?;
        Ok((log, StateMachine::open(&dir, state, feed)?))
    };
    tokio::task::spawn_blocking(opening).await.map_err(io::Error::other)?
}
