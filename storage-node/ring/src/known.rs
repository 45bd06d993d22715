//! The peers that a node remembers, within a bound, so that it finds its ring again after a restart or a partition.
//!
//! A peer that has answered stays although it fails: it may be in another part of a divided ring. One that has only
//! been named, by itself or by others, is forgotten at its first failure.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    net::SocketAddr,
};

use chordfs_types::ring_id::NodeRef;

/// Oldest first. One entry per address.
#[derive(Clone, Debug)]
pub(crate) struct KnownPeers {
    peers: Vec<NodeRef>,
    /// The addresses among them that have not answered.
    unproven: BTreeSet<SocketAddr>,
    max: usize,
    next: usize,
    changes: u64,
}

impl KnownPeers {
    pub(crate) fn new(max: usize) -> Self {
        Self { peers: Vec::new(), unproven: BTreeSet::new(), max: max.max(1), next: 0, changes: 0 }
    }

    pub(crate) fn all(&self) -> &[NodeRef] {
        &self.peers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Counts the changes, so that a caller can detect one.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds a peer that has answered; beyond the bound the oldest is dropped.
    pub(crate) fn add(&mut self, peer: NodeRef) {
        self.add_named(peer);
        self.note_answer(peer.ring_address());
    }

    /// Adds a peer that may never have answered.
    pub(crate) fn add_named(&mut self, peer: NodeRef) {
        if self.peers.contains(&peer) {
            return;
        }
        self.changes += 1;
        match self.peers.iter_mut().find(|other| other.ring_address() == peer.ring_address()) {
            Some(moved) => *moved = peer,
            None => {
                self.peers.push(peer);
                self.unproven.insert(peer.ring_address());
            }
        }
        if self.peers.len() > self.max {
            let oldest = self.peers.remove(0);
            self.unproven.remove(&oldest.ring_address());
        }
    }

    pub(crate) fn note_answer(&mut self, peer: SocketAddr) {
        self.unproven.remove(&peer);
    }

    pub(crate) fn note_failure(&mut self, peer: NodeRef) {
        if self.unproven.contains(&peer.ring_address()) {
            self.remove(peer);
        }
    }

    pub(crate) fn remove(&mut self, peer: NodeRef) {
        let before = self.peers.len();
        self.peers.retain(|other| other.ring_address() != peer.ring_address());
        self.unproven.remove(&peer.ring_address());
        self.changes += u64::from(self.peers.len() != before);
    }

    /// The next peer, in turn, that `is_wanted` accepts.
    pub(crate) fn next(&mut self, is_wanted: impl Fn(NodeRef) -> bool) -> Option<NodeRef> {
        let len = self.peers.len();
        let place = (0..len).map(|step| (self.next + step) % len).find(|&place| is_wanted(self.peers[place]))?;
        self.next = place + 1;
        Some(self.peers[place])
    }
}

/// Leaves out the count of changes, which does not affect behaviour.
impl Hash for KnownPeers {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.peers, &self.unproven, self.next.checked_rem(self.peers.len())).hash(hasher);
    }
}
