//! Everything that can happen to a ring and everything it can want done, one list each.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};
use thiserror::Error;

/// Names a call from its `Ask` to its outcome.
pub type CallId = u64;
/// Chosen by the driver, to know which of its callers a result belongs to.
pub type Tag = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A period is over: stabilize, check the neighbours, fix some fingers, ask a remembered peer.
    Tick,
    /// The call `stabilize`: that step alone.
    Stabilize,
    /// The call `check_predecessor`: that step alone.
    CheckPredecessor,
    /// `peer` believes that it is our predecessor.
    Notified {
        peer: NodeRef,
    },
    /// Our successor says that `newcomer` has come between us: it lives, whatever we have found before, and stabilizing
    /// leads to it. No word of a predecessor.
    Followed {
        newcomer: NodeRef,
    },
    /// Answered with `Action::Found`.
    FindSuccessor {
        tag: Tag,
        target: RingId,
    },
    /// Answered with `Action::Joined`. In a ring of more than one it only makes `member` a remembered peer.
    Join {
        tag: Tag,
        member: NodeRef,
    },
    /// Take another position. Has an effect in a ring of one only.
    Reposition {
        id: RingId,
    },
    /// Tell the neighbours and be in no ring any more.
    Leave,
    /// `peer` leaves, and these were its neighbours.
    PeerLeft {
        peer: NodeRef,
        predecessor: Option<NodeRef>,
        successors: Vec<NodeRef>,
    },
    /// The connection to a peer broke: it may be gone, so it is asked at once.
    ConnectionLost {
        peer: SocketAddr,
    },
    /// The outcome of an `Action::Ask`. Exactly one of these two follows each; one too many does nothing.
    Answered {
        call: CallId,
        answer: RingAnswer,
    },
    Unanswered {
        call: CallId,
        why: CallFailure,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// No process listens there: certain, and known at once.
    Unreachable,
    /// No answer by the deadline. It may be dead, slow, or the answer was lost.
    Silent,
    /// It answered, but with an error.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingAnswer {
    Neighbours(Neighbours),
    Info(NodeRef),
    Route(RingRoute),
}

/// Where to go for the successor of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingRoute {
    /// The first of these is the successor; the rest follow it on the ring. Not empty.
    Owner(Vec<NodeRef>),
    /// Ask these, which precede the id, the nearest to it first. If none of them lives, the first of `beyond` that does
    /// is the successor, as far as this node knows.
    Ask { nodes: Vec<NodeRef>, beyond: Vec<NodeRef> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingRequest {
    /// Asks a node for itself and its neighbours: `RingAnswer::Neighbours`
    Neighbours,
    /// Asks a node for itself: `RingAnswer::Info`
    Info,
    /// `RingAnswer::Route`
    Route(RingId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender may be the receiver's predecessor.
    Notify(NodeRef),
    /// The node leaves, and these are its neighbours.
    Leave(Neighbours),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a question and report its outcome.
    Ask { call: CallId, to: NodeRef, request: RingRequest },
    /// Send it once; the outcome does not matter.
    Tell { to: NodeRef, message: Message },
    /// Answers `Event::FindSuccessor`.
    Found { tag: Tag, result: Result<NodeRef, NoRoute> },
    /// Answers `Event::Join`.
    Joined { tag: Tag, result: Result<(), JoinError> },
    /// Another member has our id. We have left the ring; choose another position (`Event::Reposition`) and join again.
    IdTaken { by: NodeRef },
    /// Predecessor, successor list or own id are different now.
    Changed(Neighbours),
    /// The peers to remember across a restart.
    Remember(Vec<NodeRef>),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no live node leads to the successor of {target}; the ring may be repairing itself, try again")]
pub struct NoRoute {
    pub target: RingId,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    #[error("{member} does not answer as a member of a ring; name another member")]
    NoAnswer { member: NodeRef },
    #[error("the ring of {member} is still changing after a start or a restart; try again in a moment")]
    NotYet { member: NodeRef },
    #[error("the id is taken by {by}; choose another")]
    IdTaken { by: NodeRef },
    #[error("{member} is this node itself; name another member")]
    Itself { member: NodeRef },
    #[error("this node has left its ring for good")]
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// At least 2.
    pub successor_list_len: usize,
    pub fingers_per_tick: usize,
    /// A lookup that asks more nodes than this fails.
    pub max_hops: usize,
    /// How often a question is put to a neighbour that stays silent before it counts as dead. One lost message or one
    /// slow second must not change the ring.
    pub attempts: u32,
    /// How long a node that did not answer is not taken on others' word.
    pub silent_for: Duration,
    pub known_peers_max: usize,
}

impl Default for RingSettings {
    fn default() -> Self {
        Self {
            successor_list_len: 8,
            fingers_per_tick: 3,
            max_hops: 64,
            attempts: 2,
            silent_for: Duration::from_secs(2),
            known_peers_max: 64,
        }
    }
}
