//! Where the leader is. Voters learn it from Raft; the other nodes ask their neighbours and pass the answer on, so that
//! a mount can be redirected by any node that it knows.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_types::ring_id::Neighbours;
use openraft::errors::ForwardToLeader;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    handle::RaftHandle,
    network::{MemberIdentity, Network},
};
use crate::{
    raft_types::{TypeConfig, admin_address},
    storage::namespace_id::NamespaceId,
};

const CONFIRM_EVERY: Duration = Duration::from_secs(5);
const SEARCH_EVERY: Duration = Duration::from_secs(1);
/// An answer that has not been confirmed for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(15);
/// A leader that has not confirmed for this long that a majority follows it counts as lost in this node's status.
const CONFIRMED_FOR: Duration = Duration::from_secs(8);

pub(crate) struct LeaderTracking {
    raft: Arc<RaftHandle>,
    id: Arc<NamespaceId>,
    network: Network,
    neighbours: watch::Receiver<Neighbours>,
    sighting: Mutex<Option<LeaderSighting>>,
    /// Wakes the search, because a request needs the leader.
    search_now: Notify,
}

/// A node that reported to be the leader.
#[derive(Clone)]
struct LeaderSighting {
    leader: SocketAddr,
    voters: Vec<SocketAddr>,
    namespace: Option<u64>,
    term: u64,
    confirmed: Instant,
}

impl LeaderTracking {
    pub(crate) fn new(
        raft: Arc<RaftHandle>,
        id: Arc<NamespaceId>,
        network: Network,
        neighbours: watch::Receiver<Neighbours>,
    ) -> Self {
        Self { raft, id, network, neighbours, sighting: Mutex::default(), search_now: Notify::new() }
    }

    /// The leader's ring address as far as known: from Raft, or from another node if that reports a later term.
    pub(crate) fn leader(&self) -> Option<SocketAddr> {
        let (term, leader) = self.raft.current_leader();
        match self.recent_sighting() {
            Some(seen) if leader.is_none() || seen.term > term => Some(seen.leader),
            _ => leader,
        }
    }

    /// The leader's ring address, unless the leader is this node.
    pub(crate) fn other_leader(&self) -> Option<SocketAddr> {
        self.leader().filter(|leader| *leader != self.raft.ring())
    }

    pub(crate) fn leader_term(&self) -> u64 {
        self.recent_sighting().map_or(0, |seen| seen.term).max(self.raft.current_leader().0)
    }

    /// Ring addresses of the voters, as far as this node knows.
    pub(crate) fn voters(&self) -> Vec<SocketAddr> {
        let (term, _) = self.raft.current_leader();
        if let Some(seen) = self.recent_sighting().filter(|seen| seen.term > term || !self.is_voter()) {
            return seen.voters;
        }
        self.raft.look(|metrics| {
            let members = &metrics.membership_config;
            members.voter_ids().filter_map(|uid| members.get_node(&uid)).map(|member| member.ring).collect()
        })
    }

    /// Returns whether this node votes. A node that was voted out may not have received that entry, so the leader's
    /// report overrides its own log.
    pub(crate) fn is_voter(&self) -> bool {
        self.raft.is_voter_by_log() && (self.raft.has_lease() || self.leader_reports_voter().unwrap_or(true))
    }

    /// Whether the leader of this term or a later one counts this node as a voter; `None` without a recent answer of
    /// it.
    fn leader_reports_voter(&self) -> Option<bool> {
        let (term, _) = self.raft.current_leader();
        let seen = self.recent_sighting().filter(|seen| seen.term >= term)?;
        Some(seen.voters.contains(&self.raft.ring()))
    }

    /// The namespace that this node belongs to, or otherwise the last known leader's.
    pub(crate) fn namespace(&self) -> Option<u64> {
        self.id.get().or_else(|| self.recent_sighting()?.namespace)
    }

