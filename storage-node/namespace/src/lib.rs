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
//! | `settings.rs`, `answer_terms.rs`, `raft_types.rs` | settings; when an answer may be given; the types that parametrize openraft |
//! | `storage/` | log, snapshot and namespace id on disk |
//! | `state/` | the tables under Raft, and the change feed |
//! | `raft/` | this node's Raft, the network to the other members, where the leader is |
//! | `membership/` | which nodes vote; giving up the vote; another namespace in the ring |
//! | `serve/` | requests of mounts, Raft messages, leases, garbage collection |
//! | `recover.rs` | continuing without a majority that is lost for ever, on an operator's request |
//! | `start.rs`, `duties.rs` | starting all parts, and their background tasks |
//! | `renewal.rs` | beginning anew after the other members have removed this node |

#[expect(unreachable_pub, reason = "a public trait of openraft names these types")]
mod answer_terms;
mod duties;
mod membership;
mod raft;
#[expect(unreachable_pub, reason = "a public trait of openraft names these types")]
mod raft_types;
mod recover;
mod renewal;
mod serve;
mod settings;
mod start;
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

use chordfs_history::latency::LatencyMeter;
use chordfs_net::{http_pool::HttpPool, rpc::RpcPeer};
use chordfs_tables::SessionDescription;
use chordfs_types::{
    admin::{LeaseStatus, LoggedStatus, SessionStatus},
    namespace::SessionId,
    ring_id::Neighbours,
};
use duties::DutyStarter;
pub use membership::missing::NO_NAMESPACE;
use membership::resignation::VoterResignation;
use parking_lot::RwLock;
use raft::{handle::RaftHandle, leader::LeaderTracking};
pub use recover::{Recovered, Recovery, become_only_voter};
pub use serve::garbage::{Deleter, DeleterFuture, DeletionTargets, FailedDeletion};
pub use serve::placement::{ChunkPlacer, ChunkPlacerFuture, ChunkToPlace};
use serve::{
    raft_api::{self, RaftApi},
    requests::RequestHandler,
};
pub use settings::{NamespaceSettings, RootOwner, SnapshotInterval};
use state::session_feed::{SessionContact, SessionFeed};
use storage::log_store::LogStore;
pub use storage::{
    log_file::DamagePolicy,
    set_aside::{has_log, set_log_aside},
};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_util::sync::CancellationToken;

/// Operators are shown as many sessions at most.
pub const MAX_LISTED_SESSIONS: usize = 1000;

/// Gives the data folder another random uid, durably, and returns it.
pub type UidRenewal = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

#[derive(Clone)]
pub struct NamespaceConfig {
    /// The node's id: random, one for each data folder and each time that it becomes a member, never reused.
    pub uid: u64,
    /// Used when the other members have removed this node.
    pub renew_uid: UidRenewal,
    /// The node's ring address.
    pub node: SocketAddr,
    /// The node's data folder; the namespace is stored in `namespace` below it.
    pub dir: PathBuf,
    pub neighbours: watch::Receiver<Neighbours>,
    /// Whether this node founds a namespace, unless there is one in its folder.
    pub create: bool,
    /// Ring addresses of the nodes given with `--join`; empty for a ring's first node.
    pub join: Vec<SocketAddr>,
    pub pool: Arc<HttpPool>,
    /// Deletes chunks from the ring; used while this node leads.
    pub deleter: Deleter,
    /// Stores logged chunks on their holders; used while this node leads.
    pub placer: ChunkPlacer,
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
pub struct MemberStatus {
    pub uid: u64,
    pub term: u64,
    pub leads: bool,
    pub voter: bool,
    pub leader: Option<SocketAddr>,
    pub voters: BTreeMap<u64, SocketAddr>,
    pub last_log_index: Option<u64>,
    pub applied_index: Option<u64>,
    pub snapshot_index: Option<u64>,
    /// See [`LeaseStatus`].
    pub leases: LeaseStatus,
    /// See [`LoggedStatus`].
    pub logged: LoggedStatus,
    /// Whether a leader has reported recently that a majority follows it, or this node is that leader.
    pub leader_confirmed: bool,
    /// While this node leads: of each other voter its ring address, the entries of the log that it has not confirmed,
    /// and the time since its last answer.
    pub lags: Vec<(SocketAddr, u64, Duration)>,
    /// Why this node no longer takes part, if it has failed; it does not recover by itself.
    pub failed: Option<String>,
}

/// This node's part in the namespace. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    shared: Arc<SharedNamespace>,
}

