//! Many rings in one process, on a network with its own clock: messages take time, get lost, find dead nodes. What
//! happens follows from the seed alone. The invariants of Zave (2017) are checked from outside, with everything in view.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use common::ring_id::{NodeRef, RingId};

use storage_node::ring::{
    Action, Answer, CallId, Event, Failure, JoinError, Message, NoRoute, Request, Ring, RingSettings, Tag,
};

use crate::invariants::{self, Seen, Whole};

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..end`; 0 for an empty range.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64().checked_rem(end).unwrap_or(0)
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

/// What the network does to a message.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The longest way from node to node. Two ways within the deadline mean that no live node is ever taken for dead.
    pub longest_way: Duration,
    pub lost_per_mille: u64,
    /// Of the calls to a dead node: how many are refused at once, instead of never answered.
    pub refused_per_mille: u64,
    pub period: Duration,
    pub call_deadline: Duration,
}

impl Conditions {
    /// Slow, but a failure is always a failure: what Zave's proof assumes.
    pub fn reliable() -> Self {
        Self {
            longest_way: Duration::from_millis(450),
            lost_per_mille: 0,
            refused_per_mille: 500,
            period: Duration::from_secs(1),
            call_deadline: Duration::from_secs(1),
        }
    }

    /// Messages are lost, and answers come after their caller has given up.
    pub fn lossy() -> Self {
        Self { longest_way: Duration::from_millis(600), lost_per_mille: 30, ..Self::reliable() }
    }
}

struct SimNode {
    ring: Ring,
    up: bool,
    /// Which life it is in: what was sent in an earlier one does not arrive.
    life: u32,
    down_since: Duration,
    known: Vec<NodeRef>,
    /// The node that began the ring: a member although it is alone.
    founder: bool,
}

enum Delivery {
    Tick { node: usize, life: u32 },
    Ask { from: usize, life: u32, call: CallId, to: NodeRef, request: Request },
    Event { node: usize, life: u32, event: Event },
    Tell { from: usize, to: NodeRef, message: Message },
}

pub struct Sim {
    pub now: Duration,
    pub rng: SplitMix64,
    conditions: Conditions,
    settings: RingSettings,
    nodes: Vec<SimNode>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    deliveries: BTreeMap<u64, Delivery>,
    next_delivery: u64,
    changed: bool,
    /// Node indexes below this cannot talk to those from it on.
    cut_at: Option<usize>,
    found: BTreeMap<Tag, Result<NodeRef, NoRoute>>,
    next_tag: Tag,
}

impl Sim {
    pub fn new(seed: u64, conditions: Conditions, settings: RingSettings) -> Self {
        Self {
            now: Duration::ZERO,
            rng: SplitMix64(seed),
            conditions,
            settings,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            deliveries: BTreeMap::new(),
            next_delivery: 0,
            changed: false,
            cut_at: None,
            found: BTreeMap::new(),
            next_tag: 0,
        }
    }

    /// A new node, alone at a random place (or at `id`).
    pub fn start(&mut self, id: Option<RingId>) -> usize {
        let index = self.nodes.len();
        let id = id.unwrap_or(RingId(self.rng.next_u64() as u32));
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + index as u32));
        let ring = Ring::new(NodeRef { ip, port: 5057, id }, self.settings, Vec::new());
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
        self.happens(node, Event::Join { tag: self.next_tag, member });
    }

    pub fn leave(&mut self, node: usize) {
        self.happens(node, Event::Leave);
        self.crash(node);
    }

    pub fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].founder = false;
        self.nodes[node].down_since = self.now;
        self.changed = true;
    }

    /// From what it had stored: its id and the peers it remembers.
    pub fn restart(&mut self, node: usize) {
        let (me, known) = (self.nodes[node].ring.me(), self.nodes[node].known.clone());
        self.nodes[node].ring = Ring::new(me, self.settings, known);
        self.nodes[node].up = true;
        self.schedule_tick(node);
    }

    pub fn calm(&mut self) {
        self.conditions = Conditions::reliable();
        self.cut_at = None;
    }

    pub fn cut_at(&mut self, index: usize) {
        self.cut_at = Some(index);
    }

    /// Asks `node` for the successor of `target`; what it says comes within `patience`.
    pub fn find_successor(&mut self, node: usize, target: RingId, patience: Duration) -> Option<NodeRef> {
        self.next_tag += 1;
        let (tag, end) = (self.next_tag, self.now + patience);
        self.happens(node, Event::FindSuccessor { tag, target });
        while !self.found.contains_key(&tag) && self.now < end {
            self.step();
        }
        self.found.remove(&tag)?.ok()
    }

    /// Delivers the next message. True if some node's view of its neighbours is different afterwards.
    pub fn step(&mut self) -> bool {
        if let Some(Reverse((at, number))) = self.queue.pop() {
            self.now = at;
            if let Some(delivery) = self.deliveries.remove(&number) {
                self.deliver(delivery);
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// Runs until `done`, `patience` at most, and says whether it came to that.
    pub fn run_until(&mut self, patience: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + patience;
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

    pub fn ring(&self, node: usize) -> &Ring {
        &self.nodes[node].ring
    }

    /// Up, and in the ring.
    pub fn members(&self) -> Vec<usize> {
        self.up().into_iter().filter(|&node| self.is_member(node)).collect()
    }

    pub fn is_member(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.up && (node.founder || !node.ring.neighbours().successors.is_empty())
    }

    fn schedule(&mut self, after: Duration, delivery: Delivery) {
        self.next_delivery += 1;
        self.deliveries.insert(self.next_delivery, delivery);
        self.queue.push(Reverse((self.now + after, self.next_delivery)));
    }

    /// No two nodes tick in step.
    fn schedule_tick(&mut self, node: usize) {
        let tenth = self.conditions.period / 10;
        let after = self.conditions.period - tenth + self.rng.up_to(tenth);
        self.schedule(after, Delivery::Tick { node, life: self.nodes[node].life });
    }

    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let is_cut = self.cut_at.is_some_and(|cut| (from < cut) != (to < cut));
        is_cut || self.rng.below(1000) < self.conditions.lost_per_mille
    }

    fn index_of(&self, node: NodeRef) -> Option<usize> {
        match node.ring_address() {
            SocketAddr::V4(address) => {
                let index = u32::from(*address.ip()).checked_sub(0x0a00_0001)? as usize;
                (index < self.nodes.len()).then_some(index)
            }
            SocketAddr::V6(_) => None,
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Tick { node, life } if self.nodes[node].life == life => {
                self.schedule_tick(node);
                self.happens(node, Event::Tick);
            }
            Delivery::Event { node, life, event } if self.nodes[node].life == life => self.happens(node, event),
            Delivery::Ask { from, life, call, to, request } => self.asked(from, life, call, to, request),
            Delivery::Tell { from, to, message } => self.told(from, to, message),
            Delivery::Tick { .. } | Delivery::Event { .. } => {}
        }
    }

    fn asked(&mut self, from: usize, life: u32, call: CallId, to: NodeRef, request: Request) {
        let Some(index) = self.index_of(to) else { return };
        let way = self.rng.up_to(self.conditions.longest_way);
        if self.is_lost(from, index) {
            return; // The deadline was set when it was asked.
        }
        let ring = &self.nodes[index].ring;
        let event = match request {
            _ if !self.nodes[index].up => {
                if self.rng.below(1000) >= self.conditions.refused_per_mille {
                    return;
                }
                Event::Unanswered { call, why: Failure::Silent }
            }
            Request::Neighbours => Event::Answered { call, answer: Answer::Neighbours(ring.neighbours()) },
            Request::Info => Event::Answered { call, answer: Answer::Info(ring.me()) },
            Request::Route(target) => Event::Answered { call, answer: Answer::Route(ring.route(target)) },
        };
        if !self.is_lost(index, from) {
            self.schedule(way, Delivery::Event { node: from, life, event });
        }
    }

    fn told(&mut self, from: usize, to: NodeRef, message: Message) {
        let Some(index) = self.index_of(to).filter(|&index| self.nodes[index].up) else { return };
        if self.is_lost(from, index) {
            return;
        }
        self.happens(
            index,
            match message {
                Message::Notify(peer) => Event::Notified { peer },
                Message::Leave(view) => {
                    Event::PeerLeft { peer: view.node, predecessor: view.predecessor, successors: view.successors }
                }
            },
        );
    }

    fn happens(&mut self, node: usize, event: Event) {
        if !self.nodes[node].up {
            return;
        }
        for action in self.nodes[node].ring.handle(self.now, event) {
            self.carry_out(node, action);
        }
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        let life = self.nodes[node].life;
        match action {
            Action::Ask { call, to, request } => {
                let way = self.rng.up_to(self.conditions.longest_way);
                self.schedule(way, Delivery::Ask { from: node, life, call, to, request });
                let event = Event::Unanswered { call, why: Failure::Silent };
                self.schedule(self.conditions.call_deadline, Delivery::Event { node, life, event });
            }
            Action::Tell { to, message } => {
                let way = self.rng.up_to(self.conditions.longest_way);
                self.schedule(way, Delivery::Tell { from: node, to, message });
            }
            Action::Found { tag, result } => {
                self.found.insert(tag, result);
            }
            Action::Joined { result: Ok(()), .. } | Action::Joined { result: Err(JoinError::Left), .. } => {}
            Action::Joined { result: Err(JoinError::IdTaken { by }), .. } | Action::IdTaken { by } => {
                self.move_and_join(node, by)
            }
            Action::Joined { result: Err(_), .. } => self.join_later(node),
            Action::Changed(_) => self.changed = true,
            Action::Remember(known) => self.nodes[node].known = known,
        }
    }

    fn move_and_join(&mut self, node: usize, member: NodeRef) {
        let id = RingId(self.rng.next_u64() as u32);
        self.happens(node, Event::Reposition { id });
        self.next_tag += 1;
        self.happens(node, Event::Join { tag: self.next_tag, member });
    }

    fn join_later(&mut self, node: usize) {
        let others: Vec<usize> = self.members().into_iter().filter(|&other| other != node).collect();
        if others.is_empty() {
            return;
        }
        let member = self.nodes[others[self.rng.below(others.len() as u64) as usize]].ring.me();
        self.next_tag += 1;
        let event = Event::Join { tag: self.next_tag, member };
        self.schedule(self.conditions.period, Delivery::Event { node, life: self.nodes[node].life, event });
    }
}

/// What must hold, seen from outside.
impl Sim {
    /// Could `node` crash and leave every other member a live successor?
    pub fn can_spare(&self, node: usize) -> bool {
        Whole::new(&self.seen()).can_spare(node)
    }

    /// The members that no member's list skips (Zave's principals).
    pub fn principals(&self) -> BTreeSet<usize> {
        Whole::new(&self.seen()).principals()
    }

    /// What is wrong with the ring as it stands, if anything.
    pub fn fault(&self) -> Option<String> {
        Whole::new(&self.seen()).fault()
    }

    fn seen(&self) -> Vec<Seen> {
        let seen =
            |node: usize| Seen { neighbours: self.nodes[node].ring.neighbours(), is_member: self.is_member(node) };
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
