//! One node's part in the Chord ring, as a value: an event and the time go in, actions come out.
//!
//! Why a value: every interleaving of joins, crashes, lost and late messages can then be tried in memory, and the
//! invariants checked after each step. There is no clock, socket, task, lock or randomness in this room; the driver
//! owns the `Ring`, carries messages, and reports each call's outcome exactly once.
//!
//! The operations are the corrected ones of Zave, *How to Make Chord Correct* (2017), over Stoica et al. 2001: a join
//! takes a whole successor list, a candidate is contacted before it is adopted, and rectify replaces a predecessor that
//! does not answer. We add two rules: every node keeps asking the peers it remembers for its own successor, so that
//! rings that formed apart (all nodes started at once, a healed partition) merge; and a neighbour is declared dead only
//! when two requests in a row time out, so that one lost message changes nothing.
//!
//! # What is proved, and from which size on
//! Zave's proof assumes at least r + 1 members (r: the length of a successor list), which a ring that starts from one
//! node does not have. From r + 1 established members on, three invariants are checked after every event: the ring is
//! one and ordered, each member has a live successor, and no established member is skipped. They are checked in every
//! interleaving of four to six members, and in random histories of up to 64. In a smaller ring, a crash may remove the
//! only neighbour that a node has, and no list can make up for it. Three things keep a small ring safe: its lists hold
//! all members; each node remembers its peers, on disk too, and contacts them until it shares one ring with them; and a
//! chunk or a name is acknowledged only by a majority of its replica set.
#![deny(clippy::disallowed_methods)]

mod event;
mod fingerprint;
mod fingers;
pub mod foreign;
mod join;
mod known;
mod lookup;
pub mod position;
mod stabilize;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc, RingId};

pub use self::event::{
    Action, CallFailure, CallId, Event, JoinError, Message, NoRoute, RingAnswer, RingRequest, RingRoute, RingSettings,
    Tag,
};
use self::{fingers::Fingers, known::KnownPeers, lookup::Lookup};

/// How long a peer is believed to be foreign. The driver reports it with every answer, so neighbours stay known.
const FOREIGN_BELIEVED: Duration = Duration::from_secs(60);

/// What this node knows of the ring and what it is waiting for.
///
/// An empty successor list means a ring of one. Every ring starts as a ring of one, without contacting any peer;
/// joining means finding a successor later.
#[derive(Clone, Debug)]
pub struct Ring {
    me: NodeRef,
    settings: RingSettings,
    predecessor: Option<NodeRef>,
    /// Nearest first, ordered clockwise, without `me` and without repetition.
    successors: Vec<NodeRef>,
    fingers: Fingers,
    known: KnownPeers,
    /// Peers that were declared dead, and the end of their quarantine: until then they are ignored in other nodes'
    /// answers.
    dead: BTreeMap<SocketAddr, Duration>,
    /// Peers that did not answer a lookup in time, and until when lookups try other nodes first. An unresponsive
    /// neighbour stays a neighbour.
    unresponsive: BTreeMap<SocketAddr, Duration>,
    /// Peers known to be foreign Chord nodes, and until when that is believed without being reported again.
    foreign: BTreeMap<SocketAddr, Duration>,
    calls: BTreeMap<CallId, CallUnderWay>,
    next_call: CallId,
    lookups: BTreeMap<u64, Box<Lookup>>,
    next_lookup: u64,
    left: bool,
    now: Duration,
    actions: Vec<Action>,
    /// The neighbours that the last `Action::Changed` reported.
    published: Neighbours,
}

#[derive(Clone, Debug)]
struct CallUnderWay {
    to: NodeRef,
    purpose: Purpose,
    attempts_left: u32,
}

