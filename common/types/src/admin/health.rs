//! The verdict on a ring, or on one node: OK, WARN or ERROR, with its reasons. One pure function of plain values, so
//! that `status`, `check`, `/healthz`, `/readyz` and `/metrics` report the same verdict.
//!
//! WARN: everything works, with less redundancy or room than it should have. ERROR: something does not work.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    NodeState,
    health_facts::{DiskFacts, HealthFacts, NodeFacts, VoterFacts},
};
use crate::chunk_api::REPLICAS;

/// A voter that lags by no more entries than this is only slow: an operation is an entry.
const LAG_ENTRIES: u64 = 1000;
/// With less free space than this, no batch of chunks may fit.
const NO_SPACE_BYTES: u64 = 1 << 20;
/// A node with a smaller free share of its capacity is short of room.
const LOW_SPACE_DIVISOR: u64 = 20;

/// The verdict in one word. The exit codes of `status` and `check` are 0, 1 and 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthLevel {
    /// Nothing needs attention.
    #[default]
    Ok,
    /// Everything works, with less redundancy or room than it should have.
    Warn,
    /// Something does not work.
    Error,
}

/// What is wrong, for programs: codes are added, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthCode {
    /// The node has not taken its place in a ring.
    Starting,
    /// The ring has no namespace.
    NoNamespace,
    /// Too few voters answer.
    NoMajority,
    /// A majority of the voters answers, and none of them leads at present.
    NoLeader,
    /// A voter does not answer.
    VoterDead,
    /// A voter is far behind the leader's log.
    VoterLagging,
    /// A node of the ring does not answer.
    NodeUnreachable,
    /// There are fewer storage nodes than copies of a chunk.
    FewNodes,
    /// Holders lack copies.
    UnderReplicated,
    /// Damaged chunks of which no node has a sound copy.
    Unrecoverable,
    /// A data folder cannot be written or read.
    DiskUnusable,
    /// A node refuses chunks.
    NoSpace,
    /// A node is nearly full.
    LowSpace,
}

impl HealthCode {
    /// All codes, for metrics.
    pub const ALL: [Self; 13] = [
        Self::Starting,
        Self::NoNamespace,
        Self::NoMajority,
        Self::NoLeader,
        Self::VoterDead,
        Self::VoterLagging,
        Self::NodeUnreachable,
        Self::FewNodes,
        Self::UnderReplicated,
        Self::Unrecoverable,
        Self::DiskUnusable,
        Self::NoSpace,
        Self::LowSpace,
    ];

    fn level(self) -> HealthLevel {
        match self {
            Self::Starting
            | Self::VoterDead
            | Self::VoterLagging
            | Self::NodeUnreachable
            | Self::FewNodes
            | Self::UnderReplicated
            | Self::LowSpace => HealthLevel::Warn,
            Self::NoNamespace
            | Self::NoMajority
            | Self::NoLeader
            | Self::Unrecoverable
            | Self::DiskUnusable
            | Self::NoSpace => HealthLevel::Error,
        }
    }

    /// As in JSON, in lower case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NoNamespace => "no_namespace",
            Self::NoMajority => "no_majority",
            Self::NoLeader => "no_leader",
            Self::VoterDead => "voter_dead",
            Self::VoterLagging => "voter_lagging",
            Self::NodeUnreachable => "node_unreachable",
            Self::FewNodes => "few_nodes",
            Self::UnderReplicated => "under_replicated",
            Self::Unrecoverable => "unrecoverable",
            Self::DiskUnusable => "disk_unusable",
            Self::NoSpace => "no_space",
            Self::LowSpace => "low_space",
        }
    }
}

/// One reason of a verdict that is not OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReason {
    /// What is wrong, for programs.
    pub code: HealthCode,
    /// How bad this reason is by itself.
    pub level: HealthLevel,
    /// What is wrong and where, in one line.
    pub text: String,
}

/// The verdict and its reasons, the worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst level of the reasons.
    #[serde(default)]
    pub level: HealthLevel,
    /// Empty if all is well.
    #[serde(default)]
    pub reasons: Vec<HealthReason>,
}

impl Health {
    /// The verdict.
    pub fn judge(facts: &HealthFacts) -> Self {
        let mut reasons: Vec<HealthReason> = Vec::new();
        let mut add = |code: HealthCode, text: String| reasons.push(HealthReason { code, level: code.level(), text });
        if let Some(state @ (NodeState::Starting | NodeState::Joining)) = facts.state {
            add(HealthCode::Starting, format!("the node is {state}: it has no place in a ring yet"));
        } else {
            namespace(facts, &mut add);
        }
        nodes(facts, &mut add);
        facts.nodes.iter().for_each(|node| disk(node, &mut add));
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
        let level = reasons.first().map_or(HealthLevel::Ok, |reason| reason.level);
        Self { level, reasons }
    }

    /// Whether one of the reasons has this code.
    pub fn has(&self, code: HealthCode) -> bool {
        self.reasons.iter().any(|reason| reason.code == code)
    }

