//! Requests to a foreign Chord node, which supports the ten calls of any Chord node and none of ours. Each of our
//! requests becomes a sequence of such calls, and their replies are combined into one answer.
//!
//! The conversation is a value like the ring itself, so that the same code runs over a connection and in a simulated
//! network.

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use super::event::{CallFailure, RingAnswer, RingRequest, RingRoute};

/// The most entries that are read of a foreign successor list.
const LIST_MAX: u64 = 16;

/// The calls, of the ten, that return a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCall {
    Info,
    Predecessor,
    Successor { index: u64 },
    FindSuccessor { target: RingId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignReply {
    Node(NodeRef),
    NoNode,
    /// An error, or a reply that cannot be decoded.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignOutcome {
    /// Send `ForeignConversation::call` next.
    Continue,
    Answer(RingAnswer),
    /// The node does not answer this request.
    Refused,
}

/// One request to a foreign node, between its first call and its answer.
#[derive(Clone, Debug)]
pub struct ForeignConversation {
    step: ConversationStep,
}

#[derive(Clone, Debug)]
enum ConversationStep {
    Info,
    Route(RingId),
    Itself,
    Predecessor { node: NodeRef },
    List(Neighbours),
}

impl ForeignConversation {
    pub fn new(request: &RingRequest) -> Self {
        let step = match request {
            RingRequest::Info => ConversationStep::Info,
            RingRequest::Route(target) => ConversationStep::Route(*target),
            RingRequest::Neighbours => ConversationStep::Itself,
        };
        Self { step }
    }

    /// The call to send now.
    pub fn call(&self) -> ForeignCall {
        match &self.step {
            ConversationStep::Info | ConversationStep::Itself => ForeignCall::Info,
            ConversationStep::Route(target) => ForeignCall::FindSuccessor { target: *target },
            ConversationStep::Predecessor { .. } => ForeignCall::Predecessor,
            ConversationStep::List(view) => ForeignCall::Successor { index: view.successors.len() as u64 },
        }
    }

    /// Handles the reply to `call`.
    pub fn on_reply(&mut self, reply: ForeignReply) -> ForeignOutcome {
        match (&mut self.step, reply) {
            (ConversationStep::Info, ForeignReply::Node(node)) => ForeignOutcome::Answer(RingAnswer::Info(node)),
            (ConversationStep::Route(_), ForeignReply::Node(node)) => {
                ForeignOutcome::Answer(RingAnswer::Route(RingRoute::Owner(vec![node])))
            }
            (ConversationStep::Itself, ForeignReply::Node(node)) => {
                self.advance(ConversationStep::Predecessor { node })
            }
            (ConversationStep::Predecessor { node }, ForeignReply::Node(_) | ForeignReply::NoNode) => {
                let (node, other) = (*node, some(reply));
                // A node that is alone may name itself as its predecessor; we count that as none.
                let predecessor = other.filter(|other| other.id != node.id);
                self.advance(ConversationStep::List(Neighbours { predecessor, node, successors: Vec::new() }))
            }
            (ConversationStep::List(view), reply) => extend_list(view, reply),
            (_, ForeignReply::NoNode | ForeignReply::Refused) => ForeignOutcome::Refused,
        }
    }

    fn advance(&mut self, step: ConversationStep) -> ForeignOutcome {
        self.step = step;
        ForeignOutcome::Continue
    }
}

/// The list ends at a missing node, at a repeated node, or, with some implementations, with an error.
fn extend_list(view: &mut Neighbours, reply: ForeignReply) -> ForeignOutcome {
    match reply {
        ForeignReply::Refused if view.successors.is_empty() => return ForeignOutcome::Refused,
        ForeignReply::Node(next) if next.id != view.node.id && !view.successors.contains(&next) => {
            view.successors.push(next);
            if (view.successors.len() as u64) < LIST_MAX {
                return ForeignOutcome::Continue;
            }
        }
        ForeignReply::Node(_) | ForeignReply::NoNode | ForeignReply::Refused => {}
    }
    ForeignOutcome::Answer(RingAnswer::Neighbours(view.clone()))
}

fn some(reply: ForeignReply) -> Option<NodeRef> {
    match reply {
        ForeignReply::Node(node) => Some(node),
        ForeignReply::NoNode | ForeignReply::Refused => None,
    }
}

/// How a time-out counts. Foreign lookups are recursive, so a lookup may time out because of another node: the foreign
/// node is then not taken for unresponsive.
pub fn timeout_failure(request: &RingRequest) -> CallFailure {
    match request {
        RingRequest::Route(_) => CallFailure::Refused,
        RingRequest::Info | RingRequest::Neighbours => CallFailure::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8) -> NodeRef {
        NodeRef { ip: [10, 0, 0, id].into(), port: 5057, id: RingId(u32::from(id)) }
    }

    fn nodes(ids: &[u8]) -> Vec<NodeRef> {
        ids.iter().copied().map(node).collect()
    }

    /// Feeds `replies` to a conversation: 0 is no node, 255 an error.
    #[track_caller]
    fn check(request: RingRequest, replies: &[u8], wanted: ForeignOutcome) {
        let mut conversation = ForeignConversation::new(&request);
        let mut outcome = ForeignOutcome::Continue;
        for &reply in replies {
            assert_eq!(outcome, ForeignOutcome::Continue, "{replies:?}: a reply too many");
            outcome = conversation.on_reply(match reply {
                0 => ForeignReply::NoNode,
                255 => ForeignReply::Refused,
                id => ForeignReply::Node(node(id)),
            });
        }
        assert_eq!(outcome, wanted, "{replies:?}");
    }

    #[test]
    fn neighbours_take_one_call_for_each_entry() {
        let check = |replies: &[u8], before: u8, after: &[u8]| {
            let predecessor = (before != 0).then(|| node(before));
            let view = Neighbours { predecessor, node: node(replies[0]), successors: nodes(after) };
            super::tests::check(RingRequest::Neighbours, replies, ForeignOutcome::Answer(RingAnswer::Neighbours(view)));
        };
        check(&[40, 20, 60, 80, 90, 0], 20, &[60, 80, 90]);
        check(&[40, 20, 60, 80, 90, 255], 20, &[60, 80, 90]); // some implementations answer an index out of range with an error
        check(&[40, 20, 60, 20, 40], 20, &[60, 20]); // the list wraps around
        check(&[40, 20, 60, 60], 20, &[60]);
        check(&[40, 0, 60, 0], 0, &[60]);
        check(&[40, 40, 40], 0, &[]); // alone
        check(&[40, 0, 0], 0, &[]);
    }

    #[test]
    fn an_error_or_a_missing_node_refuses_the_request() {
        for replies in [&[255][..], &[0], &[40, 255], &[40, 20, 255]] {
            check(RingRequest::Neighbours, replies, ForeignOutcome::Refused);
        }
        check(RingRequest::Neighbours, &[40, 20, 60], ForeignOutcome::Continue);
        check(RingRequest::Route(RingId(7)), &[0], ForeignOutcome::Refused);
        check(RingRequest::Info, &[255], ForeignOutcome::Refused);
    }

    #[test]
    fn info_and_route_take_one_call() {
        check(RingRequest::Info, &[40], ForeignOutcome::Answer(RingAnswer::Info(node(40))));
        check(
            RingRequest::Route(RingId(7)),
            &[40],
            ForeignOutcome::Answer(RingAnswer::Route(RingRoute::Owner(nodes(&[40])))),
        );
    }

    /// An endless list must not be read forever.
    #[test]
    fn a_list_is_followed_within_a_bound() {
        let mut conversation = ForeignConversation::new(&RingRequest::Neighbours);
        let replies = std::iter::once(200).chain(1..=200_u8);
        let asked = replies
            .map(|id| conversation.on_reply(ForeignReply::Node(node(id))))
            .take_while(|outcome| *outcome == ForeignOutcome::Continue)
            .count();
        assert_eq!(asked as u64, 2 + LIST_MAX - 1);
    }
}
