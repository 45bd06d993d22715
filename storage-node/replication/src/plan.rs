//! Which nodes have to hold which chunks, decided from values alone.
#![deny(clippy::disallowed_methods)]

use chordfs_types::{
    chunk_api::{REPLICAS, write_quorum},
    placement,
    ring_id::{Neighbours, NodeRef, RingId},
    route_table::Route,
};

/// The decision about a batch that was sent to this node as the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutVerdict {
    /// `others` are tried in this order; the batch is acknowledged with `required` copies, this node's own included.
    Own { others: Vec<NodeRef>, required: usize },
    /// Another node owns at least one of the keys.
    Misdirected,
    /// There are fewer nodes than copies that this ring is known to need: it is still coming together.
    TooFewNodes { required: usize },
}

/// Decides about a batch with these keys. `floor` is the number of copies below which no write is acknowledged, however
/// small the ring looks at the moment.
pub fn judge_put(neighbours: &Neighbours, mut keys: impl Iterator<Item = RingId>, floor: usize) -> PutVerdict {
    let arc = neighbours.arc();
    if !keys.all(|key| arc.contains(key)) {
        return PutVerdict::Misdirected;
    }
    let reachable = 1 + neighbours.successors.len();
    let required = write_quorum(reachable.min(REPLICAS)).max(floor);
    if reachable < required {
        return PutVerdict::TooFewNodes { required };
    }
    let others = placement::preferred(&neighbours.onwards()).split_off(1);
    PutVerdict::Own { others, required }
}

/// Whether a node is a holder of this arc.
pub fn holds(route: &Route, node: &NodeRef) -> bool {
    route.holders.iter().any(|holder| holder.id == node.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: [127, 0, 0, 1].into(), port: 5057, id: RingId(id) }
    }

    fn neighbours(predecessor: Option<u32>, successors: &[u32]) -> Neighbours {
        let successors = successors.iter().map(|&id| node(id)).collect();
        Neighbours { predecessor: predecessor.map(node), node: node(40), successors }
    }

    fn verdict(neighbours: &Neighbours, key: u32, floor: usize) -> PutVerdict {
        judge_put(neighbours, std::iter::once(RingId(key)), floor)
    }

    #[test]
    fn the_owner_needs_two_of_three() {
        let ring = neighbours(Some(20), &[60, 80]);
        assert_eq!(verdict(&ring, 30, 1), PutVerdict::Own { others: vec![node(60), node(80)], required: 2 });
        assert_eq!(verdict(&ring, 20, 1), PutVerdict::Misdirected);
        assert_eq!(verdict(&ring, 41, 1), PutVerdict::Misdirected);
    }

    #[test]
    fn a_ring_of_two_needs_both_and_a_ring_of_one_itself() {
        assert!(matches!(verdict(&neighbours(Some(60), &[60]), 30, 1), PutVerdict::Own { required: 2, .. }));
        assert!(matches!(verdict(&neighbours(None, &[]), 30, 1), PutVerdict::Own { required: 1, .. }));
    }

    #[test]
    fn a_ring_that_is_coming_together_does_not_acknowledge_alone() {
        assert_eq!(verdict(&neighbours(None, &[]), 30, 2), PutVerdict::TooFewNodes { required: 2 });
    }

    #[test]
    fn a_node_without_a_predecessor_owns_no_key_in_a_larger_ring() {
        assert_eq!(verdict(&neighbours(None, &[60]), 30, 1), PutVerdict::Misdirected);
    }
}
