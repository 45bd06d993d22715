//! What a newcomer changes when it stands in an arc, as a function of the share of the arc that it takes.
//!
//! Which nodes hold what does not depend on where in the arc it stands. So every load is a fixed change, and one in
//! proportion to the share; the sum of their squares is a parabola.

use chordfs_types::{placement::SPREAD_OVER, ring_id::NodeRef};

use super::circle::Circle;

/// A newcomer in the arc at `at`.
pub(super) struct Slot {
    changes: Vec<LoadChange>,
    /// In what the newcomer takes of the arc, it is a holder instead of these, in order.
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
            // Once round is what is left of the arc itself.
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

    /// By how much the node's load changes.
    pub(super) fn change_of(&self, node: usize, share: f64) -> f64 {
        self.changes.iter().filter(|change| change.node == node).map(|change| change.by(share)).sum()
    }

    /// By how much the sum of the squares of all loads changes.
    pub(super) fn unevenness(&self, share: f64) -> f64 {
        self.changes.iter().map(|change| change.by(share) * (2.0 * change.load + change.by(share))).sum()
    }

    /// The share that leaves the loads most even, within the bounds if there is anything between them.
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

/// Slots in which the newcomer takes from the same nodes. Of all that they weigh, some lies before this one.
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

    /// The other way round; outside of 0..=1 if such a place is in another arc.
    pub(super) fn share(&self, part: f64, arc: f64) -> f64 {
        (part * self.mass - self.before) / arc
    }

    /// From where to where the newcomer may stand, in parts of the stretch.
    ///
    /// A cut more uneven pays now and costs later; halves keep all stretches in step. One that is a large part of the
    /// ring decides over the next sizes: it is cut as de Bruijn and Erdős divide a circle (1949), into arcs in
    /// proportion to log2 of 1 + 1/j, such that the largest is never more than 1.44 of the mean, and less while they
    /// are few.
    pub(super) fn near_the_middle(&self, ring: f64) -> [(f64, f64); 2] {
        let j = 1.0 / ((self.mass / ring).exp2() - 1.0);
        let smaller = ((2.0 * j + 2.0) / (2.0 * j + 1.0)).log2() / (1.0 + 1.0 / j).log2();
        let (least, most) = (smaller.min(SMALLER_PART.0), smaller.min(SMALLER_PART.1));
        [(least, most), (1.0 - most, 1.0 - least)]
    }
}

const SMALLER_PART: (f64, f64) = (0.42, 0.45);
