//! Rings that grow one chosen place at a time, from many seeds: how even they are at every size on the way, and that each
//! new node relieves the fullest one. A failure prints its seed.

use super::*;

const COPIES: usize = 3;
const SEEDS: u64 = 20;

/// How the stored bytes lie on the circle: one a position, and in `(from, to)` so many more.
#[derive(Clone, Default)]
struct Density(Vec<(u64, u64, u64)>);

impl Density {
    fn below(&self, position: u64) -> u64 {
        position + self.0.iter().map(|&(from, to, more)| more * position.min(to).saturating_sub(from)).sum::<u64>()
    }

    fn loads(&self, ids: &[RingId]) -> Vec<Member> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| id.0);
        let (count, whole) = (ids.len(), self.below(1 << 32));
        let upto = |node: usize| self.below(u64::from(ids[node].0) + 1);
        let own = |node: usize| if node == 0 { upto(0) + whole - upto(count - 1) } else { upto(node) - upto(node - 1) };
        let load = |node: usize| (0..COPIES.min(count)).map(|back| own((node + count - back) % count)).sum();
        (0..count).map(|node| Member { id: ids[node], load_bytes: load(node) }).collect()
    }
}

struct Growing {
    seed: u64,
    state: u64,
    density: Density,
    ids: Vec<RingId>,
}

impl Growing {
    fn new(seed: u64, density: Density, first: usize) -> Self {
        let mut ring = Self { seed, state: seed, density, ids: Vec::new() };
        ring.ids = (0..first).map(|_| RingId(ring.random())).collect();
        ring
    }

    /// A linear congruential generator's upper half.
    fn random(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 32) as u32
    }

    fn loads(&self) -> Vec<Member> {
        self.density.loads(&self.ids)
    }

    /// The largest load, as a multiple of the mean.
    fn fullness(&self) -> f64 {
        let loads = self.loads();
        let sum: u64 = loads.iter().map(|member| member.load_bytes).sum();
        largest(&loads) as f64 * loads.len() as f64 / sum as f64
    }

    fn grow(&mut self, count: usize) -> f64 {
        while self.ids.len() < count {
            let before = self.loads();
            let id = choose(&before, &[], COPIES, u64::from(self.random()));
            self.ids.push(id);
            assert!(before.len() < COPIES || self.relieved(&before), "seed {}: {} nodes", self.seed, before.len());
        }
        self.fullness()
    }

    /// Whether one of the fullest nodes of `before` holds less now.
    fn relieved(&self, before: &[Member]) -> bool {
        let (now, largest) = (self.loads(), largest(before));
        let lighter = |member: &Member| now.iter().any(|n| n.id == member.id && n.load_bytes < largest);
        before.iter().filter(|member| member.load_bytes == largest).any(lighter)
    }

    fn lose(&mut self, count: usize) {
        for _ in 0..count {
            let place = self.random() as usize % self.ids.len();
            self.ids.swap_remove(place);
        }
    }
}

fn largest(members: &[Member]) -> u64 {
    members.iter().map(|member| member.load_bytes).max().unwrap_or(0)
}

fn hot() -> [Density; 3] {
    [
        Density(vec![(1 << 30, (1 << 30) + (1 << 28), 10)]),
        Density(vec![(3 << 30, (3 << 30) + (1 << 24), 100)]),
        Density((0..16).map(|part| (part << 28, (part + 1) << 28, part * 7 % 16)).collect()),
    ]
}

#[test]
fn at_every_size_the_fullest_is_near_the_mean() {
    let bands = [(2, 5, 1.25), (6, 10, 1.27), (11, 20, 1.3), (21, 50, 1.32), (51, 100, 1.32), (101, 200, 1.32)];
    for (from, to, bound) in bands {
        let mut worst = 0.0_f64;
        for seed in 0..SEEDS {
            let mut ring = Growing::new(seed, Density::default(), 1);
            ring.grow(from - 1);
            worst = (from..=to).map(|count| ring.grow(count)).fold(worst, f64::max);
        }
        println!("{from:3}..{to:3} nodes: at most {worst:.3} of the mean");
        assert!(worst <= bound, "{from} to {to} nodes: {worst:.3} of the mean, not {bound}");
    }
}

#[test]
fn random_ids_do_not_keep_these_bounds() {
    let fullness = |count| (0..SEEDS).map(|seed| Growing::new(seed, Density::default(), count).fullness()).sum::<f64>();
    assert!(
        fullness(5) > 1.3 * SEEDS as f64 && fullness(10) > 1.5 * SEEDS as f64 && fullness(100) > 2.0 * SEEDS as f64
    );
}

#[test]
fn a_ring_of_random_ids_gets_even() {
    for seed in 0..SEEDS {
        let mut ring = Growing::new(seed, Density::default(), 20);
        let at = [40, 80].map(|count| ring.grow(count));
        assert!(at[0] <= 1.6 && at[1] <= 1.35, "seed {seed}: {at:.2?} of the mean");
    }
}

#[test]
fn a_ring_that_lost_nodes_gets_even_again() {
    for seed in 0..SEEDS {
        let mut ring = Growing::new(seed, Density::default(), 1);
        ring.grow(50);
        ring.lose(20);
        let at = [40, 50].map(|count| ring.grow(count));
        assert!(at[0] <= 1.5 && at[1] <= 1.35, "seed {seed}: {at:.2?} of the mean");
    }
}

#[test]
fn hot_arcs_are_divided_among_more_nodes() {
    for (case, density) in hot().into_iter().enumerate() {
        for seed in 0..SEEDS {
            let mut ring = Growing::new(seed, density.clone(), 1);
            let at = [20, 60].map(|count| ring.grow(count));
            assert!(at[0] <= 1.6 && at[1] <= 1.4, "case {case} seed {seed}: {at:.2?} of the mean");
        }
    }
}

/// Nodes come faster than they are filled: the next one is told of the earlier ones as promised positions, or sees them
/// as empty members, and neither makes it stand where they do.
#[test]
fn nodes_that_come_at_once_share_the_ring() {
    for (seed, (full, coming)) in (0..SEEDS).flat_map(|seed| [(1, 4), (5, 5), (40, 20)].map(|sizes| (seed, sizes))) {
        let mut ring = Growing::new(seed, Density::default(), 1);
        ring.grow(full);
        let (loads, mut empty, mut promised) = (ring.loads(), ring.loads(), Vec::new());
        for _ in 0..coming {
            promised.push(choose(&loads, &promised, COPIES, u64::from(ring.random())));
            let id = choose(&empty, &[], COPIES, u64::from(ring.random()));
            empty.push(Member { id, load_bytes: 0 });
        }
        ring.ids.extend(promised);
        let unseen = Growing {
            ids: empty.iter().map(|member| member.id).collect(),
            ..Growing::new(seed, Density::default(), 0)
        };
        let at = [ring.fullness(), unseen.fullness()];
        assert!(at.iter().all(|&at| at <= 1.35), "seed {seed}, {full} and {coming}: {at:.2?} of the mean");
    }
}
