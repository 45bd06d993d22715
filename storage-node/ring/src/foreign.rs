//! What we ask a foreign Chord node, which knows the ten calls of any Chord node and none of ours: each of our
//! questions becomes one such call after another, and their replies one answer.
//!
//! A value like the ring itself, so that the very same conversation is held over a connection and in a simulated
//! network.

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use super::event::{CallFailure, RingAnswer, RingRequest, RingRoute};

/// A foreign successor list is not followed beyond this.
const LIST_MAX: u64 = 16;

/// Those of the ten calls that are answered with a node.
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
    /// An error, or what cannot be read.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignOutcome {
    /// Put `ForeignQuestion::call` next.
    GoOn,
    Answer(RingAnswer),
    /// It does not answer this question.
    Refused,
}

/// One question on its way to an answer.
#[derive(Clone, Debug)]
pub struct ForeignQuestion {
    step: ForeignStep,
}

#[derive(Clone, Debug)]
enum ForeignStep {
    Info,
    Route(RingId),
    Itself,
    Predecessor { node: NodeRef },
    List(Neighbours),
}

impl ForeignQuestion {
    pub fn new(request: &RingRequest) -> Self {
        let step = match request {
            RingRequest::Info => ForeignStep::Info,
            RingRequest::Route(target) => ForeignStep::Route(*target),
            RingRequest::Neighbours => ForeignStep::Itself,
        };
        Self { step }
    }

    /// The call to put now.
    pub fn call(&self) -> ForeignCall {
        match &self.step {
            ForeignStep::Info | ForeignStep::Itself => ForeignCall::Info,
            ForeignStep::Route(target) => ForeignCall::FindSuccessor { target: *target },
            ForeignStep::Predecessor { .. } => ForeignCall::Predecessor,
            ForeignStep::List(view) => ForeignCall::Successor { index: view.successors.len() as u64 },
        }
    }

    /// The reply to `call`.
    pub fn heard(&mut self, reply: ForeignReply) -> ForeignOutcome {
        match (&mut self.step, reply) {
            (ForeignStep::Info, ForeignReply::Node(node)) => ForeignOutcome::Answer(RingAnswer::Info(node)),
            (ForeignStep::Route(_), ForeignReply::Node(node)) => {
                ForeignOutcome::Answer(RingAnswer::Route(RingRoute::Owner(vec![node])))
            }
            (ForeignStep::Itself, ForeignReply::Node(node)) => self.go_on(ForeignStep::Predecessor { node }),
            (ForeignStep::Predecessor { node }, ForeignReply::Node(_) | ForeignReply::NoNode) => {
                let (node, other) = (*node, some(reply));
                // A node that is alone may name itself; to us it has no predecessor then.
                let predecessor = other.filter(|other| other.id != node.id);
                self.go_on(ForeignStep::List(Neighbours { predecessor, node, successors: Vec::new() }))
            }
            (ForeignStep::List(view), reply) => list_goes_on(view, reply),
            (_, ForeignReply::NoNode | ForeignReply::Refused) => ForeignOutcome::Refused,
        }
    }

    fn go_on(&mut self, step: ForeignStep) -> ForeignOutcome {
        self.step = step;
        ForeignOutcome::GoOn
    }
}

/// The list ends where there is no node any more, where it comes round, and, as some nodes do it, with an error.
fn list_goes_on(view: &mut Neighbours, reply: ForeignReply) -> ForeignOutcome {
    match reply {
        ForeignReply::Refused if view.successors.is_empty() => return ForeignOutcome::Refused,
        ForeignReply::Node(next) if next.id != view.node.id && !view.successors.contains(&next) => {
            view.successors.push(next);
            if (view.successors.len() as u64) < LIST_MAX {
                return ForeignOutcome::GoOn;
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

/// What silence means. A foreign node looks up by asking others, so its silence in a lookup may be theirs.
pub fn silence(request: &RingRequest) -> CallFailure {
    match request {
        RingRequest::Route(_) => CallFailure::Refused,
        RingRequest::Info | RingRequest::Neighbours => CallFailure::Silent,
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

    /// 0 is no node, 255 an error.
    #[track_caller]
    fn check(request: RingRequest, replies: &[u8], wanted: ForeignOutcome) {
        let mut talk = ForeignQuestion::new(&request);
        let mut heard = ForeignOutcome::GoOn;
        for &reply in replies {
            assert_eq!(heard, ForeignOutcome::GoOn, "{replies:?}: a reply too many");
            heard = talk.heard(match reply {
                0 => ForeignReply::NoNode,
                255 => ForeignReply::Refused,
                id => ForeignReply::Node(node(id)),
            });
        }
        assert_eq!(heard, wanted, "{replies:?}");
    }

    #[test]
    fn neighbours() {
        let check = |replies: &[u8], before: u8, after: &[u8]| {
            let predecessor = (before != 0).then(|| node(before));
            let view = Neighbours { predecessor, node: node(replies[0]), successors: nodes(after) };
            super::tests::check(RingRequest::Neighbours, replies, ForeignOutcome::Answer(RingAnswer::Neighbours(view)));
        };
        check(&[40, 20, 60, 80, 90, 0], 20, &[60, 80, 90]);
        check(&[40, 20, 60, 80, 90, 255], 20, &[60, 80, 90]); // an index too far is an error to some
        check(&[40, 20, 60, 20, 40], 20, &[60, 20]); // it comes round
        check(&[40, 20, 60, 60], 20, &[60]);
        check(&[40, 0, 60, 0], 0, &[60]);
        check(&[40, 40, 40], 0, &[]); // alone
        check(&[40, 0, 0], 0, &[]);
    }

    #[test]
    fn what_has_no_answer() {
        for replies in [&[255][..], &[0], &[40, 255], &[40, 20, 255]] {
            check(RingRequest::Neighbours, replies, ForeignOutcome::Refused);
        }
        check(RingRequest::Neighbours, &[40, 20, 60], ForeignOutcome::GoOn);
        check(RingRequest::Route(RingId(7)), &[0], ForeignOutcome::Refused);
        check(RingRequest::Info, &[255], ForeignOutcome::Refused);
    }

    #[test]
    fn one_call_is_enough() {
        check(RingRequest::Info, &[40], ForeignOutcome::Answer(RingAnswer::Info(node(40))));
        check(
            RingRequest::Route(RingId(7)),
            &[40],
            ForeignOutcome::Answer(RingAnswer::Route(RingRoute::Owner(nodes(&[40])))),
        );
    }

    /// A list without end is none of ours to walk.
    #[test]
    fn a_list_is_followed_within_a_bound() {
        let mut talk = ForeignQuestion::new(&RingRequest::Neighbours);
        let replies = std::iter::once(200).chain(1..=200_u8);
        let asked = replies
            .map(|id| talk.heard(ForeignReply::Node(node(id))))
            .take_while(|heard| *heard == ForeignOutcome::GoOn)
            .count();
        assert_eq!(asked as u64, 2 + LIST_MAX - 1);
    }
}
