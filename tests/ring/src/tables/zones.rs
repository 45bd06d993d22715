//! Stored load where copies are spread over zones and hosts: the load of the fullest node as a multiple of the mean of
//! all nodes and of the mean of its own zone.
//!
//! The rings grow as in `load`, from several seeds, of which the worst counts. The order of the joins decides how many
//! nodes each zone has; an Auto Scaling group fills its zones in turn.

use chordfs_ring::position::{Joiner, Member};
use chordfs_types::placement::Zone;

use super::{
    Table,
    load::{Counted, grown, on_host},
};
use crate::network::SplitMix64;

/// The zones and hosts of the nodes that join one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In this many zones in turn, each node on a host of its own, as in all layouts but `Pairs`.
    Zones(usize),
    /// Seven nodes: five in the first of three zones and one in each of the others.
    FiveOneOne,
    /// Two nodes on each host, without zones.
    Pairs,
}

/// The fullest node of all seeds, as a multiple of the mean.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub layout: Layout,
    pub nodes: usize,
    pub of_all: f64,
    pub of_its_zone: f64,
}

const LAYOUTS: [Layout; 5] = [Layout::Zones(1), Layout::Zones(2), Layout::Zones(3), Layout::FiveOneOne, Layout::Pairs];

impl Layout {
    fn joiner(self, nth: usize, rng: &mut SplitMix64) -> Joiner {
        let host = if self == Self::Pairs { nth / 2 } else { nth };
        let zone = match self {
            Self::Zones(count) => Some(nth % count),
            Self::FiveOneOne => Some([0, 1, 2, 0, 0, 0, 0][nth % 7]),
            Self::Pairs => None,
        };
        let mut joiner = on_host(host as u32, rng);
        joiner.address.set_port(5057 + 3 * (nth % 2) as u16);
        Joiner { zone: zone.map(|number| Zone::of_name(["1a", "1b", "1c"][number])), ..joiner }
    }

    fn name(self) -> String {
        match self {
            Self::Zones(1) => "1 zone".into(),
            Self::Zones(count) => format!("{count} zones"),
            Self::FiveOneOne => "5/1/1".into(),
            Self::Pairs => "2 a host".into(),
        }
    }
}

/// A row for each layout and each of `sizes`, in ascending order; the worst of `seeds`.
pub fn measure(seeds: std::ops::Range<u64>, sizes: &[usize], keys: usize) -> Vec<Row> {
    let row = |layout| move |&nodes: &usize| Row { layout, nodes, of_all: 0.0, of_its_zone: 0.0 };
    let mut rows: Vec<Row> = LAYOUTS.into_iter().flat_map(|layout| sizes.iter().map(row(layout))).collect();
    for seed in seeds {
        let mut rng = SplitMix64(seed);
        let mut keys: Vec<u32> = (0..keys).map(|_| rng.next_u64() as u32).collect();
        keys.sort_unstable();
        for (layout, rows) in LAYOUTS.into_iter().zip(rows.chunks_mut(sizes.len())) {
            let next = |ring: &Counted<'_>, rng: &mut SplitMix64| ring.chosen_place(&layout.joiner(ring.len(), rng));
            for (row, (_, loads)) in rows.iter_mut().zip(grown(&mut rng, &keys, sizes, 3, next)) {
                row.of_all = row.of_all.max(fullness(&loads));
                row.of_its_zone = row.of_its_zone.max(fullness_of_zones(loads));
            }
        }
    }
    rows
}

pub fn report(seed: u64) -> Table {
    table(&measure(seed..seed + 10, &[5, 6, 10, 12, 30, 100], 200_000))
}

pub fn table(rows: &[Row]) -> Table {
    let cells = |row: &Row| {
        let figures = [row.of_all, row.of_its_zone].map(|figure| format!("{figure:.2}"));
        [row.layout.name(), row.nodes.to_string()].into_iter().chain(figures).collect()
    };
    Table {
        title: "The fullest node where copies are spread, as a multiple of the mean".to_string(),
        notes: vec![
            "Three copies in three zones: each zone holds everything once, however few nodes it has, and is a ring of".into(),
            "its own with one copy. With 2, 3, 4, 10 nodes in each, nodes added one by one leave the fullest at 1.17,".into(),
            "1.25, 1.29, 1.38 if these bounds hold at every size, and at 1.44 in large rings (de Bruijn and Erdos 1949).".into(),
            "Of five nodes, two a host, one is alone there and holds everything: 1.67.".into(),
        ],
        header: ["where", "nodes", "of all", "of its zone"].map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

fn fullness(loads: &[Member]) -> f64 {
    let bytes = || loads.iter().map(|member| member.load_bytes);
    bytes().max().unwrap_or(0) as f64 * loads.len() as f64 / bytes().sum::<u64>() as f64
}

fn fullness_of_zones(mut loads: Vec<Member>) -> f64 {
    let zone = |member: &Member| Zone::of_id(member.node.id).map(Zone::number);
    loads.sort_by_key(zone);
    loads.chunk_by(|a, b| zone(a) == zone(b)).map(fullness).fold(0.0, f64::max)
}
