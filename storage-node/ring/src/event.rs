//! Everything that can happen to a ring and every action it can request, one list each.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};
use thiserror::Error;

/// Identifies a call from its `Action::Call` to its outcome.
pub type CallId = u64;
/// Chosen by the driver, to match a result to the caller that waits for it.
pub type Tag = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A period has ended: stabilize, check the neighbours, fix some fingers, search through a remembered peer.
    Tick,
    /// The call `stabilize`: only that step.
    Stabilize,
    /// The call `check_predecessor`: only that step.
    CheckPredecessor,
    /// `peer` believes that it is our predecessor.
    Notified {
        peer: NodeRef,
    },
    /// Our successor reports that `newcomer` has joined between us. The newcomer is alive, whatever we found before,
    /// and stabilizing leads to it. The report implies nothing about our predecessor.
    Followed {
        newcomer: NodeRef,
    },
    /// Answered with `Action::Found`.
    FindSuccessor {
        tag: Tag,
        target: RingId,
    },
    /// Answered with `Action::Joined`. In a ring of more than one it only makes `member` a remembered peer, once that
    /// has answered.
    Join {
        tag: Tag,
        member: NodeRef,
    },
    /// Take another position. Has an effect only in a ring of one.
    Reposition {
        id: RingId,
    },
    /// Notify the neighbours and leave the ring for good.
    Leave,
    /// `peer` has left; these were its neighbours.
    PeerLeft {
        peer: NodeRef,
        predecessor: Option<NodeRef>,
        successors: Vec<NodeRef>,
    },
    /// `peer` is a foreign Chord node, or is not. Such nodes may handle one call at a time, so a lookup, which may be
    /// on behalf of one, does not call them.
    KindKnown {
        peer: SocketAddr,
        is_foreign: bool,
    },
    /// The connection to a peer broke: the peer may be dead, so it is checked at once.
    ConnectionLost {
        peer: SocketAddr,
    },
    /// The outcome of an `Action::Call`: exactly one of the next two events. A surplus outcome is ignored.
    Answered {
        call: CallId,
        answer: RingAnswer,
    },
    Unanswered {
        call: CallId,
        failure: CallFailure,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// No process listens at the address: certain, and known at once.
    Unreachable,
    /// No answer by the deadline: the node is dead or slow, or the answer was lost.
    TimedOut,
    /// The node answered with an error.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingAnswer {
    Neighbours(Neighbours),
    Info(NodeRef),
    Route(RingRoute),
}

/// The owner of an id, or the next hops towards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingRoute {
    /// The first of these is the id's successor; the rest follow it on the ring. Not empty.
    Owner(Vec<NodeRef>),
    /// `nodes` precede the id, the nearest to it first. If all of them are dead, the first live node of `beyond` is the
    /// successor, as far as the answering node knows.
    NextHops { nodes: Vec<NodeRef>, beyond: Vec<NodeRef> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingRequest {
    /// Asks a node for its own address and id and for its neighbours: `RingAnswer::Neighbours`
    Neighbours,
    /// Asks a node for its own address and id: `RingAnswer::Info`
    Info,
    /// Asks a node for the next hops of a lookup: `RingAnswer::Route`
    Route(RingId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender may be the receiver's predecessor.
    Notify(NodeRef),
    /// The sender leaves; these are its neighbours.
    Leave(Neighbours),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a request and report its outcome.
    Call { call: CallId, to: NodeRef, request: RingRequest },
    /// Send a message once; the outcome does not matter.
    Send { to: NodeRef, message: Message },
    /// Answers `Event::FindSuccessor`.
    Found { tag: Tag, result: Result<NodeRef, NoRoute> },
    /// Answers `Event::Join`.
    Joined { tag: Tag, result: Result<(), JoinError> },
    /// Another member has our id. This node has left the ring and needs another position (`Event::Reposition`) before
    /// it joins again.
    IdTaken { by: NodeRef },
    /// The predecessor, the successor list or the node's own id has changed.
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
    /// How many times a request is sent to a neighbour before it is declared dead. One lost message or one slow second
    /// must not change the ring.
    pub attempts: u32,
    /// How long a node that was declared dead is ignored when other nodes name it, and how long lookups avoid an
    /// unresponsive node.
    pub quarantine: Duration,
    pub known_peers_max: usize,
}

impl Default for RingSettings {
    fn default() -> Self {
        Self {
            successor_list_len: 8,
            fingers_per_tick: 3,
            max_hops: 64,
            attempts: 2,
            quarantine: Duration::from_secs(2),
            known_peers_max: 64,
        }
    }
}
