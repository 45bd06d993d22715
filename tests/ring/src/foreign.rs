//! A foreign Chord node, as a value like `Ring`: it supports the ten calls and no more (Stoica et al. 2001, figure 6,
//! with the successor list of section 5.2). It differs from ours on purpose: a list of three, four fingers, candidates
//! adopted without a check, recursive lookups. It tests our nodes beside such nodes; a ring of foreign nodes alone has
//! the faults that Zave found.

use std::{collections::BTreeMap, time::Duration};

use chordfs_ring::foreign::{ForeignCall, ForeignReply};
use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc, RingId};

pub const LIST_LEN: usize = 3;
pub const FINGERS: u32 = 4;
pub const PERIOD: Duration = Duration::from_secs(2);
/// How long a foreign node waits for a reply. Lookups are nested calls, and each of them waits this long.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Identifies a call from its `Action::Call` to its reply.
pub type CallId = u64;
/// Chosen by the caller, to match a reply to its request.
pub type Asker = u64;

#[derive(Clone, Debug)]
pub enum Event {
    /// A period has ended.
    Tick,
    Join {
        asker: Asker,
        member: NodeRef,
    },
    Notified {
        peer: NodeRef,
    },
    /// Answered with `Action::Reply`; a lookup takes its time.
    Asked {
        asker: Asker,
        call: ForeignCall,
    },
    /// `reply` is none after a time-out, or if no process listens.
    Replied {
        call: CallId,
        reply: Option<ForeignReply>,
    },
}

#[derive(Clone, Debug)]
pub enum Action {
    Call { call: CallId, to: NodeRef, what: ForeignCall },
    Notify { to: NodeRef },
    Reply { asker: Asker, reply: ForeignReply },
    Joined { asker: Asker, is_in: bool },
}

