//! The decisions of a drain, from values alone: which nodes hold the chunks afterwards, whether they have enough space,
//! to which nodes writes are forwarded meanwhile, and where requests are redirected after the node has left.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use chordfs_types::{
    chunk_api::REPLICAS,
    disk_space::Disk,
    placement,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};
use thiserror::Error;

/// Why a drain is refused or fails, in words for the operator. The node continues to serve as before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DrainError {
    #[error("the node is {state}; only a serving node can be drained")]
    NotServing { state: String },
    #[error(
        "this is the ring's only node, so no other node can take over its chunks; add nodes first, or stop it with \
         SIGTERM, which keeps its data in its folder"
    )]
    Alone,
    #[error(
        "only {} would hold the chunks ({away} more drain or do not answer), and {REPLICAS} should; add a node first, or \
         allow fewer copies (drain --allow-fewer-copies)",
        other_nodes(*.staying)
    )]
    TooFewNodes { staying: usize, away: usize },
    #[error(
        "{node} would have to take about {needed_mib} MiB and has {free_mib} MiB free; add a node, give it a larger \
         disk, or delete files"
    )]
    NoSpace { node: NodeRef, needed_mib: u64, free_mib: u64 },
    #[error(
        "the vote on the namespace could not be given up within {} s: {reason}; see that a majority of the voters \
         runs, then try again",
        .within.as_secs()
    )]
    NoMajority { within: Duration, reason: String },
    #[error("no progress for {} s: {reason}; fix that, then try again", .within.as_secs())]
    Stalled { within: Duration, reason: String },
}

fn other_nodes(count: usize) -> String {
    if count == 1 { "1 other node".to_owned() } else { format!("{count} other nodes") }
}

/// Another member of the ring, as it answered the announcement of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainingPeer {
    pub node: NodeRef,
    /// Whether it leaves as well, so that it cannot take over chunks.
    pub draining: bool,
    pub free_bytes: u64,
    /// The file system of its chunks, which other nodes may share; `None` if it does not say.
    pub disk: Option<Disk>,
}

/// The nodes that stay, in the order of the ring: the ring as it will be after the drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemainingNodes(Vec<NodeRef>);

/// Decides which nodes take over the chunks. `peers` are the members that answered, in the order of the ring, without
/// this node; `unresponsive` counts those that did not answer.
pub fn remaining(
    peers: &[RemainingPeer],
    unresponsive: usize,
    allow_fewer_copies: bool,
) -> Result<RemainingNodes, DrainError> {
    let staying: Vec<NodeRef> = peers.iter().filter(|peer| !peer.draining).map(|peer| peer.node).collect();
    let away = peers.len() - staying.len() + unresponsive;
    match staying.len() {
        0 if away == 0 => Err(DrainError::Alone),
        count if count == 0 || (count < REPLICAS && !allow_fewer_copies) => {
            Err(DrainError::TooFewNodes { staying: count, away })
        }
        _ => Ok(RemainingNodes(staying)),
    }
}

impl RemainingNodes {
    /// Every arc of the future ring, with its holders.
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

/// About how many bytes a node has to take over, estimated from the numbers of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub node: NodeRef,
    pub bytes: u64,
}

/// Checks that every node has enough space for the chunks that it takes over, and every disk for those of its nodes.
pub fn check_room(needs: &[Need], peers: &[RemainingPeer]) -> Result<(), DrainError> {
    for peer in peers {
        check_free(peer, needed_by(needs, |node| *node == peer.node), peer.free_bytes)?;
        let Some(disk) = peer.disk else { continue };
        let shares = |other: &RemainingPeer| other.disk.is_some_and(|other| other.id == disk.id);
        let on_disk = |node: &NodeRef| peers.iter().any(|other| other.node == *node && shares(other));
        check_free(peer, needed_by(needs, on_disk), disk.free_bytes)?;
    }
    Ok(())
}

fn needed_by(needs: &[Need], is_counted: impl Fn(&NodeRef) -> bool) -> u64 {
    needs.iter().filter(|need| is_counted(&need.node)).map(|need| need.bytes).sum()
}

fn check_free(peer: &RemainingPeer, needed: u64, free: u64) -> Result<(), DrainError> {
    const MIB: u64 = 1 << 20;
    if needed <= free {
        return Ok(());
    }
    Err(DrainError::NoSpace { node: peer.node, needed_mib: needed.div_ceil(MIB), free_mib: free / MIB })
}

/// To how many of the next nodes an owner forwards a batch, so that the batch has its full set of holders among the
/// nodes that stay. A draining node remains a holder until it has left, so it gets its copy as well.
pub fn forward_count(others: &[NodeRef], drains: impl Fn(&NodeRef) -> bool, own_drains: bool) -> usize {
    let mut wanted = if own_drains { REPLICAS } else { REPLICAS - 1 };
    let enough = others.iter().position(|node| {
        wanted -= usize::from(!drains(node));
        wanted == 0
    });
    enough.map_or(others.len(), |last| last + 1)
}

/// The ring as the successor will see it when the node of this view has left; `None` if there is no other node.
pub fn view_of_successor(view: &Neighbours) -> Option<Neighbours> {
    let (successor, rest) = view.successors.split_first()?;
    let predecessor = view.predecessor.filter(|node| node != successor);
    Some(Neighbours { predecessor, node: *successor, successors: rest.to_vec() })
}

#[cfg(test)]
mod tests {
    use chordfs_types::disk_space::DiskId;

    use super::*;

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port: id as u16, id: RingId(id) }
    }

    fn peer(id: u32, draining: bool) -> RemainingPeer {
        RemainingPeer { node: node(id), draining, free_bytes: 10 << 20, disk: None }
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
        let texts = [0, 1, 2].map(|staying| DrainError::TooFewNodes { staying, away: 0 }.to_string());
        assert!(texts[0].starts_with("only 0 other nodes would") && texts[1].starts_with("only 1 other node would"));
        assert!(texts[2].starts_with("only 2 other nodes would hold the chunks"), "{}", texts[2]);
        assert!(remaining(&peers[..2], 0, true).is_ok());
        assert!(remaining(&peers[..1], 0, true).is_ok());
        assert_eq!(remaining(&[], 0, true), Err(DrainError::Alone));
        assert_eq!(remaining(&[], 1, true), Err(DrainError::TooFewNodes { staying: 0, away: 1 }));
    }

    #[test]
    fn a_node_that_drains_as_well_takes_over_no_chunks() {
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
    fn every_key_has_its_holders_in_the_future_ring() {
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
    fn nodes_on_one_disk_share_its_room() {
        let disk = Some(Disk { id: DiskId(1), free_bytes: 10 << 20 });
        let peers = [10, 20, 30].map(|id| RemainingPeer { disk: disk.filter(|_| id != 30), ..peer(id, false) });
        let need = |id, mib: u64| Need { node: node(id), bytes: mib << 20 };
        assert_eq!(check_room(&[need(10, 5), need(20, 5), need(30, 10)], &peers), Ok(()));
        let full = DrainError::NoSpace { node: node(10), needed_mib: 11, free_mib: 10 };
        assert_eq!(check_room(&[need(10, 5), need(20, 6)], &peers), Err(full));
    }

    #[test]
    fn a_write_gets_its_full_set_of_copies_beside_draining_nodes() {
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
    fn late_requests_are_redirected_to_the_successor() {
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
        assert!(last.arc().contains(RingId(40)), "a node that is alone owns every key");
        assert_eq!(view_of_successor(&view(10, &[])), None);
    }
}
