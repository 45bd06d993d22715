//! The effect of the simultaneous crash of a part of all nodes on lookups (Chord 2003, table II; Chord 2001, figure 11)
//! and on stored data (CFS 2001).

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::{NodeRef, RingId};

use super::Table;
use crate::{conditions::Conditions, growth::Owners, network::Sim, tally::Tally};

/// Chord 2003: 1,000 nodes, successor list 20.
pub const NODES: usize = 1000;
const LIST_LEN: usize = 20;
pub const LOOKUPS: usize = 10_000;

/// Fraction in per cent, mean path, time-outs a lookup.
const PUBLISHED: [(u64, f64, f64); 6] =
    [(0, 3.84, 0.0), (10, 4.03, 0.60), (20, 4.22, 1.17), (30, 4.44, 2.02), (40, 4.69, 3.23), (50, 5.09, 5.10)];

#[derive(Clone, Debug)]
pub struct Row {
    pub failed_percent: u64,
    pub before: LookupStats,
    /// None if the ring did not stabilize.
    pub after: Option<LookupStats>,
    /// The share of keys without a live node among their first 1, 3 and 6 holders.
    pub lost: [f64; 3],
}

#[derive(Clone, Debug, Default)]
pub struct LookupStats {
    pub hops: Tally,
    pub timeouts: Tally,
    pub owner_timeouts: Tally,
    pub failed: u64,
}

/// Every row starts from the same ring of `nodes`.
pub fn measure(seed: u64, nodes: usize, lookups: usize) -> Result<Vec<Row>, String> {
    let settings = RingSettings { successor_list_len: LIST_LEN, ..RingSettings::default() };
    let mut whole = Sim::new(seed, Conditions::quick(), settings);
    if whole.grow_to(nodes) {
        Ok(PUBLISHED.map(|(percent, ..)| row(whole.clone(), percent, lookups)).to_vec())
    } else {
        Err(format!("seed {seed}: the ring of {nodes} does not stabilize"))
    }
}

fn row(mut sim: Sim, failed_percent: u64, lookups: usize) -> Row {
    let holders = Owners::of(&sim);
    kill(&mut sim, failed_percent);
    let lost = COPIES.map(|copies| lost_share(&mut sim, &holders, copies, lookups));
    let before = look_up(&mut sim, lookups);
    let after = sim.stabilizes().then(|| look_up(&mut sim, lookups));
    Row { failed_percent, before, after, lost }
}

fn kill(sim: &mut Sim, percent: u64) {
    let mut alive = sim.up();
    for _ in 0..alive.len() as u64 * percent / 100 {
        let place = sim.rng.below(alive.len() as u64) as usize;
        sim.crash(alive.swap_remove(place));
    }
}

fn look_up(sim: &mut Sim, lookups: usize) -> LookupStats {
    let (owners, up) = (Owners::of(sim), sim.up());
    let mut stats = LookupStats::default();
    for _ in 0..lookups {
        let key = RingId(sim.rng.next_u64() as u32);
        let Some(node) = sim.rng.pick(&up) else { break };
        let path = sim.look_up_at_once(node, key);
        stats.hops.add(path.hops);
        stats.timeouts.add(path.timeouts);
        stats.owner_timeouts.add(path.owner_timeouts);
        stats.failed += u64::from(path.found != owners.owner(key));
    }
    stats
}

const COPIES: [usize; 3] = [1, 3, 6];

fn lost_share(sim: &mut Sim, holders: &Owners, copies: usize, keys: usize) -> f64 {
    let lives = |sim: &Sim, node: &NodeRef| sim.index_of(*node).is_some_and(|index| sim.is_up(index));
    let lost = (0..keys).filter(|_| {
        let key = RingId(sim.rng.next_u64() as u32);
        !holders.holders(key, copies).any(|node| lives(sim, &node))
    });
    lost.count() as f64 / keys as f64
}

pub fn table(rows: &[Row], nodes: usize) -> Table {
    let header = [
        "failed",
        "mean path",
        "publ.",
        "99 %",
        "time-outs",
        "publ.",
        "at the owner",
        "failed lookups",
        "after: path",
        "time-outs",
        "failed lookups",
        "keys lost, 1 copy",
        "3",
        "6",
    ];
    Table {
        title: format!("A part of {nodes} nodes crashes at once (no call is refused: each to a dead node times out)"),
        notes: vec![
            format!("successor list {LIST_LEN}, {LOOKUPS} lookups before and after the ring has stabilized"),
            "at the owner: time-outs of the check of the owner, two before it counts as dead; published Chord has no such"
                .into(),
            "check, and may name a dead node".into(),
            "published: Chord 2003, table II: no failed lookups; Chord 2001: without copies a fraction p of keys is lost"
                .into(),
            "published: CFS 2001: of 1,000 servers half fail, six copies: about 1.6 % of blocks are lost".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().zip(PUBLISHED).map(|(row, published)| cells(row, published)).collect(),
    }
}

fn cells(row: &Row, (_, path, timeouts): (u64, f64, f64)) -> Vec<String> {
    let after = |cell: fn(&LookupStats) -> String| row.after.as_ref().map_or("not stable".into(), cell);
    let mut cells = vec![
        format!("{} %", row.failed_percent),
        format!("{:.2}", row.before.hops.mean()),
        format!("{path:.2}"),
        row.before.hops.percentile(99).to_string(),
        format!("{:.2}", row.before.timeouts.mean()),
        format!("{timeouts:.2}"),
        format!("{:.2}", row.before.owner_timeouts.mean()),
        row.before.failed.to_string(),
        after(|stats| format!("{:.2}", stats.hops.mean())),
        after(|stats| format!("{:.2}", stats.timeouts.mean())),
        after(|stats| stats.failed.to_string()),
    ];
    cells.extend(row.lost.map(|share| format!("{:.1} %", share * 100.0)));
    cells
}

pub fn report(seed: u64) -> Result<Table, String> {
    measure(seed, NODES, LOOKUPS).map(|rows| table(&rows, NODES))
}
