//! The ring from which loads are computed: its arcs, their masses and their holders.
//!
//! `placement` computes the holders of an arc, as it does for writers, repair and mounts, and also the holders with one
//! more node.

use std::{cell::OnceCell, cmp::Ordering};

use chordfs_types::{
    chunk_api::REPLICAS,
    placement::{self, SPREAD_OVER},
    ring_id::{NodeRef, RingArc, RingId},
};

/// A node, and the arc up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arc {
    pub node: NodeRef,
    pub mass: f64,
    /// The node's load as a multiple of the load that the masses predict.
    pub unexplained: f64,
}

/// Arcs, ordered by the number of their ends.
pub(super) struct Circle {
    pub arcs: Vec<Arc>,
    /// For each arc, the places of the nodes that hold it, `held` of them.
    holders: Vec<usize>,
    held: usize,
    /// For each arc, once computed: how many nodes, counted from its owner on, decide which nodes hold it.
    reach: Vec<OnceCell<usize>>,
    /// All nodes, followed by the first `SPREAD_OVER` again, so that a slice can wrap around.
    around: Vec<NodeRef>,
    copies: usize,
}

impl Circle {
    /// With fewer `copies` than `placement` has holders, the first of these.
    pub(super) fn new(arcs: Vec<Arc>, copies: usize) -> Self {
        let nodes = || arcs.iter().map(|arc| arc.node);
        let around = nodes().chain(nodes().take(SPREAD_OVER)).collect();
        let reach = vec![OnceCell::new(); arcs.len()];
        let held = copies.min(REPLICAS).min(arcs.len());
        let mut circle = Self { arcs, holders: Vec::new(), held, reach, around, copies };
        circle.holders = (0..circle.len()).flat_map(|at| circle.holder_places(at)).collect();
        circle
    }

    pub(super) fn len(&self) -> usize {
        self.arcs.len()
    }

    pub(super) fn holders(&self, at: usize) -> &[usize] {
        &self.holders[at * self.held..(at + 1) * self.held]
    }

    /// The place `steps` before `at`, at most once round.
    pub(super) fn before(&self, at: usize, steps: usize) -> usize {
        if at >= steps { at - steps } else { at + self.len() - steps }
    }

    pub(super) fn after(&self, at: usize, steps: usize) -> usize {
        let at = at + steps;
        if at < self.len() { at } else { at % self.len() }
    }

    /// The number of positions of the arc at `at`, 1..=2^32.
    pub(super) fn positions(&self, at: usize) -> u64 {
        RingArc::new(self.arcs[self.before(at, 1)].node.id, self.arcs[at].node.id).len()
    }

    pub(super) fn is_taken(&self, id: RingId) -> bool {
        self.arcs.binary_search_by_key(&id.0, |arc| arc.node.id.0).is_ok()
    }

    /// The load of each node that the masses predict.
    pub(super) fn loads(&self) -> Vec<f64> {
        let mut loads = vec![0.0; self.len()];
        for (at, arc) in self.arcs.iter().enumerate() {
            self.holders(at).iter().for_each(|&node| loads[node] += arc.mass);
        }
        loads
    }

    /// True if the arc `back` places before `at` keeps its holders whichever node joins in the arc at `at`.
    pub(super) fn is_out_of_reach(&self, at: usize, back: usize) -> bool {
        let from = self.before(at, back);
        *self.reach[from].get_or_init(|| self.reach_of(from)) <= back
    }

    fn reach_of(&self, at: usize) -> usize {
        let nodes = self.onwards(at);
        let holders = placement::holders(nodes);
        let up_to_last = nodes.iter().rposition(|node| holders.contains(node)).map_or(0, |last| last + 1);
        if placement::is_certain(&nodes[..up_to_last]) { up_to_last } else { SPREAD_OVER }
    }

    /// The holders of the arc of the node `back` places before `at` if `newcomer` joins in the arc at `at`; with `back`
    /// 0, of the newcomer's arc. The newcomer has the place after the last.
    pub(super) fn holders_with(&self, newcomer: NodeRef, at: usize, back: usize) -> Vec<usize> {
        let from = self.before(at, back);
        let mut nodes = Vec::with_capacity(SPREAD_OVER);
        nodes.extend_from_slice(&self.around[from..from + back]);
        nodes.push(newcomer);
        let rest = (self.len() + 1).min(SPREAD_OVER).saturating_sub(nodes.len());
        nodes.extend_from_slice(&self.around[at..at + rest]);
        let place = |step: usize| match step.cmp(&back) {
            Ordering::Less => self.after(from, step),
            Ordering::Equal => self.len(),
            Ordering::Greater => self.after(from, step - 1),
        };
        self.steps_to_holders(&nodes).map(place).collect()
    }

    /// The nodes from `at` on, as many as may decide the holders.
    fn onwards(&self, at: usize) -> &[NodeRef] {
        &self.around[at..at + self.len().min(SPREAD_OVER)]
    }

    fn holder_places(&self, at: usize) -> impl Iterator<Item = usize> {
        self.steps_to_holders(self.onwards(at)).map(move |step| self.after(at, step))
    }

    fn steps_to_holders(&self, nodes: &[NodeRef]) -> impl Iterator<Item = usize> {
        let holders = placement::holders(nodes).into_iter().take(self.copies);
        holders.filter_map(|holder| nodes.iter().position(|node| *node == holder))
    }
}

/// Inserts a node, which divides the arc that contains it and its mass. Does nothing if the id is taken.
pub(super) fn insert(arcs: &mut Vec<Arc>, node: NodeRef) {
    let at = arcs.partition_point(|arc| arc.node.id.0 < node.id.0);
    let Some(next) = at.checked_rem(arcs.len()) else {
        return arcs.push(Arc { node, mass: 1.0, unexplained: 1.0 });
    };
    let (end, begin) = (arcs[next].node.id, arcs[(next + arcs.len() - 1) % arcs.len()].node.id);
    if end == node.id {
        return;
    }
    let share = RingArc::new(begin, node.id).len() as f64 / RingArc::new(begin, end).len() as f64;
    let mass = arcs[next].mass * share;
    arcs[next].mass -= mass;
    arcs.insert(at, Arc { node, mass, unexplained: 1.0 });
}
