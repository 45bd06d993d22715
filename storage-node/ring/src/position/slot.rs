//! The effect of a newcomer in an arc on all loads, as a function of the share of the arc that it takes.
//!
//! The holders do not depend on where in the arc the newcomer stands. So every load changes by a fixed amount plus an
//! amount proportional to the share, and the sum of squared loads is a parabola.

use chordfs_types::{placement::SPREAD_OVER, ring_id::NodeRef};

use super::circle::Circle;

/// A newcomer in the arc at `at`.
pub(super) struct Slot {
    changes: Vec<LoadChange>,
    /// The nodes that the newcomer replaces as holders of its part of the arc, in ascending order.
    pub displaced: Vec<usize>,
}

struct LoadChange {
    node: usize,
    load: f64,
    fixed: f64,
    by_share: f64,
}

impl Slot {
    pub(super) fn new(circle: &Circle, loads: &[f64], at: usize, newcomer: NodeRef) -> Self {
        let mass = circle.arcs[at].mass;
        let mut slot = Self { changes: Vec::new(), displaced: Vec::new() };
        slot.move_load(circle.holders(at), &circle.holders_with(newcomer, at, 0), 0.0, mass);
        slot.displaced = slot.changes.iter().filter(|change| change.by_share < 0.0).map(|change| change.node).collect();
        slot.displaced.sort_unstable();
        for back in (1..SPREAD_OVER.min(circle.len() + 1)).filter(|&back| !circle.is_out_of_reach(at, back)) {
            let from = circle.before(at, back);
            // One full turn back is the rest of the arc itself.
            let (fixed, by_share) = if from == at { (mass, -mass) } else { (circle.arcs[from].mass, 0.0) };
            slot.move_load(circle.holders(from), &circle.holders_with(newcomer, at, back), fixed, by_share);
        }
        slot.changes.iter_mut().for_each(|change| change.load = loads.get(change.node).copied().unwrap_or(0.0));
        slot
    }

    fn move_load(&mut self, from: &[usize], to: &[usize], fixed: f64, by_share: f64) {
        from.iter().filter(|node| !to.contains(node)).for_each(|&node| self.change(node, -fixed, -by_share));
        to.iter().filter(|node| !from.contains(node)).for_each(|&node| self.change(node, fixed, by_share));
    }

    fn change(&mut self, node: usize, fixed: f64, by_share: f64) {
        match self.changes.iter_mut().find(|change| change.node == node) {
            Some(change) => (change.fixed, change.by_share) = (change.fixed + fixed, change.by_share + by_share),
            None => self.changes.push(LoadChange { node, load: 0.0, fixed, by_share }),
        }
    }

    /// The change of the node's load.
    pub(super) fn change_of(&self, node: usize, share: f64) -> f64 {
        self.changes.iter().filter(|change| change.node == node).map(|change| change.by(share)).sum()
    }

    /// The change of the sum of squared loads.
    pub(super) fn unevenness(&self, share: f64) -> f64 {
        self.changes.iter().map(|change| change.by(share) * (2.0 * change.load + change.by(share))).sum()
    }

    /// The share within the bounds that leaves the loads most even; none if the bounds leave no range.
    pub(super) fn best_share(&self, least: f64, most: f64) -> Option<f64> {
        let sum = |term: fn(&LoadChange) -> f64| self.changes.iter().map(term).sum::<f64>();
        let (slope, bend) =
            (sum(|change| (change.load + change.fixed) * change.by_share), sum(|change| change.by_share.powi(2)));
        let best = if bend > 0.0 { -slope / bend } else { 0.5 };
        (least <= most).then(|| best.clamp(least, most))
    }
}

impl LoadChange {
    fn by(&self, share: f64) -> f64 {
        self.fixed + self.by_share * share
    }
}

/// The slots in which the newcomer takes load from the same nodes: their total mass, and the mass before the slot at
/// hand.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub mass: f64,
    pub before: f64,
}

impl Stretch {
    /// The part of the stretch that the newcomer takes if it takes this share of the arc.
    pub(super) fn part(&self, share: f64, arc: f64) -> f64 {
        (self.before + share * arc) / self.mass
    }

    /// The inverse of `part`; outside 0..=1 if the place is in another arc.
    pub(super) fn share(&self, part: f64, arc: f64) -> f64 {
        (part * self.mass - self.before) / arc
    }

    /// The ranges in which the newcomer may stand, in parts of the stretch.
    ///
    /// A more uneven cut is better now and worse later; exact halves keep all stretches in step. A stretch that is a
    /// large part of the ring decides the evenness of the next sizes. It is cut as de Bruijn and Erdős divide a circle
    /// (1949): into arcs in proportion to log2(1 + 1/j), so that the largest is at most 1.44 of the mean, and less
    /// while there are few.
    pub(super) fn near_the_middle(&self, ring: f64) -> [(f64, f64); 2] {
        let j = 1.0 / ((self.mass / ring).exp2() - 1.0);
        let smaller = ((2.0 * j + 2.0) / (2.0 * j + 1.0)).log2() / (1.0 + 1.0 / j).log2();
        let (least, most) = (smaller.min(SMALLER_PART.0), smaller.min(SMALLER_PART.1));
        [(least, most), (1.0 - most, 1.0 - least)]
    }
}

const SMALLER_PART: (f64, f64) = (0.42, 0.45);