#[derive(Clone, Debug)]
pub struct Foreign {
    me: NodeRef,
    predecessor: Option<NodeRef>,
    /// Nearest first, without `me`. Empty if the node is its own successor.
    successors: Vec<NodeRef>,
    fingers: [Option<NodeRef>; FINGERS as usize],
    next_finger: u32,
    /// Keeps the rest of its own list where the successor's list is short. Real implementations do either; here nodes
    /// with odd ids do.
    keeps_old_entries: bool,
    calls: BTreeMap<CallId, Purpose>,
    next_call: CallId,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Purpose {
    Join { asker: Asker },
    SuccessorsPredecessor { head: NodeRef },
    SuccessorsList { list: Vec<NodeRef> },
    Predecessor { node: NodeRef },
    Hop { lookup: Lookup, hop: NodeRef },
}

#[derive(Clone, Debug)]
struct Lookup {
    target: RingId,
    origin: LookupOrigin,
    /// Hops that did not answer with a node.
    tried: Vec<NodeRef>,
}

#[derive(Clone, Copy, Debug)]
enum LookupOrigin {
    Asker(Asker),
    Finger(u32),
}

enum NextHop {
    Owner(NodeRef),
    Hop(NodeRef),
    None,
}

impl Foreign {
    /// A node that is alone.
    pub fn new(me: NodeRef) -> Self {
        Self {
            me,
            predecessor: None,
            successors: Vec::new(),
            fingers: [None; FINGERS as usize],
            next_finger: 0,
            keeps_old_entries: me.id.0 % 2 == 1,
            calls: BTreeMap::new(),
            next_call: 0,
            actions: Vec::new(),
        }
    }

    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => self.tick(),
            Event::Join { asker, member } => {
                self.call(member, ForeignCall::FindSuccessor { target: self.me.id }, Purpose::Join { asker })
            }
            Event::Notified { peer } => self.notified(peer),
            Event::Asked { asker, call } => self.asked(asker, call),
            Event::Replied { call, reply } => {
                if let Some(purpose) = self.calls.remove(&call) {
                    self.replied(purpose, reply);
                }
            }
        }
        std::mem::take(&mut self.actions)
    }

    pub fn me(&self) -> NodeRef {
        self.me
    }

    pub fn neighbours(&self) -> Neighbours {
        Neighbours { predecessor: self.predecessor, node: self.me, successors: self.successors.clone() }
    }

    pub fn is_in_ring(&self) -> bool {
        !self.successors.is_empty()
    }

    fn call(&mut self, to: NodeRef, what: ForeignCall, purpose: Purpose) {
        self.next_call += 1;
        self.calls.insert(self.next_call, purpose);
        self.actions.push(Action::Call { call: self.next_call, to, what });
    }

    fn tick(&mut self) {
        self.stabilize();
        if let Some(node) = self.predecessor {
            self.call(node, ForeignCall::Info, Purpose::Predecessor { node });
        }
        let finger_index = self.next_finger;
        self.next_finger = (finger_index + 1) % FINGERS;
        let target = self.me.id.advance(1 << (u32::BITS - FINGERS + finger_index));
        self.look_up(Lookup { target, origin: LookupOrigin::Finger(finger_index), tried: Vec::new() });
    }

    /// A lone node is its own successor, so its predecessor becomes the new successor.
    fn stabilize(&mut self) {
        match (self.successors.first(), self.predecessor) {
            (Some(&head), _) => self.call(head, ForeignCall::Predecessor, Purpose::SuccessorsPredecessor { head }),
            (None, Some(peer)) => {
                self.successors.push(peer);
                self.actions.push(Action::Notify { to: peer });
            }
            (None, None) => {}
        }
    }

    fn replied(&mut self, purpose: Purpose, reply: Option<ForeignReply>) {
        match purpose {
            Purpose::Join { asker } => self.join_replied(asker, reply),
            Purpose::SuccessorsPredecessor { head } => self.stabilized(head, reply),
            Purpose::SuccessorsList { list } => self.list_replied(list, reply),
            Purpose::Predecessor { node } => {
                self.predecessor.take_if(|present| reply.is_none() && *present == node);
            }
            Purpose::Hop { lookup, hop } => self.hop_replied(lookup, hop, reply),
        }
    }

    fn join_replied(&mut self, asker: Asker, reply: Option<ForeignReply>) {
        let found = node(reply).filter(|found| found.id != self.me.id);
        if let Some(found) = found {
            self.predecessor = None;
            self.successors = vec![found];
            self.actions.push(Action::Notify { to: found });
        }
        self.actions.push(Action::Joined { asker, is_in: found.is_some() });
    }

    fn stabilized(&mut self, head: NodeRef, reply: Option<ForeignReply>) {
        if self.successors.first() != Some(&head) {
            return;
        }
        match reply {
            None => {
                self.successors.remove(0);
            }
            Some(reply) => {
                let between = RingArc::new(self.me.id, head.id);
                let next = node(Some(reply)).filter(|other| between.strictly_contains(other.id)).unwrap_or(head);
                if next != head {
                    self.successors.insert(0, next);
                    self.successors.truncate(LIST_LEN);
                }
                self.actions.push(Action::Notify { to: next });
                self.call(next, ForeignCall::Successor { index: 0 }, Purpose::SuccessorsList { list: vec![next] });
            }
        }
    }

    /// Reads the successor's list, one entry in each call, behind the successor itself.
    fn list_replied(&mut self, mut list: Vec<NodeRef>, reply: Option<ForeignReply>) {
        let head = list[0];
        if reply.is_none() || self.successors.first() != Some(&head) {
            return;
        }
        let next = node(reply).filter(|next| *next != self.me && !list.contains(next));
        list.extend(next);
        if next.is_some() && list.len() < LIST_LEN {
            let index = list.len() as u64 - 1;
            self.call(head, ForeignCall::Successor { index }, Purpose::SuccessorsList { list });
        } else {
            self.take_list(list)
        }
    }

    fn take_list(&mut self, mut list: Vec<NodeRef>) {
        let old = self.successors.iter().skip(list.len()).copied().filter(|_| self.keeps_old_entries);
        let rest: Vec<NodeRef> = old.filter(|node| !list.contains(node)).collect();
        list.extend(rest);
        list.truncate(LIST_LEN);
        self.successors = list;
    }

    fn notified(&mut self, peer: NodeRef) {
        let is_nearer = |present: NodeRef| RingArc::new(present.id, self.me.id).strictly_contains(peer.id);
        if peer.id != self.me.id && self.predecessor.is_none_or(is_nearer) {
            self.predecessor = Some(peer);
        }
    }

    fn asked(&mut self, asker: Asker, call: ForeignCall) {
        let some = |node: Option<NodeRef>| node.map_or(ForeignReply::NoNode, ForeignReply::Node);
        let reply = match call {
            ForeignCall::Info => ForeignReply::Node(self.me),
            ForeignCall::Predecessor => some(self.predecessor),
            ForeignCall::Successor { index: 0 } if self.successors.is_empty() => ForeignReply::Node(self.me),
            ForeignCall::Successor { index } => some(self.successors.get(index as usize).copied()),
            ForeignCall::FindSuccessor { target } => {
                return self.look_up(Lookup { target, origin: LookupOrigin::Asker(asker), tried: Vec::new() });
            }
        };
        self.actions.push(Action::Reply { asker, reply });
    }

    fn look_up(&mut self, lookup: Lookup) {
        match self.next_hop(&lookup) {
            NextHop::Owner(owner) => self.found(lookup.origin, ForeignReply::Node(owner)),
            NextHop::Hop(hop) => {
                self.call(hop, ForeignCall::FindSuccessor { target: lookup.target }, Purpose::Hop { lookup, hop })
            }
            NextHop::None => self.found(lookup.origin, ForeignReply::Refused),
        }
    }

    fn next_hop(&self, lookup: &Lookup) -> NextHop {
        let Some(&head) = self.successors.first() else { return NextHop::Owner(self.me) };
        if RingArc::new(self.me.id, head.id).contains(lookup.target) {
            return NextHop::Owner(head);
        }
        let ahead = RingArc::new(self.me.id, lookup.target);
        let known = self.successors.iter().chain(self.fingers.iter().flatten()).copied();
        let hops = known.filter(|node| ahead.strictly_contains(node.id) && !lookup.tried.contains(node));
        hops.min_by_key(|node| node.id.steps_to(lookup.target)).map_or(NextHop::None, NextHop::Hop)
    }

    fn hop_replied(&mut self, mut lookup: Lookup, hop: NodeRef, reply: Option<ForeignReply>) {
        match reply {
            Some(reply @ ForeignReply::Node(_)) => self.found(lookup.origin, reply),
            other => {
                if other.is_none() {
                    self.fingers.iter_mut().for_each(|finger| {
                        finger.take_if(|node| *node == hop);
                    });
                }
                lookup.tried.push(hop);
                self.look_up(lookup);
            }
        }
    }

    fn found(&mut self, origin: LookupOrigin, reply: ForeignReply) {
        match origin {
            LookupOrigin::Asker(asker) => self.actions.push(Action::Reply { asker, reply }),
            LookupOrigin::Finger(finger_index) => self.fingers[finger_index as usize] = node(Some(reply)),
        }
    }
}

fn node(reply: Option<ForeignReply>) -> Option<NodeRef> {
    match reply {
        Some(ForeignReply::Node(node)) => Some(node),
        Some(ForeignReply::NoNode | ForeignReply::Refused) | None => None,
    }
}
