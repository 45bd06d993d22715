//! The finger table: shortcuts across the circle. Correctness never rests on it.

use std::net::SocketAddr;

use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc, RingId};

use super::{CallFailure, Purpose, Ring, RingRequest, lookup::LookupPurpose};

pub(crate) const FINGERS: u32 = 32;

/// Entry k is the successor of our id plus 2^k at the time of the last lookup.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Fingers {
    nodes: [Option<NodeRef>; FINGERS as usize],
    next: u32,
}

impl Fingers {
    /// The nodes that may precede a target `steps` ahead (0: the whole circle), the farthest entry first: entry k is at
    /// least 2^k ahead. Neighbouring entries with the same node count once.
    pub(crate) fn towards(&self, steps: u32) -> impl Iterator<Item = NodeRef> + '_ {
        let entries = steps.checked_sub(1).map_or(FINGERS, |last| last.checked_ilog2().map_or(0, |power| power + 1));
        let mut last = None;
        let nodes = self.nodes[..entries as usize].iter().rev().flatten().copied();
        nodes.filter(move |&node| last.replace(node) != Some(node))
    }

    pub(crate) fn set(&mut self, finger_index: u32, node: Option<NodeRef>) {
        if let Some(entry) = self.nodes.get_mut(finger_index as usize) {
            *entry = node;
        }
    }

    pub(crate) fn remove(&mut self, address: SocketAddr) {
        self.nodes.iter_mut().for_each(|entry| {
            entry.take_if(|node| node.ring_address() == address);
        });
    }
}

fn target(from: RingId, finger_index: u32) -> RingId {
    from.advance(1 << finger_index)
}

impl Ring {
    /// Checks the next few fingers in turn; those that the successor covers cost nothing.
    pub(super) fn fix_fingers(&mut self) {
        let Some(&head) = self.successors.first() else { return };
        let covered = RingArc::new(self.id(), head.id);
        let mut checks = self.settings.fingers_per_tick;
        for _ in 0..FINGERS {
            let finger_index = self.fingers.next;
            if covered.contains(target(self.id(), finger_index)) {
                self.fingers.set(finger_index, Some(head));
            } else if checks == 0 {
                return;
            } else {
                checks -= 1;
                self.fix_finger(finger_index);
            }
            self.fingers.next = (finger_index + 1) % FINGERS;
        }
    }

    /// Most fingers are right, and the finger itself can confirm it in one call; a lookup takes one for each hop.
    fn fix_finger(&mut self, finger_index: u32) {
        match self.fingers.nodes[finger_index as usize].filter(|&node| !self.is_dead(node)) {
            Some(node) => self.call_once(node, RingRequest::Neighbours, Purpose::Finger { finger_index }),
            None => self.look_up_finger(finger_index),
        }
    }

    /// A finger is right if the target lies between its predecessor and itself.
    pub(super) fn finger_answered(&mut self, finger_index: u32, node: NodeRef, theirs: &Neighbours) {
        let target = target(self.id(), finger_index);
        let owns = |before: NodeRef| RingArc::new(before.id, node.id).contains(target);
        if theirs.node.id != node.id || !theirs.predecessor.is_some_and(owns) {
            self.look_up_finger(finger_index);
        }
    }

    pub(super) fn finger_failed(&mut self, finger_index: u32, node: NodeRef, failure: CallFailure) {
        self.note_call_failure(node, failure);
        self.look_up_finger(finger_index);
    }

    fn look_up_finger(&mut self, finger_index: u32) {
        self.look_up(target(self.id(), finger_index), LookupPurpose::Finger(finger_index));
    }

    pub(super) fn finger_found(&mut self, finger_index: u32, node: Option<NodeRef>) {
        let node = node.filter(|&node| !self.is_me(node));
        self.fingers.set(finger_index, node);
    }
}
