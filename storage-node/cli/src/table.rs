//! The ring's status for people: a line for each node with sizes in human units, then the lines about the whole ring,
//! the mounts, and the verdict.

use std::fmt::Write;

use chordfs_types::{
    admin::{INSECURE, NodeLine, RingStatus},
    byte_size::human,
};

use crate::verdict::verdict;

const HEAD: [&str; 9] = ["NODE", "ID", "STATE", "SHARE", "CHUNKS", "DATA", "FREE", "VOTES", "WORK"];
const UNKNOWN: &str = "-";

pub(crate) fn table(status: &RingStatus, mounts: &str) -> String {
    let mut rows: Vec<[String; 9]> = vec![HEAD.map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let mut out = aligned(&rows);
    let mut line = |name: &str, value: String| writeln!(out, "{name:<17} {value}").expect("a string takes text");
    line(
        "under-replicated",
        status.under_replicated.map_or("not known yet".into(), |copies| format!("{copies} copies")),
    );
    if let Some(space) = status.space {
        line("room for files", format!("{} free of {}", human(space.free_bytes), human(space.capacity_bytes)));
    }
    line("cache", status.cache().text());
    let leader = status.namespace.leader.map_or("none".into(), |leader| leader.to_string());
    line("namespace leader", leader);
    let voters: Vec<String> = status.namespace.voters.iter().map(|voter| status.voter_text(*voter)).collect();
    line("namespace voters", if voters.is_empty() { "none".into() } else { voters.join(", ") });
    if status.insecure {
        line("security", INSECURE.into());
    }
    out + mounts + &verdict(&status.health)
}

fn row(node: &NodeLine) -> [String; 9] {
    let known = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.into());
    [
        node.address.to_string(),
        known(node.id.map(|id| id.to_string())),
        node.state.label().into(),
        known(node.share.map(|share| format!("{:.1}%", share * 100.0))),
        known(node.chunks.map(|chunks| chunks.to_string())),
        known(node.data_bytes.map(human)),
        known(node.free_bytes.map(human)),
        if node.leader { "leader" } else { ["no", "yes"][usize::from(node.voter)] }.into(),
        node.work.text().unwrap_or_else(|| UNKNOWN.into()),
    ]
}

/// Columns as wide as their widest cell; the last one ends where its text does.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).expect("a string takes text");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use chordfs_types::{
        admin::{Health, NamespaceStatus, RingNodeState, VoterLag},
        disk_space::RingSpace,
    };

    use super::*;

    #[test]
    fn a_voter_that_lags_or_does_not_answer_is_named() {
        let voter = |number: u8| SocketAddr::from(([10, 0, 0, number], 5057));
        let line = |number, state| NodeLine { voter: true, ..NodeLine::without_status(voter(number), state) };
        let lag = |number, entries| VoterLag { voter: voter(number), entries, unresponsive: false };
        let namespace = NamespaceStatus {
            voters: vec![voter(1), voter(2), voter(3)],
            lags: vec![lag(1, 3), lag(2, 5000), lag(3, 70)],
            ..NamespaceStatus::default()
        };
        let nodes = vec![line(1, RingNodeState::Up), line(2, RingNodeState::Up), line(3, RingNodeState::Unreachable)];
        let (asked, health) = (voter(1), Health::default());
        let space = Some(RingSpace { capacity_bytes: 3 << 30, free_bytes: 2 << 30 });
        let shown = table(
            &RingStatus { asked, nodes, under_replicated: Some(0), space, namespace, insecure: false, health },
            "mounts of no ring\n",
        );
        assert!(shown.contains("room for files    2.00 GiB free of 3.00 GiB\n"), "{shown}");
        let wanted = "namespace voters  10.0.0.1:5057, 10.0.0.2:5057 (lags by 5000 entries), \
                      10.0.0.3:5057 (no answer, lags by 70 entries)\nmounts of no ring\nhealth            OK\n";
        assert!(shown.ends_with(wanted), "{shown}");
    }
}
