//! Calls to and from foreign members. One of ours holds the conversation with a foreign node that the driver holds
//! (`ring::foreign::ForeignQuestion`), call by call, within one deadline; what a foreign node asks of ours is answered
//! as `driver::calls` does.

use chordfs_ring::foreign::{ForeignCall, ForeignOutcome, ForeignQuestion, ForeignReply, silence};

use super::*;
use crate::foreign::{Action as Done, CALL_DEADLINE, Event as Told, PERIOD};

#[derive(Clone)]
pub(super) enum Letter {
    Call { caller: Caller, to: usize, what: ForeignCall, back: Option<Duration> },
    Reply { caller: Caller, reply: Heed },
}

/// What comes back.
#[derive(Clone, Copy)]
pub(super) enum Heed {
    Reply(ForeignReply),
    /// Known at once: nobody listens there.
    Unreachable,
    /// The caller's deadline is over.
    Silence,
}

#[derive(Clone)]
pub(super) enum Caller {
    /// One of ours, in the middle of a conversation with `to`.
    Ours {
        node: usize,
        life: u32,
        call: CallId,
        to: usize,
        talk: ForeignQuestion,
    },
    Foreign {
        node: usize,
        life: u32,
        call: u64,
    },
}

impl Caller {
    fn node(&self) -> usize {
        match self {
            Self::Ours { node, .. } | Self::Foreign { node, .. } => *node,
        }
    }
}

/// A lookup that a member does for another, and how long its reply will be on the way (`None`: for ever).
#[derive(Clone)]
pub(super) struct Errand {
    caller: Caller,
    back: Option<Duration>,
}

impl Sim {
    /// A new foreign node, alone at a random place (or at `id`).
    pub fn start_foreign(&mut self, id: Option<RingId>) -> usize {
        let index = self.start(id);
        let me = self.nodes[index].ring.me();
        self.nodes[index].ring = Member::Foreign(Box::new(Foreign::new(me)));
        index
    }

    pub fn is_foreign(&self, node: usize) -> bool {
        self.nodes[node].ring.is_foreign()
    }

    /// Of a member of either kind.
    pub fn view(&self, node: usize) -> Neighbours {
        self.nodes[node].ring.neighbours()
    }

    /// The last of its ring: a member although it is alone, as a founder is.
    pub fn survives(&mut self, node: usize) {
        self.nodes[node].founder = true;
    }

    /// From now on, for what is sent from now on.
    pub fn change_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// The length of the lists of ours.
    pub fn list_len(&self) -> usize {
        self.settings.successor_list_len
    }

    pub(super) fn period_of(&self, node: usize) -> Duration {
        if self.is_foreign(node) { PERIOD } else { self.conditions.period }
    }

    /// One of ours has a question for a foreign member.
    pub(super) fn begin_talk(&mut self, from: usize, call: CallId, to: usize, request: RingRequest) {
        let life = self.nodes[from].life;
        let event = Event::Unanswered { call, why: silence(&request) };
        self.queue.push(self.now + self.conditions.call_deadline, Delivery::Event { node: from, life, event });
        self.put_call(Caller::Ours { node: from, life, call, to, talk: ForeignQuestion::new(&request) });
    }

    fn put_call(&mut self, caller: Caller) {
        if let Caller::Ours { to, ref talk, .. } = caller {
            let what = talk.call();
            self.send_call(caller, to, what);
        }
    }

    fn send_call(&mut self, caller: Caller, to: usize, what: ForeignCall) {
        let there = self.rng.up_to(self.conditions.longest_way);
        let back = self.rng.up_to(self.conditions.longest_way);
        let back = match self.trouble(caller.node(), to) {
            None => Some(back),
            Some(Trouble::Late) => Some(back + self.conditions.call_deadline.max(CALL_DEADLINE)),
            Some(Trouble::Lost) if self.rng.happens(500) => None,
            Some(Trouble::Lost) => return,
        };
        self.queue.push(self.now + there, Delivery::Letter(Letter::Call { caller, to, what, back }));
    }

