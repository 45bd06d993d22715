//! A survey of the ring: every node that any member names, and whether it answers.
//!
//! Unlike `members`, which walks the ring and leaves unresponsive nodes out, the survey shows them and needs no whole
//! ring.

use std::{collections::HashMap, net::SocketAddr};

use chordfs_ring::{RingAnswer, RingRequest};
use chordfs_types::ring_id::NodeRef;
use futures_util::future::join_all;

use super::handle::{MEMBERS_MAX, RingHandle};

const ASKED_AT_ONCE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A storage node.
    Ours,
    /// It answers, and knows only the calls of any Chord node: it keeps no chunks.
    Foreign,
    /// Named by others, and without an answer.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surveyed {
    pub node: NodeRef,
    pub kind: Kind,
}

impl RingHandle {
    /// In the order of the ids, this node among them.
    pub async fn survey(&self) -> Vec<Surveyed> {
        let view = self.neighbours();
        let mut found = HashMap::from([(view.node.ring_address(), Surveyed { node: view.node, kind: Kind::Ours })]);
        let mut wave: Vec<NodeRef> = view.successors.into_iter().chain(view.predecessor).collect();
        while !wave.is_empty() && found.len() < MEMBERS_MAX {
            let mut named = Vec::new();
            for some in wave.chunks(ASKED_AT_ONCE) {
                for (seen, near) in join_all(some.iter().map(|&node| self.look_at(node))).await {
                    found.insert(seen.node.ring_address(), seen);
                    named.extend(near);
                }
            }
            wave = not_yet(&found, named);
        }
        let mut all: Vec<Surveyed> = found.into_values().collect();
        all.sort_by_key(|seen| seen.node.id.0);
        all
    }

    async fn look_at(&self, node: NodeRef) -> (Surveyed, Vec<NodeRef>) {
        match self.peers().ask(node, RingRequest::Neighbours).await {
            Ok(RingAnswer::Neighbours(theirs)) => {
                let kind = if self.peers().is_foreign(node.ring_address()) { Kind::Foreign } else { Kind::Ours };
                let seen = Surveyed { node: NodeRef { id: theirs.node.id, ..node }, kind };
                (seen, theirs.successors.into_iter().chain(theirs.predecessor).collect())
            }
            _ => (Surveyed { node, kind: Kind::Silent }, Vec::new()),
        }
    }
}

/// Each address once.
fn not_yet(found: &HashMap<SocketAddr, Surveyed>, named: Vec<NodeRef>) -> Vec<NodeRef> {
    let mut wave: HashMap<SocketAddr, NodeRef> = HashMap::new();
    for node in named.into_iter().filter(|node| !found.contains_key(&node.ring_address())) {
        wave.entry(node.ring_address()).or_insert(node);
    }
    wave.into_values().collect()
}
