//! Where a joining node should stand: where the largest load afterwards is smallest.
//!
//! Why not halve the fullest node's arc: with R copies a node holds the R arcs up to itself, so one put before X takes
//! part of X's own arc and frees X of all of its farthest; every place has to be computed. What each arc holds is
//! estimated from the loads of the nodes that keep it.

use common::ring_id::RingId;

/// Places tried in each arc at first, and again around the best.
const STEPS: u64 = 32;

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
    let circle = Circle::new(members, promised);
    let Some(best) = circle.best(copies.max(1), salt) else { return RingId((salt ^ (salt >> 32)) as u32) };
    let jitter = (salt % (best.arc_len / 1024 + 1)) as u32;
    let mut id = best.id.advance(jitter);
    while circle.arcs.iter().any(|arc| arc.end == id) {
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
}

/// The arcs in clockwise order of their ends.
struct Circle {
    arcs: Vec<Arc>,
}

struct Place {
    id: RingId,
    arc_len: u64,
}

/// What is made small, the most important first.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Score {
    largest_load: f64,
    unevenness: f64,
    /// Of the arcs: where every node holds everything, they are what is left to divide.
    arc_unevenness: f64,
}

impl Circle {
    fn new(members: &[Member], promised: &[RingId]) -> Self {
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id.0);
        members.dedup_by_key(|member| member.id);
        let mut circle = Self { arcs: arcs_between(&members.iter().map(|member| member.id).collect::<Vec<_>>()) };
        circle.weigh(&members);
        promised.iter().for_each(|&id| circle.split(id));
        circle
    }

    /// Gives each arc the mean density of the nodes that hold it. A thousandth of the ring's mean is laid over all, so
    /// that an empty ring is divided evenly.
    fn weigh(&mut self, members: &[Member]) {
        let total: f64 = members.iter().map(|member| member.load_bytes as f64).sum();
        let floor = (total / CIRCLE).max(1.0 / CIRCLE) / 1000.0;
        let count = members.len();
        let held = DEFAULT_COPIES.min(count);
        let span = |holder: usize| -> f64 {
            (0..held).map(|back| self.arcs[(holder + count - back) % count].len as f64).sum()
        };
        let density: Vec<f64> = (0..count).map(|holder| members[holder].load_bytes as f64 / span(holder)).collect();
        for place in 0..count {
            let mean = (0..held).map(|step| density[(place + step) % count]).sum::<f64>() / held as f64;
            self.arcs[place].mass = (mean + floor) * self.arcs[place].len as f64;
        }
    }

    fn arc_holding(&self, id: RingId) -> Option<usize> {
        (0..self.arcs.len()).min_by_key(|&place| id.steps_to(self.arcs[place].end))
    }

    fn split(&mut self, id: RingId) {
        let Some(place) = self.arc_holding(id) else {
            self.arcs.push(Arc { end: id, len: 1 << 32, mass: 1.0 });
            return;
        };
        if self.arcs[place].end == id {
            return;
        }
        self.arcs = self.with_split(place, self.arcs[place].len - u64::from(id.steps_to(self.arcs[place].end)));
        self.arcs.sort_by_key(|arc| arc.end.0);
    }

    /// The circle with arc `place` cut `at` steps after its start.
    fn with_split(&self, place: usize, at: u64) -> Vec<Arc> {
        let whole = self.arcs[place];
        let share = at as f64 / whole.len as f64;
        let end = RingId(whole.end.0.wrapping_sub((whole.len - at) as u32));
        let mut arcs = self.arcs.clone();
        arcs[place] = Arc { end: whole.end, len: whole.len - at, mass: whole.mass * (1.0 - share) };
        arcs.insert(place, Arc { end, len: at, mass: whole.mass * share });
        arcs
    }

    fn score(&self, place: usize, at: u64, copies: usize) -> Score {
        let masses: Vec<f64> = self.with_split(place, at).iter().map(|arc| arc.mass).collect();
        let (count, held) = (masses.len(), copies.min(masses.len()));
        let load = |node: usize| (0..held).map(|back| masses[(node + count - back) % count]).sum::<f64>();
        let mean = masses.iter().sum::<f64>() * held as f64 / count as f64;
        let loads: Vec<f64> = (0..count).map(load).collect();
        Score {
            largest_load: rounded(loads.iter().copied().fold(0.0, f64::max) / mean),
            unevenness: rounded(loads.iter().map(|load| (load / mean).powi(2)).sum()),
            arc_unevenness: rounded(masses.iter().map(|mass| (mass / mean).powi(2)).sum()),
        }
    }

    fn best(&self, copies: usize, salt: u64) -> Option<Place> {
        let coarse = (0..self.arcs.len()).flat_map(|place| {
            (1..STEPS).map(move |step| (place, step)).map(|(place, step)| (place, self.arcs[place].len * step / STEPS))
        });
        let scored: Vec<(usize, u64, Score)> = coarse
            .filter(|&(place, at)| at > 0 && at < self.arcs[place].len)
            .map(|(place, at)| (place, at, self.score(place, at, copies)))
            .collect();
        let least = scored.iter().map(|entry| entry.2).min_by(|a, b| a.partial_cmp(b).unwrap_or(EQUAL))?;
        let equal: Vec<_> = scored.into_iter().filter(|entry| entry.2 == least).collect();
        let (place, at, _) = equal[(salt % equal.len() as u64) as usize];
        Some(self.refined(place, at, copies))
    }

    /// The best within one coarse step of `at`.
    fn refined(&self, place: usize, at: u64, copies: usize) -> Place {
        let arc = self.arcs[place];
        let step = arc.len / STEPS;
        let near = (0..=2 * STEPS).map(|fine| (at + step * fine / STEPS).saturating_sub(step));
        let at = near
            .filter(|&at| at > 0 && at < arc.len)
            .min_by(|&a, &b| {
                let by_score = self.score(place, a, copies).partial_cmp(&self.score(place, b, copies)).unwrap_or(EQUAL);
                by_score.then(a.abs_diff(at).cmp(&b.abs_diff(at)))
            })
            .unwrap_or(at);
        Place { id: RingId(arc.end.0.wrapping_sub((arc.len - at) as u32)), arc_len: arc.len }
    }
}

const CIRCLE: f64 = 4_294_967_296.0;
/// How many arcs a measured load is taken to cover.
const DEFAULT_COPIES: usize = 3;
const EQUAL: std::cmp::Ordering = std::cmp::Ordering::Equal;

fn arcs_between(ends: &[RingId]) -> Vec<Arc> {
    let before = |place: usize| ends[(place + ends.len() - 1) % ends.len()];
    let len = |place: usize| match before(place).steps_to(ends[place]) {
        0 => 1 << 32,
        steps => u64::from(steps),
    };
    (0..ends.len()).map(|place| Arc { end: ends[place], len: len(place), mass: 0.0 }).collect()
}

/// Differences below a millionth come from adding up in another order, not from the place.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round()
}

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
