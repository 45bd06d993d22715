//! Where a joining node should stand: where it relieves the fullest node, and leaves the loads most even.
//!
//! Why not halve the fullest node's arc: with R copies a node holds the R arcs up to itself, so one put before X takes
//! part of X's own arc and frees X of all of its farthest. Cutting an arc changes the loads of the R nodes that hold it
//! and of no other, so every place costs R additions, however large the ring. What each arc holds is estimated from the
//! loads of the nodes that keep it.
//!
//! Why not simply make the largest load smallest: of the places that relieve the fullest node, that one puts the new
//! node where it is small itself, and the arcs it leaves are uneven for every later one. The sum of squares, with cuts
//! near the middle, keeps a ring that grows one by one within 1.3 of the mean at every size.

use common::ring_id::RingId;

/// A member and the bytes it holds, copies included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: RingId,
    pub load_bytes: u64,
}

/// The id for one more node. `promised`: positions given to nodes that are on their way in, and other ids that must not
/// be used. `salt` decides between equally good arcs and moves the place by a thousandth of an arc, so that nodes which
/// ask at once with different salts get different ids even if nobody knows of the others.
pub fn choose(members: &[Member], promised: &[RingId], copies: usize, salt: u64) -> RingId {
    let circle = Circle::new(members, promised, copies.max(1));
    let Some(best) = circle.best(salt) else { return RingId((salt ^ (salt >> 32)) as u32) };
    let jitter = (salt % (best.arc_len / 1024 + 1)) as u32;
    let mut id = best.id.advance(jitter);
    while circle.is_taken(id) {
        id = id.advance(1);
    }
    id
}

/// A node's own arc.
#[derive(Clone, Copy, Debug)]
struct Arc {
    end: RingId,
    /// Positions, 1..=2^32.
    len: u64,
    mass: f64,
    /// What the node at its end holds, as a multiple of what the masses say.
    unexplained: f64,
}

/// The arcs, ordered by the number of their ends.
struct Circle {
    arcs: Vec<Arc>,
    copies: usize,
}

struct Place {
    id: RingId,
    arc_len: u64,
}

/// A place in an arc, and what it is worth: the smaller the better, the most important first.
struct Cut {
    arc: usize,
    /// Of the arc, what the new node gets.
    share: f64,
    /// By how much it changes the sum of the squares of all loads.
    unevenness: i64,
    /// The same of the arcs: where every node holds everything, they are what is left to divide.
    arc_unevenness: i64,
}

impl Circle {
    fn new(members: &[Member], promised: &[RingId], copies: usize) -> Self {
        let (mut filled, coming) = filled_and_coming(members);
        filled.sort_by_key(|member| member.id.0);
        filled.dedup_by_key(|member| member.id);
        let arcs = arcs_between(&filled.iter().map(|member| member.id).collect::<Vec<_>>());
        let mut circle = Self { arcs, copies };
        circle.weigh(&filled);
        coming.iter().map(|member| member.id).chain(promised.iter().copied()).for_each(|id| circle.split(id));
        circle
    }

    /// Finds masses that explain the loads: even ones at first, then each arc's corrected by the mean of what its
    /// holders hold too much or too little (as Richardson and Lucy sharpen a picture). The mean is weighted by itself:
    /// a node that lacks something says less than one that has it. A thousandth of the ring's mean is laid over all, so
    /// that an empty ring is divided evenly.
    fn weigh(&mut self, members: &[Member]) {
        let total: f64 = members.iter().map(|member| member.load_bytes as f64).sum();
        let density = (total / CIRCLE).max(1.0 / CIRCLE);
        self.arcs.iter_mut().for_each(|arc| arc.mass = density * arc.len as f64);
        for _ in 0..ROUNDS {
            let ratios = self.ratios(members);
            if ratios.iter().all(|ratio| (ratio - 1.0).abs() < EXPLAINED) {
                break;
            }
            (0..self.arcs.len()).for_each(|arc| self.arcs[arc].mass *= self.correction(arc, &ratios));
        }
        self.arcs.iter_mut().for_each(|arc| arc.mass += density * arc.len as f64 / 1000.0);
        if total > 0.0 {
            let ratios = self.ratios(members);
            self.arcs.iter_mut().zip(ratios).for_each(|(arc, ratio)| arc.unexplained = ratio);
        }
    }

