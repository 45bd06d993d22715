//! Many rings in one process, on a network with its own clock: messages take time, get lost, arrive twice, find dead
//! nodes. What happens follows from the seed alone.

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
    /// ReportTable life it is in: what was sent in an earlier one does not arrive.
    life: u32,
    down_since: Duration,
    known: Vec<NodeRef>,
    /// The node that began the ring: a member although it is alone.
    founder: bool,
}

#[derive(Clone)]
enum Delivery {
    Tick {
        node: usize,
        life: u32,
    },
    Ask {
        from: usize,
        life: u32,
        call: CallId,
        to: usize,
        request: RingRequest,
        reply_fate: ReplyFate,
    },
    Event {
        node: usize,
        life: u32,
        event: Event,
    },
    Tell {
        to: usize,
        message: Message,
    },
    /// To or from a foreign member.
    ForeignMessage(ForeignMessage),
}

/// What happens to an answer; settled when the question is put.
#[derive(Clone, Copy)]
enum ReplyFate {
    Arrives(Duration),
    /// It arrives twice.
    ArrivesTwice(Duration, Duration),
    Lost,
}

/// The result of a lookup that took its time in the network, and the right one at the moment it came.
#[derive(Clone, Debug)]
pub struct Looked {
    pub found: Result<NodeRef, NoRoute>,
    pub right: Option<NodeRef>,
}

