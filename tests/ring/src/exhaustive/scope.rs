//! The bounds of a search: its initial ring, and how often each kind of event may happen.

use std::time::Duration;

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::{NodeRef, RingId};

/// An initial ring and the budget of each kind of event. All allowed events are tried in every order.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The places of the circle in their order: `o` is a member of an ideal ring, `+` a node that may join it. The node
    /// at place k has the id 10 (k + 1).
    pub layout: &'static str,
    pub successor_list_len: usize,
    pub quarantine: Quarantine,
    /// Join attempts, of all nodes together.
    pub joins: u8,
    pub crashes: u8,
    pub leaves: u8,
    /// Restarts of crashed nodes.
    pub restarts: u8,
    pub stabilize: Budget,
    pub check_predecessor: Budget,
    pub tick: Budget,
    /// How many messages without an answer (notify, leave) are lost, and how many arrive twice.
    pub lost: u8,
    pub doubled: u8,
    pub network: Network,
    pub crash_rule: CrashRule,
    /// The most quiet periods in which every state must become ideal.
    pub periods_max: usize,
    /// The search stops after this many steps and reports that it is incomplete.
    pub steps_max: usize,
}

/// How often one node may perform a step, and how often all nodes together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    pub each: u8,
    pub all: u8,
}

/// How long a dead node is ignored when other nodes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// Not at all.
    None,
    /// Longer than any search.
    Lasting,
}

/// How the network answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Live nodes answer, dead ones never: what the proof assumes.
    Truthful,
    /// This many requests to live nodes fail, so that the nodes are taken for dead.
    FalseSuspicions(u8),
    /// Dead nodes answer with their last state. (Contacting a node before it is adopted is then useless.)
    DeadNodesAnswer,
}

/// When a node may crash or leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashRule {
    /// If each member's list, and each list in flight, still holds a live member, and one principal more than a list is
    /// long is left.
    ListsAndAnswers,
    /// Like `ListsAndAnswers`, but only for the members' lists: the paper's condition, where answers are never in
    /// flight.
    Lists,
    /// Whenever a member is left.
    Never,
}

impl Scope {
    /// An ideal ring with lists of `successor_list_len`, in which no event may happen yet.
    pub fn new(layout: &'static str, successor_list_len: usize) -> Self {
        Self {
            layout,
            successor_list_len,
            quarantine: Quarantine::Lasting,
            joins: 0,
            crashes: 0,
            leaves: 0,
            restarts: 0,
            stabilize: Budget::default(),
            check_predecessor: Budget::default(),
            tick: Budget::default(),
            lost: 0,
            doubled: 0,
            network: Network::Truthful,
            crash_rule: CrashRule::ListsAndAnswers,
            periods_max: 6,
            steps_max: 20_000_000,
        }
    }

    pub(super) fn settings(&self) -> RingSettings {
        RingSettings {
            successor_list_len: self.successor_list_len,
            fingers_per_tick: 0,
            quarantine: match self.quarantine {
                Quarantine::None => Duration::ZERO,
                Quarantine::Lasting => QUARANTINE,
            },
            ..RingSettings::default()
        }
    }

    pub(super) fn places(&self) -> usize {
        self.layout.len()
    }

    pub(super) fn begins_inside(&self, place: usize) -> bool {
        self.layout.as_bytes().get(place) == Some(&b'o')
    }

    /// The first member: the only node that counts as a ring when alone.
    pub(super) fn founder(&self) -> usize {
        self.layout.find('o').unwrap_or(0)
    }

    /// A description of the ring and the allowed events.
    pub fn name(&self) -> String {
        let counts = [
            ("join", self.joins),
            ("crash", self.crashes),
            ("leave", self.leaves),
            ("restart", self.restarts),
            ("stabilize", self.stabilize.all),
            ("check", self.check_predecessor.all),
            ("tick", self.tick.all),
            ("lost", self.lost),
            ("doubled", self.doubled),
        ];
        let happens = counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
        let quarantine = if self.quarantine == Quarantine::None { ", no quarantine" } else { "" };
        let list = format!("{} r={}{quarantine}:", self.layout, self.successor_list_len);
        std::iter::once(list).chain(happens).collect::<Vec<_>>().join(" ")
    }
}

pub(super) const QUARANTINE: Duration = Duration::from_secs(2);

pub(super) fn node_at(place: usize) -> NodeRef {
    let id = 10 * (place as u32 + 1);
    NodeRef { ip: [10, 0, 0, id as u8].into(), port: 5057, id: RingId(id) }
}

pub(super) fn place_of(node: NodeRef) -> usize {
    (node.id.0 / 10) as usize - 1
}
