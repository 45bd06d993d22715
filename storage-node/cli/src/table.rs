//! The ring's status for people: a line for each node with sizes in human units, then the lines about the whole ring.

use std::{fmt::Write, net::SocketAddr};

use chordfs_types::admin::{CacheStatus, NodeLine, RingNodeState, RingStatus, ScrubWork, TransferWork, Work};

use crate::{units::human, verdict::verdict};

const HEAD: [&str; 9] = ["NODE", "ID", "STATE", "SHARE", "CHUNKS", "DATA", "FREE", "VOTES", "WORK"];
const UNKNOWN: &str = "-";
/// A voter that answers is always some entries behind.
const SHOWN_LAG: u64 = 100;

pub(crate) fn table(status: &RingStatus) -> String {
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
    line("cache", cache_text(&cache_of_all(&status.nodes)));
    let leader = status.namespace.leader.map_or("none".into(), |leader| leader.to_string());
    line("namespace leader", leader);
    let voters: Vec<String> = status.namespace.voters.iter().map(|voter| voter_text(*voter, status)).collect();
    line("namespace voters", if voters.is_empty() { "none".into() } else { voters.join(", ") });
    out + &verdict(&status.health)
}

/// Sums over the nodes that report their caches.
fn cache_of_all(nodes: &[NodeLine]) -> CacheStatus {
    let mut reported = nodes.iter().filter_map(|node| node.cache);
    let first = reported.next().unwrap_or_default();
    reported.fold(first, |mut all, cache| {
        all.add(&cache);
        all
    })
}

/// `1200 chunks, 4.90 MiB of 1.50 GiB, lru; 83.0% of 5120 reads`, and a remark if the memory is too small.
pub(crate) fn cache_text(cache: &CacheStatus) -> String {
    if cache.capacity_bytes == 0 {
        return "off".into();
    }
    let reads = cache.hits + cache.misses;
    let rate = cache.hit_rate().map_or("no reads yet".into(), |rate| format!("{:.1}% of {reads} reads", rate * 100.0));
    let (bytes, capacity) = (human(cache.bytes), human(cache.capacity_bytes));
    let reduced = cache.reduced_from_bytes.map_or(String::new(), |configured| {
        format!("; too little memory for the configured {} on each node", human(configured))
    });
    format!("{} chunks, {bytes} of {capacity}, {}; {rate}{reduced}", cache.items, cache.policy)
}

/// The voter, and how far it is behind the leader's log.
fn voter_text(voter: SocketAddr, status: &RingStatus) -> String {
    let silent = status.nodes.iter().any(|node| node.address == voter && node.state == RingNodeState::Unreachable);
    let lag = status.namespace.lags.iter().find(|lag| lag.voter == voter).map_or(0, |lag| lag.entries);
    match (silent, lag) {
        (true, 0) => format!("{voter} (no answer)"),
        (true, lag) => format!("{voter} (no answer, lags by {lag} entries)"),
        (false, lag) if lag >= SHOWN_LAG => format!("{voter} (lags by {lag} entries)"),
        _ => voter.to_string(),
    }
}

fn row(node: &NodeLine) -> [String; 9] {
    let known = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.into());
    [
        node.address.to_string(),
        known(node.id.map(|id| id.to_string())),
        state(node.state).into(),
        known(node.share.map(|share| format!("{:.1}%", share * 100.0))),
        known(node.chunks.map(|chunks| chunks.to_string())),
        known(node.data_bytes.map(human)),
        known(node.free_bytes.map(human)),
        if node.leader { "leader" } else { ["no", "yes"][usize::from(node.voter)] }.into(),
        work(&node.work),
    ]
}

fn state(state: RingNodeState) -> &'static str {
    match state {
        RingNodeState::Up => "up",
        RingNodeState::Joining => "joining",
        RingNodeState::Draining => "draining",
        RingNodeState::Unreachable => "unreachable",
        RingNodeState::Foreign => "foreign",
    }
}

fn work(work: &Work) -> String {
    let moving = [("repair", &work.repair), ("filling", &work.filling), ("drain", &work.drain)];
    let moving = moving.into_iter().filter_map(|(name, moving)| Some(format!("{name}{}", progress(moving.as_ref()?))));
    let parts: Vec<String> = moving.chain(work.scrub.as_ref().and_then(scrub)).collect();
    if parts.is_empty() { UNKNOWN.into() } else { parts.join("; ") }
}

