//! Rings that grow by one chosen position at a time, from many seeds: how even the loads are at every size, and that
//! each new node relieves the fullest one. A failure prints its seed.

use chordfs_types::ring_id::RingArc;

use super::{
    tests::{joiner, largest, stored, zone},
    *,
};

const COPIES: usize = 3;
const SEEDS: u64 = 20;

/// The stored bytes on the circle: one at each position, and `more` at each position of `(from, to, more)`.
#[derive(Clone, Default)]
struct Density(Vec<(u64, u64, u64)>);

impl Density {
    fn below(&self, position: u64) -> u64 {
        position + self.0.iter().map(|&(from, to, more)| more * position.min(to).saturating_sub(from)).sum::<u64>()
    }

    fn of(&self, arc: RingArc) -> u64 {
        let upto = |id: RingId| self.below(u64::from(id.0) + 1);
        if arc.after.0 < arc.upto.0 {
            upto(arc.upto) - upto(arc.after)
        } else {
            upto(arc.upto) + self.below(1 << 32) - upto(arc.after)
        }
    }
}

/// The zones and hosts of the nodes that join one after the other.
#[derive(Clone, Copy)]
enum Topology {
    /// Each node on a host of its own, without zones.
    Anywhere,
    /// In this many zones in turn, as an Auto Scaling group fills them.
    InZones(u32),
    /// In three zones: five nodes in the first for one in each of the others.
    Unevenly,
    /// Two nodes on each host.
    InPairs,
}

impl Topology {
    fn joiner(self, nth: u32, salt: u64) -> Joiner {
        match self {
            Self::Anywhere => joiner(nth, 0, None, salt),
            Self::InZones(count) => joiner(nth, 0, Some(zone(nth % count)), salt),
            Self::Unevenly => joiner(nth, 0, Some(zone([0, 1, 2, 0, 0, 0, 0][nth as usize % 7])), salt),
            Self::InPairs => joiner(nth / 2, (nth % 2) as u16, None, salt),
        }
    }
}

struct Growing {
    seed: u64,
    state: u64,
    density: Density,
    topology: Topology,
    joined: u32,
    nodes: Vec<NodeRef>,
}

impl Growing {
    fn new(seed: u64, density: Density, first: usize) -> Self {
        Self::at(Topology::Anywhere, seed, density, first)
    }

    /// With `first` nodes at random positions.
    fn at(topology: Topology, seed: u64, density: Density, first: usize) -> Self {
        let mut ring = Self { seed, state: seed, density, topology, joined: 0, nodes: Vec::new() };
        for _ in 0..first {
            let node = ring.next_joiner().at(RingId(ring.random()));
            ring.nodes.push(node);
        }
        ring
    }

    /// A linear congruential generator's upper half.
    fn random(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 32) as u32
    }

    fn next_joiner(&mut self) -> Joiner {
        self.joined += 1;
        self.topology.joiner(self.joined - 1, u64::from(self.random()))
    }

    fn loads(&self) -> Vec<Member> {
        stored(&self.nodes, COPIES, |arc| self.density.of(arc))
    }

    /// The largest load, as a multiple of the mean.
    fn fullness(&self) -> f64 {
        fullness(&self.loads())
    }

    /// The largest load as a multiple of the mean of its own zone: the worst of all zones.
    fn fullness_of_zones(&self) -> f64 {
        let mut loads = self.loads();
        loads.sort_by_key(|member| Zone::of_id(member.node.id).map(Zone::number));
        let zones = loads.chunk_by(|a, b| Zone::of_id(a.node.id) == Zone::of_id(b.node.id));
        zones.map(fullness).fold(0.0, f64::max)
    }

    fn join(&mut self) {
        let (joiner, members) = (self.next_joiner(), self.loads());
        self.nodes.push(place(&members, &[], &joiner));
    }

    /// Adds nodes up to `count`; each must relieve the fullest node. Returns the fullness.
    fn grow(&mut self, count: usize) -> f64 {
        while self.nodes.len() < count {
            let before = self.loads();
            self.join();
            assert!(before.len() < COPIES || self.relieved(&before), "seed {}: {} nodes", self.seed, before.len());
        }
        self.fullness()
    }

    /// True if one of the fullest nodes of `before` holds less now.
    fn relieved(&self, before: &[Member]) -> bool {
        let (now, largest) = (self.loads(), largest(before));
        let lighter = |member: &Member| now.iter().any(|n| n.node == member.node && n.load_bytes < largest);
        before.iter().filter(|member| member.load_bytes == largest).any(lighter)
    }

    fn lose(&mut self, count: usize) {
        for _ in 0..count {
            let place = self.random() as usize % self.nodes.len();
            self.nodes.swap_remove(place);
        }
    }
}