/// The reason for a call; decides how its answer is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// Stabilizes with the successor, or with a candidate for it.
    Successor,
    /// Checks that the predecessor is a live member. If not, `fallback` takes its place.
    Predecessor { fallback: Option<NodeRef> },
    /// Asks a neighbour again that reported an empty successor list. If it is still alone, it is dropped, and
    /// `fallback` may become the predecessor.
    Outsider { fallback: Option<NodeRef> },
    /// Checks that a node further down the successor list is alive.
    Liveness,
    /// Asks the next hop of a lookup.
    Hop { lookup: u64 },
    /// Checks that the owner that a lookup found is alive.
    Owner { lookup: u64 },
    /// Asks for the neighbours of a peer through which a lookup found no successor for us, while we are alone.
    Approach { join: Option<Tag> },
    /// Checks that the peer to be remembered is a member of a ring.
    Introduction { join: Tag },
    /// Takes the whole list of the node that was found as our successor in the ring of `through`.
    Adopt { join: Option<Tag>, through: NodeRef },
    /// Checks that the node found by the last lookup of a finger still is that finger.
    Finger { finger_index: u32 },
    /// Checks a node with our id at another address.
    Rival,
}

impl Ring {
    /// A ring of one at `me`. `known`: peers remembered from before a restart, through which to find their ring.
    pub fn new(me: NodeRef, settings: RingSettings, known: Vec<NodeRef>) -> Self {
        let mut peers = KnownPeers::new(settings.known_peers_max);
        known.into_iter().filter(|peer| peer.ring_address() != me.ring_address()).for_each(|peer| peers.add(peer));
        Self {
            me,
            settings,
            predecessor: None,
            successors: Vec::new(),
            fingers: Fingers::default(),
            known: peers,
            dead: BTreeMap::new(),
            unresponsive: BTreeMap::new(),
            foreign: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            lookups: BTreeMap::new(),
            next_lookup: 0,
            left: false,
            now: Duration::ZERO,
            actions: Vec::new(),
            published: Neighbours { predecessor: None, node: me, successors: Vec::new() },
        }
    }

