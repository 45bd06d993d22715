//! Lookups while nodes join and crash (Chord 2001, figure 12). No node announces that it leaves.

use std::time::Duration;

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::RingId;

use super::Table;
use crate::{conditions::Conditions, network::Sim};

pub const NODES: usize = 500;
pub const RATES: [f64; 6] = [0.01, 0.02, 0.04, 0.06, 0.08, 0.10];
const PERIOD: Duration = Duration::from_secs(30);
const LOOKUPS_PER_SECOND: f64 = 4.0;

#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Joins per second; the rate of crashes is the same.
    pub rate: f64,
    pub joins: u64,
    pub crashes: u64,
    pub lookups: u64,
    /// Lookups that found no node, or not the owner at the time of the answer.
    pub failed: u64,
    /// Failed lookups that found no node.
    pub unanswered: u64,
}

/// Runs each rate for `time` on its own clone of one ring of `nodes`.
pub fn measure(seed: u64, nodes: usize, rates: &[f64], time: Duration) -> Result<Vec<Row>, String> {
    let conditions = Conditions { period: PERIOD, ..Conditions::quick() };
    let mut ring = Sim::new(seed, conditions, RingSettings::default());
    if ring.grow_to(nodes) {
        Ok(rates.iter().map(|&rate| row(ring.clone(), rate, time)).collect())
    } else {
        Err(format!("seed {seed}: the ring of {nodes} does not stabilize"))
    }
}

fn row(mut sim: Sim, rate: f64, time: Duration) -> Row {
    let mut row = Row { rate, ..Row::default() };
    let end = sim.now + time;
    let mut next = [rate, rate, LOOKUPS_PER_SECOND].map(|per_second| sim.now + sim.rng.next_arrival(per_second));
    while sim.now < end {
        let soonest = (0..next.len()).min_by_key(|&kind| next[kind]).unwrap_or(0);
        sim.run_for(next[soonest].saturating_sub(sim.now));
        let per_second = match soonest {
            0 => join_one(&mut sim, &mut row),
            1 => crash_one(&mut sim, &mut row),
            _ => look_up(&mut sim),
        };
        next[soonest] += sim.rng.next_arrival(per_second.unwrap_or(rate));
        note_results(&mut sim, &mut row);
    }
    sim.run_for(PERIOD);
    note_results(&mut sim, &mut row);
    row
}

fn join_one(sim: &mut Sim, row: &mut Row) -> Option<f64> {
    let members = sim.members();
    let member = sim.rng.pick(&members)?;
    let node = sim.start(None);
    sim.join(node, member);
    row.joins += 1;
    None
}

fn crash_one(sim: &mut Sim, row: &mut Row) -> Option<f64> {
    let up = sim.up();
    let node = sim.rng.pick(&up)?;
    sim.crash(node);
    row.crashes += 1;
    None
}

fn look_up(sim: &mut Sim) -> Option<f64> {
    let members = sim.members();
    let (node, key) = (sim.rng.pick(&members)?, RingId(sim.rng.next_u64() as u32));
    sim.begin_lookup(node, key);
    Some(LOOKUPS_PER_SECOND)
}

fn note_results(sim: &mut Sim, row: &mut Row) {
    for looked in sim.take_results().into_values() {
        row.lookups += 1;
        row.unanswered += u64::from(looked.found.is_err());
        row.failed += u64::from(looked.found.ok() != looked.right);
    }
}

pub fn table(rows: &[Row], nodes: usize) -> Table {
    let cells = |row: &Row| {
        vec![
            format!("{:.2}", row.rate),
            row.joins.to_string(),
            row.crashes.to_string(),
            row.lookups.to_string(),
            row.failed.to_string(),
            row.unanswered.to_string(),
            format!("{:.2} %", row.failed as f64 * 100.0 / row.lookups.max(1) as f64),
            format!("{:.1} %", row.rate * PERIOD.as_secs_f64()),
        ]
    };
    let header = ["rate /s", "joins", "crashes", "lookups", "failed", "no answer", "failed", "publ."];
    Table {
        title: format!("Lookups while nodes join and crash: {nodes} nodes, stabilize every {PERIOD:?}, no retry"),
        notes: vec![
            "failed: found no node, or not the owner of the key at the time of the answer".into(),
            "published: Chord 2001, figure 12: about 3 % at 0.10 (3 failures in a period), in proportion below".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

pub fn report(seed: u64) -> Result<Table, String> {
    measure(seed, NODES, &RATES, Duration::from_secs(3600)).map(|rows| table(&rows, NODES))
}
