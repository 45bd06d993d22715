//! How far a search goes: the ring it begins with, and how often each thing may happen.

use std::time::Duration;

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::{NodeRef, RingId};

/// A ring and what may happen to it. Everything that is allowed is tried in every order.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The places of the circle in their order: `o` is a member of an ideal ring, `+` a node that may join it. The node
    /// at place k has the id 10 (k + 1).
    pub layout: &'static str,
    pub successor_list_len: usize,
    pub quarantine: Quarantine,
    /// Attempts to join, of all nodes together.
    pub joins: u8,
    pub crashes: u8,
    pub leaves: u8,
    /// Of nodes that crashed.
    pub restarts: u8,
    pub stabilize: Budget,
    pub check_predecessor: Budget,
    pub tick: Budget,
    /// How many notifications (and words of leaving) are lost, and how many come twice.
    pub lost: u8,
    pub doubled: u8,
    pub network: Network,
    pub crash_rule: CrashRule,
    /// In how many quiet periods every state becomes ideal.
    pub periods_max: usize,
    /// The search stops there, and says that it is not complete.
    pub steps_max: usize,
}

/// How often a node may do a step, and how often all nodes together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    pub each: u8,
    pub all: u8,
}

/// How long a node that did not answer is not taken on others' word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// It is believed in again at once.
    None,
    /// Longer than everything that the search tries.
    Lasting,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A live node answers it, a dead one never: what the proof assumes.
    Truthful,
    /// This many questions to live nodes count as unanswered.
    FalseSuspicions(u8),
    /// Somebody answers for dead nodes with what they knew last. (To ask a node before it is adopted is then no help.)
    DeadNodesAnswer,
}

/// When a node may crash or leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashRule {
    /// If each member's list, and each list that is on its way to a node, still holds a live member, and one principal
    /// more than a list is long is left.
    ListsAndAnswers,
    /// The same of the members' lists alone: what the paper asks for, where an answer is never on its way.
    Lists,
    /// Whenever a member is left.
    Never,
}

impl Scope {
    /// An ideal ring, r as given, in which nothing happens yet.
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

    /// A ring of one is a ring if it was the first.
    pub(super) fn founder(&self) -> usize {
        self.layout.find('o').unwrap_or(0)
    }

    /// In words, what may happen.
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
        let silence = if self.quarantine == Quarantine::None { ", no silence" } else { "" };
        let list = format!("{} r={}{silence}:", self.layout, self.successor_list_len);
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