fn progress(moving: &TransferWork) -> String {
    let is_stuck = moving.chunks_left.is_some() && moving.bytes_per_second.is_none() && moving.problem.is_none();
    let parts = [
        moving.chunks_left.map(|chunks| format!("{chunks} chunks left")),
        moving.bytes_left.map(|bytes| format!("{} left", human(bytes))),
        moving.bytes_per_second.map(|rate| format!("{}/s", human(rate))),
        moving.seconds_left.map(|seconds| format!("about {seconds} s")),
        is_stuck.then(|| "nothing moves at the moment".to_owned()),
        moving.problem.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

/// Between two passes only the damage that was found is shown.
fn scrub(scrub: &ScrubWork) -> Option<String> {
    let percent = scrub.checked_bytes.zip(scrub.total_bytes).map(|(done, all)| done * 100 / all.max(1));
    let parts = [
        percent.map(|percent| format!("{percent}%")),
        scrub.damaged.filter(|damaged| *damaged > 0).map(|damaged| format!("{damaged} damaged")),
        scrub.repaired.filter(|repaired| *repaired > 0).map(|repaired| format!("{repaired} repaired")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("scrub: {}", parts.join(", ")))
}

/// Columns as wide as their widest cell; the last one ends where its text does.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
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
    use chordfs_types::{
        admin::{Health, NamespaceStatus, VoterLag},
        disk_space::RingSpace,
    };

    use super::*;

    #[test]
    fn too_little_memory_for_the_configured_cache_is_shown() {
        let small =
            CacheStatus { capacity_bytes: 3 << 30, reduced_from_bytes: Some(4 << 30), ..CacheStatus::default() };
        let mut all = CacheStatus { capacity_bytes: 4 << 30, ..CacheStatus::default() };
        assert_eq!(cache_text(&all), "0 chunks, 0 B of 4.00 GiB, lru; no reads yet");
        all.add(&small);
        let text = cache_text(&all);
        assert!(text.contains("of 7.00 GiB") && text.ends_with("for the configured 4.00 GiB on each node"), "{text}");
    }

    #[test]
    fn a_voter_that_lags_or_does_not_answer_is_named() {
        let voter = |number: u8| SocketAddr::from(([10, 0, 0, number], 5057));
        let line = |number, state| NodeLine {
            address: voter(number),
            id: None,
            state,
            arc: None,
            share: None,
            chunks: None,
            data_bytes: None,
            free_bytes: None,
            capacity_bytes: None,
            disk: None,
            problem: None,
            voter: true,
            leader: false,
            work: Work::default(),
            cache: None,
            zone: None,
        };
        let lag = |number, entries| VoterLag { voter: voter(number), entries, unresponsive: false };
        let namespace = NamespaceStatus {
            voters: vec![voter(1), voter(2), voter(3)],
            lags: vec![lag(1, 3), lag(2, 5000), lag(3, 70)],
            ..NamespaceStatus::default()
        };
        let nodes = vec![line(1, RingNodeState::Up), line(2, RingNodeState::Up), line(3, RingNodeState::Unreachable)];
        let (asked, health) = (voter(1), Health::default());
        let space = Some(RingSpace { capacity_bytes: 3 << 30, free_bytes: 2 << 30 });
        let shown = table(&RingStatus { asked, nodes, under_replicated: Some(0), space, namespace, health });
        assert!(shown.contains("room for files    2.00 GiB free of 3.00 GiB\n"), "{shown}");
        let wanted = "namespace voters  10.0.0.1:5057, 10.0.0.2:5057 (lags by 5000 entries), \
                      10.0.0.3:5057 (no answer, lags by 70 entries)\nhealth            OK\n";
        assert!(shown.ends_with(wanted), "{shown}");
    }

    #[test]
    fn work_is_one_cell() {
        let drain = TransferWork { bytes_left: Some(3 << 20), seconds_left: Some(9), ..TransferWork::default() };
        let scrub = ScrubWork { checked_bytes: Some(1), total_bytes: Some(4), ..ScrubWork::default() };
        let all = Work { drain: Some(drain), scrub: Some(scrub), ..Work::default() };
        assert_eq!(work(&all), "drain: 3.00 MiB left, about 9 s; scrub: 25%");
        assert_eq!(work(&Work::default()), UNKNOWN);
        let stuck = TransferWork { chunks_left: Some(7), ..TransferWork::default() };
        let filling = Work { filling: Some(stuck), ..Work::default() };
        assert_eq!(work(&filling), "filling: 7 chunks left, nothing moves at the moment");
    }
}