    /// Removes the reasons of a code.
    pub fn without(mut self, code: HealthCode) -> Self {
        self.reasons.retain(|reason| reason.code != code);
        self.level = self.reasons.first().map_or(HealthLevel::Ok, |reason| reason.level);
        self
    }
}

fn namespace(facts: &HealthFacts, add: &mut impl FnMut(HealthCode, String)) {
    let answering = facts.voters.iter().filter(|voter| voter.answers == Some(true)).count();
    let dead: Vec<&VoterFacts> = facts.voters.iter().filter(|voter| voter.answers == Some(false)).collect();
    let count = facts.voters.len();
    if !facts.has_namespace {
        return add(
            HealthCode::NoNamespace,
            "no namespace is known in this ring: no file can be read or written".into(),
        );
    }
    match facts.confirmed_leader {
        None if answering * 2 <= count => {
            let asked = facts.voters.iter().any(|voter| voter.answers.is_some());
            let who = if asked && count > 0 { format!(" ({})", silent_voters(count, &dead)) } else { String::new() };
            return add(HealthCode::NoMajority, format!("no majority: nothing can be read or written{who}"));
        }
        None => add(
            HealthCode::NoLeader,
            "no leader: nothing can be read or written until the voters have elected one".into(),
        ),
        Some(_) => {}
    }
    if !dead.is_empty() {
        let last =
            if (answering.saturating_sub(1)) * 2 <= count { "; the loss of one more stops the ring" } else { "" };
        add(HealthCode::VoterDead, format!("{}{last}", silent_voters(count, &dead)));
    }
    for voter in facts.voters.iter().filter(|voter| voter.answers != Some(false)) {
        if let Some(lag) = voter.lag.filter(|lag| *lag > LAG_ENTRIES) {
            add(HealthCode::VoterLagging, format!("the voter {} lags by {lag} entries of the log", voter.address));
        }
    }
}

fn silent_voters(count: usize, dead: &[&VoterFacts]) -> String {
    let (verb, names) =
        (if dead.len() == 1 { "does" } else { "do" }, addresses(dead.iter().map(|voter| voter.address)));
    format!("{} of {count} {} {verb} not answer: {names}", dead.len(), plural(count as u64, "voter"))
}

fn nodes(facts: &HealthFacts, add: &mut impl FnMut(HealthCode, String)) {
    let votes = |address: SocketAddr| facts.voters.iter().any(|voter| voter.address == address);
    let silent = facts.nodes.iter().filter(|node| node.disk.is_none() && !votes(node.address));
    let silent: Vec<SocketAddr> = silent.map(|node| node.address).collect();
    match &silent[..] {
        [] => {}
        [one] => add(HealthCode::NodeUnreachable, format!("the node {one} does not answer")),
        many => add(
            HealthCode::NodeUnreachable,
            format!("{} nodes do not answer: {}", many.len(), addresses(many.iter().copied())),
        ),
    }
    let lacking = facts.under_replicated.filter(|copies| *copies > 0);
    if let Some(count) = facts.answering_nodes.filter(|count| (1..REPLICAS).contains(count)) {
        let (nodes, verb) = (plural(count as u64, "storage node"), if count == 1 { "answers" } else { "answer" });
        let copies = plural(count as u64, "copy");
        add(HealthCode::FewNodes, format!("only {count} {nodes} {verb}: a chunk has {count} {copies}, not {REPLICAS}"));
    }
    if let Some(copies) = lacking {
        let (noun, verb) = (plural(copies, "copy"), if copies == 1 { "is" } else { "are" });
        add(HealthCode::UnderReplicated, format!("{copies} {noun} of chunks {verb} missing"));
    }
}

fn disk(node: &NodeFacts, add: &mut impl FnMut(HealthCode, String)) {
    let address = node.address;
    if node.unrecoverable > 0 {
        let (count, noun) = (node.unrecoverable, plural(node.unrecoverable, "damaged chunk"));
        add(HealthCode::Unrecoverable, format!("{count} {noun} on {address}: no node has a sound copy"));
    }
    let Some(DiskFacts { problem, free_bytes, capacity_bytes }) = &node.disk else { return };
    if let Some(problem) = problem {
        add(HealthCode::DiskUnusable, format!("the disk of {address} cannot be used: {problem}"));
    } else if *free_bytes < NO_SPACE_BYTES {
        add(HealthCode::NoSpace, format!("no space left on {address}: it refuses new chunks"));
    } else if *free_bytes < capacity_bytes / LOW_SPACE_DIVISOR {
        let percent = free_bytes * 100 / capacity_bytes.max(&1);
        let free_mib = free_bytes >> 20;
        add(HealthCode::LowSpace, format!("{address} is nearly full: {free_mib} MiB are free ({percent}%)"));
    }
}

fn addresses(all: impl Iterator<Item = SocketAddr>) -> String {
    all.map(|address| address.to_string()).collect::<Vec<_>>().join(", ")
}

/// The noun as the count asks for it; `copy` is the only irregular one here.
fn plural(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{noun}s"),
    }
}

