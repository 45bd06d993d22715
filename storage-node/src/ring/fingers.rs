//! The finger table: shortcuts across the circle. Correctness never rests on it.

use std::net::SocketAddr;

use common::ring_id::{NodeRef, RingArc, RingId};

use super::{Ring, lookup::LookupPurpose};

pub const FINGERS: u32 = 32;

/// Entry k is the successor of our id plus 2^k, as it was when last looked up.
#[derive(Clone, Debug, Default, Hash)]
pub struct Fingers {
    nodes: [Option<NodeRef>; FINGERS as usize],
    next: u32,
}

impl Fingers {
    pub fn nodes(&self) -> impl Iterator<Item = NodeRef> + '_ {
        self.nodes.iter().flatten().copied()
    }

    pub fn set(&mut self, finger_index: u32, node: Option<NodeRef>) {
        if let Some(entry) = self.nodes.get_mut(finger_index as usize) {
            *entry = node;
        }
    }

    pub fn remove(&mut self, address: SocketAddr) {
        self.nodes.iter_mut().for_each(|entry| {
            entry.take_if(|node| node.ring_address() == address);
        });
    }
}

fn target(from: RingId, finger_index: u32) -> RingId {
    from.advance(1 << finger_index)
}

impl Ring {
    /// Looks up the next few in turn; those that the successor covers cost nothing.
    pub(super) fn fix_fingers(&mut self) {
        let Some(&head) = self.successors.first() else { return };
        let covered = RingArc::new(self.id(), head.id);
        let mut lookups = self.settings.fingers_per_tick;
        for _ in 0..FINGERS {
            let finger_index = self.fingers.next;
            if covered.contains(target(self.id(), finger_index)) {
                self.fingers.set(finger_index, Some(head));
            } else if lookups == 0 {
                return;
            } else {
                lookups -= 1;
                self.look_up(target(self.id(), finger_index), LookupPurpose::Finger(finger_index));
            }
            self.fingers.next = (finger_index + 1) % FINGERS;
        }
    }

    pub(super) fn finger_found(&mut self, finger_index: u32, node: Option<NodeRef>) {
        let node = node.filter(|&node| !self.is_me(node));
        self.fingers.set(finger_index, node);
    }
}
