//! A state of a small ring: the nodes, the messages in flight, and the remaining budget of events.
//!
//! Two states are equal if their digests are (`Ring::digest_into`); messages have no order. Nodes and messages are
//! shared between states, as a step changes only one node.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use chordfs_ring::{CallId, Message, Ring, RingAnswer, RingRequest, RingRoute};
use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc, RingId};

use super::scope::{node_at, place_of};
use crate::invariants::{extended_list, skips};

/// A set of places: bit k is place k.
pub(super) type Places = u16;

#[derive(Clone)]
pub struct State {
    pub nodes: Vec<Arc<Node>>,
    /// Ordered by digest.
    pub in_flight: Vec<Arc<InFlight>>,
    pub remaining: Remaining,
    /// Members that no list skipped, held or in flight, at some time since `has_base`; until they die.
    pub established: Places,
    /// True once there has been one principal more than a list is long, and no list in flight that would change that.
    pub has_base: bool,
    pub fault: Option<Arc<Fault>>,
}

/// A violation of a property.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    Ring(String),
    Skipped(String),
    FewPrincipals(String),
}

/// The remaining budget of each kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remaining {
    pub joins: u8,
    pub crashes: u8,
    pub leaves: u8,
    pub restarts: u8,
    /// In the order of `Maintenance`.
    pub maintenance: [u8; 3],
    pub lost: u8,
    pub doubled: u8,
    pub false_suspicions: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maintenance {
    Stabilize,
    CheckPredecessor,
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    NotStarted,
    Up,
    /// Crashed; may restart.
    Down,
    HasLeft,
}

#[derive(Clone)]
pub struct Node {
    pub phase: Phase,
    /// None if the node has not started; of a node that is down, its stored state.
    pub ring: Option<Ring>,
    /// True if the node is outside the ring and has no join pending.
    pub may_join: bool,
    /// True if the node has been down; a founder then no longer counts as a ring when alone.
    pub was_down: bool,
    pub maintained: [u8; 3],
    pub view: Neighbours,
    pub is_member: bool,
    /// The nodes that its list skips, and those that it names.
    pub skips: Places,
    pub names: Places,
    digest: u64,
}

pub struct InFlight {
    pub from: usize,
    pub to: usize,
    pub content: MessageContent,
    /// The nodes that the list in the message skips, and those that it names.
    pub skips: Places,
    pub names: Places,
    /// The nodes that it names as the caller's successor.
    pub owners: Places,
    /// The nodes that a lone node will skip when it takes the successor in the message.
    pub skips_joining: Places,
    digest: u64,
}

pub enum MessageContent {
    Request { call: CallId, request: RingRequest },
    Answer { call: CallId, answer: RingAnswer },
    Message(Message),
}

impl Node {
    pub fn not_started(place: usize) -> Self {
        let view = Neighbours { predecessor: None, node: node_at(place), successors: Vec::new() };
        Self {
            phase: Phase::NotStarted,
            ring: None,
            may_join: true,
            was_down: false,
            maintained: [0; 3],
            view,
            is_member: false,
            skips: 0,
            names: 0,
            digest: 0,
        }
    }

    /// Updates the derived fields. `remembers`: the state of a dead node still matters.
    pub fn update_derived(&mut self, place: usize, places: usize, is_founder: bool, remembers: bool) {
        let ring = self.ring.as_ref().filter(|_| self.phase == Phase::Up);
        let nothing = || Neighbours { predecessor: None, node: node_at(place), successors: Vec::new() };
        self.view = ring.map_or_else(nothing, Ring::neighbours);
        self.is_member = ring.is_some() && (is_founder || !self.is_alone());
        // The list of a ring of one leads from the node to itself, past all others.
        self.skips = if self.is_member && self.is_alone() {
            skipped_between(place, place, places)
        } else {
            skipped(&extended_list(&self.view), places)
        };
        self.names = names(&self.view, usize::MAX);
        let mut hasher = DefaultHasher::new();
        (self.phase, self.may_join, self.was_down, self.maintained).hash(&mut hasher);
        if let Some(ring) = self.ring.as_ref().filter(|_| self.phase == Phase::Up || remembers) {
            ring.digest_into(&mut hasher);
        }
        self.digest = hasher.finish();
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub fn is_alone(&self) -> bool {
        self.view.successors.is_empty()
    }

    pub fn is_equivalent_to(&self, other: &Node) -> bool {
        self.digest == other.digest
    }
}

impl InFlight {
    /// `call_digest` stands for the call's id.
    pub fn request(from: usize, to: usize, call: CallId, call_digest: u64, request: RingRequest) -> Self {
        let digest = digest_of(&(0, from, to, call_digest));
        let content = MessageContent::Request { call, request };
        Self { from, to, content, skips: 0, names: 0, owners: 0, skips_joining: 0, digest }
    }

