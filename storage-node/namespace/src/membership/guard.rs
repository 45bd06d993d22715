//! Two namespaces in one ring. This happens when a node that lost its disk founds a namespace instead of joining, or
//! when a node was first started without `--join`; the ring connects the two all the same.
//!
//! A node that is the only voter of its namespace asks its neighbours for theirs. A namespace with a single voter gives
//! way to one with several, and of two with a single voter the younger gives way: its node stops before it does harm,
//! and reports what to do. Nothing is deleted; that decision is the operator's.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chordfs_types::ring_id::Neighbours;
use tokio::sync::watch;

use crate::{
    raft::{handle::RaftHandle, leader::LeaderTracking, network::MemberIdentity},
    storage::namespace_id::NamespaceId,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a node that should join waits for its neighbours' answers before it leads a namespace of its own.
const UNDECIDED_FOR: Duration = Duration::from_secs(5);

pub(crate) struct NamespaceGuard {
    raft: Arc<RaftHandle>,
    leader: Arc<LeaderTracking>,
    id: Arc<NamespaceId>,
    neighbours: watch::Receiver<Neighbours>,
    /// Ring addresses of the nodes that this node was started to join.
    join: Vec<SocketAddr>,
    dir: PathBuf,
    /// At the last check the neighbours knew of no other namespace than this node's.
    no_rival: AtomicBool,
}

impl NamespaceGuard {
    pub(crate) fn new(
        raft: Arc<RaftHandle>,
        leader: Arc<LeaderTracking>,
        id: Arc<NamespaceId>,
        neighbours: watch::Receiver<Neighbours>,
        join: Vec<SocketAddr>,
        dir: PathBuf,
    ) -> Self {
        Self { raft, leader, id, neighbours, join, dir, no_rival: AtomicBool::new(false) }
    }

    /// Returns whether the neighbours knew of no other namespace at the last check.
    pub(crate) fn no_rival(&self) -> bool {
        self.no_rival.load(Relaxed)
    }

    /// Checks for as long as this node runs, or until its namespace has to give way.
    pub(crate) async fn watch(&self) {
        let raft = self.raft.openraft();
        // Before Raft has started, its metrics are empty.
        if raft.with_raft_state(|_| ()).await.is_err() {
            return;
        }
        let start = Instant::now();
        let mut neighbours = self.neighbours.clone();
        loop {
            neighbours.mark_unchanged();
            match self.ask_neighbours().await {
                Err(reason) => return self.raft.fail(reason),
                Ok(view) => {
                    self.no_rival.store(view != NeighbourView::Unknown, Relaxed);
                    let sure = view == NeighbourView::NoRival || start.elapsed() >= UNDECIDED_FOR;
                    if sure {
                        raft.runtime_config().elect(true);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Ok(()) = neighbours.changed() => {}
            }
        }
    }

    /// Returns an error with the operator's advice if this node has to stop.
    async fn ask_neighbours(&self) -> Result<NeighbourView, String> {
        let Some(ours) = self.id.get().filter(|_| self.raft.is_only_voter()) else { return Ok(NeighbourView::NoRival) };
        let near = self.near();
        let asked: BTreeSet<SocketAddr> = near.iter().chain(&self.join).copied().collect();
        let answers = self.leader.ask(asked).await;
        if let Some(rival) = answers.iter().find(|identity| has_precedence(ours, identity)) {
            return Err(self.rival_error(ours, rival));
        }
        let answered: BTreeSet<SocketAddr> = answers.iter().map(|identity| identity.ring).collect();
        let foreign = answers.iter().any(|identity| identity.namespace.is_some_and(|theirs| theirs != ours));
        Ok(match near.is_subset(&answered) && !foreign {
            true if answered.is_empty() => NeighbourView::NoPeers,
            true => NeighbourView::NoRival,
            false => NeighbourView::Unknown,
        })
    }

    fn near(&self) -> BTreeSet<SocketAddr> {
        let neighbours = self.neighbours.borrow();
        let near = neighbours.successors.iter().chain(&neighbours.predecessor).map(|node| node.ring_address());
        near.filter(|ring| *ring != self.raft.ring()).collect()
    }

    fn rival_error(&self, ours: u64, rival: &MemberIdentity) -> String {
        let voters: Vec<String> = rival.voters.iter().map(SocketAddr::to_string).collect();
        format!(
            "this node founded a namespace of its own ({ours:016x}), but the ring it is in has another ({:016x}, voters \
             {}, reported by {}). Stop this node, run `storage-node rejoin --data {}` and start it with --join; or, if \
             this namespace is the one to keep, do that on the others",
            rival.namespace.unwrap_or_default(),
            voters.join(", "),
            rival.ring,
            self.dir.parent().unwrap_or(&self.dir).display(),
        )
    }
}

/// What the neighbours report about other namespaces.
#[derive(Clone, Copy, PartialEq)]
enum NeighbourView {
    /// All answered, and none knows of another namespace.
    NoRival,
    /// There are no neighbours to ask.
    NoPeers,
    /// A neighbour did not answer, or there is another namespace that should give way.
    Unknown,
}

/// Returns whether the only voter of `ours` has to give way to the namespace of `other`.
fn has_precedence(ours: u64, other: &MemberIdentity) -> bool {
    other.namespace.is_some_and(|theirs| theirs != ours && (other.voters.len() > 1 || theirs < ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_namespaces_exactly_one_gives_way() {
        let ring: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let other = |namespace, voters| MemberIdentity {
            uid: 1,
            namespace,
            ring,
            term: 1,
            voter: true,
            leads: true,
            leader: None,
            voters: vec![ring; voters],
            members: Vec::new(),
            members_committed: true,
            dead_leader: None,
        };
        assert!(has_precedence(5, &other(Some(4), 1)) && !has_precedence(4, &other(Some(5), 1)), "the older one stays");
        assert!(has_precedence(4, &other(Some(5), 2)), "one with more voters stays");
        assert!(!has_precedence(5, &other(Some(5), 3)) && !has_precedence(5, &other(None, 0)), "there is only one");
    }
}
