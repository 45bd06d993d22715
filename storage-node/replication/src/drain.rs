//! What a drain decides, from values alone: who keeps the chunks afterwards, whether they have room, whom a write is
//! passed on to meanwhile, and what is answered to those who still come here after the node has left.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use chordfs_types::{
    chunk_api::REPLICAS,
    placement,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};
use thiserror::Error;

/// Why a drain does not take place, in words for the operator. The node goes on as before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DrainError {
    #[error("the node is {state}; only one that serves can be drained")]
    NotServing { state: String },
    #[error(
        "this is the ring's only node, so nobody can take over what it keeps; add nodes first, or stop it with SIGTERM, \
         which keeps its data in its folder"
    )]
    Alone,
    #[error(
        "only {staying} other nodes would keep the chunks ({away} more drain or do not answer), and {REPLICAS} should; \
         add a node first, or allow fewer copies (drain --allow-fewer-copies)"
    )]
    TooFewNodes { staying: usize, away: usize },
    #[error(
        "{node} would have to take about {needed_mib} MiB and has {free_mib} MiB free; add a node, give it a larger \
         disk, or delete files"
    )]
    NoSpace { node: NodeRef, needed_mib: u64, free_mib: u64 },
    #[error(
        "the vote on the namespace could not be given up within {within:?}: {reason}; see that a majority of the voters \
         runs, then try again"
    )]
    NoMajority { within: Duration, reason: String },
    #[error("no progress for {within:?}: {reason}; repair that, then try again")]
    Stalled { within: Duration, reason: String },
}

/// Another member of the ring, as it answered when it was told of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingPeer {
    pub node: NodeRef,
    /// It leaves as well, so it is nobody to leave chunks to.
    pub draining: bool,
    pub free_bytes: u64,
}

/// The nodes that stay, in the order of the ring: the ring as it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemainingNodes(Vec<NodeRef>);

/// `peers`: the members that answered, in the order of the ring, without this node; `silent`: how many did not.
pub fn remaining(
    peers: &[RemainingPeer],
    silent: usize,
    allow_fewer_copies: bool,
) -> Result<RemainingNodes, DrainError> {
    let staying: Vec<NodeRef> = peers.iter().filter(|peer| !peer.draining).map(|peer| peer.node).collect();
    let away = peers.len() - staying.len() + silent;
    match staying.len() {
        0 if away == 0 => Err(DrainError::Alone),
        count if count == 0 || (count < REPLICAS && !allow_fewer_copies) => {
            Err(DrainError::TooFewNodes { staying: count, away })
        }
        _ => Ok(RemainingNodes(staying)),
    }
}

impl RemainingNodes {
    /// Every arc of the ring as it will be, with its holders.
    pub fn arcs(&self) -> Vec<(RingArc, Vec<NodeRef>)> {
        let count = self.0.len();
        let arc = |at: usize| RingArc::new(self.0[(at + count - 1) % count].id, self.0[at].id);
        (0..count).map(|at| (arc(at), self.holders(at))).collect()
    }

    /// The future holders of a key.
    pub fn holders_of(&self, key: RingId) -> Vec<NodeRef> {
        let owner = (0..self.0.len()).min_by_key(|&at| key.steps_to(self.0[at].id));
        owner.map(|at| self.holders(at)).unwrap_or_default()
    }

    fn holders(&self, owner: usize) -> Vec<NodeRef> {
        placement::holders(&placement::onwards(&self.0, owner))
    }
}

/// What has to be brought to a node, at a guess from the numbers of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub node: NodeRef,
    pub bytes: u64,
}

/// Whether everybody has room for what is to come.
pub fn check_room(needs: &[Need], peers: &[RemainingPeer]) -> Result<(), DrainError> {
    const MIB: u64 = 1 << 20;
    for peer in peers {
        let needed: u64 = needs.iter().filter(|need| need.node == peer.node).map(|need| need.bytes).sum();
        if needed > peer.free_bytes {
            let (needed_mib, free_mib) = (needed.div_ceil(MIB), peer.free_bytes / MIB);
            return Err(DrainError::NoSpace { node: peer.node, needed_mib, free_mib });
        }
    }
    Ok(())
}

/// To how many of the next nodes an owner passes a batch on, so that it has its full set of holders among those that
/// stay. A node that drains goes on being a holder, until it has left, so it gets its copy as well.
pub fn forward_count(others: &[NodeRef], drains: impl Fn(&NodeRef) -> bool, own_drains: bool) -> usize {
    let mut wanted = if own_drains { REPLICAS } else { REPLICAS - 1 };
    let enough = others.iter().position(|node| {
        wanted -= usize::from(!drains(node));
        wanted == 0
    });
    enough.map_or(others.len(), |last| last + 1)
}

