//! A survey of the ring: every node that any member names, and whether it answers.
//!
//! Unlike `members`, which walks the ring and leaves unresponsive nodes out, the survey lists them, and it also works
//! while the ring is broken.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use chordfs_ring::{RingAnswer, RingRequest};
use chordfs_types::ring_id::NodeRef;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::handle::{MEMBERS_MAX, RingHandle};

const ASKED_AT_ONCE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A storage node.
    Storage,
    /// A node that answers only the calls of any Chord node. It keeps no chunks.
    Foreign,
    /// A node that others name and that does not answer.
    Unresponsive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyedNode {
    pub node: NodeRef,
    pub kind: NodeKind,
}

impl RingHandle {
    /// All nodes in the order of their ids, including this one. A node that has not answered by the deadline counts as
    /// unresponsive, and nodes that only it knows are missing.
    pub async fn survey(&self, deadline: Duration) -> Vec<SurveyedNode> {
        let (view, end) = (self.neighbours(), Instant::now() + deadline);
        let mut found =
            HashMap::from([(view.node.ring_address(), SurveyedNode { node: view.node, kind: NodeKind::Storage })]);
        let mut wave: Vec<NodeRef> = view.successors.into_iter().chain(view.predecessor).collect();
        while !wave.is_empty() && found.len() < MEMBERS_MAX {
            let mut named = Vec::new();
            for some in wave.chunks(ASKED_AT_ONCE) {
                for (seen, near) in join_all(some.iter().map(|&node| self.look_at(node, end))).await {
                    found.insert(seen.node.ring_address(), seen);
                    named.extend(near);
                }
            }
            wave = not_found_yet(&found, named);
        }
        let mut all: Vec<SurveyedNode> = found.into_values().collect();
        all.sort_by_key(|seen| seen.node.id.0);
        all
    }

    async fn look_at(&self, node: NodeRef, end: Instant) -> (SurveyedNode, Vec<NodeRef>) {
        match timeout_at(end, self.peers().ask(node, RingRequest::Neighbours)).await {
            Ok(Ok(RingAnswer::Neighbours(theirs))) => {
                let kind =
                    if self.peers().is_foreign(node.ring_address()) { NodeKind::Foreign } else { NodeKind::Storage };
                let seen = SurveyedNode { node: NodeRef { id: theirs.node.id, ..node }, kind };
                (seen, theirs.successors.into_iter().chain(theirs.predecessor).collect())
            }
            _ => (SurveyedNode { node, kind: NodeKind::Unresponsive }, Vec::new()),
        }
    }
}

/// The named nodes that were not found yet, each address once.
fn not_found_yet(found: &HashMap<SocketAddr, SurveyedNode>, named: Vec<NodeRef>) -> Vec<NodeRef> {
    let mut wave: HashMap<SocketAddr, NodeRef> = HashMap::new();
    for node in named.into_iter().filter(|node| !found.contains_key(&node.ring_address())) {
        wave.entry(node.ring_address()).or_insert(node);
    }
    wave.into_values().collect()
}
