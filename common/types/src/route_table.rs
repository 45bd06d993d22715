//! The arcs learnt so far, as a value.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    placement,
    ring_id::{Neighbours, NodeRef, RingArc, RingId},
};

/// The holders of the keys of an arc, the owner first (see [`placement`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// All keys in it have the same holders.
    pub arc: RingArc,
    /// Never empty, and at most the replica count.
    pub holders: Vec<NodeRef>,
}

impl Route {
    /// Relies on `holders` not being empty.
    pub fn owner(&self) -> &NodeRef {
        &self.holders[0]
    }
}

/// Arcs that do not overlap, by their upper end.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Shared, because a batch looks the same few routes up thousands of times.
    routes: BTreeMap<u32, Arc<Route>>,
}

impl RouteTable {
    /// `None` if no learnt arc contains the key, so that it has to be looked up in the ring.
    pub fn route(&self, key: RingId) -> Option<&Arc<Route>> {
        let next = self.routes.range(key.0..).next().or_else(|| self.routes.iter().next());
        next.map(|(_, route)| route).filter(|route| route.arc.contains(key))
    }

    /// Adds the routes that follow from `neighbours`; they replace all routes that they overlap.
    pub fn learn(&mut self, neighbours: &Neighbours) {
        for route in routes_of(neighbours) {
            self.routes.retain(|_, old| !overlap(old.arc, route.arc));
            self.routes.insert(route.arc.upto.0, Arc::new(route));
        }
    }

    /// Forgets the arcs that the node owns, but not those in which it is another holder.
    pub fn drop_owner(&mut self, node: &NodeRef) {
        self.routes.retain(|_, route| route.owner().ring_address() != node.ring_address());
    }

    /// All holders of all learnt arcs, each once, in the order of the arcs.
    pub fn members(&self) -> Vec<NodeRef> {
        let mut members: Vec<NodeRef> = Vec::new();
        for node in self.routes.values().flat_map(|route| &route.holders) {
            if !members.contains(node) {
                members.push(*node);
            }
        }
        members
    }
}

fn overlap(a: RingArc, b: RingArc) -> bool {
    a.contains(b.upto) || b.contains(a.upto)
}

/// One route for each arc whose holders the node can name. If its successor list reaches its predecessor, the node
/// knows the whole circle, and every arc's holders.
fn routes_of(neighbours: &Neighbours) -> Vec<Route> {
    let mut nodes = vec![neighbours.node];
    nodes.extend(neighbours.successors.iter().filter(|node| node.id != neighbours.node.id));
    let Some(predecessor) = neighbours.predecessor else {
        return if nodes.len() == 1 { vec![Route { arc: neighbours.arc(), holders: nodes }] } else { vec![] };
    };
    match nodes.iter().position(|node| node.id == predecessor.id) {
        Some(last) => closed_circle(&nodes[..=last]),
        None => open_run(predecessor, &nodes),
    }
}

fn closed_circle(nodes: &[NodeRef]) -> Vec<Route> {
    let count = nodes.len();
    let holders = |at: usize| placement::holders(&placement::onwards(nodes, at));
    let arc = |at: usize| RingArc::new(nodes[(at + count - 1) % count].id, nodes[at].id);
    (0..count).map(|at| Route { arc: arc(at), holders: holders(at) }).collect()
}

/// The list ends before the predecessor: only the node's own arc, and the arcs whose holders are certain, get a route.
fn open_run(predecessor: NodeRef, nodes: &[NodeRef]) -> Vec<Route> {
    let mut after = predecessor.id;
    let mut routes = Vec::new();
    for at in 0..nodes.len() {
        if at > 0 && !placement::is_certain(&nodes[at..]) {
            break;
        }
        routes.push(Route { arc: RingArc::new(after, nodes[at].id), holders: placement::holders(&nodes[at..]) });
        after = nodes[at].id;
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeRef {
        NodeRef { ip: std::net::Ipv4Addr::from(id).into(), port: 5057, id: RingId(id) }
    }

    fn neighbours(predecessor: u32, id: u32, successors: &[u32]) -> Neighbours {
        let successors = successors.iter().map(|&id| node(id)).collect();
        Neighbours { predecessor: Some(node(predecessor)), node: node(id), successors }
    }

    fn holders(table: &RouteTable, key: u32) -> Vec<u32> {
        table.route(RingId(key)).map(|route| route.holders.iter().map(|node| node.id.0).collect()).unwrap_or_default()
    }

    #[test]
    fn a_small_ring_is_known_from_one_node() {
        let mut table = RouteTable::default();
        table.learn(&neighbours(40, 10, &[20, 30, 40]));
        assert_eq!(holders(&table, 5), [10, 20, 30]);
        assert_eq!(holders(&table, 41), [10, 20, 30]);
        assert_eq!(holders(&table, 40), [40, 10, 20]);
    }

    #[test]
    fn arcs_beyond_a_short_successor_list_stay_unknown() {
        let mut table = RouteTable::default();
        table.learn(&neighbours(90, 10, &[20, 30, 40]));
        assert_eq!(holders(&table, 20), [20, 30, 40]);
        assert!(holders(&table, 25).is_empty(), "the holders after 30 are not all known");
    }

    #[test]
    fn a_joined_node_splits_an_arc() {
        let mut table = RouteTable::default();
        table.learn(&neighbours(20, 10, &[20]));
        table.learn(&neighbours(10, 15, &[20, 10]));
        assert_eq!(holders(&table, 14), [15, 20, 10]);
        assert_eq!(holders(&table, 16), [20, 10, 15]);
    }

    #[test]
    fn a_ring_of_one_owns_all() {
        let mut table = RouteTable::default();
        table.learn(&Neighbours { predecessor: None, node: node(7), successors: vec![] });
        assert_eq!(holders(&table, 8), [7]);
    }
}
