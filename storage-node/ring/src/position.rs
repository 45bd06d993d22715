//! The choice of a joining node's position: it should relieve the fullest node and leave the loads most even.
//!
//! The mass of each arc is estimated from the loads of the nodes that hold it (`weigh`). The holders follow from zones
//! and hosts, so `placement` computes them, also with the newcomer in any of the arcs (`circle`). The holders do not
//! depend on where in the arc the newcomer stands, so every load is a linear function of the share that it takes
//! (`slot`). A place is good if it relieves the fullest of the nodes that can be relieved: where each of three zones
//! holds everything once, a newcomer takes load only from nodes of its own zone. Of the good places, the one with the
//! smallest sum of squared loads is chosen.
//!
//! Why not minimize the largest load: among the places that relieve the fullest node, that one gives the newcomer a
//! small load, and leaves the ring uneven for later newcomers. Why not take the exact minimum of the sum: newcomers
//! that halve arcs keep all arcs in step, so that rings just above a power of two are uneven. So a newcomer divides its
//! stretch near the half but not at the half. (A stretch is the range in which it takes load from the same nodes:
//! without zones and hosts an arc, with three zones the range between two nodes of its zone.)
//!
//! Cost: holders are searched within 24 nodes, so the effect of a newcomer takes at most 24 sets of holders, and about
//! three where the holders are near. Only slots near the fullest nodes are tried, until one relieves such a node. The
//! rest grows with the ring: estimating the masses, and finding the fullest node.

use std::net::SocketAddr;

use chordfs_types::{
    placement::{SPREAD_OVER, Zone, unmarked},
    ring_id::{NodeRef, RingId},
};

use self::{
    circle::{Arc, Circle, insert},
    slot::{Slot, Stretch},
};

mod circle;
#[cfg(test)]
mod growth_tests;
mod slot;
mod weigh;

/// A member and the bytes it holds, copies included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeRef,
    pub load_bytes: u64,
}

/// The node that asks for a position. `salt` decides between equally good places and moves them by a thousandth of an
/// arc, so that nodes which ask at once with different salts get different ids even if they do not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joiner {
    pub address: SocketAddr,
    pub zone: Option<Zone>,
    pub salt: u64,
}

impl Joiner {
    /// The node at the nearest position to `id` that encodes its zone.
    pub fn at(&self, id: RingId) -> NodeRef {
        let id = self.zone.map_or(unmarked(id), |zone| zone.mark(id));
        NodeRef { ip: self.address.ip(), port: self.address.port(), id }
    }
}

/// The ring as it will be once all known nodes have joined.
#[derive(Clone, Copy, Debug)]
pub struct RingMap<'a> {
    pub members: &'a [Member],
    /// Nodes that are joining, at the positions that they were given.
    pub promised: &'a [NodeRef],
    /// Other ids that must not be used: those of nodes that hold nothing, or are about to leave.
    pub taken: &'a [RingId],
    pub copies: usize,
}

impl RingMap<'_> {
    /// The id for one more node; it encodes the node's zone.
    pub fn place_for(&self, joiner: &Joiner) -> RingId {
        let circle = self.circle();
        let salted = RingId((joiner.salt ^ (joiner.salt >> 32)) as u32);
        let id = Search::new(&circle, joiner).best().map_or(salted, |cut| cut.id(&circle, joiner.salt));
        let is_free = |id: &RingId| !circle.is_taken(*id) && !self.taken.contains(id);
        let mut near = (0..=u32::MAX / STEP).map(|step| joiner.at(id.advance(step * STEP)).id);
        near.find(is_free).unwrap_or(id)
    }

    fn circle(&self) -> Circle {
        let (mut filled, coming) = filled_and_coming(self.members);
        filled.sort_by_key(|member| member.node.id.0);
        filled.dedup_by_key(|member| member.node.id);
        let unweighed = |member: &Member| Arc { node: member.node, mass: 0.0, unexplained: 1.0 };
        let copies = self.copies.max(1);
        let mut circle = Circle::new(filled.iter().map(unweighed).collect(), copies);
        weigh::weigh(&mut circle, &filled);
        if coming.is_empty() && self.promised.is_empty() {
            return circle;
        }
        let on_their_way = coming.iter().map(|member| member.node).chain(self.promised.iter().copied());
        on_their_way.for_each(|node| insert(&mut circle.arcs, node));
        Circle::new(circle.arcs, copies)
    }
}