struct SharedNamespace {
    config: NamespaceConfig,
    meters: NamespaceMeters,
    /// Replaced when this node begins anew.
    services: RwLock<Arc<NamespaceServices>>,
    /// Held while they are replaced.
    renewal: AsyncMutex<()>,
    /// Cancelled when this node is to stop.
    stop: CancellationToken,
}

/// Measures over the whole life of the process.
#[derive(Clone, Default)]
struct NamespaceMeters {
    operations: Arc<LatencyMeter>,
    appends: Arc<LatencyMeter>,
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

impl NamespaceServices {
    async fn stop(&self) {
        let Self { raft, log, duties, .. } = self;
        duties.stop.cancel();
        duties.tasks.close();
        duties.tasks.wait().await;
        log.end_waits_for_space();
        if let Err(error) = raft.openraft().shutdown().await {
            tracing::warn!(%error, "the namespace's Raft did not stop cleanly");
        }
        if let Err(error) = log.close().await {
            tracing::debug!(%error, "the namespace's log was closed already");
        }
    }
}

impl Namespace {
    /// Opens the namespace in the folder, or founds one. Without either, this node becomes a member when a leader adds
    /// it.
    pub async fn start(config: NamespaceConfig) -> Result<Self, NamespaceError> {
        let meters = NamespaceMeters::default();
        let services = Arc::new(start::start(config.clone(), meters.clone()).await?);
        let (renewal, stop) = (AsyncMutex::default(), CancellationToken::new());
        let shared = SharedNamespace { config, meters, services: RwLock::new(services), renewal, stop };
        let namespace = Self { shared: Arc::new(shared) };
        tokio::spawn(renewal::begin_anew_when_removed(namespace.clone()));
        Ok(namespace)
    }

    fn services(&self) -> Arc<NamespaceServices> {
        self.shared.services.read().clone()
    }

    /// The services, for a node that does not want to vote. They are not replaced until it wants to again: the leader
    /// has to know it by one id.
    async fn services_that_decline(&self) -> Arc<NamespaceServices> {
        let _no_renewal = self.shared.renewal.lock().await;
        let services = self.services();
        services.resignation.set_declines();
        services
    }

    /// Raft's routes, to be served on the administration plane.
    pub fn routes(&self) -> axum::Router {
        raft_api::routes(self.clone())
    }

    /// Carries out a call of `calls::NAMESPACE` by the mount at the other end of `peer`, and returns the response.
    pub async fn handle(&self, peer: &RpcPeer, request: &[u8]) -> Vec<u8> {
        self.services().requests.handle(peer, peer.caller(), request).await.into()
    }

    /// Stops all tasks; this node stays a member. When this returns the folder may be opened again.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let _no_renewal = self.shared.renewal.lock().await;
        self.services().stop().await;
    }

    /// Gives up this node's leadership and vote, before it leaves for good.
    pub async fn leave(&self, deadline: Duration) -> Result<(), NamespaceError> {
        let services = self.services_that_decline().await;
        let left = tokio::time::timeout(deadline, services.resignation.leave()).await;
        left.unwrap_or_else(|_| Err(format!("not done within {deadline:?}"))).map_err(NamespaceError::Leave)
    }

    /// Reverts [`Namespace::leave`], wherever it was interrupted: this node may be chosen as a voter again. It has to
    /// be called until it returns true.
    pub async fn stay(&self) -> bool {
        self.services().resignation.stay().await
    }

    /// Asks the leader not to choose this node as a voter, while it drains, or with `leaving` false allows it again.
    pub async fn decline(&self, leaving: bool) {
        let services = if leaving { self.services_that_decline().await } else { self.services() };
        services.resignation.decline(leaving).await;
    }

    /// Resolves with the reason when the namespace has failed on this node: a broken disk, a damaged file, another
    /// namespace in the ring. It does not recover by itself; the process should end.
    pub async fn failed(&self) -> String {
        loop {
            let services = self.services();
            let reason = services.raft.failed().await;
            let _no_renewal = self.shared.renewal.lock().await;
            if Arc::ptr_eq(&services, &self.services()) {
                return services.raft.failure().unwrap_or(reason);
            }
        }
    }

