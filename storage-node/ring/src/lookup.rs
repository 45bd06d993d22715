//! Finding the successor of an id hop by hop (Stoica et al. 2001, section 4). Lookups are iterative: this node contacts
//! each hop itself, so that a dead hop costs one call and another hop, never the whole lookup.
//!
//! A foreign Chord node forwards lookups and waits for the result; some handle no other call meanwhile. If such a node
//! were called within a lookup that it waits for, both would time out, and a live node would count as dead. So a lookup
//! for another node does not call foreign nodes: a foreign owner is named from the lists of our nodes, which check it
//! every second, and a foreign hop is contacted only if no list reaches beyond it.

use std::net::SocketAddr;

use chordfs_types::ring_id::{NodeRef, RingArc, RingId};

use super::{
    Action, CallFailure, Purpose, Ring,
    event::{NoRoute, RingRequest, RingRoute, Tag},
};

/// How many next hops one answer names.
const PROPOSED: usize = 8;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Lookup {
    target: RingId,
    purpose: LookupPurpose,
    /// Hops to contact, the nearest to the target last.
    queue: Vec<NodeRef>,
    /// Hops contacted so far. About half of log2 of the ring's size if all are alive: too few for a set to pay.
    asked: Vec<SocketAddr>,
    /// The distance to the target from the nearest node that has answered, and the nodes that it knows beyond the
    /// target.
    reach: Option<u32>,
    beyond: Vec<NodeRef>,
    /// Hops that timed out: contacted once more when no other hop is left.
    timed_out: Vec<NodeRef>,
    /// Foreign hops, in the order of `queue`: contacted only when nothing else leads to the target.
    foreign: Vec<NodeRef>,
    asks_foreign: bool,
    /// A hop that timed out before is being contacted again.
    is_second_try: bool,
    /// The nodes after the owner that is being checked: each owns the target if all before it are dead.
    fallback_owners: Vec<NodeRef>,
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
            timed_out: Vec::new(),
            foreign: Vec::new(),
            asks_foreign: false,
            is_second_try: false,
            fallback_owners: Vec::new(),
        })
    }

    /// Returns true if the hop had not been contacted.
    fn mark_asked(&mut self, hop: SocketAddr) -> bool {
        let is_new = !self.asked.contains(&hop);
        if is_new {
            self.asked.push(hop);
        }
        is_new
    }

    /// A node that follows the protocol names hops in order, all nearer than the queued ones: then the queue is sorted
    /// already.
    fn sort_queue(&mut self) {
        let target = self.target;
        let farthest_first = |node: &NodeRef| std::cmp::Reverse(node.id.steps_to(target));
        if !self.queue.is_sorted_by_key(farthest_first) {
            self.queue.sort_by_key(farthest_first);
        }
    }

    /// Keeps the nodes beyond the target. A join ignores them: a newcomer that only dead nodes knew may lie in between.
    fn note_reach(&mut self, reach: Option<u32>, beyond: Vec<NodeRef>) {
        let is_nearest = reach.is_some_and(|reach| self.reach.is_none_or(|nearest| reach < nearest));
        if is_nearest && !beyond.is_empty() && !matches!(self.purpose, LookupPurpose::Join { .. }) {
            (self.reach, self.beyond) = (reach, beyond);
        }
    }

    /// True while only the member that we join through has been contacted: its id was reported by others, not by
    /// itself.
    fn is_member_id_unverified(&self) -> bool {
        self.asked.len() <= 1 && matches!(self.purpose, LookupPurpose::Join { .. })
    }

    /// Lookups of this node for itself may call any node: no node waits for them.
    fn avoids_foreign(&self) -> bool {
        !self.asks_foreign && matches!(self.purpose, LookupPurpose::Answer(_))
    }

    /// True if `hop` is no nearer to the target than a node that already named the nodes beyond it.
    fn is_behind(&self, hop: NodeRef) -> bool {
        self.reach.is_some_and(|reach| !self.beyond.is_empty() && hop.id.steps_to(self.target) >= reach)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LookupPurpose {
    Answer(Tag),
    Finger(u32),
    /// Finds this node's own place in the ring of `member`.
    Join {
        join: Option<Tag>,
        member: NodeRef,
    },
}

impl Ring {
    /// The answer to a lookup of `target` by another node. Only the successor's arc is answered as owned. The node's
    /// own arc is not: its predecessor may be any node that notified it first, and a joining node would skip the
    /// members between. A node that is alone but remembers peers may have restarted in a ring that still lists it;
    /// naming itself as the owner would skip that whole ring.
    pub fn route(&self, target: RingId) -> RingRoute {
        match self.successors.first() {
            None if self.known.is_empty() => RingRoute::Owner(vec![self.me]),
            None => RingRoute::NextHops { nodes: Vec::new(), beyond: Vec::new() },
            Some(head) if RingArc::new(self.id(), head.id).contains(target) => {
                RingRoute::Owner(self.successors.clone())
            }
            Some(_) => RingRoute::NextHops { nodes: self.closest_preceding(target), beyond: self.beyond(target) },
        }
    }

    /// The route for lookups that begin here. Keys of this node's own arc need no call.
    fn route_from_here(&self, target: RingId) -> RingRoute {
        match self.predecessor {
            Some(before) if RingArc::new(before.id, self.id()).contains(target) => RingRoute::Owner(vec![self.me]),
            _ if self.is_alone() => RingRoute::Owner(vec![self.me]),
            _ => self.route(target),
        }
    }

    fn closest_preceding(&self, target: RingId) -> Vec<NodeRef> {
        let ahead = RingArc::new(self.id(), target);
        let fingers = self.fingers.towards(self.id().steps_to(target));
        let farthest_first = fingers.chain(self.successors.iter().rev().copied());
        let mut nodes = Vec::with_capacity(self.successors.len() + 2 * PROPOSED);
        nodes.extend(farthest_first.filter(|node| ahead.strictly_contains(node.id) && !self.is_dead(*node)));
        nodes.sort_unstable_by_key(|node| {
            (self.is_unresponsive(*node), self.is_foreign(*node), node.id.steps_to(target))
        });
        nodes.dedup();
        nodes.truncate(PROPOSED);
        nodes
    }

    /// All nodes of our list at or after the target, as all but the last may be dead. Empty if the list ends before the
    /// target.
    fn beyond(&self, target: RingId) -> Vec<NodeRef> {
        let ahead = RingArc::new(self.id(), target);
        let reached = self.successors.iter().skip_while(|node| ahead.strictly_contains(node.id));
        reached.filter(|node| !self.is_dead(**node)).copied().collect()
    }

    pub(super) fn find_successor(&mut self, tag: Tag, target: RingId) {
        if self.left {
            self.actions.push(Action::Found { tag, result: Err(NoRoute { target }) })
        } else {
            self.look_up(target, LookupPurpose::Answer(tag))
        }
    }

    pub(super) fn look_up(&mut self, target: RingId, purpose: LookupPurpose) {
        self.apply_route(Lookup::new(target, purpose, Vec::new()), self.route_from_here(target), None);
    }

    pub(super) fn is_looking_up(&self, purpose: LookupPurpose) -> bool {
        self.lookups.values().any(|lookup| lookup.purpose == purpose)
    }

    /// Like `look_up`, but starts at `member` and ignores this node's own routing state.
    pub(super) fn look_up_through(&mut self, member: NodeRef, target: RingId, purpose: LookupPurpose) {
        self.ask_next_hop(Lookup::new(target, purpose, vec![member]));
    }

    pub(super) fn hop_answered(&mut self, lookup: u64, from: NodeRef, route: RingRoute) {
        if let Some(mut lookup) = self.lookups.remove(&lookup) {
            lookup.is_second_try = false;
            self.apply_route(lookup, route, Some(from));
        }
    }

    pub(super) fn hop_failed(&mut self, lookup: u64, from: NodeRef, failure: CallFailure) {
        let Some(mut lookup) = self.lookups.remove(&lookup) else { return self.note_call_failure(from, failure) };
        match (failure, std::mem::take(&mut lookup.is_second_try)) {
            (CallFailure::TimedOut, false) => {
                lookup.timed_out.push(from);
                self.note_call_failure(from, failure);
            }
            (CallFailure::TimedOut, true) => self.declare_dead(from),
            _ => self.note_call_failure(from, failure),
        }
        self.ask_next_hop(lookup);
    }

    /// Records that a call of a lookup failed. A node that timed out becomes unresponsive; if it is a neighbour, a
    /// separate call checks whether it is dead.
    pub(super) fn note_call_failure(&mut self, node: NodeRef, failure: CallFailure) {
        match failure {
            CallFailure::Refused => {}
            CallFailure::Unreachable => self.declare_dead(node),
            CallFailure::TimedOut => {
                self.unresponsive.insert(node.ring_address(), self.now + self.settings.quarantine);
                self.fingers.remove(node.ring_address());
                self.connection_lost(node.ring_address());
            }
        }
    }

    /// Looks for the first live node of `owners`. An owner reported to a caller is checked first; the node's own
    /// searches contact the node they find in any case.
    fn confirm_owner(&mut self, mut lookup: Box<Lookup>, mut owners: Vec<NodeRef>) {
        let Some(place) = owners.iter().position(|&node| !self.is_dead(node) || self.is_me(node)) else {
            return self.ask_next_hop(lookup);
        };
        let owner = owners[place];
        if self.is_me(owner) || self.is_foreign(owner) || !matches!(lookup.purpose, LookupPurpose::Answer(_)) {
            return self.finish(lookup, Ok(owner));
        }
        lookup.fallback_owners = owners.split_off(place + 1);
        let lookup = self.register(lookup);
        self.call(owner, RingRequest::Info, Purpose::Owner { lookup });
    }

    pub(super) fn owner_answered(&mut self, lookup: u64, owner: NodeRef, info: NodeRef) {
        if info.id != owner.id {
            return self.owner_failed(lookup, owner, CallFailure::Unreachable); // It has moved: no node is at this id.
        }
        if let Some(lookup) = self.lookups.remove(&lookup) {
            self.finish(lookup, Ok(owner));
        }
    }

    pub(super) fn owner_failed(&mut self, lookup: u64, owner: NodeRef, failure: CallFailure) {
        let Some(mut lookup) = self.lookups.remove(&lookup) else { return };
        if failure == CallFailure::Refused {
            return self.finish(lookup, Ok(owner)); // It is alive.
        }
        self.declare_dead(owner);
        let fallback_owners = std::mem::take(&mut lookup.fallback_owners);
        self.confirm_owner(lookup, fallback_owners);
    }

    fn register(&mut self, lookup: Box<Lookup>) -> u64 {
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, lookup);
        number
    }

    /// `from`: the node that answered, or none if the route is our own. A hop must be nearer to the target than the
    /// node that named it.
    fn apply_route(&mut self, mut lookup: Box<Lookup>, route: RingRoute, from: Option<NodeRef>) {
        match route {
            RingRoute::Owner(nodes) => self.confirm_owner(lookup, nodes),
            RingRoute::NextHops { nodes, beyond } => {
                if let Some(next) = self.successor_after_us(&lookup, &nodes, &beyond) {
                    return self.finish(lookup, Ok(next));
                }
                let reach =
                    from.filter(|_| !lookup.is_member_id_unverified()).map(|from| from.id.steps_to(lookup.target));
                let nearer = |node: &NodeRef| reach.is_none_or(|reach| node.id.steps_to(lookup.target) < reach);
                lookup.queue.extend(nodes.iter().take(PROPOSED).rev().copied().filter(nearer));
                lookup.note_reach(reach, beyond);
                lookup.sort_queue();
                self.ask_next_hop(lookup);
            }
        }
    }

    /// If a search for a separate ring reaches a node that lists us at our own place, the next node in its list is the
    /// result. (Only such a node can answer, because the place is ours; without this rule the search would visit every
    /// node.)
    fn successor_after_us(&self, lookup: &Lookup, nodes: &[NodeRef], beyond: &[NodeRef]) -> Option<NodeRef> {
        let is_search = matches!(lookup.purpose, LookupPurpose::Join { .. }) && !self.is_alone();
        let names_us = is_search && nodes.first() == Some(&self.me);
        beyond.first().copied().filter(|&next| names_us && !self.is_dead(next))
    }

    fn ask_next_hop(&mut self, mut lookup: Box<Lookup>) {
        while let Some(hop) = lookup.queue.pop() {
            if lookup.is_behind(hop) {
                break;
            }
            let is_first = lookup.asked.is_empty() && lookup.queue.is_empty();
            if self.is_me(hop) || (self.is_dead(hop) && !is_first) {
                continue;
            }
            if self.is_foreign(hop) && lookup.avoids_foreign() {
                lookup.foreign.push(hop);
                continue;
            }
            if !lookup.mark_asked(hop.ring_address()) {
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
        let lookup = self.register(lookup);
        self.call(hop, RingRequest::Route(target), Purpose::Hop { lookup });
    }

    /// No hop is left. The owner then lies beyond the nearest hop that answered. If that hop named no such node, the
    /// hops that timed out are tried once more; then foreign hops, unless our own list reaches beyond the target; then
    /// our own list, from which dead nodes have been dropped meanwhile.
    fn exhausted(&mut self, mut lookup: Box<Lookup>) {
        let beyond = std::mem::take(&mut lookup.beyond);
        if !beyond.is_empty() {
            return self.confirm_owner(lookup, beyond);
        }
        if let Some(hop) = lookup.timed_out.pop() {
            lookup.is_second_try = true;
            return self.ask_hop(hop, lookup);
        }
        if let LookupPurpose::Join { .. } = lookup.purpose {
            let target = lookup.target;
            return self.finish(lookup, Err(NoRoute { target }));
        }
        if !lookup.foreign.is_empty() {
            return self.bypass_foreign(lookup);
        }
        match self.route_from_here(lookup.target) {
            RingRoute::Owner(nodes) => self.confirm_owner(lookup, nodes),
            RingRoute::NextHops { mut nodes, .. } => {
                nodes.retain(|node| !lookup.asked.contains(&node.ring_address()));
                nodes.reverse();
                let target = lookup.target;
                if nodes.is_empty() || lookup.asked.len() > self.settings.max_hops {
                    self.finish(lookup, Err(NoRoute { target }))
                } else {
                    lookup.queue = nodes;
                    self.ask_next_hop(lookup)
                }
            }
        }
    }

    /// Only foreign hops are left.
    fn bypass_foreign(&mut self, mut lookup: Box<Lookup>) {
        let beyond = self.beyond(lookup.target);
        if !beyond.is_empty() {
            return self.confirm_owner(lookup, beyond);
        }
        lookup.asks_foreign = true;
        lookup.queue = std::mem::take(&mut lookup.foreign);
        lookup.sort_queue();
        self.ask_next_hop(lookup)
    }

    pub(super) fn fail_lookups(&mut self) {
        for (_, lookup) in std::mem::take(&mut self.lookups) {
            let target = lookup.target;
            self.finish(lookup, Err(NoRoute { target }));
        }
    }

    #[allow(clippy::boxed_local, reason = "a lookup stays in its box from step to step")]
    fn finish(&mut self, lookup: Box<Lookup>, result: Result<NodeRef, NoRoute>) {
        match lookup.purpose {
            LookupPurpose::Answer(tag) => self.actions.push(Action::Found { tag, result }),
            LookupPurpose::Finger(finger_index) => self.finger_found(finger_index, result.ok()),
            LookupPurpose::Join { join, member } => self.join_lookup_finished(join, member, result.ok()),
        }
    }
}