#[derive(Clone)]
pub struct Sim {
    pub now: Duration,
    pub rng: SplitMix64,
    /// Deliveries so far.
    pub events: u64,
    /// Questions of ours so far, to whomever.
    pub requests: u64,
    conditions: Conditions,
    settings: RingSettings,
    nodes: Vec<SimNode>,
    queue: Queue<Delivery>,
    changed: bool,
    /// Node indexes below this cannot conversation to those from it on.
    cut_at: Option<usize>,
    last_loss: HashMap<(usize, usize), Duration>,
    /// Lookups under way, by the tag of who asked.
    looking: BTreeMap<Tag, RingId>,
    looked: BTreeMap<Tag, Looked>,
    /// Lookups that one member does for another.
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
            looking: BTreeMap::new(),
            looked: BTreeMap::new(),
            forwarded_lookups: HashMap::new(),
            next_tag: 0,
        }
    }

    /// A new node, alone at a random place (or at `id`).
    pub fn start(&mut self, id: Option<RingId>) -> usize {
        let index = self.nodes.len();
        let id = id.unwrap_or(RingId(self.rng.next_u64() as u32));
        let ip = IpAddr::V4(Ipv4Addr::from(FIRST_IP + index as u32));
        let ring = Ring::new(NodeRef { ip, port: 5057, id }, self.settings, Vec::new());
        let ring = Member::Ours(Box::new(ring));
        let founder = index == 0;
        let up = true;
        self.nodes.push(SimNode { ring, up, life: 0, down_since: Duration::ZERO, known: Vec::new(), founder });
        self.schedule_tick(index);
        self.changed = true;
        index
    }

    pub fn join(&mut self, node: usize, member: usize) {
        let member = self.nodes[member].ring.me();
        self.next_tag += 1;
        self.apply_event(node, Event::Join { tag: self.next_tag, member });
    }

    /// It tells its neighbours and is gone.
    pub fn leave(&mut self, node: usize) {
        self.apply_event(node, Event::Leave);
        self.crash(node);
    }

    pub fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].founder = false;
        self.nodes[node].down_since = self.now;
        self.changed = true;
    }

    /// From what it had stored: its id and the peers it remembers. (A foreign one remembers none, and has to join
    /// again.)
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

    /// Asks `node` for the successor of `target`; what it says comes within `timeout`.
    pub fn find_successor(&mut self, node: usize, target: RingId, timeout: Duration) -> Option<NodeRef> {
        let (tag, end) = (self.begin_lookup(node, target), self.now + timeout);
        while !self.looked.contains_key(&tag) && self.now < end {
            self.step();
        }
        self.looked.remove(&tag)?.found.ok()
    }

    /// `taken` has the result once it is there.
    pub fn begin_lookup(&mut self, node: usize, target: RingId) -> Tag {
        self.next_tag += 1;
        self.looking.insert(self.next_tag, target);
        self.apply_event(node, Event::FindSuccessor { tag: self.next_tag, target });
        self.next_tag
    }

    /// The results that have come since the last time.
    pub fn taken(&mut self) -> BTreeMap<Tag, Looked> {
        std::mem::take(&mut self.looked)
    }

    /// Delivers the next message. True if some node's view of its neighbours is different afterwards.
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

    /// Runs until `done`, `timeout` at most, and says whether it came to that.
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

    /// All nodes there ever were.
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

    /// Of one of ours.
    pub fn ring(&self, node: usize) -> &Ring {
        match &self.nodes[node].ring {
            Member::Ours(ring) => ring,
            Member::Foreign(_) => panic!("node {node} is a foreign one"),
        }
    }

    /// Up, and in the ring.
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

    /// No two nodes tick in step.
    fn schedule_tick(&mut self, node: usize) {
        let period = self.period_of(node);
        let tenth = period / 10;
        let after = period - tenth + self.rng.up_to(tenth);
        self.queue.push(self.now + after, Delivery::Tick { node, life: self.nodes[node].life });
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Tick { node, life } if self.nodes[node].life == life => {
                self.schedule_tick(node);
                self.apply_event(node, Event::Tick);
            }
            Delivery::Event { node, life, event } if self.nodes[node].life == life => self.apply_event(node, event),
            Delivery::Ask { from, life, call, to, request, reply_fate } => {
                self.asked(from, life, call, to, request, reply_fate)
            }
            Delivery::Tell { to, message } => self.told(to, message),
            Delivery::ForeignMessage(letter) => self.deliver_foreign_message(letter),
            Delivery::Tick { .. } | Delivery::Event { .. } => {}
        }
    }

    /// The fate of a call is settled when the question is put: both ways, and whether the caller gives up.
    fn send_request(&mut self, from: usize, call: CallId, to: NodeRef, request: RingRequest) {
        let (life, deadline) = (self.nodes[from].life, self.conditions.call_deadline);
        let Some(to) = self.index_of(to) else { return self.give_up_at(self.now + deadline, from, call) };
        if self.is_foreign(to) {
            return self.begin_conversation(from, call, to, request);
        }
        let there = self.rng.up_to(self.conditions.longest_way);
        let back = self.rng.up_to(self.conditions.longest_way);
        let reply_fate = match self.message_fault(from, to) {
            None if self.rng.happens(self.conditions.doubled_per_mille) => ReplyFate::ArrivesTwice(back, back * 2),
            None => ReplyFate::Arrives(back),
            Some(MessageFault::Late) => ReplyFate::Arrives(back + deadline),
            Some(MessageFault::Lost) if self.rng.happens(500) => ReplyFate::Lost,
            Some(MessageFault::Lost) => return self.give_up_at(self.now + deadline, from, call),
        };
        let is_in_time = match reply_fate {
            ReplyFate::Arrives(back) | ReplyFate::ArrivesTwice(back, _) => there + back <= deadline,
            ReplyFate::Lost => false,
        };
        if !is_in_time || !self.nodes[to].up {
            self.give_up_at(self.now + deadline, from, call);
        }
        self.queue.push(self.now + there, Delivery::Ask { from, life, call, to, request, reply_fate });
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

    fn give_up_at(&mut self, at: Duration, node: usize, call: CallId) {
        let event = Event::Unanswered { call, failure: CallFailure::TimedOut };
        self.queue.push(at, Delivery::Event { node, life: self.nodes[node].life, event });
    }

    fn asked(&mut self, from: usize, life: u32, call: CallId, to: usize, request: RingRequest, reply_fate: ReplyFate) {
        let event = match self.nodes[to].up {
            true => Event::Answered { call, answer: self.answer(to, request) },
            false if self.rng.happens(self.conditions.refused_per_mille) => {
                Event::Unanswered { call, failure: CallFailure::Unreachable }
            }
            // It may have died since the question was put; the caller's deadline ends the wait.
            false => Event::Unanswered { call, failure: CallFailure::TimedOut },
        };
        let is_silence = matches!(event, Event::Unanswered { failure: CallFailure::TimedOut, .. });
        let mut send = |after, event| self.queue.push(self.now + after, Delivery::Event { node: from, life, event });
        match reply_fate {
            _ if is_silence => send(self.conditions.call_deadline, event),
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

    fn told(&mut self, to: usize, message: Message) {
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

    fn tell(&mut self, from: usize, to: NodeRef, message: Message) {
        let Some(to) = self.index_of(to) else { return };
        let is_cut = self.cut_at.is_some_and(|cut| (from < cut) != (to < cut));
        if is_cut || self.rng.happens(self.conditions.messages_lost_per_mille) {
            return;
        }
        let way = self.rng.up_to(self.conditions.longest_way);
        if self.rng.happens(self.conditions.doubled_per_mille) {
            self.queue.push(self.now + way * 2, Delivery::Tell { to, message: message.clone() });
        }
        self.queue.push(self.now + way, Delivery::Tell { to, message });
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
            Action::Send { to, message } => self.tell(node, to, message),
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
        if let Some(target) = self.looking.remove(&tag) {
            let right = self.owner(target);
            self.looked.insert(tag, Looked { found, right });
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
        let life = self.nodes[node].life;
        self.queue.push(self.now + self.conditions.period, Delivery::Event { node, life, event });
    }
}

/// Node n has the address `FIRST_IP + n`.
const FIRST_IP: u32 = 0x0a00_0001;

enum MessageFault {
    Lost,
    Late,
}

/// What must hold, seen from outside.
impl Sim {
    /// Could `node` crash and leave every other member a live successor?
    pub fn can_spare(&self, node: usize) -> bool {
        GlobalView::new(&self.seen()).can_spare(node)
    }

    /// The members that no member's list skips (Zave's principals).
    pub fn principals(&self) -> BTreeSet<usize> {
        GlobalView::new(&self.seen()).principals()
    }

    /// LookupOrigin list goes past `node` without naming it.
    pub fn skipped_by(&self, node: usize) -> Vec<String> {
        let id = self.nodes[node].ring.me().id;
        let members = self.members().into_iter();
        let skips =
            |other: usize| invariants::skips(&invariants::extended_list(&self.nodes[other].ring.neighbours()), id);
        members.filter(|&other| skips(other)).map(|other| self.describe(other)).collect()
    }

    /// What is wrong with the ring as it stands, if anything.
    pub fn fault(&self) -> Option<String> {
        GlobalView::new(&self.seen()).fault()
    }

    fn seen(&self) -> Vec<NodeView> {
        let seen =
            |node: usize| NodeView { neighbours: self.nodes[node].ring.neighbours(), is_member: self.is_member(node) };
        (0..self.nodes.len()).map(seen).collect()
    }

    /// Every node that is up has exactly the right neighbours.
    pub fn is_ideal(&self) -> bool {
        let views: Vec<_> = self.up().into_iter().map(|node| self.nodes[node].ring.neighbours()).collect();
        invariants::is_ideal(&views, self.settings.successor_list_len)
    }

    /// A node that has been dead for longer than `limit` and is still in some neighbourhood.
    pub fn lingering(&self, limit: Duration) -> Option<String> {
        let is_stale = |node: NodeRef| {
            self.index_of(node).is_some_and(|dead| {
                !self.nodes[dead].up && self.now.saturating_sub(self.nodes[dead].down_since) > limit
            })
        };
        self.up().into_iter().find_map(|node| {
            let view = self.nodes[node].ring.neighbours();
            let dead = view.predecessor.iter().chain(&view.successors).copied().find(|&other| is_stale(other))?;
            Some(format!("{} still counts on {dead}, which is dead", self.describe(node)))
        })
    }

    /// Who owns `key` if everything is right.
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
