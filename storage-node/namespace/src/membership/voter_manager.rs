//! The leader's management of the voters: once a second it collects its view, [`super::voters`] decides on one change,
//! and the leader carries it out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::{info_limited, warn_limited};
use chordfs_types::ring_id::Neighbours;
use openraft::{ChangeMembers, Instant as _, RaftMetrics};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::voters::{ClusterView, MemberView, VoterChange, decide, target_voters};
use crate::{
    raft::{
        handle::{RaftHandle, write_failure},
        network::{MemberIdentity, Network},
    },
    raft_types::{RaftMember, TypeConfig, admin_address},
    storage::namespace_id::NamespaceId,
};

/// For how long a ring must seem smaller before it counts as smaller; neighbours drop each other for a moment at each
/// join.
const SHRINK_AFTER: Duration = Duration::from_secs(15);
/// A learner that lags by no more than this will have caught up when it votes.
const CAUGHT_UP_ENTRIES: u64 = 500;
/// For how long a node that asked to give up its vote is not chosen again.
const LEAVING_FOR: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// Received requests of nodes to give up their vote, or to be eligible again, until the voter manager takes them.
#[derive(Default)]
pub(crate) struct LeaveRequests(Mutex<Vec<(u64, bool)>>);

impl LeaveRequests {
    pub(crate) fn add(&self, uid: u64, leaving: bool) {
        self.0.lock().push((uid, leaving));
    }

    fn take(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut *self.0.lock())
    }
}

pub(crate) struct VoterManager {
    raft: Arc<RaftHandle>,
    requests: Arc<LeaveRequests>,
    id: Arc<NamespaceId>,
    network: Network,
    neighbours: watch::Receiver<Neighbours>,
    leaving: HashMap<u64, Instant>,
    /// When each member last answered, or was first seen by this leader.
    answered: HashMap<u64, Instant>,
    /// Since when each absent member has been missing from the ring.
    missing: HashMap<u64, Instant>,
    /// The observed sizes of the ring, and when each was last observed.
    sizes: BTreeMap<usize, Instant>,
    leading_since: Instant,
    /// The ids of the neighbours of another namespace that were logged.
    foreign_nodes: HashSet<u64>,
    /// A neighbour belongs to another namespace.
    contested: bool,
}

impl VoterManager {
    pub(crate) fn new(
        raft: Arc<RaftHandle>,
        requests: Arc<LeaveRequests>,
        id: Arc<NamespaceId>,
        network: Network,
        neighbours: watch::Receiver<Neighbours>,
    ) -> Self {
        Self {
            raft,
            requests,
            id,
            network,
            neighbours,
            leaving: HashMap::new(),
            answered: HashMap::new(),
            missing: HashMap::new(),
            sizes: BTreeMap::new(),
            leading_since: Instant::now(),
            foreign_nodes: HashSet::new(),
            contested: false,
        }
    }

