//! Rings of our and foreign members; the foreign ones support only the ten calls.

use std::time::Duration;

use super::Table;
use crate::{
    conditions::Conditions,
    lives::Violation,
    mixed::{self, Stats},
};

#[derive(Clone, Debug)]
pub struct Row {
    pub what: &'static str,
    pub lives: u64,
    pub total: Stats,
}

/// The numbers of our and foreign members at the beginning of a history, by seed.
type Members = fn(u64) -> (usize, usize);

const KINDS: [(&str, Members); 3] = [
    ("any share", |seed| (1 + (seed % 8) as usize, 1 + (seed / 8 % 8) as usize)),
    ("one of ours", |seed| (1, 1 + (seed % 15) as usize)),
    ("one foreign", |seed| (1 + (seed % 15) as usize, 1)),
];

pub fn measure(first_seed: u64, lives: u64) -> Result<Vec<Row>, Violation> {
    KINDS.into_iter().map(|(what, members)| row(what, members, mixed::conditions(), first_seed, lives)).collect()
}

fn row(
    what: &'static str,
    members: Members,
    conditions: Conditions,
    first_seed: u64,
    lives: u64,
) -> Result<Row, Violation> {
    let mut total = Stats::default();
    for seed in first_seed..first_seed + lives {
        let (ours, foreign) = members(seed);
        let life = mixed::mixed(seed, ours, foreign, conditions)?;
        total.events += life.events;
        total.crashes += life.crashes;
        total.lookups += life.lookups;
        total.longest_repair = total.longest_repair.max(life.longest_repair);
    }
    Ok(Row { what, lives, total })
}

pub fn table(first_seed: u64, rows: &[Row]) -> Table {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let cells = |row: &Row| {
        let Stats { events, crashes, lookups, longest_repair } = row.total;
        let mut cells = vec![row.what.to_owned()];
        cells.extend([row.lives, events, crashes, lookups, 0].map(|number| number.to_string()));
        cells.push(seconds(longest_repair));
        cells
    };
    let header = ["members", "histories", "events", "crashes", "lookups", "wrong", "longest repair"];
    Table {
        title: format!("Mixed rings of 2 to 16 of our and foreign members, seeds from {first_seed} on"),
        notes: vec![
            "foreign: a successor list of three, four fingers, a period of 2 s, only the ten calls".into(),
            "all join through each other, some crash, one of ours leaves, others join, one restarts;".into(),
            "after each step the ring becomes ideal, and lookups through either kind are right".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

pub fn report(first_seed: u64, lives: u64) -> Result<Table, Violation> {
    measure(first_seed, lives).map(|rows| table(first_seed, &rows))
}
