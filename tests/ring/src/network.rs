//! Many `Ring`s in one process, on a network with a simulated clock: messages take time, are lost, arrive twice or
//! reach dead nodes. The seed determines every event.

mod between_kinds;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use chordfs_ring::{
    Action, CallFailure, CallId, Event, JoinError, Message, NoRoute, Ring, RingAnswer, RingRequest, RingSettings, Tag,
};
use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use self::between_kinds::{ForeignMessage, ForwardedLookup};
pub use crate::{conditions::Conditions, random::SplitMix64};
use crate::{
    foreign::Foreign,
    invariants::{self, GlobalView, NodeView},
    member::Member,
    queue::Queue,
};

#[derive(Clone)]
struct SimNode {
    ring: Member,
    up: bool,
    /// Counts the restarts: messages to an earlier incarnation do not arrive.
    incarnation: u32,
    down_since: Duration,
    known: Vec<NodeRef>,
    /// True for the node that founded the ring: a member even when alone.
    founder: bool,
}

#[derive(Clone)]
enum Delivery {
    Tick {
        node: usize,
        incarnation: u32,
    },
    Request {
        from: usize,
        incarnation: u32,
        call: CallId,
        to: usize,
        request: RingRequest,
        reply_fate: ReplyFate,
    },
    Event {
        node: usize,
        incarnation: u32,
        event: Event,
    },
    Message {
        to: usize,
        message: Message,
    },
    /// A call to or from a foreign member.
    ForeignMessage(ForeignMessage),
}

/// The fate of an answer, decided when the request is sent.
#[derive(Clone, Copy)]
enum ReplyFate {
    Arrives(Duration),
    /// The answer arrives twice.
    ArrivesTwice(Duration, Duration),
    Lost,
}

/// The result of a simulated lookup, and the right result at the moment it arrived.
#[derive(Clone, Debug)]
pub struct LookupResult {
    pub found: Result<NodeRef, NoRoute>,
    pub right: Option<NodeRef>,
}

#[derive(Clone)]
pub struct Sim {
    pub now: Duration,
    pub rng: SplitMix64,
    /// The number of deliveries so far.
    pub events: u64,
    /// The number of requests that our nodes have sent.
    pub requests: u64,
    conditions: Conditions,
    settings: RingSettings,
    nodes: Vec<SimNode>,
    queue: Queue<Delivery>,
    changed: bool,
    /// Nodes with indexes below this cannot reach the others.
    cut_at: Option<usize>,
    last_loss: HashMap<(usize, usize), Duration>,
    /// The targets of pending lookups, by tag.
    pending_lookups: BTreeMap<Tag, RingId>,
    results: BTreeMap<Tag, LookupResult>,
    /// Lookups that one member performs for another.
    forwarded_lookups: HashMap<Tag, ForwardedLookup>,
    next_tag: Tag,
}

impl Sim {
    pub fn new(seed: u64, conditions: Conditions, settings: RingSettings) -> Self {
        Self {
            now: Duration::ZERO,
            rng: SplitMix64(seed),
            events: 0,
            requests: 0,
            conditions,
            settings,
            nodes: Vec::new(),
            queue: Queue::default(),
            changed: false,
            cut_at: None,
            last_loss: HashMap::new(),
            pending_lookups: BTreeMap::new(),
            results: BTreeMap::new(),
            forwarded_lookups: HashMap::new(),
            next_tag: 0,
        }
    }

    /// Starts a node, alone at a random position (or at `id`).
    pub fn start(&mut self, id: Option<RingId>) -> usize {
        let index = self.nodes.len();
        let id = id.unwrap_or(RingId(self.rng.next_u64() as u32));
        let ip = IpAddr::V4(Ipv4Addr::from(FIRST_IP + index as u32));
        let ring = Ring::new(NodeRef { ip, port: 5057, id }, self.settings, Vec::new());
        let ring = Member::Ours(Box::new(ring));
        let founder = index == 0;
        let up = true;
        self.nodes.push(SimNode { ring, up, incarnation: 0, down_since: Duration::ZERO, known: Vec::new(), founder });
        self.schedule_tick(index);
        self.changed = true;
        index
    }

