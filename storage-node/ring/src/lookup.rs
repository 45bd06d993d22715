//! Finding the successor of an id, hop by hop (Stoica et al. 2001, section 4), asked from here: a dead hop costs its
//! caller one call and another hop, never the whole lookup.

use std::net::SocketAddr;

use chordfs_types::ring_id::{NodeRef, RingArc, RingId};

use super::{
    Action, CallFailure, Purpose, Ring,
    event::{NoRoute, RingRequest, RingRoute, Tag},
};

/// How many hops one answer proposes.
const PROPOSED: usize = 8;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Lookup {
    target: RingId,
    purpose: LookupPurpose,
    /// To be asked, the nearest to the target last.
    queue: Vec<NodeRef>,
    /// Half as many as the ring has doublings, if all live: too few for a set to pay.
    asked: Vec<SocketAddr>,
    /// The distance from the nearest node that has answered to the target, and the nodes that it knows beyond.
    reach: Option<u32>,
    beyond: Vec<NodeRef>,
    /// Hops that did not answer: asked once more when nobody else is left.
    silent: Vec<NodeRef>,
    /// One of those is being asked.
    is_second_try: bool,
    /// The nodes after an owner that is being asked whether it is there: each owns the target if all before it are
    /// dead.
    heirs: Vec<NodeRef>,
}

impl Lookup {
    fn new(target: RingId, purpose: LookupPurpose, queue: Vec<NodeRef>) -> Box<Self> {
        Box::new(Self {
            target,
            purpose,
            queue,
            asked: Vec::new(),
            reach: None,
            beyond: Vec::new(),
            silent: Vec::new(),
            is_second_try: false,
            heirs: Vec::new(),
        })
    }

    /// True if it had not been asked.
    fn note_asked(&mut self, hop: SocketAddr) -> bool {
        let is_new = !self.asked.contains(&hop);
        if is_new {
            self.asked.push(hop);
        }
        is_new
    }

    /// A node that keeps to the protocol names hops in order, all nearer than those that wait: then there is nothing to
    /// do.
    fn sort_queue(&mut self) {
        let target = self.target;
        let farthest_first = |node: &NodeRef| std::cmp::Reverse(node.id.steps_to(target));
        if !self.queue.is_sorted_by_key(farthest_first) {
            self.queue.sort_by_key(farthest_first);
        }
    }

    /// A join does not use it: a newcomer may stand in between that only dead nodes knew.
    fn note_reach(&mut self, reach: Option<u32>, beyond: Vec<NodeRef>) {
        let is_nearest = reach.is_some_and(|reach| self.reach.is_none_or(|nearest| reach < nearest));
        if is_nearest && !beyond.is_empty() && !matches!(self.purpose, LookupPurpose::Enter { .. }) {
            (self.reach, self.beyond) = (reach, beyond);
        }
    }

    /// The id of the member through which we join is no more than somebody's word.
    fn is_first_word(&self) -> bool {
        self.asked.len() <= 1 && matches!(self.purpose, LookupPurpose::Enter { .. })
    }

