//! The transitions that are possible in a state, and their effects.

use std::{sync::Arc, time::Duration};

use chordfs_ring::{Action, CallFailure, Event, JoinError, Ring, RingRequest};
use stateright::{Model, Property};

use super::{
    properties,
    quiescent::{DEAD, QuiescentRing, answer, event_of},
    scope::{Budget, CrashRule, Network, Scope, node_at, place_of},
    state::{Fault, InFlight, Maintenance, MessageContent, Node, Phase, Places, Remaining, State, skipped_between},
};

/// The constant time of a search.
pub(super) const NOW: Duration = Duration::from_secs(100);

/// One step of a search. Numbers are indexes of messages in flight, or places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    Deliver(usize),
    Lose(usize),
    /// Deliver the message and leave a copy in flight.
    Double(usize),
    /// A request to a live node fails, so that the node is taken for dead.
    SuspectFalsely(usize),
    Join {
        node: usize,
        through: usize,
    },
    Crash(usize),
    Leave(usize),
    /// Restart with the stored state: the id and the remembered peers.
    Restart(usize),
    Maintain(usize, Maintenance),
}

impl Model for Scope {
    type State = State;
    type Action = Transition;

    fn init_states(&self) -> Vec<State> {
        let false_suspicions = match self.network {
            Network::FalseSuspicions(count) => count,
            Network::Truthful | Network::DeadNodesAnswer => 0,
        };
        let mut state = State {
            nodes: QuiescentRing::ideal(self)
                .into_iter()
                .enumerate()
                .map(|(place, ring)| self.first(place, ring))
                .collect(),
            in_flight: Vec::new(),
            remaining: Remaining {
                joins: self.joins,
                crashes: self.crashes,
                leaves: self.leaves,
                restarts: self.restarts,
                maintenance: [self.stabilize.all, self.check_predecessor.all, self.tick.all],
                lost: self.lost,
                doubled: self.doubled,
                false_suspicions,
            },
            established: 0,
            has_base: false,
            fault: None,
        };
        properties::judge(self, &mut state, true);
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Transition>) {
        if state.fault.is_some() {
            return;
        }
        self.add_messages(state, steps);
        for place in 0..self.places() {
            self.add_own_steps(state, place, steps);
        }
    }