impl HealthLevel {
    /// The exit code of a command whose result has this level.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for HealthLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        })
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 5057).into()
    }

    fn node(number: u8) -> NodeFacts {
        let disk = DiskFacts { problem: None, free_bytes: 50 << 30, capacity_bytes: 100 << 30 };
        NodeFacts { address: address(number), disk: Some(disk), unrecoverable: 0 }
    }

    fn voter(number: u8, answers: bool) -> VoterFacts {
        VoterFacts { address: address(number), answers: Some(answers), lag: answers.then_some(3) }
    }

    /// A sound ring of three.
    fn sound() -> HealthFacts {
        HealthFacts {
            state: None,
            has_namespace: true,
            confirmed_leader: Some(address(1)),
            voters: vec![voter(1, true), voter(2, true), voter(3, true)],
            nodes: vec![node(1), node(2), node(3)],
            answering_nodes: Some(3),
            under_replicated: Some(0),
        }
    }

    fn check(change: impl FnOnce(&mut HealthFacts), wanted: &[&str]) {
        let mut facts = sound();
        change(&mut facts);
        let health = Health::judge(&facts);
        let reasons: Vec<String> = health.reasons.iter().map(ToString::to_string).collect();
        assert_eq!(reasons, wanted);
        assert_eq!(health.level.to_string(), reasons.first().map_or("OK", |first| first.split(':').next().unwrap()));
    }

    #[test]
    fn every_fault_has_its_reason() {
        check(|_| {}, &[]);
        check(|facts| facts.under_replicated = None, &[]);
        check(
            |facts| {
                (facts.voters[2], facts.nodes[2].disk) = (voter(3, false), None);
                (facts.answering_nodes, facts.under_replicated) = (Some(2), Some(7));
            },
            &[
                "WARN: 1 of 3 voters does not answer: 10.0.0.3:5057; the loss of one more stops the ring",
                "WARN: only 2 storage nodes answer: a chunk has 2 copies, not 3",
                "WARN: 7 copies of chunks are missing",
            ],
        );
        check(
            |facts| {
                (facts.voters[1], facts.voters[2]) = (voter(2, false), voter(3, false));
                (facts.nodes[1].disk, facts.nodes[2].disk, facts.answering_nodes) = (None, None, Some(1));
                facts.confirmed_leader = None;
            },
            &[
                "ERROR: no majority: nothing can be read or written \
                 (2 of 3 voters do not answer: 10.0.0.2:5057, 10.0.0.3:5057)",
                "WARN: only 1 storage node answers: a chunk has 1 copy, not 3",
            ],
        );
        check(
            |facts| facts.confirmed_leader = None,
            &["ERROR: no leader: nothing can be read or written until the voters have elected one"],
        );
        check(
            |facts| {
                facts.confirmed_leader = None;
                facts.voters.iter_mut().for_each(|voter| voter.answers = None);
            },
            &["ERROR: no majority: nothing can be read or written"],
        );
        check(
            |facts| facts.has_namespace = false,
            &["ERROR: no namespace is known in this ring: no file can be read or written"],
        );
        check(
            |facts| facts.voters[1].lag = Some(5000),
            &["WARN: the voter 10.0.0.2:5057 lags by 5000 entries of the log"],
        );
        check(
            |facts| facts.nodes.push(NodeFacts { disk: None, ..node(4) }),
            &["WARN: the node 10.0.0.4:5057 does not answer"],
        );
        check(|facts| facts.under_replicated = Some(1), &["WARN: 1 copy of chunks is missing"]);
        check(
            |facts| facts.nodes[0].unrecoverable = 2,
            &["ERROR: 2 damaged chunks on 10.0.0.1:5057: no node has a sound copy"],
        );
        check(
            |facts| (facts.state, facts.has_namespace) = (Some(NodeState::Joining), false),
            &["WARN: the node is joining: it has no place in a ring yet"],
        );
    }

    #[test]
    fn every_state_of_a_disk_has_its_reason() {
        let disk = |problem: Option<&str>, free_bytes| {
            Some(DiskFacts { problem: problem.map(str::to_owned), free_bytes, capacity_bytes: 100 << 30 })
        };
        check(
            |facts| facts.nodes[1].disk = disk(Some("/data is read-only"), 0),
            &["ERROR: the disk of 10.0.0.2:5057 cannot be used: /data is read-only"],
        );
        check(
            |facts| facts.nodes[1].disk = disk(None, 5000),
            &["ERROR: no space left on 10.0.0.2:5057: it refuses new chunks"],
        );
        check(
            |facts| facts.nodes[1].disk = disk(None, 3 << 30),
            &["WARN: 10.0.0.2:5057 is nearly full: 3072 MiB are free (3%)"],
        );
        check(|facts| facts.nodes[1].disk = disk(None, 6 << 30), &[]);
    }

    #[test]
    fn scripts_tell_the_levels_apart_by_the_exit_code() {
        assert_eq!([HealthLevel::Ok, HealthLevel::Warn, HealthLevel::Error].map(HealthLevel::exit_code), [0, 1, 2]);
    }

    #[test]
    fn codes_read_alike_in_json_and_in_metrics() {
        for code in HealthCode::ALL {
            let json = serde_json::to_value(code).unwrap();
            assert_eq!(json.as_str().unwrap().to_lowercase(), code.label());
        }
    }
}