/// What the next node will know of the ring when the node of this view has left it; `None` if there is no other.
pub fn view_of_successor(view: &Neighbours) -> Option<Neighbours> {
    let (successor, rest) = view.successors.split_first()?;
    let predecessor = view.predecessor.filter(|node| node != successor);
    Some(Neighbours { predecessor, node: *successor, successors: rest.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port: id as u16, id: RingId(id) }
    }

    fn peer(id: u32, draining: bool) -> RemainingPeer {
        RemainingPeer { node: node(id), draining, free_bytes: 10 << 20 }
    }

    fn staying(ids: &[u32]) -> RemainingNodes {
        let peers: Vec<_> = ids.iter().map(|&id| peer(id, false)).collect();
        remaining(&peers, 0, true).unwrap()
    }

    fn ids(nodes: &[NodeRef]) -> Vec<u32> {
        nodes.iter().map(|node| node.id.0).collect()
    }

    #[test]
    fn three_others_are_needed_unless_the_operator_allows_fewer() {
        let peers: Vec<_> = [10, 20, 30].map(|id| peer(id, false)).into();
        assert!(remaining(&peers, 0, false).is_ok());
        assert_eq!(remaining(&peers[..2], 1, false), Err(DrainError::TooFewNodes { staying: 2, away: 1 }));
        assert!(remaining(&peers[..2], 0, true).is_ok());
        assert!(remaining(&peers[..1], 0, true).is_ok());
        assert_eq!(remaining(&[], 0, true), Err(DrainError::Alone));
        assert_eq!(remaining(&[], 1, true), Err(DrainError::TooFewNodes { staying: 0, away: 1 }));
    }

    #[test]
    fn who_drains_as_well_is_no_heir() {
        let peers = [peer(10, false), peer(20, true), peer(30, false), peer(40, false)];
        let found = remaining(&peers, 0, false).unwrap();
        assert_eq!(ids(&found.holders_of(RingId(15))), [30, 40, 10]);
        assert_eq!(remaining(&peers[..3], 0, false), Err(DrainError::TooFewNodes { staying: 2, away: 1 }));
        assert_eq!(
            remaining(&[peer(10, true)], 0, true),
            Err(DrainError::TooFewNodes { staying: 0, away: 1 }),
            "two nodes must not both leave"
        );
    }

    #[test]
    fn every_key_has_its_holders_in_the_ring_as_it_will_be() {
        let ring = staying(&[10, 20, 30, 40]);
        for (key, wanted) in [(10, [10, 20, 30]), (11, [20, 30, 40]), (35, [40, 10, 20]), (41, [10, 20, 30])] {
            assert_eq!(ids(&ring.holders_of(RingId(key))), wanted, "{key}");
        }
        for (arc, holders) in ring.arcs() {
            for key in [arc.after.advance(1), arc.upto] {
                assert_eq!(ring.holders_of(key), holders, "{key}");
            }
        }
        let alone = staying(&[7]);
        assert_eq!(alone.arcs()[0].0.len(), 1 << 32);
        assert_eq!(ids(&alone.holders_of(RingId(8))), [7]);
    }

    #[test]
    fn a_full_node_is_named() {
        let need = |id, mib: u64| Need { node: node(id), bytes: mib << 20 };
        let peers = [peer(10, false), peer(20, false)];
        assert_eq!(check_room(&[need(10, 6), need(20, 10), need(10, 4)], &peers), Ok(()));
        let full = DrainError::NoSpace { node: node(10), needed_mib: 11, free_mib: 10 };
        assert_eq!(check_room(&[need(10, 6), need(10, 5)], &peers), Err(full));
    }

    #[test]
    fn a_write_gets_its_copies_beside_those_that_drain() {
        let others = [20, 30, 40, 50].map(node);
        let drains = |ids: &'static [u32]| move |node: &NodeRef| ids.contains(&node.id.0);
        assert_eq!(forward_count(&others, drains(&[]), false), 2);
        assert_eq!(forward_count(&others, drains(&[20]), false), 3);
        assert_eq!(forward_count(&others, drains(&[20, 30]), true), 4);
        assert_eq!(forward_count(&others, drains(&[]), true), 3);
        assert_eq!(forward_count(&others[..1], drains(&[20]), false), 1);
        assert_eq!(forward_count(&[], drains(&[]), true), 0);
    }

    #[test]
    fn who_comes_late_is_sent_to_the_next() {
        let view = |predecessor, successors: &[u32]| Neighbours {
            predecessor: Some(node(predecessor)),
            node: node(40),
            successors: successors.iter().map(|&id| node(id)).collect(),
        };
        let successor = view_of_successor(&view(30, &[10, 20, 30])).unwrap();
        assert_eq!(
            (successor.predecessor, successor.node, ids(&successor.successors)),
            (Some(node(30)), node(10), vec![20, 30])
        );
        let last = view_of_successor(&view(10, &[10])).unwrap();
        assert_eq!((last.predecessor, last.node, last.successors.len()), (None, node(10), 0));
        assert!(last.arc().contains(RingId(40)), "alone it owns all");
        assert_eq!(view_of_successor(&view(10, &[])), None);
    }
}