    /// Handles one event. `now` is the time since a fixed moment and never decreases.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = now;
        let known_before = self.known.changes();
        self.dispatch(event);
        if self.has_changed() {
            self.published = self.neighbours();
            self.remember_neighbours();
            self.actions.push(Action::Changed(self.published.clone()));
        }
        if self.known.changes() != known_before {
            self.actions.push(Action::Remember(self.known.all().to_vec()));
        }
        std::mem::take(&mut self.actions)
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            // Callers still get an answer after this node has left; all other events are ignored then.
            Event::FindSuccessor { tag, target } => self.find_successor(tag, target),
            Event::Join { tag, member } => self.join(tag, member),
            Event::Answered { call, answer } => self.answered(call, answer),
            Event::Unanswered { call, failure } => self.unanswered(call, failure),
            _ if self.left => {}
            Event::Tick => self.tick(),
            Event::Stabilize => self.stabilize(),
            Event::CheckPredecessor => self.check_predecessor(None),
            Event::Notified { peer } => self.rectify(peer),
            Event::Followed { newcomer } => self.followed(newcomer),
            Event::Reposition { id } => self.reposition(id),
            Event::Leave => self.leave(),
            Event::PeerLeft { peer, predecessor, successors } => self.peer_left(peer, predecessor, successors),
            Event::KindKnown { peer, is_foreign } => self.kind_known(peer, is_foreign),
            Event::ConnectionLost { peer } => self.connection_lost(peer),
        }
    }

    /// True if the neighbours differ from those that the last `Action::Changed` reported.
    fn has_changed(&self) -> bool {
        let Neighbours { predecessor, node, successors } = &self.published;
        *predecessor != self.predecessor || *node != self.me || *successors != self.successors
    }

    pub fn me(&self) -> NodeRef {
        self.me
    }

    pub fn neighbours(&self) -> Neighbours {
        Neighbours { predecessor: self.predecessor, node: self.me, successors: self.successors.clone() }
    }

    pub fn known(&self) -> &[NodeRef] {
        self.known.all()
    }

    /// True if the ring has other members.
    pub fn is_in_ring(&self) -> bool {
        !self.is_alone()
    }

    fn is_alone(&self) -> bool {
        self.successors.is_empty()
    }

    fn is_me(&self, node: NodeRef) -> bool {
        node.ring_address() == self.me.ring_address()
    }

    fn is_dead(&self, node: NodeRef) -> bool {
        self.dead.get(&node.ring_address()).is_some_and(|&until| self.now < until)
    }

    fn is_unresponsive(&self, node: NodeRef) -> bool {
        self.unresponsive.get(&node.ring_address()).is_some_and(|&until| self.now < until)
    }

    fn is_foreign(&self, node: NodeRef) -> bool {
        self.foreign.get(&node.ring_address()).is_some_and(|&until| self.now < until)
    }

    fn kind_known(&mut self, peer: SocketAddr, is_foreign: bool) {
        if is_foreign {
            self.foreign.insert(peer, self.now + FOREIGN_BELIEVED);
        } else {
            self.foreign.remove(&peer);
        }
    }

    /// True if `node` lies between this node and its current successor.
    fn is_nearer(&self, node: NodeRef) -> bool {
        let end = self.successors.first().map_or(self.me.id, |head| head.id);
        RingArc::new(self.me.id, end).strictly_contains(node.id)
    }

    fn call(&mut self, to: NodeRef, request: RingRequest, purpose: Purpose) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, CallUnderWay { to, purpose, attempts_left: self.settings.attempts.saturating_sub(1) });
        self.actions.push(Action::Call { call, to, request });
    }

    /// Repeats a request under a new call id: the first answer may still be in flight.
    fn retry_call(&mut self, CallUnderWay { to, purpose, attempts_left }: CallUnderWay, request: RingRequest) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, CallUnderWay { to, purpose, attempts_left: attempts_left - 1 });
        self.actions.push(Action::Call { call, to, request });
    }

    /// Sends a request unless an identical call to the same node is pending: calls to a slow peer must not pile up.
    fn call_once(&mut self, to: NodeRef, request: RingRequest, purpose: Purpose) {
        if !self.calls.values().any(|call| call.to == to && call.purpose == purpose) {
            self.call(to, request, purpose);
        }
    }

    fn answered(&mut self, call: CallId, answer: RingAnswer) {
        let Some(CallUnderWay { to, purpose, .. }) = self.calls.remove(&call) else { return };
        self.dead.remove(&to.ring_address());
        self.unresponsive.remove(&to.ring_address());
        self.known.note_answer(to.ring_address());
        self.use_answer(to, purpose, answer);
        if self.predecessor == Some(to) || self.successors.contains(&to) {
            self.known.add(to);
        }
    }

    fn use_answer(&mut self, to: NodeRef, purpose: Purpose, answer: RingAnswer) {
        match (purpose, answer) {
            (Purpose::Hop { lookup }, RingAnswer::Route(route)) => self.hop_answered(lookup, to, route),
            (Purpose::Owner { lookup }, RingAnswer::Info(node)) => self.owner_answered(lookup, to, node),
            (Purpose::Liveness, RingAnswer::Info(node)) => self.liveness_answered(to, node),
            (Purpose::Successor, RingAnswer::Neighbours(theirs)) => self.consider_successor(to, &theirs),
            (Purpose::Predecessor { fallback }, RingAnswer::Neighbours(theirs)) => {
                self.predecessor_answered(to, &theirs, fallback)
            }
            (Purpose::Outsider { fallback }, RingAnswer::Neighbours(theirs)) => {
                self.outsider_answered(to, &theirs, fallback)
            }
            (Purpose::Approach { join }, RingAnswer::Neighbours(theirs)) => self.approach_answered(to, &theirs, join),
            (Purpose::Introduction { join }, RingAnswer::Neighbours(theirs)) => {
                self.introduction_answered(to, &theirs, join)
            }
            (Purpose::Adopt { join, through }, RingAnswer::Neighbours(theirs)) => {
                self.adopt_answered(to, &theirs, join, through)
            }
            (Purpose::Finger { finger_index }, RingAnswer::Neighbours(theirs)) => {
                self.finger_answered(finger_index, to, &theirs)
            }
            (Purpose::Rival, RingAnswer::Info(node)) => self.rival_answered(to, node),
            // An answer that does not match its request counts as a refusal.
            (purpose, _) => self.failed(to, purpose, CallFailure::Refused),
        }
    }

    fn unanswered(&mut self, call: CallId, failure: CallFailure) {
        let Some(call) = self.calls.remove(&call) else { return };
        match retry_request(call.purpose).filter(|_| failure == CallFailure::TimedOut && call.attempts_left > 0) {
            Some(request) => self.retry_call(call, request),
            None => self.failed(call.to, call.purpose, failure),
        }
    }

    fn failed(&mut self, to: NodeRef, purpose: Purpose, failure: CallFailure) {
        self.known.note_failure(to);
        match purpose {
            Purpose::Hop { lookup } => self.hop_failed(lookup, to, failure),
            Purpose::Owner { lookup } => self.owner_failed(lookup, to, failure),
            Purpose::Liveness => self.declare_dead(to),
            Purpose::Successor => self.successor_failed(to),
            Purpose::Predecessor { fallback } | Purpose::Outsider { fallback } => self.predecessor_failed(to, fallback),
            Purpose::Approach { join } | Purpose::Adopt { join, .. } => self.join_failed(to, join),
            Purpose::Introduction { join } => self.introduction_failed(to, join),
            Purpose::Finger { finger_index } => self.finger_failed(finger_index, to, failure),
            Purpose::Rival => self.rival_failed(to),
        }
    }

    /// Removes a node from all lists and quarantines it. If it was the successor, the next node in the list is
    /// contacted at once.
    fn declare_dead(&mut self, node: NodeRef) {
        self.dead.insert(node.ring_address(), self.now + self.settings.quarantine);
        let head = self.successors.first().copied();
        self.successors.retain(|other| other.ring_address() != node.ring_address());
        self.fingers.remove(node.ring_address());
        if self.predecessor.is_some_and(|other| other.ring_address() == node.ring_address()) {
            self.predecessor = None;
        }
        if self.successors.first().copied() != head {
            self.stabilize();
        }
    }

    /// The periodic maintenance: each part is cheap, and none waits for another.
    fn tick(&mut self) {
        self.dead.retain(|_, until| self.now < *until);
        self.unresponsive.retain(|_, until| self.now < *until);
        self.foreign.retain(|_, until| self.now < *until);
        self.stabilize();
        self.check_predecessor(None);
        self.check_list();
        self.fix_fingers();
        self.search_through_known_peers();
    }

    fn remember_neighbours(&mut self) {
        self.predecessor.iter().chain(&self.successors).for_each(|&node| self.known.add_named(node));
    }

    /// Becomes a ring of one, before a change of position or after leaving. Answers still in flight must not lead back
    /// into the old ring.
    fn forget_ring(&mut self) {
        self.calls.retain(|_, call| matches!(call.purpose, Purpose::Hop { .. } | Purpose::Owner { .. }));
        self.predecessor = None;
        self.successors.clear();
        self.fingers = Fingers::default();
    }

    fn id(&self) -> RingId {
        self.me.id
    }
}

/// The request to repeat after a time-out. Lookups try another node instead, which is faster.
fn retry_request(purpose: Purpose) -> Option<RingRequest> {
    match purpose {
        Purpose::Hop { .. } | Purpose::Finger { .. } => None,
        Purpose::Liveness | Purpose::Rival | Purpose::Owner { .. } => Some(RingRequest::Info),
        Purpose::Successor
        | Purpose::Predecessor { .. }
        | Purpose::Outsider { .. }
        | Purpose::Approach { .. }
        | Purpose::Introduction { .. }
        | Purpose::Adopt { .. } => Some(RingRequest::Neighbours),
    }
}
