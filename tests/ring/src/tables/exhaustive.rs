//! Every interleaving of small rings, one line for each scope.

use super::Table;
use crate::{
    exhaustive::{Outcome, Size, run, scopes},
    lives::Violation,
};

/// Fails with the steps that lead to a violation.
pub fn measure(size: Size) -> Result<Vec<(String, Outcome)>, Violation> {
    scopes(size).iter().map(|scope| checked(scope.name(), run(scope))).collect()
}

fn checked(name: String, outcome: Outcome) -> Result<(String, Outcome), Violation> {
    match outcome.counterexample {
        Some(steps) => Err(steps),
        None => Ok((name, outcome)),
    }
}

pub fn table(rows: &[(String, Outcome)]) -> Table {
    let cells = |(name, outcome): &(String, Outcome)| {
        vec![
            name.clone(),
            outcome.states.to_string(),
            outcome.unique.to_string(),
            outcome.depth.to_string(),
            if outcome.complete { "all" } else { "not all" }.to_owned(),
            "0".to_owned(),
            format!("{:.1}", outcome.took.as_secs_f64()),
        ]
    };
    let header = ["scope", "steps tried", "states", "depth", "tried", "violations", "seconds"];
    Table {
        title: "Every interleaving of small rings".into(),
        notes: vec![
            "o a member, + a node that joins, in the order of the circle; r the length of a list; then the budgets"
                .into(),
            "one ordered ring; a live successor for each member; no established member is skipped; it becomes ideal"
                .into(),
            "proved from r + 1 members on. A smaller ring (a scope that begins with fewer) stays one ring; no node"
                .into(),
            "crashes in it here. It is kept safe by lists that hold all members, by the peers that each node remembers"
                .into(),
            "and contacts, and, for stored data, by majorities of the replica sets".into(),
        ],
        header: header.map(String::from).to_vec(),
        rows: rows.iter().map(cells).collect(),
    }
}

pub fn report(size: Size) -> Result<Table, Violation> {
    measure(size).map(|rows| table(&rows))
}
