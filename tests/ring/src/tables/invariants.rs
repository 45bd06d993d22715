//! Thousands of random histories, with Zave's invariants checked after every event that changed some node's neighbours.

use super::Table;
use crate::{
    conditions::Conditions,
    lives::{LIST_LEN, Life, Violation, live},
};

#[derive(Clone, Debug)]
pub struct Row {
    pub network: &'static str,
    pub lives: u64,
    pub total: Life,
}

/// Runs `lives` seeds from `first_seed` on in each kind of network. Fails with the first violation and its seed.
pub fn measure(first_seed: u64, lives: u64) -> Result<Vec<Row>, Violation> {
    let networks =
        [("slow, nothing lost", Conditions::reliable()), ("lost, late, doubled", Conditions::bounded_losses())];
    networks.into_iter().map(|(network, conditions)| row(network, conditions, first_seed, lives)).collect()
}

fn row(network: &'static str, conditions: Conditions, first_seed: u64, lives: u64) -> Result<Row, Violation> {
    let mut total = Life::default();
    for seed in first_seed..first_seed + lives {
        let life = live(seed, conditions)?;
        total.events += life.events;
        total.joins += life.joins;
        total.crashes += life.crashes;
        total.returns += life.returns;
    }
    Ok(Row { network, lives, total })
}

pub fn table(first_seed: u64, rows: &[Row]) -> Table {
    let cells = |row: &Row| {
        let Life { events, joins, crashes, returns } = row.total;
        let numbers = [row.lives, events, joins, crashes, returns].map(|number| number.to_string());
        std::iter::once(row.network.to_owned()).chain(numbers).chain(["0".to_owned()]).collect()
    };
    let header = ["network", "histories", "events", "joins", "crashes", "restarts", "violations"];
    Table {
        title: format!("Invariants in random histories of rings of up to 64 nodes, seeds from {first_seed} on"),
        notes: vec![
            "after every event: one ring, in order; each member has a live successor; each list is in order".into(),
            format!("from {} members on: no list skips an established member", LIST_LEN + 1),
            "at the end: the ring becomes ideal, and lookups are right".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

pub fn report(first_seed: u64, lives: u64) -> Result<Table, Violation> {
    measure(first_seed, lives).map(|rows| table(first_seed, &rows))
}