    /// Returns whether a leader has reported recently that a majority follows it, or this node is that leader.
    pub(crate) fn is_confirmed(&self) -> bool {
        let recently = |seen: LeaderSighting| seen.confirmed.elapsed() < CONFIRMED_FOR;
        self.raft.has_lease() || self.recent_sighting().is_some_and(recently)
    }

    /// Starts a search for the leader without delay.
    pub(crate) fn search_now(&self) {
        self.search_now.notify_one();
    }

    /// Keeps the leader's address current, for as long as this node runs.
    pub(crate) async fn follow(&self) {
        loop {
            let pause = if self.raft.has_lease() || self.confirm().await || self.search().await {
                CONFIRM_EVERY
            } else {
                SEARCH_EVERY
            };
            tokio::time::sleep(SEARCH_EVERY.min(pause)).await;
            let _ = tokio::time::timeout(pause.saturating_sub(SEARCH_EVERY), self.search_now.notified()).await;
        }
    }

    /// Asks the last known leader whether it still leads.
    pub(crate) async fn confirm(&self) -> bool {
        let Some(leader) = self.other_leader() else { return false };
        self.learn(self.ask([leader]).await)
    }

    /// The answer of this namespace's leader, if another node leads it.
    pub(crate) async fn ask_leader(&self) -> Option<MemberIdentity> {
        let leader = self.other_leader()?;
        let answer = self.ask([leader]).await.pop()?;
        (answer.leads && answer.namespace == self.id.get()).then_some(answer)
    }

    /// Asks all nodes that might know the leader, and then the nodes that they name.
    async fn search(&self) -> bool {
        let first = self.ask(self.acquaintances()).await;
        let named: BTreeSet<SocketAddr> =
            first.iter().flat_map(|identity| identity.leader.iter().chain(&identity.voters)).copied().collect();
        self.learn(first) || self.learn(self.ask(named).await)
    }

    fn acquaintances(&self) -> BTreeSet<SocketAddr> {
        let neighbours = self.neighbours.borrow().clone();
        let near = neighbours.successors.iter().chain(&neighbours.predecessor).map(|node| node.ring_address());
        let members: Vec<SocketAddr> =
            self.raft.look(|metrics| metrics.membership_config.nodes().map(|(_, member)| member.ring).collect());
        let seen = self.recent_sighting().map(|seen| seen.voters).unwrap_or_default();
        near.chain(members).chain(seen).filter(|ring| *ring != self.raft.ring()).collect()
    }

    /// Returns the identities of those nodes that answer.
    pub(crate) async fn ask(&self, rings: impl IntoIterator<Item = SocketAddr>) -> Vec<MemberIdentity> {
        let asked = rings.into_iter().map(|ring| self.network.identity(admin_address(ring)));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Remembers the node that reports to lead this namespace; of two, the one of the later term.
    fn learn(&self, answers: Vec<MemberIdentity>) -> bool {
        let ours = self.namespace();
        let leads = |identity: &MemberIdentity| identity.leads && (ours.is_none() || identity.namespace == ours);
        let Some(leader) = answers.into_iter().filter(leads).max_by_key(|identity| identity.term) else { return false };
        let (term, confirmed) = (leader.term, Instant::now());
        let mut sighting = self.sighting.lock();
        if sighting.as_ref().is_none_or(|seen| seen.term <= term || seen.confirmed.elapsed() >= FORGET_AFTER) {
            let MemberIdentity { ring, voters, namespace, .. } = leader;
            *sighting = Some(LeaderSighting { leader: ring, voters, namespace, term, confirmed });
        }
        true
    }

    fn recent_sighting(&self) -> Option<LeaderSighting> {
        self.sighting.lock().clone().filter(|seen| seen.confirmed.elapsed() < FORGET_AFTER)
    }
}

/// The leader that Raft names when it refuses a request.
pub(crate) fn named_leader(forward: &ForwardToLeader<TypeConfig>) -> Option<SocketAddr> {
    forward.leader_node.map(|member| member.ring)
}
