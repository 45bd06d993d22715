//! Stored load: the loads of the fullest and emptiest nodes as multiples of the mean, with chosen and random ids.
//!
//! Keys are drawn and counted, as in Chord 2001: arc lengths alone would hide random variation. Chosen positions come
//! from `ring::position` for the current loads, one node at a time, as in the driver; the loads are keys with their
//! copies, where `placement` puts them. No node leaves, and every node is filled before the next one joins.

use std::net::Ipv4Addr;

use chordfs_ring::position::{Joiner, Member, RingMap};
use chordfs_types::{
    placement::{holders, onwards},
    ring_id::{NodeRef, RingId},
};

use super::Table;
use crate::network::SplitMix64;

/// Figures of Chord 2001: 10^4 nodes, 5 x 10^5 keys.
pub const PUBLISHED_MAX: f64 = 9.1;
pub const PUBLISHED_99TH: f64 = 4.6;

const COPIES: [usize; 2] = [1, 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    Random,
    Chosen,
}

/// The loads of the nodes of one ring, as multiples of the mean.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub nodes: usize,
    pub copies: usize,
    pub ids: Ids,
    pub max: f64,
    pub percentile_99: f64,
    pub percentile_1: f64,
}

/// A row for each size, 1 and 3 copies, random and chosen ids. `sizes` in ascending order: a ring of chosen ids is
/// grown once, through all of them.
pub fn measure(seed: u64, sizes: &[usize], keys: usize) -> Vec<Row> {
    let mut rng = SplitMix64(seed);
    let mut keys: Vec<u32> = (0..keys).map(|_| rng.next_u64() as u32).collect();
    keys.sort_unstable();
    let rows = COPIES.into_iter().flat_map(|copies| {
        let random = grown(&mut rng, &keys, sizes, copies, |ring, rng| ring.random_place(&anywhere(ring, rng)));
        let chosen = grown(&mut rng, &keys, sizes, copies, |ring, rng| ring.chosen_place(&anywhere(ring, rng)));
        let named = |ids| move |(nodes, loads): (usize, Vec<Member>)| Row::new(nodes, copies, ids, bytes(&loads));
        random.into_iter().map(named(Ids::Random)).chain(chosen.into_iter().map(named(Ids::Chosen))).collect::<Vec<_>>()
    });
    rows.collect()
}

pub fn report(seed: u64) -> Table {
    table(&measure(seed, &[5, 10, 100, 1000, 10_000], 500_000))
}

pub fn table(rows: &[Row]) -> Table {
    let cells = |row: &Row| {
        let ids = if row.ids == Ids::Random { "random" } else { "chosen" };
        let figures = [row.max, row.percentile_99, row.percentile_1].map(|figure| format!("{figure:.2}"));
        [row.nodes.to_string(), row.copies.to_string(), ids.to_string()].into_iter().chain(figures).collect()
    };
    Table {
        title: "Stored load, as multiples of the mean".to_string(),
        notes: vec![
            format!("Chord 2001, 10000 nodes, 5 x 10^5 keys, random ids: max {PUBLISHED_MAX}, 99 % {PUBLISHED_99TH}."),
            "Chosen: the id that a joining node receives, one node after the other.".to_string(),
            "With 50 keys a node, much of the rest is random variation: 3 copies average it out.".to_string(),
        ],
        header: ["nodes", "copies", "ids", "max", "99 %", "1 %"].map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

impl Row {
    fn new(nodes: usize, copies: usize, ids: Ids, mut loads: Vec<u64>) -> Self {
        loads.sort_unstable();
        let mean = loads.iter().sum::<u64>() as f64 / loads.len() as f64;
        let percentile = |percent: usize| loads[((loads.len() - 1) * percent + 50) / 100] as f64 / mean;
        let (percentile_99, percentile_1) = (percentile(99), percentile(1));
        Self { nodes, copies, ids, max: percentile(100), percentile_99, percentile_1 }
    }
}

/// A joiner on a host of its own, without a zone.
fn anywhere(ring: &Counted, rng: &mut SplitMix64) -> Joiner {
    on_host(ring.len() as u32, rng)
}

pub(super) fn on_host(host: u32, rng: &mut SplitMix64) -> Joiner {
    let ip = Ipv4Addr::from(0x0a00_0000 + host);
    Joiner { address: (ip, 5057).into(), zone: None, salt: rng.next_u64() >> 32 }
}

pub(super) fn bytes(members: &[Member]) -> Vec<u64> {
    members.iter().map(|member| member.load_bytes).collect()
}

/// The loads, at each of `sizes`, of a ring to which `next` adds the nodes.
pub(super) fn grown(
    rng: &mut SplitMix64,
    keys: &[u32],
    sizes: &[usize],
    copies: usize,
    next: impl Fn(&Counted, &mut SplitMix64) -> NodeRef,
) -> Vec<(usize, Vec<Member>)> {
    let mut ring = Counted { keys, copies, nodes: Vec::new() };
    let at = |&size: &usize| {
        while ring.nodes.len() < size {
            let node = next(&ring, rng);
            ring.add(node);
        }
        (size, ring.loads())
    };
    sizes.iter().map(at).collect()
}

/// A ring, and how many keys each node owns.
pub(super) struct Counted<'a> {
    /// Sorted.
    keys: &'a [u32],
    copies: usize,
    /// By id.
    nodes: Vec<(NodeRef, u64)>,
}

impl Counted<'_> {
    /// Adds a node. Does nothing if the id is taken.
    fn add(&mut self, node: NodeRef) {
        let Err(place) = self.nodes.binary_search_by_key(&node.id.0, |(node, _)| node.id.0) else { return };
        self.nodes.insert(place, (node, 0));
        self.count(place);
        self.count((place + 1) % self.nodes.len());
    }

    fn count(&mut self, place: usize) {
        let before = self.nodes[(place + self.nodes.len() - 1) % self.nodes.len()].0;
        let upto = |node: NodeRef| self.keys.partition_point(|&key| key <= node.id.0);
        let (from, to) = (upto(before), upto(self.nodes[place].0));
        let owned = if place == 0 { to + self.keys.len() - from } else { to - from };
        self.nodes[place].1 = owned as u64;
    }

    fn loads(&self) -> Vec<Member> {
        let nodes: Vec<NodeRef> = self.nodes.iter().map(|(node, _)| *node).collect();
        let mut members: Vec<Member> = nodes.iter().map(|&node| Member { node, load_bytes: 0 }).collect();
        for (at, (_, own)) in self.nodes.iter().enumerate() {
            for holder in holders(&onwards(&nodes, at)).iter().take(self.copies) {
                let place = nodes.binary_search_by_key(&holder.id.0, |node| node.id.0).expect("it is one of them");
                members[place].load_bytes += own;
            }
        }
        members
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn random_place(&self, joiner: &Joiner) -> NodeRef {
        joiner.at(RingId(joiner.salt as u32))
    }

    pub(super) fn chosen_place(&self, joiner: &Joiner) -> NodeRef {
        let map = RingMap { members: &self.loads(), promised: &[], taken: &[], copies: self.copies };
        joiner.at(map.place_for(joiner))
    }
}