    pub(super) fn deliver_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Call { caller, to, what, back } => self.called(caller, to, what, back),
            Letter::Reply { caller, reply } => self.replied(caller, reply),
        }
    }

    fn called(&mut self, caller: Caller, to: usize, what: ForeignCall, back: Option<Duration>) {
        let errand = Errand { caller, back };
        if !self.nodes[to].up {
            if self.rng.happens(self.conditions.refused_per_mille) {
                self.send_back(errand, Heed::Unreachable);
            }
            return;
        }
        match (&self.nodes[to].ring, what) {
            (Member::Ours(_), ForeignCall::FindSuccessor { target }) => {
                let tag = self.take_errand(errand);
                self.happens(to, Event::FindSuccessor { tag, target });
            }
            (Member::Ours(ring), what) => {
                let reply = answer_of_ours(&ring.neighbours(), what);
                self.send_back(errand, Heed::Reply(reply));
            }
            (Member::Foreign(_), what) => {
                let asker = self.take_errand(errand);
                self.happens_to_foreign(to, Told::Asked { asker, call: what });
            }
        }
    }

    fn take_errand(&mut self, errand: Errand) -> Tag {
        self.next_tag += 1;
        self.errands.insert(self.next_tag, errand);
        self.next_tag
    }

    fn send_back(&mut self, Errand { caller, back }: Errand, reply: Heed) {
        if let Some(back) = back {
            self.queue.push(self.now + back, Delivery::Letter(Letter::Reply { caller, reply }));
        }
    }

    /// True if that was what a lookup for another member came to.
    pub(super) fn errand_is_done(&mut self, tag: Tag, found: &Result<NodeRef, NoRoute>) -> bool {
        let reply = found.as_ref().map_or(ForeignReply::Refused, |&node| ForeignReply::Node(node));
        self.errand_has_reply(tag, reply)
    }

    fn errand_has_reply(&mut self, tag: Tag, reply: ForeignReply) -> bool {
        let Some(errand) = self.errands.remove(&tag) else { return false };
        self.send_back(errand, Heed::Reply(reply));
        true
    }

    fn replied(&mut self, caller: Caller, heed: Heed) {
        match caller {
            Caller::Ours { node, life, .. } | Caller::Foreign { node, life, .. } if self.nodes[node].life != life => {}
            Caller::Foreign { node, call, .. } => {
                let reply = match heed {
                    Heed::Reply(reply) => Some(reply),
                    Heed::Unreachable | Heed::Silence => None,
                };
                self.happens_to_foreign(node, Told::Replied { call, reply });
            }
            Caller::Ours { node, life, call, to, talk } => self.talk_goes_on(node, life, call, to, talk, heed),
        }
    }

    fn talk_goes_on(&mut self, node: usize, life: u32, call: CallId, to: usize, mut talk: ForeignQuestion, heed: Heed) {
        let event = match heed {
            Heed::Reply(reply) => match talk.heard(reply) {
                ForeignOutcome::GoOn => return self.put_call(Caller::Ours { node, life, call, to, talk }),
                ForeignOutcome::Answer(answer) => Event::Answered { call, answer },
                ForeignOutcome::Refused => Event::Unanswered { call, why: CallFailure::Refused },
            },
            Heed::Unreachable => Event::Unanswered { call, why: CallFailure::Unreachable },
            Heed::Silence => return,
        };
        self.happens(node, event);
    }

    /// An event of ours as a foreign node understands it; what is none of the ten calls is nothing to it.
    pub(super) fn happens_to_other_kind(&mut self, node: usize, event: Event) {
        let told = match event {
            Event::Tick => Told::Tick,
            Event::Notified { peer } => Told::Notified { peer },
            Event::Join { tag, member } => Told::Join { asker: tag, member },
            Event::FindSuccessor { tag, target } => {
                Told::Asked { asker: tag, call: ForeignCall::FindSuccessor { target } }
            }
            _ => return,
        };
        self.happens_to_foreign(node, told);
    }

    fn happens_to_foreign(&mut self, node: usize, told: Told) {
        let SimNode { ring: Member::Foreign(foreign), up: true, .. } = &mut self.nodes[node] else { return };
        let before = foreign.neighbours();
        let actions = foreign.handle(told);
        self.changed |= foreign.neighbours() != before;
        for action in actions {
            self.carry_out_for_foreign(node, action);
        }
    }

    fn carry_out_for_foreign(&mut self, node: usize, action: Done) {
        let me = self.nodes[node].ring.me();
        match action {
            Done::Call { call, to, what } => {
                let caller = Caller::Foreign { node, life: self.nodes[node].life, call };
                let silence = Letter::Reply { caller: caller.clone(), reply: Heed::Silence };
                self.queue.push(self.now + CALL_DEADLINE, Delivery::Letter(silence));
                if let Some(to) = self.index_of(to) {
                    self.send_call(caller, to, what);
                }
            }
            Done::Notify { to } => self.tell(node, to, Message::Notify(me)),
            Done::Reply { asker, reply } => {
                if !self.errand_has_reply(asker, reply) {
                    self.note_reply(asker, reply);
                }
            }
            Done::Joined { is_in: true, .. } => {}
            Done::Joined { is_in: false, .. } => self.join_later(node),
        }
    }

    /// To a lookup that was begun from outside.
    fn note_reply(&mut self, tag: Tag, reply: ForeignReply) {
        if let Some(&target) = self.looking.get(&tag) {
            let found = match reply {
                ForeignReply::Node(node) => Ok(node),
                ForeignReply::NoNode | ForeignReply::Refused => Err(NoRoute { target }),
            };
            self.note_found(tag, found);
        }
    }
}

/// As `driver::calls` answers, from the view alone.
fn answer_of_ours(view: &Neighbours, what: ForeignCall) -> ForeignReply {
    let some = |node: Option<NodeRef>| node.map_or(ForeignReply::NoNode, ForeignReply::Node);
    match what {
        ForeignCall::Info => ForeignReply::Node(view.node),
        ForeignCall::Predecessor => some(view.predecessor),
        ForeignCall::Successor { index: 0 } if view.successors.is_empty() => ForeignReply::Node(view.node),
        ForeignCall::Successor { index } => some(view.successors.get(index as usize).copied()),
        ForeignCall::FindSuccessor { .. } => ForeignReply::Refused, // A lookup, which takes its time: see `called`.
    }
}
