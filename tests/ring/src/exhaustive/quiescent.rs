//! The ring in quiet periods: every node ticks once in each, and each message arrives before the next is sent. It
//! builds the ideal ring with which a search begins, and shows that every final state of a search becomes ideal again.

use std::{collections::VecDeque, time::Duration};

use chordfs_ring::{Action, CallFailure, Event, JoinError, Message, Ring, RingAnswer, RingRequest, RingSettings};

use super::scope::{Scope, node_at, place_of};
use crate::invariants;

const PERIOD: Duration = Duration::from_secs(1);
/// More than any join takes.
const PERIODS_TO_JOIN: usize = 16;

/// `rings` holds none for a node that is down or not started.
pub(super) struct QuiescentRing {
    pub rings: Vec<Option<Ring>>,
    now: Duration,
    settings: RingSettings,
}

impl QuiescentRing {
    pub(super) fn new(rings: Vec<Option<Ring>>, now: Duration, settings: RingSettings) -> Self {
        Self { rings, now, settings }
    }

    /// The ideal ring that a scope begins with, made by joining.
    pub(super) fn ideal(scope: &Scope) -> Vec<Option<Ring>> {
        let mut ring = Self::new(vec![None; scope.places()], Duration::ZERO, scope.settings());
        for place in (0..scope.places()).filter(|&place| scope.begins_inside(place)) {
            ring.rings[place] = Some(Ring::new(node_at(place), scope.settings(), Vec::new()));
            if place != scope.founder() {
                ring.join(place, scope.founder());
            }
            let periods = ring.periods_until_ideal(PERIODS_TO_JOIN);
            assert!(periods.is_some(), "no ideal ring to begin with:\n{}", ring.describe());
        }
        ring.rings
    }

    /// The periods until the ring is ideal; none if more than `most` are needed.
    pub(super) fn periods_until_ideal(&mut self, most: usize) -> Option<usize> {
        for period in 0..=most {
            if self.is_ideal() {
                return Some(period);
            }
            self.now += PERIOD;
            for place in 0..self.rings.len() {
                self.join_if_alone(place);
                self.apply_event(place, Event::Tick);
            }
        }
        None
    }

    pub(super) fn describe(&self) -> String {
        let rings = self.rings.iter().enumerate().filter_map(|(place, ring)| Some((place, ring.as_ref()?)));
        rings.map(|(place, ring)| invariants::describe(place, &ring.neighbours())).collect::<Vec<_>>().join("\n")
    }

    fn is_ideal(&self) -> bool {
        let views: Vec<_> = self.rings.iter().flatten().map(Ring::neighbours).collect();
        invariants::is_ideal(&views, self.settings.successor_list_len)
    }

    /// Joins again, like the driver of a node whose join failed.
    fn join_if_alone(&mut self, place: usize) {
        let is_alone = |ring: &Ring| ring.neighbours().successors.is_empty();
        let member = self.rings.iter().position(|ring| ring.as_ref().is_some_and(|ring| !is_alone(ring)));
        if let (Some(ring), Some(member)) = (&self.rings[place], member)
            && is_alone(ring)
        {
            self.join(place, member);
        }
    }

    fn join(&mut self, place: usize, through: usize) {
        self.apply_event(place, Event::Join { tag: 0, member: node_at(through) });
    }

    fn apply_event(&mut self, place: usize, event: Event) {
        let mut events = VecDeque::from([(place, event)]);
        while let Some((place, event)) = events.pop_front() {
            let Some(ring) = &mut self.rings[place] else { continue };
            for action in ring.handle(self.now, event) {
                events.extend(self.outcome(place, action));
            }
        }
    }

    fn outcome(&self, place: usize, action: Action) -> Option<(usize, Event)> {
        match action {
            Action::Call { call, to, request } => Some((
                place,
                match &self.rings[place_of(to)] {
                    Some(ring) => Event::Answered { call, answer: answer(ring, &request) },
                    None => Event::Unanswered { call, failure: DEAD },
                },
            )),
            Action::Send { to, message } => Some((place_of(to), event_of(message))),
            Action::Joined { result: Ok(()) | Err(JoinError::NotYet { .. } | JoinError::NoAnswer { .. }), .. } => None,
            Action::Joined { result: Err(error), .. } => panic!("a node with an id of its own is refused: {error}"),
            Action::IdTaken { by } => panic!("a node with an id of its own gives it up to {by}"),
            Action::Found { .. } | Action::Changed(_) | Action::Remember(_) => None,
        }
    }
}

/// The outcome of a call to a dead node.
pub(super) const DEAD: CallFailure = CallFailure::Unreachable;

pub(super) fn answer(ring: &Ring, request: &RingRequest) -> RingAnswer {
    match request {
        RingRequest::Neighbours => RingAnswer::Neighbours(ring.neighbours()),
        RingRequest::Info => RingAnswer::Info(ring.me()),
        RingRequest::Route(target) => RingAnswer::Route(ring.route(*target)),
    }
}

pub(super) fn event_of(message: Message) -> Event {
    match message {
        Message::Notify(peer) => Event::Notified { peer },
        Message::Leave(view) => {
            Event::PeerLeft { peer: view.node, predecessor: view.predecessor, successors: view.successors }
        }
    }
}