    pub fn join(&mut self, node: usize, member: usize) {
        let member = self.nodes[member].ring.me();
        self.next_tag += 1;
        self.apply_event(node, Event::Join { tag: self.next_tag, member });
    }

    /// The node notifies its neighbours and stops.
    pub fn leave(&mut self, node: usize) {
        self.apply_event(node, Event::Leave);
        self.crash(node);
    }

    pub fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].incarnation += 1;
        self.nodes[node].founder = false;
        self.nodes[node].down_since = self.now;
        self.changed = true;
    }

    /// Restarts a node from its stored state: its id and the peers it remembers. (A foreign node remembers none, and
    /// has to join again.)
    pub fn restart(&mut self, node: usize) {
        let (me, known) = (self.nodes[node].ring.me(), self.nodes[node].known.clone());
        self.nodes[node].ring = if self.is_foreign(node) {
            Member::Foreign(Box::new(Foreign::new(me)))
        } else {
            Member::Ours(Box::new(Ring::new(me, self.settings, known)))
        };
        self.nodes[node].up = true;
        self.schedule_tick(node);
    }

    pub fn make_reliable(&mut self) {
        self.conditions = Conditions::reliable();
        self.cut_at = None;
    }

    pub fn cut_at(&mut self, index: usize) {
        self.cut_at = Some(index);
    }

    /// Looks up the successor of `target` from `node`; none if there is no result within `timeout`.
    pub fn find_successor(&mut self, node: usize, target: RingId, timeout: Duration) -> Option<NodeRef> {
        let (tag, end) = (self.begin_lookup(node, target), self.now + timeout);
        while !self.results.contains_key(&tag) && self.now < end {
            self.step();
        }
        self.results.remove(&tag)?.found.ok()
    }

    /// Begins a lookup; `take_results` returns the result once it has arrived.
    pub fn begin_lookup(&mut self, node: usize, target: RingId) -> Tag {
        self.next_tag += 1;
        self.pending_lookups.insert(self.next_tag, target);
        self.apply_event(node, Event::FindSuccessor { tag: self.next_tag, target });
        self.next_tag
    }

    /// Takes the results that have arrived since the last call.
    pub fn take_results(&mut self) -> BTreeMap<Tag, LookupResult> {
        std::mem::take(&mut self.results)
    }

    /// Delivers the next message. True if it changed some node's neighbours.
    pub fn step(&mut self) -> bool {
        if let Some((at, delivery)) = self.queue.pop() {
            self.now = at;
            self.events += 1;
            self.deliver(delivery);
        }
        std::mem::take(&mut self.changed)
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, but no longer than `timeout`. True if `done` holds.
    pub fn run_until(&mut self, timeout: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + timeout;
        while self.now < end {
            if self.step() && done(self) {
                return true;
            }
        }
        done(self)
    }

    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].up).collect()
    }

    /// The number of nodes ever started.
    pub fn started(&self) -> usize {
        self.nodes.len()
    }

    pub fn period(&self) -> Duration {
        self.conditions.period
    }

    pub fn fingers_per_tick(&self) -> usize {
        self.settings.fingers_per_tick
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].up
    }

    /// The `Ring` of one of our nodes.
    pub fn ring(&self, node: usize) -> &Ring {
        match &self.nodes[node].ring {
            Member::Ours(ring) => ring,
            Member::Foreign(_) => panic!("node {node} is foreign"),
        }
    }

    /// The nodes that are up and in the ring.
    pub fn members(&self) -> Vec<usize> {
        self.up().into_iter().filter(|&node| self.is_member(node)).collect()
    }

    pub fn is_member(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.up && (node.founder || node.ring.is_in_ring())
    }

    pub fn index_of(&self, node: NodeRef) -> Option<usize> {
        match node.ring_address() {
            SocketAddr::V4(address) => {
                let index = u32::from(*address.ip()).checked_sub(FIRST_IP)? as usize;
                (index < self.nodes.len()).then_some(index)
            }
            SocketAddr::V6(_) => None,
        }
    }

    /// Adds jitter, so that nodes do not tick in step.
    fn schedule_tick(&mut self, node: usize) {
        let period = self.period_of(node);
        let tenth = period / 10;
        let after = period - tenth + self.rng.up_to(tenth);
        self.queue.push(self.now + after, Delivery::Tick { node, incarnation: self.nodes[node].incarnation });
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Tick { node, incarnation } if self.nodes[node].incarnation == incarnation => {
                self.schedule_tick(node);
                self.apply_event(node, Event::Tick);
            }
            Delivery::Event { node, incarnation, event } if self.nodes[node].incarnation == incarnation => {
                self.apply_event(node, event)
            }
            Delivery::Request { from, incarnation, call, to, request, reply_fate } => {
                self.deliver_request(from, incarnation, call, to, request, reply_fate)
            }
            Delivery::Message { to, message } => self.deliver_message(to, message),
            Delivery::ForeignMessage(letter) => self.deliver_foreign_message(letter),
            Delivery::Tick { .. } | Delivery::Event { .. } => {}
        }
    }

    /// Sends a request and decides the fate of the call: both delays, and whether it times out.
    fn send_request(&mut self, from: usize, call: CallId, to: NodeRef, request: RingRequest) {
        let (incarnation, deadline) = (self.nodes[from].incarnation, self.conditions.call_deadline);
        let Some(to) = self.index_of(to) else { return self.time_out_at(self.now + deadline, from, call) };
        if self.is_foreign(to) {
            return self.begin_conversation(from, call, to, request);
        }
        let delay_there = self.rng.up_to(self.conditions.longest_delay);
        let back = self.rng.up_to(self.conditions.longest_delay);
        let reply_fate = match self.message_fault(from, to) {
            None if self.rng.happens(self.conditions.doubled_per_mille) => ReplyFate::ArrivesTwice(back, back * 2),
            None => ReplyFate::Arrives(back),
            Some(MessageFault::Late) => ReplyFate::Arrives(back + deadline),
            Some(MessageFault::Lost) if self.rng.happens(500) => ReplyFate::Lost,
            Some(MessageFault::Lost) => return self.time_out_at(self.now + deadline, from, call),
        };
        let is_in_time = match reply_fate {
            ReplyFate::Arrives(back) | ReplyFate::ArrivesTwice(back, _) => delay_there + back <= deadline,
            ReplyFate::Lost => false,
        };
        if !is_in_time || !self.nodes[to].up {
            self.time_out_at(self.now + deadline, from, call);
        }
        self.queue.push(self.now + delay_there, Delivery::Request { from, incarnation, call, to, request, reply_fate });
    }

    fn message_fault(&mut self, from: usize, to: usize) -> Option<MessageFault> {
        if self.cut_at.is_some_and(|cut| (from < cut) != (to < cut)) {
            return Some(MessageFault::Lost);
        }
        let Conditions { lost_per_mille, late_per_mille, loss_spaced_by, .. } = self.conditions;
        let dice = self.rng.below(1000);
        let fault = match dice {
            dice if dice < lost_per_mille => MessageFault::Lost,
            dice if dice < lost_per_mille + late_per_mille => MessageFault::Late,
            _ => return None,
        };
        if loss_spaced_by > Duration::ZERO {
            let last = self.last_loss.get(&(from, to));
            if last.is_some_and(|&at| self.now < at + loss_spaced_by) {
                return None;
            }
            self.last_loss.insert((from, to), self.now);
        }
        Some(fault)
    }

    fn time_out_at(&mut self, at: Duration, node: usize, call: CallId) {
        let event = Event::Unanswered { call, failure: CallFailure::TimedOut };
        self.queue.push(at, Delivery::Event { node, incarnation: self.nodes[node].incarnation, event });
    }

    fn deliver_request(
        &mut self,
        from: usize,
        incarnation: u32,
        call: CallId,
        to: usize,
        request: RingRequest,
        reply_fate: ReplyFate,
    ) {
        let event = match self.nodes[to].up {
            true => Event::Answered { call, answer: self.answer(to, request) },
            false if self.rng.happens(self.conditions.refused_per_mille) => {
                Event::Unanswered { call, failure: CallFailure::Unreachable }
            }
            // The node may have died after the request was sent; the call then ends at its deadline.
            false => Event::Unanswered { call, failure: CallFailure::TimedOut },
        };
        let is_timeout = matches!(event, Event::Unanswered { failure: CallFailure::TimedOut, .. });
        let mut send =
            |after, event| self.queue.push(self.now + after, Delivery::Event { node: from, incarnation, event });
        match reply_fate {
            _ if is_timeout => send(self.conditions.call_deadline, event),
            ReplyFate::Arrives(back) => send(back, event),
            ReplyFate::ArrivesTwice(first, second) => {
                send(first, event.clone());
                send(second, event);
            }
            ReplyFate::Lost => {}
        }
    }

    pub(crate) fn answer(&self, node: usize, request: RingRequest) -> RingAnswer {
        let ring = self.ring(node);
        match request {
            RingRequest::Neighbours => RingAnswer::Neighbours(ring.neighbours()),
            RingRequest::Info => RingAnswer::Info(ring.me()),
            RingRequest::Route(target) => RingAnswer::Route(ring.route(target)),
        }
    }

    fn deliver_message(&mut self, to: usize, message: Message) {
        self.apply_event(
            to,
            match message {
                Message::Notify(peer) => Event::Notified { peer },
                Message::Leave(view) => {
                    Event::PeerLeft { peer: view.node, predecessor: view.predecessor, successors: view.successors }
                }
            },
        );
    }

    fn send_message(&mut self, from: usize, to: NodeRef, message: Message) {
        let Some(to) = self.index_of(to) else { return };
        let is_cut = self.cut_at.is_some_and(|cut| (from < cut) != (to < cut));
        if is_cut || self.rng.happens(self.conditions.messages_lost_per_mille) {
            return;
        }
        let way = self.rng.up_to(self.conditions.longest_delay);
        if self.rng.happens(self.conditions.doubled_per_mille) {
            self.queue.push(self.now + way * 2, Delivery::Message { to, message: message.clone() });
        }
        self.queue.push(self.now + way, Delivery::Message { to, message });
    }

    fn apply_event(&mut self, node: usize, event: Event) {
        if !self.nodes[node].up {
            return;
        }
        let Member::Ours(ring) = &mut self.nodes[node].ring else { return self.apply_event_to_foreign(node, event) };
        for action in ring.handle(self.now, event) {
            self.execute(node, action);
        }
    }

    fn execute(&mut self, node: usize, action: Action) {
        match action {
            Action::Call { call, to, request } => {
                self.requests += 1;
                self.send_request(node, call, to, request)
            }
            Action::Send { to, message } => self.send_message(node, to, message),
            Action::Found { tag, result } => self.note_found(tag, result),
            Action::Joined { result: Ok(()), .. } | Action::Joined { result: Err(JoinError::Left), .. } => {}
            Action::Joined { result: Err(JoinError::IdTaken { by }), .. } | Action::IdTaken { by } => {
                self.move_and_join(node, by)
            }
            Action::Joined { result: Err(_), .. } => self.join_later(node),
            Action::Changed(_) => self.changed = true,
            Action::Remember(known) => self.nodes[node].known = known,
        }
    }

    fn note_found(&mut self, tag: Tag, found: Result<NodeRef, NoRoute>) {
        if self.finish_forwarded_lookup(tag, &found) {
            return;
        }
        if let Some(target) = self.pending_lookups.remove(&tag) {
            let right = self.owner(target);
            self.results.insert(tag, LookupResult { found, right });
        }
    }

    fn move_and_join(&mut self, node: usize, member: NodeRef) {
        let id = RingId(self.rng.next_u64() as u32);
        self.apply_event(node, Event::Reposition { id });
        self.next_tag += 1;
        self.apply_event(node, Event::Join { tag: self.next_tag, member });
    }

    fn join_later(&mut self, node: usize) {
        let others: Vec<usize> = self.members().into_iter().filter(|&other| other != node).collect();
        let Some(member) = self.rng.pick(&others).map(|other| self.nodes[other].ring.me()) else { return };
        self.next_tag += 1;
        let event = Event::Join { tag: self.next_tag, member };
        let incarnation = self.nodes[node].incarnation;
        self.queue.push(self.now + self.conditions.period, Delivery::Event { node, incarnation, event });
    }
}

