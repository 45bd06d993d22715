//! The hops of a lookup by the size of the ring (Chord 2001, figure 10), and the memory of a simulated node.

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::RingId;

use super::Table;
use crate::{conditions::Conditions, growth::Owners, network::Sim, tally::Tally};

/// Keys for each node, as in the published experiment, and the most keys in all.
const KEYS_PER_NODE: usize = 100;
const KEYS_MAX: usize = 2_000_000;

#[derive(Clone, Debug)]
pub struct Row {
    pub nodes: usize,
    pub hops: Tally,
    pub wrong: u64,
    /// Requests that a node of the stable ring sends in a period.
    pub upkeep: f64,
    pub bytes_per_node: u64,
}

/// Measures one ring that grows through 2^3 .. 2^`up_to`. Fails if the ring does not stabilize.
pub fn measure(seed: u64, up_to: u32, keys_per_node: usize) -> Result<Vec<Row>, String> {
    let bytes_before = resident_bytes();
    let mut sim = Sim::new(seed, Conditions::quick(), RingSettings::default());
    (3..=up_to).map(|power| row(seed, &mut sim, 1 << power, keys_per_node, bytes_before)).collect()
}

fn row(seed: u64, sim: &mut Sim, nodes: usize, keys_per_node: usize, bytes_before: u64) -> Result<Row, String> {
    if !sim.grow_to(nodes) {
        return Err(format!("seed {seed}: the ring of {nodes} does not stabilize"));
    }
    let bytes_per_node = resident_bytes().saturating_sub(bytes_before) / nodes as u64;
    let upkeep = upkeep(sim);
    let (hops, wrong) = look_up(sim, keys_per_node.min(KEYS_MAX / nodes).max(1));
    Ok(Row { nodes, hops, wrong, upkeep, bytes_per_node })
}

fn upkeep(sim: &mut Sim) -> f64 {
    let before = sim.requests;
    sim.run_for(sim.period());
    (sim.requests - before) as f64 / sim.started() as f64
}

fn look_up(sim: &mut Sim, keys_per_node: usize) -> (Tally, u64) {
    let owners = Owners::of(sim);
    let (mut hops, mut wrong) = (Tally::default(), 0);
    for node in 0..sim.started() {
        let mut ring = sim.ring(node).clone();
        for _ in 0..keys_per_node {
            let key = RingId(sim.rng.next_u64() as u32);
            let path = sim.look_up_by(&mut ring, key);
            hops.add(path.hops);
            wrong += u64::from(path.found != owners.owner(key));
        }
    }
    (hops, wrong)
}

pub fn table(rows: &[Row]) -> Table {
    let header = ["nodes", "mean path", "1 %", "99 %", "wrong", "published: log2(N)/2", "upkeep", "KiB a node"];
    let cells = |row: &Row| {
        vec![
            row.nodes.to_string(),
            format!("{:.2}", row.hops.mean()),
            row.hops.percentile(1).to_string(),
            row.hops.percentile(99).to_string(),
            row.wrong.to_string(),
            format!("{:.1}", (row.nodes as f64).log2() / 2.0),
            format!("{:.1}", row.upkeep),
            format!("{:.1}", row.bytes_per_node as f64 / 1024.0),
        ]
    };
    Table {
        title: "Path length: hops of a lookup".into(),
        notes: vec![
            format!("each ring grown by joins; {KEYS_PER_NODE} keys a node, at most {KEYS_MAX}; successor list 8"),
            "published: Chord 2001, figure 10: about half of log2 N, 7 at 2^14".into(),
            "upkeep: requests that a node of the stable ring sends in a period".into(),
            "KiB a node: resident memory of the simulation, including messages in flight".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

pub fn report(seed: u64, up_to: u32) -> Result<Table, String> {
    measure(seed, up_to, KEYS_PER_NODE).map(|rows| table(&rows))
}

/// The resident memory of this process; 0 where the system does not report it.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