    fn ratios(&self, members: &[Member]) -> Vec<f64> {
        let ratio =
            |(node, member): (usize, &Member)| member.load_bytes as f64 / self.load(node).max(f64::MIN_POSITIVE);
        members.iter().enumerate().map(ratio).collect()
    }

    fn correction(&self, arc: usize, ratios: &[f64]) -> f64 {
        let of_holders = || (0..self.held()).map(|step| ratios[self.after(arc, step)]);
        let sum: f64 = of_holders().sum();
        if sum > 0.0 { of_holders().map(|ratio| ratio * ratio).sum::<f64>() / sum } else { 1e-3 }
    }

    /// How many arcs a node holds.
    fn held(&self) -> usize {
        self.copies.min(self.arcs.len())
    }

    /// The arc `back` before `arc`.
    fn before(&self, arc: usize, back: usize) -> usize {
        if arc >= back { arc - back } else { arc + self.arcs.len() - back }
    }

    fn after(&self, arc: usize, steps: usize) -> usize {
        if arc + steps < self.arcs.len() { arc + steps } else { arc + steps - self.arcs.len() }
    }

    fn load(&self, node: usize) -> f64 {
        (0..self.held()).map(|back| self.arcs[self.before(node, back)].mass).sum()
    }

    /// The arc in which `id` lies.
    fn arc_holding(&self, id: RingId) -> Option<usize> {
        let after = self.arcs.partition_point(|arc| arc.end.0 < id.0);
        after.checked_rem(self.arcs.len())
    }

    fn is_taken(&self, id: RingId) -> bool {
        self.arc_holding(id).is_some_and(|arc| self.arcs[arc].end == id)
    }

    fn split(&mut self, id: RingId) {
        let Some(arc) = self.arc_holding(id) else {
            self.arcs.push(Arc { end: id, len: 1 << 32, mass: 1.0, unexplained: 1.0 });
            return;
        };
        let whole = self.arcs[arc];
        if whole.end == id {
            return;
        }
        let rest = u64::from(id.steps_to(whole.end));
        let mass = whole.mass * rest as f64 / whole.len as f64;
        self.arcs[arc] = Arc { len: rest, mass, ..whole };
        let place = self.arcs.partition_point(|arc| arc.end.0 < id.0);
        self.arcs.insert(place, Arc { end: id, len: whole.len - rest, mass: whole.mass - mass, unexplained: 1.0 });
    }

    fn best(&self, salt: u64) -> Option<Place> {
        let mean = self.arcs.iter().map(|arc| arc.mass).sum::<f64>() * self.held() as f64 / self.arcs.len() as f64;
        let cuts: Vec<Cut> = self.arcs_of_the_fullest().into_iter().map(|arc| self.cut(arc, mean)).collect();
        let least = cuts.iter().map(Cut::cost).min()?;
        let equal: Vec<&Cut> = cuts.iter().filter(|cut| cut.cost() == least).collect();
        Some(self.place(equal[(salt % equal.len() as u64) as usize]))
    }

    /// Those of which a part, or the whole, leaves the fullest node when they are cut; of all equally full nodes.
    fn arcs_of_the_fullest(&self) -> Vec<usize> {
        let loads: Vec<f64> = (0..self.arcs.len()).map(|node| self.load(node) * self.arcs[node].unexplained).collect();
        let full = loads.iter().copied().fold(0.0, f64::max) * (1.0 - 1e-9);
        let mut held = vec![false; loads.len()];
        for node in (0..loads.len()).filter(|&node| loads[node] >= full) {
            (0..self.held()).for_each(|back| held[self.before(node, back)] = true);
        }
        (0..loads.len()).filter(|&arc| held[arc]).collect()
    }