/// Node n has the address `FIRST_IP + n`.
const FIRST_IP: u32 = 0x0a00_0001;

enum MessageFault {
    Lost,
    Late,
}

/// The invariants, checked with a global view.
impl Sim {
    /// True if every other member keeps a live successor when `node` crashes.
    pub fn can_spare(&self, node: usize) -> bool {
        GlobalView::new(&self.node_views()).can_spare(node)
    }

    /// The members that no member's list skips (Zave's principals).
    pub fn principals(&self) -> BTreeSet<usize> {
        GlobalView::new(&self.node_views()).principals()
    }

    /// The members whose lists skip `node`.
    pub fn skipped_by(&self, node: usize) -> Vec<String> {
        let id = self.nodes[node].ring.me().id;
        let members = self.members().into_iter();
        let skips =
            |other: usize| invariants::skips(&invariants::extended_list(&self.nodes[other].ring.neighbours()), id);
        members.filter(|&other| skips(other)).map(|other| self.describe(other)).collect()
    }

    /// The first violation of an invariant, if any.
    pub fn fault(&self) -> Option<String> {
        GlobalView::new(&self.node_views()).fault()
    }

    fn node_views(&self) -> Vec<NodeView> {
        let node_view =
            |node: usize| NodeView { neighbours: self.nodes[node].ring.neighbours(), is_member: self.is_member(node) };
        (0..self.nodes.len()).map(node_view).collect()
    }