    /// The id of the namespace that this node belongs to, or otherwise of the last known leader's.
    pub fn id(&self) -> Option<u64> {
        self.services().leader.namespace()
    }

    pub fn is_voter(&self) -> bool {
        self.services().leader.is_voter()
    }

    pub fn is_leader(&self) -> bool {
        self.services().raft.has_lease()
    }

    /// Asks the leader to remove this node from the members; returns whether that is done.
    pub async fn request_removal(&self) -> bool {
        self.services_that_decline().await.resignation.request_removal().await
    }

    /// The leader's ring address, as far as this node knows.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.services().leader.leader()
    }

    /// Ring addresses of the voters, as far as this node knows.
    pub fn voters(&self) -> Vec<SocketAddr> {
        self.services().leader.voters()
    }

    /// How long the operations and queries took that this node has carried out.
    pub fn operation_latency(&self) -> &Arc<LatencyMeter> {
        &self.shared.meters.operations
    }

    /// How long appends to the log of this node took until they were on the disk.
    pub fn append_latency(&self) -> &Arc<LatencyMeter> {
        &self.shared.meters.appends
    }

    /// The open sessions, at most [`MAX_LISTED_SESSIONS`]; `None` unless this node leads, because mounts are connected
    /// to the leader only.
    pub fn sessions(&self) -> Option<Vec<SessionStatus>> {
        let services = self.services();
        let NamespaceServices { raft, feed, .. } = &*services;
        if !raft.has_lease() {
            return None;
        }
        let sessions = raft.state().session_descriptions(MAX_LISTED_SESSIONS);
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
        let lease = raft.settings().session_lease;
        let status = |(session, contact): (SessionDescription, SessionContact)| SessionStatus {
            id: session.id.0,
            client: session.client.to_string(),
            addresses: contact.addresses,
            silent_seconds: contact.silent.as_secs(),
            lease_seconds_left: lease.saturating_sub(contact.silent).as_secs(),
            held_files: session.held_inodes as u64,
            dirty_bytes: contact.report.map(|report| report.dirty_bytes),
            open_files: contact.report.map(|report| report.open_files),
            is_mount: session.holds_leases,
            is_suspended: session.is_suspended,
            leases: contact.leases as u64,
            recalls: contact.recalls as u64,
            unlogged_changes: contact.report.map(|report| report.unlogged_changes),
            oldest_unlogged_millis: contact.report.map(|report| report.oldest_unlogged_millis),
        };
        Some(sessions.into_iter().zip(feed.contacts(&ids, Instant::now())).map(status).collect())
    }

    fn lease_status(&self) -> LeaseStatus {
        let services = self.services();
        let NamespaceServices { feed, requests, .. } = &*services;
        let (held, notices) = feed.lease_counts();
        let (waits, waited) = requests.waits.total();
        LeaseStatus {
            sessions: feed.attached_sessions() as u64,
            held: held as u64,
            changed: notices.changed,
            recalled: notices.recalled,
            revoked: notices.revoked,
            wanted: notices.wanted,
            waits,
            waited_millis: waited.as_millis() as u64,
        }
    }

    pub fn status(&self) -> MemberStatus {
        let services = self.services();
        let NamespaceServices { raft, leader, .. } = &*services;
        let metrics = raft.look(Clone::clone);
        let members = &metrics.membership_config;
        let address = |uid: u64| members.get_node(&uid).map(|member| (uid, member.ring));
        MemberStatus {
            uid: raft.uid(),
            term: metrics.current_term,
            leads: raft.has_lease(),
            voter: leader.is_voter(),
            leader: leader.leader(),
            voters: members.voter_ids().filter_map(address).collect(),
            last_log_index: metrics.last_log_index,
            applied_index: raft.state().last_applied().map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.map(|log_id| log_id.index),
            leases: self.lease_status(),
            logged: raft.state().logged_status(),
            leader_confirmed: leader.is_confirmed(),
            lags: raft.voter_lags(),
            failed: raft.failure(),
        }
    }
}
