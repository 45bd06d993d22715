//! Finding the successor of an id, hop by hop (Stoica et al. 2001, section 4), asked from here: a dead hop costs its
//! caller one call and another hop, never the whole lookup.

use std::{collections::BTreeSet, net::SocketAddr};

use common::ring_id::{NodeRef, RingArc, RingId};

use super::{
    Action, Failure, Purpose, Ring,
    event::{NoRoute, Request, Route, Tag},
};

/// How many hops one answer proposes.
const PROPOSED: usize = 8;

#[derive(Clone, Debug, Hash)]
pub struct Lookup {
    target: RingId,
    purpose: LookupPurpose,
    /// To be asked, the nearest to the target last.
    queue: Vec<NodeRef>,
    asked: BTreeSet<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupPurpose {
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
    /// may be anybody who has notified a newcomer first, and would lead a joining node past others.
    pub fn route(&self, target: RingId) -> Route {
        match self.successors.first() {
            None => Route::Owner(vec![self.me]),
            Some(head) if RingArc::new(self.id(), head.id).contains(target) => Route::Owner(self.successors.clone()),
            Some(_) => Route::Ask(self.closest_preceding(target)),
        }
    }

    /// For lookups that begin here: what this node itself answers for needs no asking.
    fn route_from_here(&self, target: RingId) -> Route {
        match self.predecessor {
            Some(before) if RingArc::new(before.id, self.id()).contains(target) => Route::Owner(vec![self.me]),
            _ => self.route(target),
        }
    }

    fn closest_preceding(&self, target: RingId) -> Vec<NodeRef> {
        let ahead = RingArc::new(self.id(), target);
        let mut nodes: Vec<NodeRef> = self.successors.iter().copied().chain(self.fingers.nodes()).collect();
        nodes.retain(|node| ahead.strictly_contains(node.id) && !self.is_silent(*node));
        nodes.sort_by_key(|node| node.id.steps_to(target));
        nodes.dedup();
        nodes.truncate(PROPOSED);
        nodes
    }

    pub(super) fn find_successor(&mut self, tag: Tag, target: RingId) {
        match self.left {
            true => self.actions.push(Action::Found { tag, result: Err(NoRoute { target }) }),
            false => self.look_up(target, LookupPurpose::Answer(tag)),
        }
    }

    pub(super) fn look_up(&mut self, target: RingId, purpose: LookupPurpose) {
        let lookup = Lookup { target, purpose, queue: Vec::new(), asked: BTreeSet::new() };
        self.follow(lookup, self.route_from_here(target), None);
    }

    /// As `look_up`, but in the ring of `member`, whatever we know ourselves.
    pub(super) fn look_up_through(&mut self, member: NodeRef, target: RingId, purpose: LookupPurpose) {
        self.go_on(Lookup { target, purpose, queue: vec![member], asked: BTreeSet::new() });
    }

    pub(super) fn hop_answered(&mut self, lookup: u64, from: NodeRef, route: Route) {
        if let Some(lookup) = self.lookups.remove(&lookup) {
            self.follow(lookup, route, Some(from));
        }
    }

    pub(super) fn hop_failed(&mut self, lookup: u64, from: NodeRef, why: Failure) {
        if why == Failure::Silent {
            self.gone(from);
        }
        if let Some(lookup) = self.lookups.remove(&lookup) {
            self.go_on(lookup);
        }
    }

    /// `from`: who gave the route, unless it was ourselves. A hop has to lead nearer than the one that named it. (The
    /// first hop's id may be no more than somebody's word; so the first answer is taken as it is.)
    fn follow(&mut self, mut lookup: Lookup, route: Route, from: Option<NodeRef>) {
        match route {
            Route::Owner(nodes) => match nodes.iter().find(|&&node| !self.is_silent(node) || self.is_me(node)) {
                Some(&node) => self.finish(lookup, Ok(node)),
                None => self.go_on(lookup),
            },
            Route::Ask(nodes) => {
                let reach = from.filter(|_| lookup.asked.len() > 1).map(|from| from.id.steps_to(lookup.target));
                let nearer = |node: &NodeRef| reach.is_none_or(|reach| node.id.steps_to(lookup.target) < reach);
                lookup.queue.extend(nodes.into_iter().take(PROPOSED).filter(nearer));
                lookup.queue.sort_by_key(|node| std::cmp::Reverse(node.id.steps_to(lookup.target)));
                self.go_on(lookup);
            }
        }
    }

    fn go_on(&mut self, mut lookup: Lookup) {
        while let Some(hop) = lookup.queue.pop() {
            let is_first = lookup.asked.is_empty() && lookup.queue.is_empty();
            if self.is_me(hop) || (self.is_silent(hop) && !is_first) || !lookup.asked.insert(hop.ring_address()) {
                continue;
            }
            if lookup.asked.len() > self.settings.max_hops {
                break;
            }
            let (id, target) = (self.next_lookup, lookup.target);
            self.next_lookup += 1;
            self.lookups.insert(id, lookup);
            return self.ask(hop, Request::Route(target), Purpose::Hop { lookup: id });
        }
        self.exhausted(lookup);
    }

    /// Every hop was asked in vain. Those that are dead are gone from our own list by now, so it may know better.
    fn exhausted(&mut self, mut lookup: Lookup) {
        if let LookupPurpose::Enter { .. } = lookup.purpose {
            let target = lookup.target;
            return self.finish(lookup, Err(NoRoute { target }));
        }
        match self.route_from_here(lookup.target) {
            Route::Owner(nodes) => self.finish(lookup, Ok(nodes[0])),
            Route::Ask(mut nodes) => {
                nodes.retain(|node| !lookup.asked.contains(&node.ring_address()));
                nodes.reverse();
                let target = lookup.target;
                match nodes.is_empty() || lookup.asked.len() > self.settings.max_hops {
                    true => self.finish(lookup, Err(NoRoute { target })),
                    false => {
                        lookup.queue = nodes;
                        self.go_on(lookup)
                    }
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

    fn finish(&mut self, lookup: Lookup, result: Result<NodeRef, NoRoute>) {
        match lookup.purpose {
            LookupPurpose::Answer(tag) => self.actions.push(Action::Found { tag, result }),
            LookupPurpose::Finger(finger_index) => self.finger_found(finger_index, result.ok()),
            LookupPurpose::Enter { join, member } => self.place_found(join, member, result.ok()),
        }
    }
}
