//! The ring that loads are computed from: its arcs, what each of them weighs, and who holds it.
//!
//! `placement` says which nodes hold an arc, as it does for writers, repair and mounts, and which would hold it with
//! one node more.

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
    /// What the node holds, as a multiple of what the masses say.
    pub unexplained: f64,
}

/// Arcs, ordered by the number of their ends.
pub(super) struct Circle {
    pub arcs: Vec<Arc>,
    /// For each arc, the places of the nodes that hold it, `held` of them.
    holders: Vec<usize>,
    held: usize,
    /// For each arc, once it was computed: how many nodes from its owner on decide which nodes hold it.
    reach: Vec<OnceCell<usize>>,
    /// All nodes, and the first ones again, as many as count from the last one on.
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
        circle.holders = (0..circle.len()).flat_map(|at| circle.kept_by(at)).collect();
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

    /// How many positions the arc at `at` has, 1..=2^32.
    pub(super) fn positions(&self, at: usize) -> u64 {
        RingArc::new(self.arcs[self.before(at, 1)].node.id, self.arcs[at].node.id).len()
    }

    pub(super) fn is_taken(&self, id: RingId) -> bool {
        self.arcs.binary_search_by_key(&id.0, |arc| arc.node.id.0).is_ok()
    }

    /// What each node holds by the masses.
    pub(super) fn loads(&self) -> Vec<f64> {
        let mut loads = vec![0.0; self.len()];
        for (at, arc) in self.arcs.iter().enumerate() {
            self.holders(at).iter().for_each(|&node| loads[node] += arc.mass);
        }
        loads
    }

    /// Whether the arc `back` before `at` keeps its holders, whoever comes to stand in the arc at `at`.
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

    /// The holders of what the node `back` before `at` owns if `newcomer` stands in the arc at `at`; with 0 back, of
    /// what the newcomer owns. The newcomer's place is one behind the last.
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

    /// The nodes from `at` on, as far as they count.
    fn onwards(&self, at: usize) -> &[NodeRef] {
        &self.around[at..at + self.len().min(SPREAD_OVER)]
    }

    fn kept_by(&self, at: usize) -> impl Iterator<Item = usize> {
        self.steps_to_holders(self.onwards(at)).map(move |step| self.after(at, step))
    }

    fn steps_to_holders(&self, nodes: &[NodeRef]) -> impl Iterator<Item = usize> {
        let holders = placement::holders(nodes).into_iter().take(self.copies);
        holders.filter_map(|holder| nodes.iter().position(|node| *node == holder))
    }
}

/// Puts a node among `arcs`, which then begin or end there, with their parts of the mass. Nothing changes if its id is
/// taken.
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
