//! Lookups in a frozen ring: every call is answered at once, and what a lookup learns is discarded. So ten thousand
//! lookups see the same ring and take microseconds each.

use chordfs_ring::{Action, CallFailure, CallId, Event, Ring, RingAnswer, RingRequest};
use chordfs_types::ring_id::{NodeRef, RingId};

use crate::network::Sim;

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub found: Option<NodeRef>,
    /// Hops that answered.
    pub hops: usize,
    /// Hops that timed out.
    pub timeouts: usize,
    /// Time-outs of the final check of the owner. Published Chord has no such check.
    pub owner_timeouts: usize,
}

impl Sim {
    /// Looks up `target` with a clone of the node's `Ring`, so that the next lookup starts from the same state.
    pub fn look_up_at_once(&self, node: usize, target: RingId) -> Path {
        self.look_up_by(&mut self.ring(node).clone(), target)
    }

    /// Looks up `target` with a clone of a node's `Ring`, which may learn of dead nodes. Where all nodes are alive it
    /// learns nothing, and one clone can serve many lookups.
    pub fn look_up_by(&self, ring: &mut Ring, target: RingId) -> Path {
        let mut path = Path { found: None, hops: 0, timeouts: 0, owner_timeouts: 0 };
        let mut event = Event::FindSuccessor { tag: TAG, target };
        loop {
            let actions = ring.handle(self.now, event);
            if let Some(found) = actions.iter().find_map(found) {
                path.found = found;
                return path;
            }
            let Some((call, to, request)) = actions.into_iter().rev().find_map(question) else { return path };
            let is_hop = matches!(request, RingRequest::Route(_));
            event = match self.answer_if_up(to, request) {
                Some(answer) => {
                    path.hops += usize::from(is_hop);
                    Event::Answered { call, answer }
                }
                None => {
                    path.timeouts += usize::from(is_hop);
                    path.owner_timeouts += usize::from(!is_hop);
                    Event::Unanswered { call, failure: CallFailure::TimedOut }
                }
            };
        }
    }
}

const TAG: u64 = u64::MAX;

fn found(action: &Action) -> Option<Option<NodeRef>> {
    match action {
        Action::Found { tag: TAG, result } => Some(result.clone().ok()),
        _ => None,
    }
}

/// The lookup's call is the last one that an event leads to; earlier ones check unresponsive neighbours.
fn question(action: Action) -> Option<(CallId, NodeRef, RingRequest)> {
    match action {
        Action::Call { call, to, request: request @ (RingRequest::Route(_) | RingRequest::Info) } => {
            Some((call, to, request))
        }
        _ => None,
    }
}

impl Sim {
    fn answer_if_up(&self, to: NodeRef, request: RingRequest) -> Option<RingAnswer> {
        let index = self.index_of(to).filter(|&index| self.is_up(index))?;
        Some(self.answer(index, request))
    }
}