    /// The best cut of `arc`. The new node holds what it takes and the arcs before; the farthest holder loses what the
    /// new one takes, and is made equal to it if that leaves the cut near the middle; the holders between lose their
    /// farthest arc.
    fn cut(&self, arc: usize, mean: f64) -> Cut {
        let mass = self.arcs[arc].mass;
        let (share, change) = if self.arcs.len() < self.copies { (0.5, 0.0) } else { self.even_cut(arc) };
        let arc_change = -2.0 * share * (1.0 - share) * mass * mass;
        let rounded = |change: f64| (change / (mean * mean) * 1e9).round() as i64;
        Cut { arc, share, unevenness: rounded(change), arc_unevenness: rounded(arc_change) }
    }

    fn even_cut(&self, arc: usize) -> (f64, f64) {
        let mass = self.arcs[arc].mass;
        let before: f64 = (1..self.copies).map(|back| self.arcs[self.before(arc, back)].mass).sum();
        let farthest = self.load(self.after(arc, self.copies - 1));
        let share = beside_the_middle((farthest - before) / (2.0 * mass));
        let relieved = |load: f64, by: f64| (load - by).powi(2) - load.powi(2);
        let between = (1..self.copies).map(|back| {
            relieved(self.load(self.after(arc, self.copies - 1 - back)), self.arcs[self.before(arc, back)].mass)
        });
        let taken = mass * share;
        (share, (before + taken).powi(2) + relieved(farthest, taken) + between.sum::<f64>())
    }

    fn place(&self, cut: &Cut) -> Place {
        let Arc { end, len, .. } = self.arcs[cut.arc];
        let rest = ((len as f64 * (1.0 - cut.share)) as u64).max(1);
        Place { id: RingId(end.0.wrapping_sub(rest as u32)), arc_len: len }
    }
}

impl Cut {
    /// In billionths of the mean's square: smaller differences come from adding up in another order, not from the place.
    fn cost(&self) -> (i64, i64) {
        (self.unevenness, self.arc_unevenness)
    }
}

const CIRCLE: f64 = 4_294_967_296.0;
/// How often the masses are corrected, at most, and when they explain the loads well enough.
const ROUNDS: usize = 32;
const EXPLAINED: f64 = 1e-2;
/// Of the mean load: who has less is taken to be still filling.
const FILLED: f64 = 1.0 / 16.0;
/// Of an arc, what the smaller part of a cut gets: a cut more uneven pays now and costs later; halves keep all arcs in
/// step, so that the sizes just above a power of two are uneven.
const SMALLER_SHARE: std::ops::RangeInclusive<f64> = 0.42..=0.45;

fn beside_the_middle(share: f64) -> f64 {
    let within = |share: f64| share.clamp(*SMALLER_SHARE.start(), *SMALLER_SHARE.end());
    if share <= 0.5 { within(share) } else { 1.0 - within(1.0 - share) }
}

/// A member with far less than the others has just come, and its neighbours still hold its part: it counts as promised.
/// Were most members so light, their arcs would be.
fn filled_and_coming(members: &[Member]) -> (Vec<Member>, Vec<Member>) {
    let mean = members.iter().map(|member| member.load_bytes as f64).sum::<f64>() / members.len() as f64;
    let (filled, coming): (Vec<_>, Vec<_>) =
        members.iter().partition(|member| member.load_bytes as f64 >= mean * FILLED);
    if coming.len() <= filled.len() { (filled, coming) } else { (members.to_vec(), Vec::new()) }
}