fn place(members: &[Member], promised: &[NodeRef], joiner: &Joiner) -> NodeRef {
    joiner.at(RingMap { members, promised, taken: &[], copies: COPIES }.place_for(joiner))
}

fn fullness(loads: &[Member]) -> f64 {
    let sum: u64 = loads.iter().map(|member| member.load_bytes).sum();
    largest(loads) as f64 * loads.len() as f64 / sum as f64
}

fn hot() -> [Density; 3] {
    [
        Density(vec![(1 << 30, (1 << 30) + (1 << 28), 10)]),
        Density(vec![(3 << 30, (3 << 30) + (1 << 24), 100)]),
        Density((0..16).map(|part| (part << 28, (part + 1) << 28, part * 7 % 16)).collect()),
    ]
}

/// For each size: the bound of the measure from the previous size up to this one, as a multiple of the mean.
type Bands = &'static [(usize, f64)];

/// Checks that `measure` keeps within `bands` at the sizes that `counts` accepts.
fn check_bands(topology: Topology, bands: Bands, counts: fn(usize) -> bool, measure: fn(&Growing) -> f64) {
    let mut worst = vec![(0.0, 0); bands.len()];
    for seed in 0..SEEDS {
        let mut ring = Growing::at(topology, seed, Density::default(), 1);
        for (band, worst) in bands.iter().zip(&mut worst) {
            while ring.nodes.len() < band.0 {
                ring.join();
                if counts(ring.nodes.len()) && measure(&ring) > worst.0 {
                    *worst = (measure(&ring), seed);
                }
            }
        }
    }
    for ((upto, bound), (worst, seed)) in bands.iter().zip(worst) {
        println!("up to {upto:3} nodes: at most {worst:.3} of the mean (seed {seed})");
        assert!(worst <= *bound, "up to {upto} nodes, seed {seed}: {worst:.3} of the mean, not {bound}");
    }
}

#[test]
fn the_fullest_node_is_near_the_mean_at_every_size() {
    let bands = &[(5, 1.25), (10, 1.27), (20, 1.3), (200, 1.32)];
    check_bands(Topology::Anywhere, bands, |_| true, Growing::fullness);
    for seed in 0..SEEDS {
        Growing::new(seed, Density::default(), 1).grow(60);
    }
}

#[test]
fn random_ids_exceed_these_bounds() {
    let fullness = |count| (0..SEEDS).map(|seed| Growing::new(seed, Density::default(), count).fullness()).sum::<f64>();
    assert!(
        fullness(5) > 1.3 * SEEDS as f64 && fullness(10) > 1.5 * SEEDS as f64 && fullness(100) > 2.0 * SEEDS as f64
    );
}

#[test]
fn a_ring_of_random_ids_becomes_even() {
    for seed in 0..SEEDS {
        let mut ring = Growing::new(seed, Density::default(), 20);
        let at = [40, 80].map(|count| ring.grow(count));
        assert!(at[0] <= 1.6 && at[1] <= 1.35, "seed {seed}: {at:.2?} of the mean");
    }
}

