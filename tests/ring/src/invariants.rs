//! The invariants of a ring, checked with a global view (Zave 2017): every member has a live successor, there is one
//! ring, and it is ordered. Also the principals, on which the rest of her proof rests.
//!
//! Shared by the random histories of `network` and the exhaustive search of `exhaustive`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use chordfs_types::ring_id::{Neighbours, RingArc, RingId};

/// A node, up or down, with its neighbours.
pub struct NodeView {
    pub neighbours: Neighbours,
    /// True if the node is up and in the ring.
    pub is_member: bool,
}

/// All nodes, identified by their place in the slice.
pub struct GlobalView<'a> {
    nodes: &'a [NodeView],
    places: BTreeMap<SocketAddr, usize>,
}

impl<'a> GlobalView<'a> {
    pub fn new(nodes: &'a [NodeView]) -> Self {
        let address = |seen: &NodeView| seen.neighbours.node.ring_address();
        Self { nodes, places: nodes.iter().enumerate().map(|(place, seen)| (address(seen), place)).collect() }
    }

    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&place| self.nodes[place].is_member)
    }

    /// The first live member of the node's list; the node itself if it is alone.
    pub fn best_successor(&self, place: usize) -> Option<usize> {
        if self.nodes[place].neighbours.successors.is_empty() {
            Some(place)
        } else {
            self.live_successors(place).next()
        }
    }

    /// True if every other member keeps a live successor when the node crashes.
    pub fn can_spare(&self, place: usize) -> bool {
        self.members().filter(|&other| other != place).all(|other| {
            self.nodes[other].neighbours.successors.is_empty() || self.live_successors(other).any(|next| next != place)
        })
    }

    /// The members that no member's list skips.
    pub fn principals(&self) -> BTreeSet<usize> {
        let lists: Vec<Vec<RingId>> =
            self.members().map(|place| extended_list(&self.nodes[place].neighbours)).collect();
        let is_skipped = |place: &usize| lists.iter().any(|list| skips(list, self.nodes[*place].neighbours.node.id));
        self.members().filter(|place| !is_skipped(place)).collect()
    }

    /// The first violation, if any: every member must have a live successor, there must be exactly one ring, and the
    /// ring and each list must be ordered. (Members outside the ring lead into it: in a graph where each node has one
    /// successor, that follows from there being one ring.)
    pub fn fault(&self) -> Option<String> {
        let mut next = BTreeMap::new();
        for place in self.members() {
            let view = &self.nodes[place].neighbours;
            match self.best_successor(place) {
                None => return Some(format!("{} has no live successor", describe(place, view))),
                Some(_) if !is_in_order(&extended_list(view)) => {
                    return Some(format!("the list of {} is out of order", describe(place, view)));
                }
                Some(best) => next.insert(place, best),
            };
        }
        self.fault_of_cycles(&next)
    }

    fn live_successors(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        let list = self.nodes[place].neighbours.successors.iter();
        let places = list.filter_map(|next| self.places.get(&next.ring_address()).copied());
        places.filter(|&next| self.nodes[next].is_member)
    }

    fn fault_of_cycles(&self, next: &BTreeMap<usize, usize>) -> Option<String> {
        let mut cycles = cycles(next);
        let id = |place: usize| self.nodes[place].neighbours.node.id;
        if cycles.len() > 1 {
            let ids: Vec<Vec<RingId>> = cycles.iter().map(|cycle| cycle.iter().copied().map(id).collect()).collect();
            return Some(format!("{} rings: {ids:?}", cycles.len()));
        }
        let ids: Vec<RingId> = cycles.pop().filter(|cycle| cycle.len() > 1)?.into_iter().map(id).collect();
        let laps: u64 = (0..ids.len()).map(|place| u64::from(ids[place].steps_to(ids[(place + 1) % ids.len()]))).sum();
        (laps != 1 << 32).then(|| format!("the ring is out of order: {ids:?}"))
    }
}

/// True if a successor list, with its owner in front, passes over this position.
pub fn skips(extended_list: &[RingId], id: RingId) -> bool {
    extended_list.windows(2).any(|pair| pair[0] != pair[1] && RingArc::new(pair[0], pair[1]).strictly_contains(id))
}

pub fn extended_list(view: &Neighbours) -> Vec<RingId> {
    std::iter::once(&view.node).chain(&view.successors).map(|node| node.id).collect()
}

/// True if each of these nodes has exactly the right neighbours, given that they are all members.
pub fn is_ideal(views: &[Neighbours], successor_list_len: usize) -> bool {
    let mut order: Vec<&Neighbours> = views.iter().collect();
    order.sort_by_key(|view| view.node.id.0);
    let len = order.len();
    let after = len.saturating_sub(1).min(successor_list_len);
    let is_right = |place: usize| {
        let right = (1..=after).map(|step| order[(place + step) % len].node);
        let before = (len > 1).then(|| order[(place + len - 1) % len].node);
        order[place].predecessor == before && right.eq(order[place].successors.iter().copied())
    };
    (0..len).all(is_right)
}

pub fn describe(place: usize, view: &Neighbours) -> String {
    let ids: Vec<RingId> = view.successors.iter().map(|next| next.id).collect();
    let predecessor = view.predecessor.map(|node| node.id);
    format!("node {place} at {} (predecessor {predecessor:?}, successors {ids:?})", view.node.id)
}

fn is_in_order(extended_list: &[RingId]) -> bool {
    let laps: u64 = extended_list.windows(2).map(|pair| u64::from(pair[0].steps_to(pair[1]))).sum();
    laps < 1 << 32 && extended_list.windows(2).all(|pair| pair[0] != pair[1])
}

fn cycles(next: &BTreeMap<usize, usize>) -> Vec<Vec<usize>> {
    let mut cycles = Vec::new();
    let mut visited = BTreeSet::new();
    for &start in next.keys() {
        let mut path = Vec::new();
        let mut place = start;
        while visited.insert(place) {
            path.push(place);
            place = next[&place];
        }
        // The path ends at an earlier path, or closes on itself.
        if let Some(entry) = path.iter().position(|&earlier| earlier == place) {
            cycles.push(path.split_off(entry));
        }
    }
    cycles
}