fn arcs_between(ends: &[RingId]) -> Vec<Arc> {
    let before = |place: usize| ends[(place + ends.len() - 1) % ends.len()];
    let len = |place: usize| match before(place).steps_to(ends[place]) {
        0 => 1 << 32,
        steps => u64::from(steps),
    };
    (0..ends.len()).map(|place| Arc { end: ends[place], len: len(place), mass: 0.0, unexplained: 1.0 }).collect()
}

#[cfg(test)]
mod growth;

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, load_bytes: u64) -> Member {
        Member { id: RingId(id), load_bytes }
    }

    /// The loads of a ring whose keys are spread evenly, `copies` of each.
    fn even(ids: &[RingId], copies: usize) -> Vec<Member> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| id.0);
        let arcs = arcs_between(&ids);
        let held = copies.min(ids.len());
        let load = |node: usize| (0..held).map(|back| arcs[(node + ids.len() - back) % ids.len()].len).sum();
        (0..ids.len()).map(|node| Member { id: ids[node], load_bytes: load(node) }).collect()
    }

    fn near(id: RingId, wanted: u32, slack: u32) -> bool {
        id.steps_to(RingId(wanted)).min(RingId(wanted).steps_to(id)) <= slack
    }

    #[test]
    fn the_second_node_stands_opposite_the_first() {
        let id = choose(&[member(0, 0)], &[], 3, 0);
        assert!(near(id, 1 << 31, 1 << 20), "{id}");
    }

    #[test]
    fn grown_one_by_one_no_node_holds_much_more_than_the_mean() {
        let mut ids = vec![RingId(12345)];
        for count in 2..=40_u64 {
            ids.push(choose(&even(&ids, 3), &[], 3, count * 77));
            let loads: Vec<u64> = even(&ids, 3).iter().map(|member| member.load_bytes).collect();
            let mean = loads.iter().sum::<u64>() as f64 / loads.len() as f64;
            let largest = loads.iter().copied().max().unwrap_or(0) as f64;
            assert!(largest <= 1.7 * mean, "{count} nodes: the largest is {:.2} of the mean", largest / mean);
        }
    }

    #[test]
    fn the_fullest_node_is_relieved() {
        let ids: Vec<RingId> = (0..6).map(|place| RingId(place << 29)).collect();
        let members = even(&ids, 3); // Five small arcs; node 0 holds what comes after 5 << 29.
        let largest = |members: &[Member]| members.iter().map(|member| member.load_bytes).max().unwrap_or(0);
        let after: Vec<RingId> = ids.iter().copied().chain([choose(&members, &[], 3, 0)]).collect();
        assert!(largest(&even(&after, 3)) < largest(&members) * 9 / 10);
    }

    #[test]
    fn nodes_that_ask_at_once_take_different_ids() {
        let members = even(&[RingId(1), RingId(1 << 30)], 3);
        let ids: std::collections::BTreeSet<u32> =
            (1..50).map(|salt| choose(&members, &[], 3, salt * 7919).0).collect();
        assert_eq!(ids.len(), 49);
    }

    #[test]
    fn a_promised_position_counts_as_a_node() {
        let first = choose(&[member(0, 0)], &[], 3, 0);
        let second = choose(&[member(0, 0)], &[first], 3, 0);
        assert!(near(second, 1 << 30, 1 << 21) || near(second, 3 << 30, 1 << 21), "{second}");
    }

    #[test]
    fn a_taken_id_is_never_given() {
        let crowded: Vec<Member> = (0..8).map(|id| member(id, 10)).collect();
        let id = choose(&crowded, &[RingId(1 << 31)], 3, 0);
        assert!(id.0 > 7 && id.0 != 1 << 31);
    }

    #[test]
    fn one_question_has_one_answer() {
        let members = even(&[RingId(5), RingId(1 << 29), RingId(1 << 31)], 3);
        assert_eq!(choose(&members, &[], 3, 9), choose(&members, &[], 3, 9));
        assert_eq!(choose(&[], &[], 3, 9), choose(&[], &[], 3, 9));
    }
}
