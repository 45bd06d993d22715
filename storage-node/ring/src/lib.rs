//! One node's part in the Chord ring, as a value: an event and the time go in, actions come out.
//!
//! Why a value: every interleaving of joins, crashes, lost and late messages can then be tried in memory, and the
//! invariants checked after each step. There is no clock, socket, task, lock or randomness in this room; the driver
//! owns the `Ring`, carries messages, and reports each call's outcome exactly once.
//!
//! The operations are the corrected ones of Zave, *How to Make Chord Correct* (2017), over Stoica et al. 2001: a join
//! takes a whole successor list, a candidate is asked before it is adopted, and rectify replaces a predecessor that
//! does not answer. To them come two of our own: every node goes on asking peers it remembers for its successor, so
//! that rings that formed apart (all nodes started at once, a healed partition) become one; and silence is death only
//! when it lasts for two questions, so that one lost message changes nothing.
//!
//! # What is proved, and from which size on
//! Zave's proof begins with r + 1 members (r: the length of a list), which a ring that starts from one node does not
//! have. From r + 1 established members on, one ordered ring, a live successor for each, and that nobody established is
//! skipped are checked after every event: in every interleaving of four to six members, and in random lives of up to
//! 64. Below, a crash may take the only neighbour that somebody has, and no list can make up for it. What keeps a small
//!     ring safe is that lists there hold all members; that each node remembers its peers, on disk too, and asks them
//!     until it is in one ring with them; and that a chunk or a name is acknowledged only by a majority of those who
//!     should keep it.
#![deny(clippy::disallowed_methods)]

mod enter;
mod event;
mod fingerprint;
mod fingers;
pub mod foreign;
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

/// What this node knows of the ring and what it is waiting for.
///
/// An empty successor list means a ring of one. A ring starts as that, at once and without asking anybody; joining is
/// finding a successor later.
#[derive(Clone, Debug)]
pub struct Ring {
    me: NodeRef,
    settings: RingSettings,
    predecessor: Option<NodeRef>,
    /// Nearest first, ordered clockwise, without `me` and without repetition.
    successors: Vec<NodeRef>,
    fingers: Fingers,
    known: KnownPeers,
    /// Peers that did not answer, and until when others' word for them does not count.
    silent: BTreeMap<SocketAddr, Duration>,
    /// Peers that let a lookup down, and until when lookups ask others first. Neighbours stay neighbours meanwhile.
    suspected: BTreeMap<SocketAddr, Duration>,
    calls: BTreeMap<CallId, CallUnderWay>,
    next_call: CallId,
    lookups: BTreeMap<u64, Box<Lookup>>,
    next_lookup: u64,
    left: bool,
    now: Duration,
    actions: Vec<Action>,
    /// What the last `Action::Changed` said.
    published: Neighbours,
}

#[derive(Clone, Debug)]
struct CallUnderWay {
    to: NodeRef,
    purpose: Purpose,
    attempts_left: u32,
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// The successor, or a candidate for it.
    Successor,
    /// Is the predecessor a live member? If not, `otherwise` takes its place.
    Predecessor { otherwise: Option<NodeRef> },
    /// A neighbour said that it is alone. Does it still say so? If it does, `otherwise` may be the predecessor.
    Outsider { otherwise: Option<NodeRef> },
    /// Is a node further down the successor list there?
    Alive,
    /// The next hop of a lookup.
    Hop { lookup: u64 },
    /// Is the node that a lookup found there?
    Owner { lookup: u64 },
    /// Alone: has this peer, through which we found no way in, anybody but us?
    Approach { join: Option<Tag> },
    /// The node found as our successor in the ring of `through`, from which a whole list is to be taken.
    Adopt { join: Option<Tag>, through: NodeRef },
    /// Is this node, which was the finger when it was last looked up, still it?
    Finger { finger_index: u32 },
    /// A node of another address that has our id.
    Rival,
}

impl Ring {
    /// A ring of one at `me`. `known`: peers remembered from an earlier life, to be asked for their ring.
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
            silent: BTreeMap::new(),
            suspected: BTreeMap::new(),
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