/// A member with far less load than the others has just joined, and its neighbours still hold its part, so it counts as
/// promised. If most members are that light, all members count as filled.
fn filled_and_coming(members: &[Member]) -> (Vec<Member>, Vec<Member>) {
    let mean = members.iter().map(|member| member.load_bytes as f64).sum::<f64>() / members.len() as f64;
    let (filled, coming): (Vec<_>, Vec<_>) =
        members.iter().partition(|member| member.load_bytes as f64 >= mean * FILLED);
    if coming.len() <= filled.len() { (filled, coming) } else { (members.to_vec(), Vec::new()) }
}

/// The search for the best place. Slots are cached, as their neighbours need them again.
struct Search<'a> {
    circle: &'a Circle,
    newcomer: NodeRef,
    salt: u64,
    loads: Vec<f64>,
    /// The mean of the loads.
    mean: f64,
    /// The load of the whole ring, one copy only.
    mass: f64,
    slots: Vec<Option<Slot>>,
    stretches: Vec<Option<Stretch>>,
}

/// A place in an arc, and its cost.
#[derive(Clone, Copy)]
struct Cut {
    at: usize,
    /// The part of the arc that the new node gets.
    share: f64,
    /// Compared in this order, the smallest wins: the change of the sum of squared loads; of squared stretches, which
    /// still differ where every node holds everything; and of squared arcs, as a node that owns much does more work. In
    /// billionths of the squared mean: smaller differences come from the order of additions, not from the place.
    cost: [i64; 3],
}

impl<'a> Search<'a> {
    fn new(circle: &'a Circle, joiner: &Joiner) -> Self {
        let (loads, count) = (circle.loads(), circle.len());
        Self {
            circle,
            newcomer: joiner.at(RingId(0)),
            salt: joiner.salt,
            mean: loads.iter().sum::<f64>() / count as f64,
            mass: circle.arcs.iter().map(|arc| arc.mass).sum(),
            loads,
            slots: std::iter::repeat_with(|| None).take(count).collect(),
            stretches: vec![None; count],
        }
    }

    fn best(mut self) -> Option<Cut> {
        let cuts = self.relieving();
        let least = cuts.iter().map(|cut| cut.cost).min()?;
        let equal: Vec<Cut> = cuts.into_iter().filter(|cut| cut.cost == least).collect();
        Some(equal[(self.salt % equal.len() as u64) as usize])
    }

    /// The cuts that take load from a fullest node; if there are none, from the next fullest, and so on. All cuts if no
    /// node can be relieved, as where every node holds everything.
    fn relieving(&mut self) -> Vec<Cut> {
        let held: Vec<f64> =
            self.loads.iter().zip(&self.circle.arcs).map(|(load, arc)| load * arc.unexplained).collect();
        let mut fullest: Vec<usize> = (0..held.len()).collect();
        fullest.sort_by(|&a, &b| held[b].total_cmp(&held[a]));
        for equal in fullest.chunk_by(|&a, &b| held[b] >= held[a] * (1.0 - 1e-9)) {
            let mut cuts = self.cuts(&self.slots_near(equal));
            cuts.retain(|cut| equal.iter().any(|&node| self.relieves(cut, node)));
            if !cuts.is_empty() {
                return cuts;
            }
        }
        self.cuts(&(0..held.len()).collect::<Vec<_>>())
    }

    fn relieves(&mut self, cut: &Cut, node: usize) -> bool {
        let least = -1e-9 * self.mean;
        self.slot(cut.at).change_of(node, cut.share) < least
    }

