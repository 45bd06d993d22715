//! Starting this node's part in the namespace: the folder, then Raft, then the services, with their background tasks.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use chordfs_history::latency::LatencyMeter;
use chordfs_types::ring_id::Neighbours;
use openraft::Config;
use tokio::sync::watch;

use crate::{
    NamespaceConfig, NamespaceError, NamespaceMeters, NamespaceServices,
    duties::{self, DutyStarter},
    membership::{
        full_disk,
        guard::NamespaceGuard,
        missing,
        resignation::VoterResignation,
        voter_manager::{LeaveRequests, VoterManager},
        voter_watch,
    },
    raft::{
        dead_leader::DeadLeaderDetector,
        handle::{Raft, RaftHandle},
        leader::LeaderTracking,
        network::Network,
    },
    raft_types::RaftMember,
    serve::{
        garbage::{Deleter, GarbageCollector},
        lease_expiry::end_old_leases,
        lease_waits::LeaseWaits,
        leases::SessionLeases,
        placement::{ChunkPlacer, Placement},
        raft_api::RaftApi,
        requests::RequestHandler,
        root_owner,
    },
    settings::raft_config,
    state::{
        session_feed::SessionFeed,
        state_machine::{NamespaceState, StateMachine},
    },
    storage::{log_file::DamagePolicy, log_store::LogStore, namespace_id::NamespaceId, set_aside::finish_deletion},
};

pub(crate) async fn start(
    config: NamespaceConfig,
    meters: NamespaceMeters,
) -> Result<NamespaceServices, NamespaceError> {
    let (join, chunks) =
        (config.join.clone(), ChunkWork { deleter: config.deleter.clone(), placer: config.placer.clone() });
    let member = LocalMember::start(config, meters).await?;
    let duties = DutyStarter::default();
    let dead_leader = member.track_leader(&duties);
    let membership = member.manage_membership(&duties, join);
    member.serve_as_leader(&duties, membership.guard.clone(), chunks);
    Ok(member.into_services(duties, dead_leader, membership))
}

/// The namespace's folder, opened.
struct NamespaceFolder {
    log: LogStore,
    machine: StateMachine,
    id: Arc<NamespaceId>,
    /// This node founds a namespace here.
    founds: bool,
    no_vote_before: Option<Instant>,
}

impl NamespaceFolder {
    async fn open(
        dir: &Path,
        config: &NamespaceConfig,
        append_latency: Arc<LatencyMeter>,
        state: NamespaceState,
        feed: Arc<SessionFeed>,
    ) -> io::Result<Self> {
        let (log_dir, uid, file_bytes) = (dir.to_owned(), config.uid, config.settings.log_file_bytes);
        let data = config.dir.clone();
        let opening = move || {
            finish_deletion(&data)?;
            let log = LogStore::open_measured(&log_dir, uid, file_bytes, DamagePolicy::Refuse, append_latency)?;
            Ok::<_, io::Error>((log, StateMachine::open(&log_dir, state, feed)?))
        };
        let (log, machine) = tokio::task::spawn_blocking(opening).await.map_err(io::Error::other)??;
        let is_new = log.is_pristine();
        let id = Arc::new(NamespaceId::open(dir, is_new)?);
        let founds = config.create && is_new;
        if founds {
            id.found()?;
        }
        let no_vote_before = (!is_new).then(|| Instant::now() + config.settings.election_timeout_max);
        Ok(Self { log, machine, id, founds, no_vote_before })
    }
}

/// This node as a member of the namespace, or a future one: its running Raft, and the parts that several services use.
struct LocalMember {
    raft: Arc<RaftHandle>,
    leader: Arc<LeaderTracking>,
    network: Network,
    id: Arc<NamespaceId>,
    log: LogStore,
    meters: NamespaceMeters,
    feed: Arc<SessionFeed>,
    neighbours: watch::Receiver<Neighbours>,
    dir: PathBuf,
    no_vote_before: Option<Instant>,
}

/// What a leader does to the chunks on the nodes.
struct ChunkWork {
    deleter: Deleter,
    placer: ChunkPlacer,
}

/// The parts that decide whether this node votes, as far as other parts use them.
struct MembershipServices {
    guard: Arc<NamespaceGuard>,
    leave_requests: Arc<LeaveRequests>,
    resignation: Arc<VoterResignation>,
}

