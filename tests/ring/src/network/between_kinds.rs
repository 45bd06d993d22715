//! Calls to and from foreign members. One of our nodes holds the same conversation with a foreign node as the driver
//! (`ring::foreign::ForeignConversation`), call by call, within one deadline. Our nodes answer the calls of a foreign
//! node as `driver::calls` does.

use chordfs_ring::foreign::{ForeignCall, ForeignConversation, ForeignOutcome, ForeignReply, timeout_failure};

use super::*;
use crate::foreign::{Action as ForeignAction, CALL_DEADLINE, Event as ForeignEvent, PERIOD};

#[derive(Clone)]
pub(super) enum ForeignMessage {
    Call { caller: Caller, to: usize, what: ForeignCall, back: Option<Duration> },
    Reply { caller: Caller, reply: CallResult },
}

/// The result of a call to a foreign member.
#[derive(Clone, Copy)]
pub(super) enum CallResult {
    Reply(ForeignReply),
    /// No process listens at the address.
    Unreachable,
    /// The caller's deadline has passed.
    TimedOut,
}

#[derive(Clone)]
pub(super) enum Caller {
    /// One of our nodes, in a conversation with `to`.
    Ours {
        node: usize,
        incarnation: u32,
        call: CallId,
        to: usize,
        conversation: ForeignConversation,
    },
    Foreign {
        node: usize,
        incarnation: u32,
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

/// A lookup that a member performs for another, and the delay of its reply (`None`: the reply is lost).
#[derive(Clone)]
pub(super) struct ForwardedLookup {
    caller: Caller,
    back: Option<Duration>,
}

impl Sim {
    /// Starts a foreign node, alone at a random position (or at `id`).
    pub fn start_foreign(&mut self, id: Option<RingId>) -> usize {
        let index = self.start(id);
        let me = self.nodes[index].ring.me();
        self.nodes[index].ring = Member::Foreign(Box::new(Foreign::new(me)));
        index
    }

    pub fn is_foreign(&self, node: usize) -> bool {
        self.nodes[node].ring.is_foreign()
    }

    /// The neighbours of a member of either kind.
    pub fn view(&self, node: usize) -> Neighbours {
        self.nodes[node].ring.neighbours()
    }

    /// Counts the last node of a ring as a member even when alone, like a founder.
    pub fn mark_as_member(&mut self, node: usize) {
        self.nodes[node].founder = true;
    }

    /// Changes the conditions for all messages sent from now on.
    pub fn change_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// The length of our nodes' successor lists.
    pub fn list_len(&self) -> usize {
        self.settings.successor_list_len
    }

    pub(super) fn period_of(&self, node: usize) -> Duration {
        if self.is_foreign(node) { PERIOD } else { self.conditions.period }
    }

    /// One of our nodes sends a request to a foreign member.
    pub(super) fn begin_conversation(&mut self, from: usize, call: CallId, to: usize, request: RingRequest) {
        let incarnation = self.nodes[from].incarnation;
        let peer = self.nodes[to].ring.me().ring_address();
        self.apply_event(from, Event::KindKnown { peer, is_foreign: true });
        let event = Event::Unanswered { call, failure: timeout_failure(&request) };
        self.queue.push(self.now + self.conditions.call_deadline, Delivery::Event { node: from, incarnation, event });
        self.send_next_call(Caller::Ours {
            node: from,
            incarnation,
            call,
            to,
            conversation: ForeignConversation::new(&request),
        });
    }

    fn send_next_call(&mut self, caller: Caller) {
        if let Caller::Ours { to, ref conversation, .. } = caller {
            let what = conversation.call();
            self.send_call(caller, to, what);
        }
    }

    fn send_call(&mut self, caller: Caller, to: usize, what: ForeignCall) {
        let delay_there = self.rng.up_to(self.conditions.longest_delay);
        let back = self.rng.up_to(self.conditions.longest_delay);
        let back = match self.message_fault(caller.node(), to) {
            None => Some(back),
            Some(MessageFault::Late) => Some(back + self.conditions.call_deadline.max(CALL_DEADLINE)),
            Some(MessageFault::Lost) if self.rng.happens(500) => None,
            Some(MessageFault::Lost) => return,
        };
        self.queue
            .push(self.now + delay_there, Delivery::ForeignMessage(ForeignMessage::Call { caller, to, what, back }));
    }

    pub(super) fn deliver_foreign_message(&mut self, message: ForeignMessage) {
        match message {
            ForeignMessage::Call { caller, to, what, back } => self.called(caller, to, what, back),
            ForeignMessage::Reply { caller, reply } => self.replied(caller, reply),
        }
    }

    fn called(&mut self, caller: Caller, to: usize, what: ForeignCall, back: Option<Duration>) {
        let forwarded = ForwardedLookup { caller, back };
        if !self.nodes[to].up {
            if self.rng.happens(self.conditions.refused_per_mille) {
                self.send_back(forwarded, CallResult::Unreachable);
            }
            return;
        }
        match (&self.nodes[to].ring, what) {
            (Member::Ours(_), ForeignCall::FindSuccessor { target }) => {
                let tag = self.register_forwarded_lookup(forwarded);
                self.apply_event(to, Event::FindSuccessor { tag, target });
            }
            (Member::Ours(ring), what) => {
                let reply = answer_of_ours(&ring.neighbours(), what);
                self.send_back(forwarded, CallResult::Reply(reply));
            }
            (Member::Foreign(_), what) => {
                let asker = self.register_forwarded_lookup(forwarded);
                self.apply_foreign_event(to, ForeignEvent::Asked { asker, call: what });
            }
        }
    }

    fn register_forwarded_lookup(&mut self, forwarded: ForwardedLookup) -> Tag {
        self.next_tag += 1;
        self.forwarded_lookups.insert(self.next_tag, forwarded);
        self.next_tag
    }

    fn send_back(&mut self, ForwardedLookup { caller, back }: ForwardedLookup, reply: CallResult) {
        if let Some(back) = back {
            self.queue.push(self.now + back, Delivery::ForeignMessage(ForeignMessage::Reply { caller, reply }));
        }
    }

    /// Sends back the result of a lookup for another member. False if `tag` is not such a lookup.
    pub(super) fn finish_forwarded_lookup(&mut self, tag: Tag, found: &Result<NodeRef, NoRoute>) -> bool {
        let reply = found.as_ref().map_or(ForeignReply::Refused, |&node| ForeignReply::Node(node));
        self.reply_to_forwarded_lookup(tag, reply)
    }

    fn reply_to_forwarded_lookup(&mut self, tag: Tag, reply: ForeignReply) -> bool {
        let Some(forwarded) = self.forwarded_lookups.remove(&tag) else { return false };
        self.send_back(forwarded, CallResult::Reply(reply));
        true
    }

    fn replied(&mut self, caller: Caller, result: CallResult) {
        match caller {
            Caller::Ours { node, incarnation, .. } | Caller::Foreign { node, incarnation, .. }
                if self.nodes[node].incarnation != incarnation => {}
            Caller::Foreign { node, call, .. } => {
                let reply = match result {
                    CallResult::Reply(reply) => Some(reply),
                    CallResult::Unreachable | CallResult::TimedOut => None,
                };
                self.apply_foreign_event(node, ForeignEvent::Replied { call, reply });
            }
            Caller::Ours { node, incarnation, call, to, conversation } => {
                self.continue_conversation(node, incarnation, call, to, conversation, result)
            }
        }
    }

    fn continue_conversation(
        &mut self,
        node: usize,
        incarnation: u32,
        call: CallId,
        to: usize,
        mut conversation: ForeignConversation,
        result: CallResult,
    ) {
        let event = match result {
            CallResult::Reply(reply) => match conversation.on_reply(reply) {
                ForeignOutcome::Continue => {
                    return self.send_next_call(Caller::Ours { node, incarnation, call, to, conversation });
                }
                ForeignOutcome::Answer(answer) => Event::Answered { call, answer },
                ForeignOutcome::Refused => Event::Unanswered { call, failure: CallFailure::Refused },
            },
            CallResult::Unreachable => Event::Unanswered { call, failure: CallFailure::Unreachable },
            CallResult::TimedOut => return,
        };
        self.apply_event(node, event);
    }

    /// Translates an event for a foreign node. Events that are none of the ten calls are ignored.
    pub(super) fn apply_event_to_foreign(&mut self, node: usize, event: Event) {
        let event = match event {
            Event::Tick => ForeignEvent::Tick,
            Event::Notified { peer } => ForeignEvent::Notified { peer },
            Event::Join { tag, member } => ForeignEvent::Join { asker: tag, member },
            Event::FindSuccessor { tag, target } => {
                ForeignEvent::Asked { asker: tag, call: ForeignCall::FindSuccessor { target } }
            }
            _ => return,
        };
        self.apply_foreign_event(node, event);
    }

    fn apply_foreign_event(&mut self, node: usize, event: ForeignEvent) {
        let SimNode { ring: Member::Foreign(foreign), up: true, .. } = &mut self.nodes[node] else { return };
        let before = foreign.neighbours();
        let actions = foreign.handle(event);
        self.changed |= foreign.neighbours() != before;
        for action in actions {
            self.execute_foreign(node, action);
        }
    }

    fn execute_foreign(&mut self, node: usize, action: ForeignAction) {
        let me = self.nodes[node].ring.me();
        match action {
            ForeignAction::Call { call, to, what } => {
                let caller = Caller::Foreign { node, incarnation: self.nodes[node].incarnation, call };
                let time_out = ForeignMessage::Reply { caller: caller.clone(), reply: CallResult::TimedOut };
                self.queue.push(self.now + CALL_DEADLINE, Delivery::ForeignMessage(time_out));
                if let Some(to) = self.index_of(to) {
                    self.send_call(caller, to, what);
                }
            }
            ForeignAction::Notify { to } => self.send_message(node, to, Message::Notify(me)),
            ForeignAction::Reply { asker, reply } => {
                if !self.reply_to_forwarded_lookup(asker, reply) {
                    self.note_reply(asker, reply);
                }
            }
            ForeignAction::Joined { is_in: true, .. } => {}
            ForeignAction::Joined { is_in: false, .. } => self.join_later(node),
        }
    }

    /// Records the reply to a lookup that the test began.
    fn note_reply(&mut self, tag: Tag, reply: ForeignReply) {
        if let Some(&target) = self.pending_lookups.get(&tag) {
            let found = match reply {
                ForeignReply::Node(node) => Ok(node),
                ForeignReply::NoNode | ForeignReply::Refused => Err(NoRoute { target }),
            };
            self.note_found(tag, found);
        }
    }
}

/// The answer of `driver::calls`, from the neighbours alone.
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
