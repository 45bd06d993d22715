//! What the verdict on a ring or a node is computed from ([`super::Health::judge`]): gathered from the status of one
//! node, or from the survey of a ring.

use std::net::SocketAddr;

use super::{NodeState, NodeStatus, RingNodeState, RingStatus};
use crate::chunk_api::REPLICAS;

/// What a verdict is computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthFacts {
    /// The node's own state, if the verdict is about one node.
    pub state: Option<NodeState>,
    /// Whether a namespace is known.
    pub has_namespace: bool,
    /// The leader that a majority of the voters has confirmed recently.
    pub confirmed_leader: Option<SocketAddr>,
    /// The voters.
    pub voters: Vec<VoterFacts>,
    /// The members of the ring that store chunks.
    pub nodes: Vec<NodeFacts>,
    /// How many storage nodes the ring has that answer; `None` if unknown.
    pub answering_nodes: Option<usize>,
    /// Copies that holders lack.
    pub under_replicated: Option<u64>,
}

/// One voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterFacts {
    /// Ring address.
    pub address: SocketAddr,
    /// `None` if it was not asked.
    pub answers: Option<bool>,
    /// Entries of the log that it lacks, according to the leader.
    pub lag: Option<u64>,
}

/// One storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Ring address.
    pub address: SocketAddr,
    /// `None` if the node does not answer.
    pub disk: Option<DiskFacts>,
    /// Damaged chunks of which no node has a sound copy.
    pub unrecoverable: u64,
}

/// The disk of a node that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Why the data folder cannot be used.
    pub problem: Option<String>,
    /// See [`StoreStatus::free_bytes`](super::StoreStatus::free_bytes).
    pub free_bytes: u64,
    /// See [`StoreStatus::capacity_bytes`](super::StoreStatus::capacity_bytes).
    pub capacity_bytes: u64,
}

/// The copies that the ring lacks. `chunks`: for each storage node of the ring how many chunks it keeps, `None` if it
/// does not answer. `compared`: the copies that live holders lack, as far as the nodes have compared their arcs.
///
/// While fewer nodes than [`REPLICAS`] answer, each of them keeps every chunk, and the other copies are missing. In a
/// larger ring the chunks of an unresponsive node are estimated, until the ring has closed up around it.
pub fn lacking_copies(chunks: &[Option<u64>], compared: Option<u64>) -> Option<u64> {
    let answering: Vec<u64> = chunks.iter().copied().flatten().collect();
    let missing = match answering.len() {
        0 => return compared,
        count if count < REPLICAS => {
            let all = answering.iter().copied().max().unwrap_or(0);
            all.saturating_mul((REPLICAS - count) as u64)
        }
        count => {
            let mean = answering.iter().fold(0, |sum: u64, one| sum.saturating_add(*one)) / count as u64;
            mean.saturating_mul((chunks.len() - count) as u64)
        }
    };
    match (compared, missing) {
        (None, 0) => None,
        (compared, missing) => Some(compared.unwrap_or(0).saturating_add(missing)),
    }
}

impl HealthFacts {
    /// What one node knows of itself and of its namespace, without asking another.
    pub fn of_node(address: SocketAddr, status: &NodeStatus) -> Self {
        let NodeStatus { state, store, namespace, work, neighbours, .. } = status;
        let disk = DiskFacts {
            problem: store.problem.clone(),
            free_bytes: store.free_bytes,
            capacity_bytes: store.capacity_bytes,
        };
        let unrecoverable = work.scrub.as_ref().and_then(|scrub| scrub.unrecoverable).unwrap_or(0);
        let answering = neighbours.as_ref().map(|view| 1 + view.successors.len());
        let chunks = vec![Some(store.chunks); answering.unwrap_or(REPLICAS)];
        let lag = |voter: &SocketAddr| namespace.lags.iter().find(|lag| lag.voter == *voter);
        let voter = |voter: &SocketAddr| VoterFacts {
            address: *voter,
            answers: lag(voter).map(|lag| !lag.unresponsive),
            lag: lag(voter).map(|lag| lag.entries),
        };
        Self {
            state: Some(*state),
            has_namespace: namespace.known,
            confirmed_leader: namespace.leader.filter(|_| namespace.leader_confirmed),
            voters: namespace.voters.iter().map(voter).collect(),
            nodes: vec![NodeFacts { address, disk: Some(disk), unrecoverable }],
            answering_nodes: answering,
            under_replicated: lacking_copies(&chunks, work.under_replicated),
        }
    }

    /// What the survey of a ring has found.
    pub fn of_ring(ring: &RingStatus) -> Self {
        let answers = |node: &super::NodeLine| node.state != RingNodeState::Unreachable;
        let storing = || ring.nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
        let node = |node: &super::NodeLine| NodeFacts {
            address: node.address,
            disk: answers(node).then(|| DiskFacts {
                problem: node.problem.clone(),
                free_bytes: node.free_bytes.unwrap_or(0),
                capacity_bytes: node.capacity_bytes.unwrap_or(0),
            }),
            unrecoverable: node.work.scrub.as_ref().and_then(|scrub| scrub.unrecoverable).unwrap_or(0),
        };
        let namespace = &ring.namespace;
        let voter = |voter: &SocketAddr| VoterFacts {
            address: *voter,
            answers: Some(ring.nodes.iter().any(|node| node.address == *voter && answers(node))),
            lag: namespace.lags.iter().find(|lag| lag.voter == *voter).map(|lag| lag.entries),
        };
        Self {
            state: None,
            has_namespace: namespace.known,
            confirmed_leader: namespace.leader.filter(|_| namespace.leader_confirmed),
            voters: namespace.voters.iter().map(voter).collect(),
            nodes: storing().map(node).collect(),
            answering_nodes: Some(storing().filter(|node| answers(node)).count()),
            under_replicated: ring.under_replicated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copies_of_a_dead_holder_are_missing() {
        for (chunks, compared, wanted) in [
            (&[Some(10), Some(10), Some(10)][..], Some(0), Some(0)),
            (&[Some(10), Some(10), None], Some(0), Some(10)),
            (&[Some(10), Some(10)], Some(0), Some(10)),
            (&[Some(10), Some(8)], Some(2), Some(12)),
            (&[Some(10)], None, Some(20)),
            (&[Some(9), Some(9), Some(9), None], Some(4), Some(13)),
            (&[Some(9), Some(9), Some(9)], None, None),
            (&[None, None], None, None),
            (&[], Some(3), Some(3)),
        ] {
            assert_eq!(lacking_copies(chunks, compared), wanted, "{chunks:?} {compared:?}");
        }
    }
}
