//! Where the leader is. Voters hear it from Raft; the other nodes ask around, keep the answer and hand it on, so that
//! any node a mount happens to know can send it the right way.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Inner,
    network::Identity,
    raft_types::{TypeConfig, admin_address},
};

const CONFIRM_EVERY: Duration = Duration::from_secs(5);
const SEARCH_EVERY: Duration = Duration::from_secs(1);
/// An answer without confirmation for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct LeaderHint {
    known: Mutex<Option<Known>>,
    /// Somebody needs the leader now.
    wanted: Notify,
}

#[derive(Clone)]
struct Known {
    leader: SocketAddr,
    voters: Vec<SocketAddr>,
    namespace: Option<u64>,
    term: u64,
    confirmed: Instant,
}

impl LeaderHint {
    fn get(&self) -> Option<Known> {
        self.known.lock().clone().filter(|known| known.confirmed.elapsed() < FORGET_AFTER)
    }
}

impl Inner {
    /// The leader's ring address as far as known: Raft's own word, or hearsay of a later term.
    pub(super) fn leader(&self) -> Option<SocketAddr> {
        let (term, leader) = self.raft_leader();
        match self.hint.get() {
            Some(known) if leader.is_none() || known.term > term => Some(known.leader),
            _ => leader,
        }
    }

    pub(super) fn leader_term(&self) -> u64 {
        self.hint.get().map_or(0, |known| known.term).max(self.raft_leader().0)
    }

    pub(super) fn voters(&self) -> Vec<SocketAddr> {
        let (term, _) = self.raft_leader();
        if let Some(known) = self.hint.get().filter(|known| known.term > term || !self.is_voter()) {
            return known.voters;
        }
        let metrics = self.metrics.borrow_watched();
        let members = &metrics.membership_config;
        members.voter_ids().filter_map(|uid| members.get_node(&uid)).map(|member| member.ring).collect()
    }

    /// What the leader of this reign or a later one said of this node; `None` when it was not heard of late.
    pub(super) fn hint_says_voter(&self) -> Option<bool> {
        let (term, _) = self.raft_leader();
        let known = self.hint.get().filter(|known| known.term >= term)?;
        Some(known.voters.contains(&self.ring))
    }

    /// Somebody was sent away without knowing where to: look for the leader without delay.
    pub(super) fn want_leader(&self) {
        self.hint.wanted.notify_one();
    }

    /// That of the leader last heard of.
    pub(super) fn followed_namespace(&self) -> Option<u64> {
        self.hint.get()?.namespace
    }

    fn raft_leader(&self) -> (u64, Option<SocketAddr>) {
        let metrics = self.metrics.borrow_watched();
        let leader = metrics.current_leader.and_then(|uid| metrics.membership_config.get_node(&uid));
        (metrics.current_term, leader.map(|member| member.ring))
    }

    /// Keeps knowing the leader, for as long as this node runs.
    pub(super) async fn follow_leader(&self) {
        loop {
            let pause = match self.leads() || self.confirm().await || self.search().await {
                true => CONFIRM_EVERY,
                false => SEARCH_EVERY,
            };
            let wait = async {
                tokio::time::sleep(SEARCH_EVERY.min(pause)).await;
                let _ = tokio::time::timeout(pause.saturating_sub(SEARCH_EVERY), self.hint.wanted.notified()).await;
            };
            tokio::select! {
                () = wait => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Asks the one that led when last heard of.
    pub(super) async fn confirm(&self) -> bool {
        let Some(leader) = self.leader().filter(|leader| *leader != self.ring) else { return false };
        self.learn(self.ask([leader]).await)
    }

    /// Asks all that might know, and then those they name.
    async fn search(&self) -> bool {
        let first = self.ask(self.acquaintances()).await;
        let named: BTreeSet<SocketAddr> =
            first.iter().flat_map(|who| who.leader.iter().chain(&who.voters)).copied().collect();
        self.learn(first) || self.learn(self.ask(named).await)
    }

    fn acquaintances(&self) -> BTreeSet<SocketAddr> {
        let neighbours = self.neighbours.borrow();
        let near = neighbours.successors.iter().chain(&neighbours.predecessor).map(|node| node.ring_address());
        let metrics = self.metrics.borrow_watched();
        let members = metrics.membership_config.nodes().map(|(_, member)| member.ring);
        let known = self.hint.get().map(|known| known.voters).unwrap_or_default();
        near.chain(members).chain(known).filter(|ring| *ring != self.ring).collect()
    }

    pub(super) async fn ask(&self, rings: impl IntoIterator<Item = SocketAddr>) -> Vec<Identity> {
        let asked = rings.into_iter().map(|ring| self.network.identity(admin_address(ring)));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Remembers the one that says it leads; of two, the one of the later term. Who leads another namespace is nobody.
    fn learn(&self, answers: Vec<Identity>) -> bool {
        let ours = self.namespace();
        let leads = |who: &Identity| who.leads && (ours.is_none() || who.namespace == ours);
        let Some(leader) = answers.into_iter().filter(leads).max_by_key(|who| who.term) else { return false };
        let (term, confirmed) = (leader.term, Instant::now());
        let mut known = self.hint.known.lock();
        if known.as_ref().is_none_or(|known| known.term <= term || known.confirmed.elapsed() >= FORGET_AFTER) {
            let Identity { ring, voters, namespace, .. } = leader;
            *known = Some(Known { leader: ring, voters, namespace, term, confirmed });
        }
        true
    }
}

/// Where a refused request should go, in Raft's words.
pub(super) fn named(forward: &openraft::errors::ForwardToLeader<TypeConfig>) -> Option<SocketAddr> {
    forward.leader_node.map(|member| member.ring)
}