#[test]
fn a_ring_that_lost_nodes_becomes_even_again() {
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

/// Nodes join faster than they are filled. Whether the earlier ones appear as promised positions or as empty members,
/// the next one does not choose the same place.
#[test]
fn nodes_that_join_at_once_share_the_ring() {
    for (seed, (full, coming)) in (0..SEEDS).flat_map(|seed| [(1, 4), (5, 5), (40, 20)].map(|sizes| (seed, sizes))) {
        let mut ring = Growing::new(seed, Density::default(), 1);
        ring.grow(full);
        let (loads, mut empty, mut promised) = (ring.loads(), ring.loads(), Vec::new());
        for _ in 0..coming {
            let joiner = ring.next_joiner();
            promised.push(place(&loads, &promised, &joiner));
            empty.push(Member { node: place(&empty, &[], &joiner), load_bytes: 0 });
        }
        ring.nodes.extend(promised);
        let unseen = Growing {
            nodes: empty.iter().map(|member| member.node).collect(),
            ..Growing::new(seed, Density::default(), 0)
        };
        let at = [ring.fullness(), unseen.fullness()];
        assert!(at.iter().all(|&at| at <= 1.35), "seed {seed}, {full} and {coming}: {at:.2?} of the mean");
    }
}

/// Three zones as an Auto Scaling group fills them. Each holds everything once, so a zone is a ring of its own with one
/// copy: then no way of adding nodes one by one keeps the fullest within 1.44 of the mean at every size (de Bruijn and
/// Erdős 1949), and within 1.17, 1.25, 1.29, 1.32 at 2, 3, 4, 5 nodes in each.
#[test]
fn three_zones_with_equally_many_nodes_are_even() {
    let bands = &[(6, 1.18), (9, 1.25), (12, 1.3), (18, 1.38), (30, 1.46), (60, 1.55)];
    check_bands(Topology::InZones(3), bands, |count| count % 3 == 0, Growing::fullness);
}

/// Between these sizes the zone with the fewest nodes holds as much as the others; the loads within each zone are as
/// even.
#[test]
fn each_of_three_zones_is_even_at_any_size() {
    check_bands(Topology::InZones(3), &[(12, 1.3), (30, 1.48), (60, 1.55)], |_| true, Growing::fullness_of_zones);
    check_bands(Topology::Unevenly, &[(7, 1.33), (12, 1.43), (60, 1.55)], |_| true, Growing::fullness_of_zones);
}

#[test]
fn one_zone_and_two_zones_are_even() {
    let bands = &[(5, 1.25), (10, 1.27), (30, 1.32)];
    check_bands(Topology::InZones(1), bands, |_| true, Growing::fullness);
    check_bands(Topology::InZones(2), &[(10, 1.3), (30, 1.4), (60, 1.43)], |_| true, Growing::fullness);
}

/// Checked from six nodes on: of five, one is alone on its host and holds everything.
#[test]
fn two_nodes_on_each_host_are_even() {
    check_bands(Topology::InPairs, &[(10, 1.27), (60, 1.32)], |count| count > 5, Growing::fullness);
}

#[test]
fn zones_that_lost_nodes_become_even_again() {
    for seed in 0..SEEDS {
        let mut ring = Growing::at(Topology::InZones(3), seed, Density::default(), 1);
        (1..45).for_each(|_| ring.join());
        ring.lose(15);
        (0..30).for_each(|_| ring.join());
        let at = ring.fullness_of_zones();
        assert!(at <= 1.6, "seed {seed}: {at:.2} of the mean");
    }
}

#[test]
fn hot_arcs_are_divided_among_more_nodes_of_each_zone() {
    for (case, density) in hot().into_iter().enumerate() {
        for seed in 0..SEEDS {
            let mut ring = Growing::at(Topology::InZones(3), seed, density.clone(), 1);
            (1..60).for_each(|_| ring.join());
            let at = ring.fullness_of_zones();
            assert!(at <= 1.7, "case {case} seed {seed}: {at:.2} of the mean");
        }
    }
}
