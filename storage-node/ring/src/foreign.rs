//! What we ask a foreign Chord node, which knows the ten calls of any Chord node and none of ours: each of our questions
//! becomes one such call after another, and their replies one answer.
//!
//! A value like the ring itself, so that the very same conversation is held over a connection and in a simulated network.

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use super::event::{Answer, Failure, Request, Route};

/// A foreign successor list is not followed beyond this.
const LIST_MAX: u64 = 16;

/// Of the ten calls those that a node answers with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Info,
    Predecessor,
    Successor { index: u64 },
    FindSuccessor { target: RingId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Node(NodeRef),
    NoNode,
    /// An error, or what cannot be read.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Put `Talk::call` next.
    GoOn,
    Answer(Answer),
    /// It does not answer this question.
    Refused,
}

/// One question on its way to an answer.
#[derive(Clone, Debug)]
pub struct Talk {
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Info,
    Route(RingId),
    Itself,
    Predecessor { node: NodeRef },
    List(Neighbours),
}

impl Talk {
    pub fn new(request: &Request) -> Self {
        let step = match request {
            Request::Info => Step::Info,
            Request::Route(target) => Step::Route(*target),
            Request::Neighbours => Step::Itself,
        };
        Self { step }
    }

    /// The call to put now.
    pub fn call(&self) -> Call {
        match &self.step {
            Step::Info | Step::Itself => Call::Info,
            Step::Route(target) => Call::FindSuccessor { target: *target },
            Step::Predecessor { .. } => Call::Predecessor,
            Step::List(view) => Call::Successor { index: view.successors.len() as u64 },
        }
    }

    /// The reply to `call`.
    pub fn heard(&mut self, reply: Reply) -> Heard {
        match (&mut self.step, reply) {
            (Step::Info, Reply::Node(node)) => Heard::Answer(Answer::Info(node)),
            (Step::Route(_), Reply::Node(node)) => Heard::Answer(Answer::Route(Route::Owner(vec![node]))),
            (Step::Itself, Reply::Node(node)) => self.go_on(Step::Predecessor { node }),
            (Step::Predecessor { node }, Reply::Node(_) | Reply::NoNode) => {
                let (node, other) = (*node, some(reply));
                // A node that is alone may name itself; to us it has no predecessor then.
                let predecessor = other.filter(|other| other.id != node.id);
                self.go_on(Step::List(Neighbours { predecessor, node, successors: Vec::new() }))
            }
            (Step::List(view), reply) => list_goes_on(view, reply),
            (_, Reply::NoNode | Reply::Refused) => Heard::Refused,
        }
    }

    fn go_on(&mut self, step: Step) -> Heard {
        self.step = step;
        Heard::GoOn
    }
}

/// The list ends where there is no node any more, where it comes round, and, as some nodes do it, with an error.
fn list_goes_on(view: &mut Neighbours, reply: Reply) -> Heard {
    match reply {
        Reply::Refused if view.successors.is_empty() => return Heard::Refused,
        Reply::Node(next) if next.id != view.node.id && !view.successors.contains(&next) => {
            view.successors.push(next);
            if (view.successors.len() as u64) < LIST_MAX {
                return Heard::GoOn;
            }
        }
        Reply::Node(_) | Reply::NoNode | Reply::Refused => {}
    }
    Heard::Answer(Answer::Neighbours(view.clone()))
}

fn some(reply: Reply) -> Option<NodeRef> {
    match reply {
        Reply::Node(node) => Some(node),
        Reply::NoNode | Reply::Refused => None,
    }
}

/// What silence means. A foreign node looks up by asking others, so its silence in a lookup may be theirs.
pub fn silence(request: &Request) -> Failure {
    match request {
        Request::Route(_) => Failure::Refused,
        Request::Info | Request::Neighbours => Failure::Silent,
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
    fn check(request: Request, replies: &[u8], wanted: Heard) {
        let mut talk = Talk::new(&request);
        let mut heard = Heard::GoOn;
        for &reply in replies {
            assert_eq!(heard, Heard::GoOn, "{replies:?}: a reply too many");
            heard = talk.heard(match reply {
                0 => Reply::NoNode,
                255 => Reply::Refused,
                id => Reply::Node(node(id)),
            });
        }
        assert_eq!(heard, wanted, "{replies:?}");
    }

    #[test]
    fn neighbours() {
        let check = |replies: &[u8], before: u8, after: &[u8]| {
            let predecessor = (before != 0).then(|| node(before));
            let view = Neighbours { predecessor, node: node(replies[0]), successors: nodes(after) };
            super::tests::check(Request::Neighbours, replies, Heard::Answer(Answer::Neighbours(view)));
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
            check(Request::Neighbours, replies, Heard::Refused);
        }
        check(Request::Neighbours, &[40, 20, 60], Heard::GoOn);
        check(Request::Route(RingId(7)), &[0], Heard::Refused);
        check(Request::Info, &[255], Heard::Refused);
    }

    #[test]
    fn one_call_is_enough() {
        check(Request::Info, &[40], Heard::Answer(Answer::Info(node(40))));
        check(Request::Route(RingId(7)), &[40], Heard::Answer(Answer::Route(Route::Owner(nodes(&[40])))));
    }

    /// A list without end is none of ours to walk.
    #[test]
    fn a_list_is_followed_within_a_bound() {
        let mut talk = Talk::new(&Request::Neighbours);
        let replies = std::iter::once(200).chain(1..=200_u8);
        let asked =
            replies.map(|id| talk.heard(Reply::Node(node(id)))).take_while(|heard| *heard == Heard::GoOn).count();
        assert_eq!(asked as u64, 2 + LIST_MAX - 1);
    }
}