impl LocalMember {
    async fn start(config: NamespaceConfig, meters: NamespaceMeters) -> Result<Self, NamespaceError> {
        // Only a ring's first node may lead before it has asked its neighbours.
        let raft_config = raft_config(&config.settings, config.join.is_empty()).map_err(NamespaceError::Settings)?;
        let dir = config.dir.join("namespace");
        let (state, feed) = (NamespaceState::default(), Arc::new(SessionFeed::of_node(config.uid)));
        let opened = NamespaceFolder::open(&dir, &config, meters.appends.clone(), state.clone(), feed.clone()).await;
        let folder = opened.map_err(|source| NamespaceError::Open { dir: dir.clone(), source })?;
        let NamespaceConfig { uid, node, neighbours, pool, settings, .. } = config;
        let NamespaceFolder { log, id, no_vote_before, .. } = &folder;
        let (log, id, no_vote_before) = (log.clone(), id.clone(), *no_vote_before);
        let network = Network::new(uid, id.clone(), pool, settings.message_deadline);
        let raft = start_raft(uid, node, raft_config, network.clone(), folder).await?;
        let raft = Arc::new(RaftHandle::new(uid, node, raft, state, settings));
        let leader = Arc::new(LeaderTracking::new(raft.clone(), id.clone(), network.clone(), neighbours.clone()));
        Ok(Self { raft, leader, network, id, log, meters, feed, neighbours, dir, no_vote_before })
    }

    /// Keeps the leader's address current, and replaces a leader whose process has ended.
    fn track_leader(&self, duties: &DutyStarter) -> Arc<DeadLeaderDetector> {
        let Self { raft, leader, network, log, .. } = self;
        let disk = log.disk_space().clone();
        let dead_leader = Arc::new(DeadLeaderDetector::new(raft.clone(), leader.clone(), network.clone(), disk));
        let (tracking, detector) = (leader.clone(), dead_leader.clone());
        duties.start(async move { tracking.follow().await });
        duties.start(async move { detector.watch().await });
        duties.start(duties::bound_log(raft.clone(), log.clone(), self.dir.clone()));
        dead_leader
    }

    /// Watches for another namespace in the ring, or for a missing one, manages the voters while this node leads, and
    /// gives up the vote while the disk is full.
    fn manage_membership(&self, duties: &DutyStarter, join: Vec<SocketAddr>) -> MembershipServices {
        let Self { raft, leader, network, id, log, neighbours, dir, .. } = self;
        let guard =
            NamespaceGuard::new(raft.clone(), leader.clone(), id.clone(), neighbours.clone(), join, dir.clone());
        let guard = Arc::new(guard);
        let leave_requests = Arc::new(LeaveRequests::default());
        let requests = leave_requests.clone();
        let manager = VoterManager::new(raft.clone(), requests, id.clone(), network.clone(), neighbours.clone());
        let (raft, leader, network) = (raft.clone(), leader.clone(), network.clone());
        let resignation = Arc::new(VoterResignation::new(raft, leader, network));
        duties.start(missing::report(self.leader.clone()));
        duties.start(voter_watch::report(self.raft.clone(), self.leader.clone()));
        let watching = guard.clone();
        duties.start(async move { watching.watch().await });
        duties.start(manager.run());
        duties.start(full_disk::step_down_while_full(log.disk_space().clone(), resignation.clone()));
        MembershipServices { guard, leave_requests, resignation }
    }

    /// Starts the tasks that act only while this node leads.
    fn serve_as_leader(&self, duties: &DutyStarter, guard: Arc<NamespaceGuard>, chunks: ChunkWork) {
        let Self { raft, feed, .. } = self;
        duties.start(root_owner::give_root(raft.clone(), guard.clone()));
        duties.start(end_old_leases(feed.clone()));
        duties.start(SessionLeases { raft: raft.clone(), feed: feed.clone() }.run());
        duties.start(Placement::new(raft.clone(), guard.clone(), chunks.placer).run());
        duties.start(GarbageCollector::new(raft.clone(), guard, feed.clone(), chunks.deleter).run());
    }

    fn into_services(
        self,
        duties: DutyStarter,
        dead_leader: Arc<DeadLeaderDetector>,
        membership: MembershipServices,
    ) -> NamespaceServices {
        let Self { raft, leader, id, log, meters, feed, dir, no_vote_before, .. } = self;
        let MembershipServices { leave_requests: requests, resignation, .. } = membership;
        let api =
            RaftApi { raft: raft.clone(), leader: leader.clone(), dead_leader, requests, id, dir, no_vote_before };
        let requests = RequestHandler {
            raft: raft.clone(),
            leader: leader.clone(),
            feed: feed.clone(),
            latency: meters.operations,
            waits: LeaseWaits::default(),
            stop: duties.stop.clone(),
            tasks: duties.tasks.clone(),
        };
        NamespaceServices { raft, leader, resignation, requests, api: Arc::new(api), feed, log, duties }
    }
}

/// Starts Raft on the folder. A founding node makes itself the only voter.
async fn start_raft(
    uid: u64,
    ring: SocketAddr,
    config: Config,
    network: Network,
    folder: NamespaceFolder,
) -> Result<Raft, NamespaceError> {
    let NamespaceFolder { log, machine, founds, .. } = folder;
    let raft = Raft::new(uid, Arc::new(config), network, log, machine).await.map_err(cannot_start)?;
    if founds {
        raft.initialize(BTreeMap::from([(uid, RaftMember { ring })])).await.map_err(cannot_start)?;
    }
    Ok(raft)
}

fn cannot_start(error: impl Display) -> NamespaceError {
    NamespaceError::Start(error.to_string())
}