    /// `now`: since any fixed moment, never going back.
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
            // What was asked for after leaving still gets an answer; all else has no meaning any more.
            Event::FindSuccessor { tag, target } => self.find_successor(tag, target),
            Event::Join { tag, member } => self.join(tag, member),
            Event::Answered { call, answer } => self.answered(call, answer),
            Event::Unanswered { call, why } => self.unanswered(call, why),
            _ if self.left => {}
            Event::Tick => self.tick(),
            Event::Stabilize => self.stabilize(),
            Event::CheckPredecessor => self.check_predecessor(None),
            Event::Notified { peer } => self.rectify(peer),
            Event::Followed { newcomer } => self.followed(newcomer),
            Event::Reposition { id } => self.reposition(id),
            Event::Leave => self.leave(),
            Event::PeerLeft { peer, predecessor, successors } => self.peer_left(peer, predecessor, successors),
            Event::ConnectionLost { peer } => self.connection_lost(peer),
        }
    }

    /// Since the last `Action::Changed`.
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

    /// In a ring with others.
    pub fn is_in_ring(&self) -> bool {
        !self.alone()
    }

    fn alone(&self) -> bool {
        self.successors.is_empty()
    }

    fn is_me(&self, node: NodeRef) -> bool {
        node.ring_address() == self.me.ring_address()
    }

    fn is_silent(&self, node: NodeRef) -> bool {
        self.silent.get(&node.ring_address()).is_some_and(|&until| self.now < until)
    }

    fn is_suspected(&self, node: NodeRef) -> bool {
        self.suspected.get(&node.ring_address()).is_some_and(|&until| self.now < until)
    }

    /// Could `node` be our successor in place of the present one?
    fn is_nearer(&self, node: NodeRef) -> bool {
        let end = self.successors.first().map_or(self.me.id, |head| head.id);
        RingArc::new(self.me.id, end).strictly_contains(node.id)
    }

    fn ask(&mut self, to: NodeRef, request: RingRequest, purpose: Purpose) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, CallUnderWay { to, purpose, attempts_left: self.settings.attempts.saturating_sub(1) });
        self.actions.push(Action::Ask { call, to, request });
    }

    /// Repeats a question under a new number: the first answer may still be on its way.
    fn ask_again(&mut self, CallUnderWay { to, purpose, attempts_left }: CallUnderWay, request: RingRequest) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, CallUnderWay { to, purpose, attempts_left: attempts_left - 1 });
        self.actions.push(Action::Ask { call, to, request });
    }

    /// Asks unless the same question to the same node is still open: a slow peer must not pile up calls.
    fn ask_once(&mut self, to: NodeRef, request: RingRequest, purpose: Purpose) {
        if !self.calls.values().any(|call| call.to == to && call.purpose == purpose) {
            self.ask(to, request, purpose);
        }
    }

    fn answered(&mut self, call: CallId, answer: RingAnswer) {
        let Some(CallUnderWay { to, purpose, .. }) = self.calls.remove(&call) else { return };
        self.silent.remove(&to.ring_address());
        self.suspected.remove(&to.ring_address());
        match (purpose, answer) {
            (Purpose::Hop { lookup }, RingAnswer::Route(route)) => self.hop_answered(lookup, to, route),
            (Purpose::Owner { lookup }, RingAnswer::Info(node)) => self.owner_answered(lookup, to, node),
            (Purpose::Alive, RingAnswer::Info(node)) => self.alive_answered(to, node),
            (Purpose::Successor, RingAnswer::Neighbours(theirs)) => self.consider(to, &theirs),
            (Purpose::Predecessor { otherwise }, RingAnswer::Neighbours(theirs)) => {
                self.predecessor_answered(to, &theirs, otherwise)
            }
            (Purpose::Outsider { otherwise }, RingAnswer::Neighbours(theirs)) => {
                self.outsider_answered(to, &theirs, otherwise)
            }
            (Purpose::Approach { join }, RingAnswer::Neighbours(theirs)) => self.approach_answered(to, &theirs, join),
            (Purpose::Adopt { join, through }, RingAnswer::Neighbours(theirs)) => {
                self.adopt_answered(to, &theirs, join, through)
            }
            (Purpose::Finger { finger_index }, RingAnswer::Neighbours(theirs)) => {
                self.finger_answered(finger_index, to, &theirs)
            }
            (Purpose::Rival, RingAnswer::Info(node)) => self.rival_answered(to, node),
            // An answer to another question than was asked counts as none.
            (purpose, _) => self.failed(to, purpose, CallFailure::Refused),
        }
    }

    fn unanswered(&mut self, call: CallId, why: CallFailure) {
        let Some(call) = self.calls.remove(&call) else { return };
        match asked_again(call.purpose).filter(|_| why == CallFailure::Silent && call.attempts_left > 0) {
            Some(request) => self.ask_again(call, request),
            None => self.failed(call.to, call.purpose, why),
        }
    }

    fn failed(&mut self, to: NodeRef, purpose: Purpose, why: CallFailure) {
        match purpose {
            Purpose::Hop { lookup } => self.hop_failed(lookup, to, why),
            Purpose::Owner { lookup } => self.owner_failed(lookup, to, why),
            Purpose::Alive => self.gone(to),
            Purpose::Successor => self.successor_failed(to),
            Purpose::Predecessor { otherwise } | Purpose::Outsider { otherwise } => {
                self.predecessor_failed(to, otherwise)
            }
            Purpose::Approach { join } | Purpose::Adopt { join, .. } => self.enter_failed(to, join),
            Purpose::Finger { finger_index } => self.finger_failed(finger_index, to, why),
            Purpose::Rival => self.rival_failed(to),
        }
    }

    /// Drops a node everywhere, and does not believe others' word for it for a while. The next in the list is asked at
    /// once.
    fn gone(&mut self, node: NodeRef) {
        self.silent.insert(node.ring_address(), self.now + self.settings.silent_for);
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

    /// What happens every period: each part is cheap, and none waits for another.
    fn tick(&mut self) {
        self.silent.retain(|_, until| self.now < *until);
        self.suspected.retain(|_, until| self.now < *until);
        self.stabilize();
        self.check_predecessor(None);
        self.check_list();
        self.fix_fingers();
        self.ask_known_peers();
    }

    fn remember_neighbours(&mut self) {
        self.predecessor.iter().chain(&self.successors).for_each(|&node| self.known.add(node));
    }

    /// Forgets the ring, as a node that has to take another position or has left. Answers still on their way must not
    /// lead back into it.
    fn stand_alone(&mut self) {
        self.calls.retain(|_, call| matches!(call.purpose, Purpose::Hop { .. } | Purpose::Owner { .. }));
        self.predecessor = None;
        self.successors.clear();
        self.fingers = Fingers::default();
    }

    fn id(&self) -> RingId {
        self.me.id
    }
}

/// What to ask a silent node once more. Lookups ask another node instead, which is sooner.
fn asked_again(purpose: Purpose) -> Option<RingRequest> {
    match purpose {
        Purpose::Hop { .. } | Purpose::Finger { .. } => None,
        Purpose::Alive | Purpose::Rival | Purpose::Owner { .. } => Some(RingRequest::Info),
        Purpose::Successor
        | Purpose::Predecessor { .. }
        | Purpose::Outsider { .. }
        | Purpose::Approach { .. }
        | Purpose::Adopt { .. } => Some(RingRequest::Neighbours),
    }
}