    fn next_state(&self, last: &State, step: Transition) -> Option<State> {
        let mut state = last.clone();
        self.take(&mut state, step);
        let is_same = |place: usize| state.nodes[place].is_equivalent_to(&last.nodes[place]);
        let changed = (0..self.places()).any(|place| !Arc::ptr_eq(&state.nodes[place], &last.nodes[place]));
        if matches!(step, Transition::Maintain(..)) && (0..self.places()).all(is_same) {
            return None;
        }
        properties::judge(self, &mut state, changed);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Scope {
    fn first(&self, place: usize, ring: Option<Ring>) -> Arc<Node> {
        let mut node = Node::not_started(place);
        if ring.is_some() {
            (node.phase, node.ring, node.may_join) = (Phase::Up, ring, false);
        }
        self.update_derived(&mut node, place);
        Arc::new(node)
    }

    fn update_derived(&self, node: &mut Node, place: usize) {
        let remembers = self.network == Network::DeadNodesAnswer || self.restarts > 0;
        node.update_derived(place, self.places(), place == self.founder() && !node.was_down, remembers);
    }

    fn budget(&self, kind: Maintenance) -> Budget {
        match kind {
            Maintenance::Stabilize => self.stabilize,
            Maintenance::CheckPredecessor => self.check_predecessor,
            Maintenance::Tick => self.tick,
        }
    }

    fn add_messages(&self, state: &State, steps: &mut Vec<Transition>) {
        for (place, message) in state.in_flight.iter().enumerate() {
            if place > 0 && message.is_same_as(&state.in_flight[place - 1]) {
                continue;
            }
            steps.push(Transition::Deliver(place));
            if state.remaining.lost > 0 {
                steps.push(Transition::Lose(place));
            }
            match message.content {
                MessageContent::Message(_) if state.remaining.doubled > 0 => steps.push(Transition::Double(place)),
                MessageContent::Request { .. }
                    if state.remaining.false_suspicions > 0 && state.nodes[message.to].is_up() =>
                {
                    steps.push(Transition::SuspectFalsely(place))
                }
                _ => {}
            }
        }
    }

    fn add_own_steps(&self, state: &State, place: usize, steps: &mut Vec<Transition>) {
        let node = &state.nodes[place];
        if state.remaining.joins > 0 && node.may_join && node.is_alone() {
            let members = (0..self.places()).filter(|&other| other != place && state.nodes[other].is_member);
            steps.extend(members.map(|through| Transition::Join { node: place, through }));
        }
        if node.phase == Phase::Down && state.remaining.restarts > 0 {
            steps.push(Transition::Restart(place));
        }
        if !node.is_up() {
            return;
        }
        for kind in [Maintenance::Stabilize, Maintenance::CheckPredecessor, Maintenance::Tick] {
            let done = node.maintained[kind as usize];
            if done < self.budget(kind).each && state.remaining.maintenance[kind as usize] > 0 {
                steps.push(Transition::Maintain(place, kind));
            }
        }
        if state.remaining.crashes > 0 && self.may_crash(state, place) {
            steps.push(Transition::Crash(place));
        }
        if state.remaining.leaves > 0 && self.may_crash(state, place) {
            steps.push(Transition::Leave(place));
        }
    }

    /// The operating assumption of the proof on crashes.
    fn may_crash(&self, state: &State, place: usize) -> bool {
        let rest: Places = state.members() & !(1 << place);
        let keeps_one = |names: Places| names & rest != 0;
        let members = || state.nodes.iter().enumerate().filter(|&(other, node)| other != place && node.is_member);
        let lists = members().all(|(_, node)| node.is_alone() || keeps_one(node.names));
        let skipped = members().fold(0, |set, (_, node)| set | node.skips);
        let has_base = (rest & !skipped).count_ones() as usize > self.successor_list_len;
        let in_flight_keeps_one =
            |message: &InFlight| message.names == 0 || message.to == place || keeps_one(message.names);
        match self.crash_rule {
            CrashRule::ListsAndAnswers => lists && has_base && state.in_flight.iter().all(|m| in_flight_keeps_one(m)),
            CrashRule::Lists => lists && has_base,
            CrashRule::Never => rest != 0,
        }
    }

    fn take(&self, state: &mut State, step: Transition) {
        match step {
            Transition::Deliver(index) => {
                let message = state.in_flight.remove(index);
                self.deliver(state, &message);
            }
            Transition::Lose(index) => {
                state.remaining.lost -= 1;
                self.lose(state, index);
            }
            Transition::Double(index) => {
                state.remaining.doubled -= 1;
                self.deliver(state, &Arc::clone(&state.in_flight[index]));
            }
            Transition::SuspectFalsely(index) => {
                state.remaining.false_suspicions -= 1;
                let message = state.in_flight.remove(index);
                if let MessageContent::Request { call, .. } = message.content {
                    self.apply_event(state, message.from, Event::Unanswered { call, failure: DEAD });
                }
            }
            Transition::Join { node, through } => {
                state.remaining.joins -= 1;
                self.start(state, node);
                self.apply_event(state, node, Event::Join { tag: 0, member: node_at(through) });
            }
            Transition::Crash(place) => {
                state.remaining.crashes -= 1;
                self.go_down(state, place, Phase::Down);
            }
            Transition::Restart(place) => {
                state.remaining.restarts -= 1;
                let node = Arc::make_mut(&mut state.nodes[place]);
                (node.phase, node.may_join) = (Phase::Up, true);
                self.update_derived(node, place);
            }
            Transition::Leave(place) => {
                state.remaining.leaves -= 1;
                self.apply_event(state, place, Event::Leave);
                self.go_down(state, place, Phase::HasLeft);
            }
            Transition::Maintain(place, kind) => self.maintain(state, place, kind),
        }
    }

    /// Loses a message; a caller then times out.
    fn lose(&self, state: &mut State, index: usize) {
        let message = state.in_flight.remove(index);
        let (asker, call) = match message.content {
            MessageContent::Request { call, .. } => (message.from, call),
            MessageContent::Answer { call, .. } => (message.to, call),
            MessageContent::Message(_) => return,
        };
        self.apply_event(state, asker, Event::Unanswered { call, failure: CallFailure::TimedOut });
    }

    fn deliver(&self, state: &mut State, message: &InFlight) {
        match &message.content {
            MessageContent::Request { call, request } => self.ask(state, message, *call, request),
            MessageContent::Answer { call, answer } => {
                let event = Event::Answered { call: *call, answer: answer.clone() };
                self.apply_event_with(state, message.to, event, message.owners);
            }
            MessageContent::Message(content) => self.apply_event(state, message.to, event_of(content.clone())),
        }
    }

    fn ask(&self, state: &mut State, question: &InFlight, call: u64, request: &RingRequest) {
        let InFlight { from, to, .. } = *question;
        let asked = &state.nodes[to];
        let speaks = asked.is_up() || self.network == Network::DeadNodesAnswer;
        match asked.ring.as_ref().filter(|_| speaks) {
            Some(ring) => {
                let answer = answer(ring, request);
                let digest = self.call_digest(state, from, call);
                let mut answer =
                    InFlight::answer(to, from, call, digest, answer, self.successor_list_len, self.places());
                answer.skips_joining |= question.skips_joining;
                state.send(answer);
            }
            None => self.apply_event(state, from, Event::Unanswered { call, failure: DEAD }),
        }
    }

    fn call_digest(&self, state: &State, place: usize, call: u64) -> u64 {
        state.nodes[place].ring.as_ref().and_then(|ring| ring.call_digest(call)).unwrap_or(0)
    }

    fn start(&self, state: &mut State, place: usize) {
        let node = Arc::make_mut(&mut state.nodes[place]);
        node.may_join = false;
        if node.phase == Phase::NotStarted {
            node.phase = Phase::Up;
            node.ring = Some(Ring::new(node_at(place), self.settings(), Vec::new()));
        }
    }

    /// Stops a node. Its own requests, and answers and messages to it, are dropped; requests to it will fail; its
    /// answers and messages stay in flight.
    fn go_down(&self, state: &mut State, place: usize, phase: Phase) {
        let node = Arc::make_mut(&mut state.nodes[place]);
        (node.phase, node.was_down, node.may_join, node.maintained) = (phase, true, false, [0; 3]);
        if self.network != Network::DeadNodesAnswer {
            let stored = node.ring.as_ref().map(|ring| ring.known().to_vec()).unwrap_or_default();
            node.ring = Some(Ring::new(node_at(place), self.settings(), stored));
        }
        self.update_derived(node, place);
        state.in_flight.retain(|message| match message.content {
            MessageContent::Request { .. } => message.from != place,
            MessageContent::Answer { .. } | MessageContent::Message(_) => message.to != place,
        });
    }

    fn maintain(&self, state: &mut State, place: usize, kind: Maintenance) {
        let event = match kind {
            Maintenance::Stabilize => Event::Stabilize,
            Maintenance::CheckPredecessor => Event::CheckPredecessor,
            Maintenance::Tick => Event::Tick,
        };
        let before = Arc::clone(&state.nodes[place]);
        self.apply_event(state, place, event);
        if !state.nodes[place].is_equivalent_to(&before) {
            state.remaining.maintenance[kind as usize] -= 1;
            let node = Arc::make_mut(&mut state.nodes[place]);
            node.maintained[kind as usize] += 1;
            self.update_derived(node, place);
        }
    }

    fn apply_event(&self, state: &mut State, place: usize, event: Event) {
        self.apply_event_with(state, place, event, 0);
    }

    /// `owners`: the nodes that the event names as the node's successor.
    fn apply_event_with(&self, state: &mut State, place: usize, event: Event, owners: Places) {
        let node = Arc::make_mut(&mut state.nodes[place]);
        let Some(ring) = node.ring.as_mut().filter(|_| node.phase == Phase::Up) else { return };
        let actions = ring.handle(NOW, event);
        for action in actions {
            self.execute(state, place, action, owners);
        }
        self.update_derived(Arc::make_mut(&mut state.nodes[place]), place);
    }

    fn execute(&self, state: &mut State, from: usize, action: Action, owners: Places) {
        match action {
            Action::Call { call, to, request } => {
                let to = place_of(to);
                let digest = self.call_digest(state, from, call);
                let mut question = InFlight::request(from, to, call, digest, request);
                if owners & 1 << to != 0 {
                    question.skips_joining = skipped_between(from, to, self.places());
                }
                state.send(question);
            }
            Action::Send { to, message } => {
                let to = place_of(to);
                if state.nodes[to].is_up() {
                    state.send(InFlight::message(from, to, message));
                }
            }
            Action::Joined { result: Ok(()) | Err(JoinError::Left), .. } => {}
            Action::Joined { result: Err(JoinError::NotYet { .. } | JoinError::NoAnswer { .. }), .. } => {
                Arc::make_mut(&mut state.nodes[from]).may_join = true;
            }
            Action::Joined { result: Err(error), .. } => {
                state.fault =
                    Some(Arc::new(Fault::Ring(format!("the join of {} is refused: {error}", node_at(from).id))));
            }
            Action::IdTaken { by } => {
                state.fault = Some(Arc::new(Fault::Ring(format!("{} gives up its id to {by}", node_at(from).id))));
            }
            Action::Found { .. } | Action::Changed(_) | Action::Remember(_) => {}
        }
    }
}