    /// The slots in which a newcomer may change the loads of these nodes.
    fn slots_near(&self, nodes: &[usize]) -> Vec<usize> {
        let (count, reach) = (self.circle.len(), SPREAD_OVER.min(self.circle.len()) - 1);
        let mut near = vec![false; count];
        for &node in nodes {
            let first = self.circle.before(node, reach);
            (0..=2 * reach).for_each(|step| near[self.circle.after(first, step)] = true);
        }
        (0..count).filter(|&at| near[at]).collect()
    }

    fn cuts(&mut self, slots: &[usize]) -> Vec<Cut> {
        slots.iter().flat_map(|&at| self.cuts_of(at)).collect()
    }

    /// The best cuts of the arc at `at` that divide its stretch near the middle: none if the middle lies in other arcs.
    fn cuts_of(&mut self, at: usize) -> Vec<Cut> {
        let (stretch, mass, square) = (self.stretch(at), self.circle.arcs[at].mass, self.mean * self.mean);
        let parts = if self.slot(at).displaced.is_empty() {
            vec![(0.5, 0.5)]
        } else {
            stretch.near_the_middle(self.mass).to_vec()
        };
        let slot = self.slot(at);
        let cut = |part: (f64, f64)| {
            let share = slot.best_share(stretch.share(part.0, mass).max(0.0), stretch.share(part.1, mass).min(1.0))?;
            let part = stretch.part(share, mass);
            let halved = |part: f64, mass: f64| -2.0 * part * (1.0 - part) * mass * mass;
            let costs = [slot.unevenness(share), halved(part, stretch.mass), halved(share, mass)];
            Some(Cut { at, share, cost: costs.map(|cost| (cost / square * 1e9).round() as i64) })
        };
        parts.into_iter().filter_map(cut).collect()
    }

    fn slot(&mut self, at: usize) -> &Slot {
        let (circle, newcomer, loads) = (self.circle, self.newcomer, &self.loads);
        self.slots[at].get_or_insert_with(|| Slot::new(circle, loads, at, newcomer))
    }

    fn stretch(&mut self, at: usize) -> Stretch {
        if let Some(stretch) = self.stretches[at] {
            return stretch;
        }
        let slots = self.slots_of_stretch(at);
        let mass = slots.iter().map(|&slot| self.circle.arcs[slot].mass).sum();
        let mut before = 0.0;
        for &slot in &slots {
            self.stretches[slot] = Some(Stretch { mass, before });
            before += self.circle.arcs[slot].mass;
        }
        self.stretches[at].expect("the slot is in its own stretch")
    }

    /// The slots around `at` in which the newcomer displaces the same nodes without passing one of them. If it
    /// displaces no node, each slot is a stretch of its own.
    fn slots_of_stretch(&mut self, at: usize) -> Vec<usize> {
        let displaced = self.slot(at).displaced.clone();
        let mut first = at;
        for _ in 1..self.circle.len() {
            let before = self.circle.before(first, 1);
            if displaced.is_empty() || displaced.contains(&before) || self.slot(before).displaced != displaced {
                break;
            }
            first = before;
        }
        let mut slots = vec![first];
        let mut last = first;
        for _ in 1..self.circle.len() {
            let after = self.circle.after(last, 1);
            if displaced.is_empty() || displaced.contains(&last) || self.slot(after).displaced != displaced {
                break;
            }
            slots.push(after);
            last = after;
        }
        slots
    }
}

impl Cut {
    fn id(&self, circle: &Circle, salt: u64) -> RingId {
        let (end, positions) = (circle.arcs[self.at].node.id, circle.positions(self.at));
        let rest = ((positions as f64 * (1.0 - self.share)) as u64).max(1);
        let moved = salt % (positions / 1024 + 1);
        RingId(end.0.wrapping_sub(rest.saturating_sub(moved).max(1) as u32))
    }
}

/// The distance to the next position that encodes the same zone.
const STEP: u32 = 1 << 12;
/// A node whose load is less than this part of the mean counts as still filling.
const FILLED: f64 = 1.0 / 16.0;

#[cfg(test)]
mod tests;