    /// No nearer to the target than a node that knew what lies beyond it.
    fn is_behind(&self, hop: NodeRef) -> bool {
        self.reach.is_some_and(|reach| !self.beyond.is_empty() && hop.id.steps_to(self.target) >= reach)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LookupPurpose {
    Answer(Tag),
    Finger(u32),
    /// Our own place in the ring of `member`.
    Enter {
        join: Option<Tag>,
        member: NodeRef,
    },
}

impl Ring {
    /// What this node tells one who seeks the successor of `target`. Only its successor's arc is final: its predecessor
    /// may be anybody who has notified a newcomer first, and would lead a joining node past others. Alone, and with
    /// peers remembered, it may have been started again in a ring that still counts on it; to name itself would lead
    /// past everybody there.
    pub fn route(&self, target: RingId) -> RingRoute {
        match self.successors.first() {
            None if self.known.is_empty() => RingRoute::Owner(vec![self.me]),
            None => RingRoute::Ask { nodes: Vec::new(), beyond: Vec::new() },
            Some(head) if RingArc::new(self.id(), head.id).contains(target) => {
                RingRoute::Owner(self.successors.clone())
            }
            Some(_) => RingRoute::Ask { nodes: self.closest_preceding(target), beyond: self.beyond(target) },
        }
    }

    /// For lookups that begin here: what this node itself answers for needs no asking.
    fn route_from_here(&self, target: RingId) -> RingRoute {
        match self.predecessor {
            Some(before) if RingArc::new(before.id, self.id()).contains(target) => RingRoute::Owner(vec![self.me]),
            _ if self.alone() => RingRoute::Owner(vec![self.me]),
            _ => self.route(target),
        }
    }

    fn closest_preceding(&self, target: RingId) -> Vec<NodeRef> {
        let ahead = RingArc::new(self.id(), target);
        let fingers = self.fingers.towards(self.id().steps_to(target));
        let farthest_first = fingers.chain(self.successors.iter().rev().copied());
        let mut nodes = Vec::with_capacity(self.successors.len() + 2 * PROPOSED);
        nodes.extend(farthest_first.filter(|node| ahead.strictly_contains(node.id) && !self.is_silent(*node)));
        nodes.sort_unstable_by_key(|node| (self.is_suspected(*node), node.id.steps_to(target)));
        nodes.dedup();
        nodes.truncate(PROPOSED);
        nodes
    }

    /// The nodes of our list at the target and after it, all of them, as all but the last may be dead; none if the list
    /// does not reach so far.
    fn beyond(&self, target: RingId) -> Vec<NodeRef> {
        let ahead = RingArc::new(self.id(), target);
        let reached = self.successors.iter().skip_while(|node| ahead.strictly_contains(node.id));
        reached.filter(|node| !self.is_silent(**node)).copied().collect()
    }

    pub(super) fn find_successor(&mut self, tag: Tag, target: RingId) {
        if self.left {
            self.actions.push(Action::Found { tag, result: Err(NoRoute { target }) })
        } else {
            self.look_up(target, LookupPurpose::Answer(tag))
        }
    }

    pub(super) fn look_up(&mut self, target: RingId, purpose: LookupPurpose) {
        self.follow(Lookup::new(target, purpose, Vec::new()), self.route_from_here(target), None);
    }

    pub(super) fn is_looking_up(&self, purpose: LookupPurpose) -> bool {
        self.lookups.values().any(|lookup| lookup.purpose == purpose)
    }

    /// As `look_up`, but in the ring of `member`, whatever we know ourselves.
    pub(super) fn look_up_through(&mut self, member: NodeRef, target: RingId, purpose: LookupPurpose) {
        self.go_on(Lookup::new(target, purpose, vec![member]));
    }

    pub(super) fn hop_answered(&mut self, lookup: u64, from: NodeRef, route: RingRoute) {
        if let Some(mut lookup) = self.lookups.remove(&lookup) {
            lookup.is_second_try = false;
            self.follow(lookup, route, Some(from));
        }
    }

    pub(super) fn hop_failed(&mut self, lookup: u64, from: NodeRef, why: CallFailure) {
        let Some(mut lookup) = self.lookups.remove(&lookup) else { return self.doubt(from, why) };
        match (why, std::mem::take(&mut lookup.is_second_try)) {
            (CallFailure::Silent, false) => {
                lookup.silent.push(from);
                self.doubt(from, why);
            }
            (CallFailure::Silent, true) => self.gone(from),
            _ => self.doubt(from, why),
        }
        self.go_on(lookup);
    }

    /// A node that let a lookup down. Whether it is dead, the neighbours find out by asking it themselves.
    pub(super) fn doubt(&mut self, node: NodeRef, why: CallFailure) {
        match why {
            CallFailure::Refused => {}
            CallFailure::Unreachable => self.gone(node),
            CallFailure::Silent => {
                self.suspected.insert(node.ring_address(), self.now + self.settings.silent_for);
                self.fingers.remove(node.ring_address());
                self.connection_lost(node.ring_address());
            }
        }
    }

    /// Is there an owner among these, the first that lives? What this node's callers are told has to be there; its own
    /// searches ask what they find in any case.
    fn settle(&mut self, mut lookup: Box<Lookup>, mut owners: Vec<NodeRef>) {
        let Some(place) = owners.iter().position(|&node| !self.is_silent(node) || self.is_me(node)) else {
            return self.go_on(lookup);
        };
        let owner = owners[place];
        if self.is_me(owner) || !matches!(lookup.purpose, LookupPurpose::Answer(_)) {
            return self.finish(lookup, Ok(owner));
        }
        lookup.heirs = owners.split_off(place + 1);
        let lookup = self.keep(lookup);
        self.ask(owner, RingRequest::Info, Purpose::Owner { lookup });
    }

    pub(super) fn owner_answered(&mut self, lookup: u64, owner: NodeRef, info: NodeRef) {
        if info.id != owner.id {
            return self.owner_failed(lookup, owner, CallFailure::Unreachable); // It has moved: nobody is at this id.
        }
        if let Some(lookup) = self.lookups.remove(&lookup) {
            self.finish(lookup, Ok(owner));
        }
    }

    pub(super) fn owner_failed(&mut self, lookup: u64, owner: NodeRef, why: CallFailure) {
        let Some(mut lookup) = self.lookups.remove(&lookup) else { return };
        if why == CallFailure::Refused {
            return self.finish(lookup, Ok(owner)); // It is there.
        }
        self.gone(owner);
        let heirs = std::mem::take(&mut lookup.heirs);
        self.settle(lookup, heirs);
    }

    fn keep(&mut self, lookup: Box<Lookup>) -> u64 {
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, lookup);
        number
    }

    /// `from`: who gave the route, unless it was ourselves. A hop has to lead nearer than the one that named it.
    fn follow(&mut self, mut lookup: Box<Lookup>, route: RingRoute, from: Option<NodeRef>) {
        match route {
            RingRoute::Owner(nodes) => self.settle(lookup, nodes),
            RingRoute::Ask { nodes, beyond } => {
                if let Some(next) = self.stands_before(&lookup, &nodes, &beyond) {
                    return self.finish(lookup, Ok(next));
                }
                let reach = from.filter(|_| !lookup.is_first_word()).map(|from| from.id.steps_to(lookup.target));
                let nearer = |node: &NodeRef| reach.is_none_or(|reach| node.id.steps_to(lookup.target) < reach);
                lookup.queue.extend(nodes.iter().take(PROPOSED).rev().copied().filter(nearer));
                lookup.note_reach(reach, beyond);
                lookup.sort_queue();
                self.go_on(lookup);
            }
        }
    }

    /// A search for a ring apart from ours came to a node whose list has us in our place: the next in that list is what
    /// was sought. (Nobody else could say so, as the place is ours; the search would go on through everybody.)
    fn stands_before(&self, lookup: &Lookup, nodes: &[NodeRef], beyond: &[NodeRef]) -> Option<NodeRef> {
        let is_search = matches!(lookup.purpose, LookupPurpose::Enter { .. }) && !self.alone();
        let names_us = is_search && nodes.first() == Some(&self.me);
        beyond.first().copied().filter(|&next| names_us && !self.is_silent(next))
    }

    fn go_on(&mut self, mut lookup: Box<Lookup>) {
        while let Some(hop) = lookup.queue.pop() {
            if lookup.is_behind(hop) {
                break;
            }
            let is_first = lookup.asked.is_empty() && lookup.queue.is_empty();
            if self.is_me(hop) || (self.is_silent(hop) && !is_first) || !lookup.note_asked(hop.ring_address()) {
                continue;
            }
            if lookup.asked.len() > self.settings.max_hops {
                break;
            }
            return self.ask_hop(hop, lookup);
        }
        self.exhausted(lookup);
    }

    fn ask_hop(&mut self, hop: NodeRef, lookup: Box<Lookup>) {
        let target = lookup.target;
        let lookup = self.keep(lookup);
        self.ask(hop, RingRequest::Route(target), Purpose::Hop { lookup });
    }

    /// Every hop was asked in vain: then the owner lies beyond the nearest one that answered. If that one did not know,
    /// the silent get another chance; those that are dead are gone from our own list by then, so it may know better.
    fn exhausted(&mut self, mut lookup: Box<Lookup>) {
        let beyond = std::mem::take(&mut lookup.beyond);
        if !beyond.is_empty() {
            return self.settle(lookup, beyond);
        }
        if let Some(hop) = lookup.silent.pop() {
            lookup.is_second_try = true;
            return self.ask_hop(hop, lookup);
        }
        if let LookupPurpose::Enter { .. } = lookup.purpose {
            let target = lookup.target;
            return self.finish(lookup, Err(NoRoute { target }));
        }
        match self.route_from_here(lookup.target) {
            RingRoute::Owner(nodes) => self.settle(lookup, nodes),
            RingRoute::Ask { mut nodes, .. } => {
                nodes.retain(|node| !lookup.asked.contains(&node.ring_address()));
                nodes.reverse();
                let target = lookup.target;
                if nodes.is_empty() || lookup.asked.len() > self.settings.max_hops {
                    self.finish(lookup, Err(NoRoute { target }))
                } else {
                    lookup.queue = nodes;
                    self.go_on(lookup)
                }
            }
        }
    }

    pub(super) fn give_up_lookups(&mut self) {
        for (_, lookup) in std::mem::take(&mut self.lookups) {
            let target = lookup.target;
            self.finish(lookup, Err(NoRoute { target }));
        }
    }

    #[allow(clippy::boxed_local, reason = "lookups are handed from hand to hand in their box")]
    fn finish(&mut self, lookup: Box<Lookup>, result: Result<NodeRef, NoRoute>) {
        match lookup.purpose {
            LookupPurpose::Answer(tag) => self.actions.push(Action::Found { tag, result }),
            LookupPurpose::Finger(finger_index) => self.finger_found(finger_index, result.ok()),
            LookupPurpose::Enter { join, member } => self.place_found(join, member, result.ok()),
        }
    }
}