    /// Runs until it is dropped; does nothing while this node does not lead.
    pub(crate) async fn run(mut self) {
        let mut term = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(current) = self.raft.serving_term() else { continue };
            if term.replace(current) != Some(current) {
                self.begin_leading();
            }
            self.requests.take().into_iter().for_each(|(uid, leaving)| self.note_leaving(uid, leaving));
            self.tick().await;
        }
    }

    fn note_leaving(&mut self, uid: u64, leaving: bool) {
        if leaving {
            self.leaving.insert(uid, Instant::now())
        } else {
            self.leaving.remove(&uid)
        };
    }

    /// Forgets what this node observed as a follower.
    fn begin_leading(&mut self) {
        self.answered.clear();
        self.missing.clear();
        self.sizes.clear();
        self.leading_since = Instant::now();
    }

    /// Collects the view and carries out at most one change.
    async fn tick(&mut self) {
        let view = self.collect_view().await;
        let change = decide(&view);
        // With a single voter and another namespace in the ring, `guard` decides first which of the two gives way.
        if change == VoterChange::Keep || (self.contested && view.voters.len() <= 1) {
            return;
        }
        info_limited!(%change, "changing the voters of the namespace");
        match tokio::time::timeout(CHANGE_DEADLINE, self.carry_out(&view, &change)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => warn_limited!(%change, reason, "could not change the voters; trying again"),
            Err(_) => warn_limited!(%change, "the change of voters is not done yet; checking again"),
        }
    }

    async fn collect_view(&mut self) -> ClusterView {
        let now = Instant::now();
        let metrics = self.raft.look(Clone::clone);
        let neighbours = self.neighbours.borrow().clone();
        self.leaving.retain(|_, since| since.elapsed() < LEAVING_FOR);
        self.note_size(ring_nodes(&neighbours), now);
        let configs = metrics.membership_config.get_joint_config().clone();
        let voters: BTreeSet<u64> = configs.last().cloned().unwrap_or_default();
        let members: Vec<(u64, RaftMember)> =
            metrics.membership_config.nodes().map(|(uid, member)| (*uid, *member)).collect();
        let mut view = ClusterView {
            leader: self.raft.uid(),
            joint: configs.len() > 1,
            ring_nodes: self.sizes.keys().next_back().copied().unwrap_or(1),
            size_is_sure: now.duration_since(self.leading_since) >= SHRINK_AFTER,
            member_timeout: self.raft.settings().member_timeout,
            ..ClusterView::default()
        };
        for (uid, member) in members {
            let seen = self.member_view(uid, member, &metrics, &neighbours, now);
            if voters.contains(&uid) {
                view.voters.insert(uid, seen)
            } else {
                view.learners.insert(uid, seen)
            };
        }
        self.ask_candidates(&mut view, &neighbours).await;
        view
    }

    fn note_size(&mut self, nodes: usize, now: Instant) {
        self.sizes.insert(nodes, now);
        self.sizes.retain(|_, seen| now.duration_since(*seen) < SHRINK_AFTER);
    }

    fn member_view(
        &mut self,
        uid: u64,
        member: RaftMember,
        metrics: &RaftMetrics<TypeConfig>,
        neighbours: &Neighbours,
        now: Instant,
    ) -> MemberView {
        let answered = self.answered.entry(uid).or_insert(now);
        if let Some(Some(acked)) = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&uid)) {
            *answered = (*answered).max(now.checked_sub(acked.elapsed()).unwrap_or(now));
        }
        let unresponsive_for = now.duration_since(*answered);
        let missing = knows_whole_ring(neighbours) && !ring_addresses(neighbours).any(|ring| ring == member.ring);
        let missing_for = if missing {
            now.duration_since(*self.missing.entry(uid).or_insert(now))
        } else {
            self.missing.remove(&uid);
            Duration::ZERO
        };
        let matched = metrics.replication.as_ref().and_then(|progress| *progress.get(&uid)?).map(|log_id| log_id.index);
        let last = metrics.last_log_index.unwrap_or_default();
        MemberView {
            member,
            unresponsive_for,
            missing_for,
            replaced: false,
            leaving: self.leaving.contains_key(&uid),
            caught_up: matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last),
        }
    }

    /// Asks the neighbours for their ids, if a decision may need them.
    async fn ask_candidates(&mut self, view: &mut ClusterView, neighbours: &Neighbours) {
        self.contested = false;
        let needs_attention = |seen: &MemberView| {
            seen.unresponsive_for > Duration::from_secs(2) || seen.leaving || !seen.missing_for.is_zero()
        };
        let complete = view.voters.len() == target_voters(view.ring_nodes);
        if complete && view.learners.is_empty() && !view.voters.values().any(needs_attention) {
            return;
        }
        let others = || ring_addresses(neighbours).filter(|ring| *ring != neighbours.node.ring_address());
        let network = &self.network;
        let asked = others().map(|ring| async move {
            let identity = network.identity(admin_address(ring)).await;
            identity.inspect_err(|reason| tracing::debug!(reason, "a neighbour does not report its identity")).ok()
        });
        for identity in futures_util::future::join_all(asked).await.into_iter().flatten() {
            let member = RaftMember { ring: identity.ring };
            for (uid, seen) in view.voters.iter_mut().chain(view.learners.iter_mut()) {
                // Another node answers at the member's address, or the member at another address: either way the member
                // as it is configured no longer exists.
                seen.replaced |= (seen.member == member) != (*uid == identity.uid);
            }
            if self.is_foreign(&identity) {
                continue;
            }
            if identity.uid != self.raft.uid() && !self.leaving.contains_key(&identity.uid) {
                view.candidates.push((identity.uid, member));
            }
        }
    }

    /// Returns whether the node belongs to another namespace, and logs each such node once.
    fn is_foreign(&mut self, identity: &MemberIdentity) -> bool {
        let ours = self.id.get();
        let Some(theirs) = identity.namespace.filter(|theirs| Some(*theirs) != ours) else { return false };
        self.contested = true;
        if self.foreign_nodes.insert(identity.uid) {
            warn_limited!(
                peer = %identity.ring,
                "this node of the ring belongs to another namespace ({theirs:016x}, not {:016x}) and cannot take part \
                 in this one: stop it, run `storage-node rejoin` there, start it with --join",
                ours.unwrap_or_default()
            );
        }
        true
    }

    async fn carry_out(&self, view: &ClusterView, change: &VoterChange) -> Result<(), String> {
        let mut voters: BTreeSet<u64> = view.voters.keys().copied().collect();
        let change = match change {
            VoterChange::Keep => return Ok(()),
            VoterChange::AddLearner { uid, member } => {
                let added = self.raft.openraft().add_learner(*uid, *member, false).await;
                return added.map(drop).map_err(|error| write_failure(&error));
            }
            VoterChange::RemoveLearner { uid } => ChangeMembers::RemoveNodes(BTreeSet::from([*uid])),
            VoterChange::FinishJoint => ChangeMembers::ReplaceAllVoters(voters),
            VoterChange::RemoveVoter { uid } => {
                voters.remove(uid);
                ChangeMembers::ReplaceAllVoters(voters)
            }
            VoterChange::Promote { uid, instead_of } => {
                voters.insert(*uid);
                voters.retain(|voter| Some(*voter) != *instead_of);
                ChangeMembers::ReplaceAllVoters(voters)
            }
        };
        let changed = self.raft.openraft().change_membership(change, false).await;
        changed.map(drop).map_err(|error| write_failure(&error))
    }
}

/// The nodes in `neighbours`, nearest first, starting with the node itself.
fn ring_addresses(neighbours: &Neighbours) -> impl Iterator<Item = SocketAddr> + '_ {
    let successors = neighbours.successors.iter();
    let predecessor = neighbours.predecessor.iter().filter(|node| !neighbours.successors.contains(node));
    let others = successors.chain(predecessor).filter(|node| **node != neighbours.node);
    std::iter::once(&neighbours.node).chain(others).map(|node| node.ring_address())
}

/// The number of nodes that the ring has at least.
fn ring_nodes(neighbours: &Neighbours) -> usize {
    ring_addresses(neighbours).count()
}

/// Returns whether the successors reach around the ring to the predecessor.
fn knows_whole_ring(neighbours: &Neighbours) -> bool {
    match &neighbours.predecessor {
        Some(predecessor) => *predecessor == neighbours.node || neighbours.successors.contains(predecessor),
        None => neighbours.successors.is_empty(),
    }
}
