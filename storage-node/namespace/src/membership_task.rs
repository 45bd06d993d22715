//! What the leader does about the voters, once a second: looks, asks [`super::membership`] for one step, takes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_types::ring_id::Neighbours;
use openraft::{ChangeMembers, Instant as _, RaftMetrics, async_runtime::watch::WatchReceiver};
use tokio::sync::watch;

use super::{
    Inner,
    membership::{Seen, Step, View, decide},
    namespace_id::NamespaceId,
    network::{Identity, Network},
    raft_types::{Member, Raft, TypeConfig},
};

/// A ring that seems smaller must seem so for this long; neighbours lose sight of each other for a moment at each join.
const SHRINK_AFTER: Duration = Duration::from_secs(15);
/// A learner this close to the end of the log will be there when it votes.
const CAUGHT_UP_ENTRIES: u64 = 500;
/// How long a member that asked to be let go is not asked back.
const LEAVING_FOR: Duration = Duration::from_secs(300);
const STEP_DEADLINE: Duration = Duration::from_secs(10);

pub struct Keeper {
    raft: Raft,
    uid: u64,
    id: Arc<NamespaceId>,
    network: Network,
    neighbours: watch::Receiver<Neighbours>,
    patience: Duration,
    leaving: HashMap<u64, Instant>,
    /// When each member was last known to answer, or first looked at by this leader.
    heard: HashMap<u64, Instant>,
    /// Since when a member has not been in the ring.
    missing: HashMap<u64, Instant>,
    /// Sizes of the ring that were seen, and when last.
    sizes: BTreeMap<usize, Instant>,
    leading_since: Instant,
    /// Neighbours of another namespace, by their ids, that were complained of.
    strangers: HashSet<u64>,
    /// Somebody near belongs to another namespace.
    contested: bool,
}

impl Keeper {
    pub(super) fn new(inner: &Inner) -> Self {
        Self {
            raft: inner.raft.clone(),
            uid: inner.uid,
            id: inner.id.clone(),
            network: inner.network.clone(),
            neighbours: inner.neighbours.clone(),
            patience: inner.settings.member_patience,
            leaving: HashMap::new(),
            heard: HashMap::new(),
            missing: HashMap::new(),
            sizes: BTreeMap::new(),
            leading_since: Instant::now(),
            strangers: HashSet::new(),
            contested: false,
        }
    }

    pub fn let_go(&mut self, uid: u64, leaving: bool) {
        match leaving {
            true => self.leaving.insert(uid, Instant::now()),
            false => self.leaving.remove(&uid),
        };
    }

    /// What was seen as a follower says nothing.
    pub fn begin_leading(&mut self) {
        self.heard.clear();
        self.missing.clear();
        self.sizes.clear();
        self.leading_since = Instant::now();
    }

    /// Looks once and takes at most one step.
    pub async fn tick(&mut self) {
        let view = self.look().await;
        let step = decide(&view);
        // Alone and among strangers: who gives way is decided first, see `rival`.
        if step == Step::Rest || (self.contested && view.voters.len() <= 1) {
            return;
        }
        tracing::info!(?step, "changing who votes on the namespace");
        match tokio::time::timeout(STEP_DEADLINE, self.take(&view, &step)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::warn!(?step, reason, "could not change who votes; trying again"),
            Err(_) => tracing::warn!(?step, "changing who votes takes long; looking again"),
        }
    }

    async fn look(&mut self) -> View {
        let now = Instant::now();
        let metrics = self.raft.metrics().borrow_watched().clone();
        let neighbours = self.neighbours.borrow().clone();
        self.leaving.retain(|_, since| since.elapsed() < LEAVING_FOR);
        self.note_size(ring_nodes(&neighbours), now);
        let configs = metrics.membership_config.get_joint_config().clone();
        let voters: BTreeSet<u64> = configs.last().cloned().unwrap_or_default();
        let members: Vec<(u64, Member)> =
            metrics.membership_config.nodes().map(|(uid, member)| (*uid, *member)).collect();
        let mut view = View {
            leader: self.uid,
            joint: configs.len() > 1,
            ring_nodes: self.sizes.keys().next_back().copied().unwrap_or(1),
            size_is_sure: now.duration_since(self.leading_since) >= SHRINK_AFTER,
            patience: self.patience,
            ..View::default()
        };
        for (uid, member) in members {
            let seen = self.seen(uid, member, &metrics, &neighbours, now);
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

    fn seen(
        &mut self,
        uid: u64,
        member: Member,
        metrics: &RaftMetrics<TypeConfig>,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Seen {
        let heard = self.heard.entry(uid).or_insert(now);
        if let Some(Some(acked)) = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&uid)) {
            *heard = (*heard).max(now.checked_sub(acked.elapsed()).unwrap_or(now));
        }
        let silent_for = now.duration_since(*heard);
        let missing = knows_whole_ring(neighbours) && !ring_addresses(neighbours).any(|ring| ring == member.ring);
        let missing_for = if missing {
            now.duration_since(*self.missing.entry(uid).or_insert(now))
        } else {
            self.missing.remove(&uid);
            Duration::ZERO
        };
        let matched = metrics.replication.as_ref().and_then(|progress| *progress.get(&uid)?).map(|log_id| log_id.index);
        let last = metrics.last_log_index.unwrap_or_default();
        Seen {
            member,
            silent_for,
            missing_for,
            supplanted: false,
            leaving: self.leaving.contains_key(&uid),
            caught_up: matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last),
        }
    }