    pub fn answer(
        from: usize,
        to: usize,
        call: CallId,
        call_digest: u64,
        answer: RingAnswer,
        list_len: usize,
        places: usize,
    ) -> Self {
        let (mut skips, mut named, mut owners, mut skips_joining) = (0, 0, 0, 0);
        let mut hasher = DefaultHasher::new();
        (1, from, to, call_digest).hash(&mut hasher);
        match &answer {
            RingAnswer::Neighbours(view) => {
                (view.predecessor, &view.successors).hash(&mut hasher);
                skips = skipped(&extended_list(view), places);
                named = 1 << from | names(view, list_len - 1) & !(1 << to);
            }
            RingAnswer::Info(node) => node.hash(&mut hasher),
            RingAnswer::Route(RingRoute::Owner(nodes)) => {
                (0, nodes).hash(&mut hasher);
                let is_asker = nodes.first().is_some_and(|&owner| place_of(owner) == to);
                owners = if is_asker { 0 } else { places_of(nodes) };
                let list: Vec<RingId> =
                    std::iter::once(node_at(to)).chain(nodes.iter().copied()).map(|n| n.id).collect();
                skips_joining = skipped(&list, places);
            }
            RingAnswer::Route(RingRoute::NextHops { nodes, beyond }) => (1, nodes, beyond).hash(&mut hasher),
        }
        let content = MessageContent::Answer { call, answer };
        Self { from, to, content, skips, names: named, owners, skips_joining, digest: hasher.finish() }
    }

    pub fn message(from: usize, to: usize, message: Message) -> Self {
        let digest = match &message {
            Message::Notify(peer) => digest_of(&(2, to, peer)),
            Message::Leave(view) => digest_of(&(3, to, view.node, view.predecessor, &view.successors)),
        };
        let content = MessageContent::Message(message);
        Self { from, to, content, skips: 0, names: 0, owners: 0, skips_joining: 0, digest }
    }

    pub fn is_request(&self) -> bool {
        matches!(self.content, MessageContent::Request { .. })
    }

    pub fn is_same_as(&self, other: &InFlight) -> bool {
        self.digest == other.digest
    }
}

impl State {
    pub fn send(&mut self, message: InFlight) {
        let place = self.in_flight.partition_point(|other| other.digest < message.digest);
        self.in_flight.insert(place, Arc::new(message));
    }

    pub fn members(&self) -> Places {
        self.places_where(|node| node.is_member)
    }

    pub fn places_where(&self, holds: impl Fn(&Node) -> bool) -> Places {
        places_where(self.nodes.len(), |place| holds(&self.nodes[place]))
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.iter().for_each(|node| node.digest.hash(hasher));
        self.in_flight.iter().for_each(|message| message.digest.hash(hasher));
        (self.in_flight.len(), &self.remaining, self.established, self.has_base, &self.fault).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let hash = |state: &Self| digest_of(state);
        hash(self) == hash(other)
    }
}

fn digest_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The nodes that `from` skips when it takes `to` as its successor; all others if both are the same.
pub(super) fn skipped_between(from: usize, to: usize, places: usize) -> Places {
    let arc = RingArc::new(node_at(from).id, node_at(to).id);
    places_where(places, |place| arc.strictly_contains(node_at(place).id))
}

fn skipped(extended_list: &[RingId], places: usize) -> Places {
    places_where(places, |place| skips(extended_list, node_at(place).id))
}

fn places_where(places: usize, holds: impl Fn(usize) -> bool) -> Places {
    (0..places).filter(|&place| holds(place)).fold(0, |set, place| set | 1 << place)
}

/// The first `most` nodes of the list.
fn names(view: &Neighbours, most: usize) -> Places {
    places_of(&view.successors[..most.min(view.successors.len())])
}

fn places_of(nodes: &[NodeRef]) -> Places {
    nodes.iter().fold(0, |set, &node| set | 1 << place_of(node))
}