    /// True if every node that is up has exactly the right neighbours.
    pub fn is_ideal(&self) -> bool {
        let views: Vec<_> = self.up().into_iter().map(|node| self.nodes[node].ring.neighbours()).collect();
        invariants::is_ideal(&views, self.settings.successor_list_len)
    }

    /// A node that still has a neighbour that has been dead for longer than `limit`.
    pub fn lingering(&self, limit: Duration) -> Option<String> {
        let is_stale = |node: NodeRef| {
            self.index_of(node).is_some_and(|dead| {
                !self.nodes[dead].up && self.now.saturating_sub(self.nodes[dead].down_since) > limit
            })
        };
        self.up().into_iter().find_map(|node| {
            let view = self.nodes[node].ring.neighbours();
            let dead = view.predecessor.iter().chain(&view.successors).copied().find(|&other| is_stale(other))?;
            Some(format!("{} still has the dead neighbour {dead}", self.describe(node)))
        })
    }

    /// The right owner of `key`.
    pub fn owner(&self, key: RingId) -> Option<NodeRef> {
        let up = self.up().into_iter().map(|node| self.nodes[node].ring.me());
        up.min_by_key(|node| key.steps_to(node.id))
    }

    pub fn describe(&self, node: usize) -> String {
        invariants::describe(node, &self.nodes[node].ring.neighbours())
    }

    pub fn describe_all(&self) -> String {
        self.up().into_iter().map(|node| self.describe(node)).collect::<Vec<_>>().join("\n")
    }
}