    /// Asks the neighbours for their ids, if there is anything to decide with them.
    async fn ask_candidates(&mut self, view: &mut View, neighbours: &Neighbours) {
        self.contested = false;
        let restless =
            |seen: &Seen| seen.silent_for > Duration::from_secs(2) || seen.leaving || !seen.missing_for.is_zero();
        let settled = view.voters.len() == super::membership::target_voters(view.ring_nodes);
        if settled && view.learners.is_empty() && !view.voters.values().any(restless) {
            return;
        }
        let others = || ring_addresses(neighbours).filter(|ring| *ring != neighbours.node.ring_address());
        let network = &self.network;
        let asked = others().map(|ring| async move {
            let identity = network.identity(super::raft_types::admin_address(ring)).await;
            identity.inspect_err(|reason| tracing::debug!(reason, "a neighbour does not say who it is")).ok()
        });
        for identity in futures_util::future::join_all(asked).await.into_iter().flatten() {
            let member = Member { ring: identity.ring };
            for (uid, seen) in view.voters.iter_mut().chain(view.learners.iter_mut()) {
                // Another node at its address, or itself at another: either way this seat is nobody's any more.
                seen.supplanted |= (seen.member == member) != (*uid == identity.uid);
            }
            if self.is_stranger(&identity) {
                continue;
            }
            if identity.uid != self.uid && !self.leaving.contains_key(&identity.uid) {
                view.candidates.push((identity.uid, member));
            }
        }
    }

    /// Complains once of each node that belongs to another namespace.
    fn is_stranger(&mut self, identity: &Identity) -> bool {
        let ours = self.id.get();
        let Some(theirs) = identity.namespace.filter(|theirs| Some(*theirs) != ours) else { return false };
        self.contested = true;
        if self.strangers.insert(identity.uid) {
            tracing::warn!(
                peer = %identity.ring,
                "this node of the ring belongs to another namespace ({theirs:016x}, not {:016x}) and cannot take part \
                 in this one: stop it, remove its `namespace` folder (its chunks may stay), start it with --join",
                ours.unwrap_or_default()
            );
        }
        true
    }

    async fn take(&self, view: &View, step: &Step) -> Result<(), String> {
        let mut voters: BTreeSet<u64> = view.voters.keys().copied().collect();
        let change = match step {
            Step::Rest => return Ok(()),
            Step::AddLearner { uid, member } => {
                return self.raft.add_learner(*uid, *member, false).await.map(drop).map_err(|error| error.to_string());
            }
            Step::RemoveLearner { uid } => ChangeMembers::RemoveNodes(BTreeSet::from([*uid])),
            Step::FinishJoint => ChangeMembers::ReplaceAllVoters(voters),
            Step::RemoveVoter { uid } => {
                voters.remove(uid);
                ChangeMembers::ReplaceAllVoters(voters)
            }
            Step::Promote { uid, instead_of } => {
                voters.insert(*uid);
                voters.retain(|voter| Some(*voter) != *instead_of);
                ChangeMembers::ReplaceAllVoters(voters)
            }
        };
        self.raft.change_membership(change, false).await.map(drop).map_err(|error| error.to_string())
    }
}

/// The nodes that `neighbours` speaks of, nearest first, the node itself first of all.
fn ring_addresses(neighbours: &Neighbours) -> impl Iterator<Item = SocketAddr> + '_ {
    let successors = neighbours.successors.iter();
    let predecessor = neighbours.predecessor.iter().filter(|node| !neighbours.successors.contains(node));
    let others = successors.chain(predecessor).filter(|node| **node != neighbours.node);
    std::iter::once(&neighbours.node).chain(others).map(|node| node.ring_address())
}

/// How many nodes the ring has at least.
fn ring_nodes(neighbours: &Neighbours) -> usize {
    ring_addresses(neighbours).count()
}

/// Whether the successors reach round to the predecessor.
fn knows_whole_ring(neighbours: &Neighbours) -> bool {
    match &neighbours.predecessor {
        Some(predecessor) => *predecessor == neighbours.node || neighbours.successors.contains(predecessor),
        None => neighbours.successors.is_empty(),
    }
}
