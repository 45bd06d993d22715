//! Keeping the neighbours right: stabilize, rectify, and the detection of dead nodes (Zave 2017, section 4).

use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc};

use super::{
    Action, Purpose, Ring,
    event::{Message, RingRequest},
};

impl Ring {
    /// Asks the successor for its predecessor and its list. In a ring of one the successor is the node itself; its
    /// predecessor, if it has one, leads to the other members.
    pub(super) fn stabilize(&mut self) {
        match (self.successors.first(), self.predecessor) {
            (Some(&head), _) => self.call_once(head, RingRequest::Neighbours, Purpose::Successor),
            (None, Some(peer)) => self.approach(peer),
            (None, None) => {}
        }
    }

    /// `node` has answered. If it is our successor or nearer, it is taken with its whole list; then its predecessor is
    /// contacted if that lies between us, and otherwise `node` is notified of us.
    pub(super) fn consider_successor(&mut self, node: NodeRef, theirs: &Neighbours) {
        if theirs.node.id != node.id {
            return self.declare_dead(node); // It has moved: no node is at this position.
        }
        let is_head = self.successors.first() == Some(&node);
        if !is_head && !self.is_nearer(node) {
            return;
        }
        if theirs.successors.is_empty() && self.successors.iter().any(|other| *other != node) {
            return self.notify_lone_node(node, is_head);
        }
        self.successors = self.assemble(node, &theirs.successors);
        self.check_between(node, theirs.predecessor);
    }

    fn check_between(&mut self, head: NodeRef, between: Option<NodeRef>) {
        match between {
            Some(other) if other.id == self.id() && !self.is_me(other) && !self.is_dead(other) => {
                self.call_once(other, RingRequest::Info, Purpose::Rival)
            }
            Some(other) if self.is_nearer(other) && !self.is_me(other) && !self.is_dead(other) => {
                self.call_once(other, RingRequest::Neighbours, Purpose::Successor)
            }
            _ => self.notify(head),
        }
    }

    /// The node answers but is a ring of one: it has restarted, or formed apart from us. It cannot be a successor yet,
    /// but is notified of us.
    fn notify_lone_node(&mut self, node: NodeRef, is_head: bool) {
        if is_head {
            return self.recheck_membership(node, None);
        }
        self.notify(node);
        if let Some(&head) = self.successors.first() {
            self.notify(head);
        }
    }

    /// The answer of a lone node may be outdated: the node may have been alone when it answered, then accepted us and
    /// answered another call, and the older answer arrived last. So it is asked once more before it is dropped.
    fn recheck_membership(&mut self, node: NodeRef, fallback: Option<NodeRef>) {
        self.call_once(node, RingRequest::Neighbours, Purpose::Outsider { fallback });
    }

    pub(super) fn outsider_answered(&mut self, node: NodeRef, theirs: &Neighbours, fallback: Option<NodeRef>) {
        if theirs.node.id == node.id && !theirs.successors.is_empty() {
            return;
        }
        self.predecessor_failed(node, fallback);
        self.notify_lone_node(node, false);
    }

    pub(super) fn successor_failed(&mut self, node: NodeRef) {
        let was_candidate = self.successors.first() != Some(&node);
        self.declare_dead(node);
        if let (true, Some(&head)) = (was_candidate, self.successors.first()) {
            self.notify(head);
        }
    }

    /// `head` and the nodes after it, as long as they continue clockwise and do not reach this node.
    fn assemble(&self, head: NodeRef, after: &[NodeRef]) -> Vec<NodeRef> {
        let mut list = vec![head];
        for &node in after.iter().filter(|node| !self.is_dead(**node)) {
            let last = list[list.len() - 1];
            let continues = RingArc::new(last.id, self.id()).strictly_contains(node.id) && !self.is_me(node);
            if !continues || list.len() >= self.settings.successor_list_len.max(2) {
                break;
            }
            list.push(node);
        }
        list
    }

    pub(super) fn notify(&mut self, to: NodeRef) {
        self.actions.push(Action::Send { to, message: Message::Notify(self.me) });
    }

    /// `peer` believes that it precedes us. It does if it lies after the present predecessor, or if that one is dead.
    /// An adopted predecessor is checked, so that a false notification does not last.
    pub(super) fn rectify(&mut self, peer: NodeRef) {
        if self.is_me(peer) || peer.id == self.id() {
            return;
        }
        self.dead.remove(&peer.ring_address());
        match self.predecessor {
            Some(present) if present == peer => {}
            Some(present) if present.ring_address() == peer.ring_address() => self.adopt_predecessor(peer, None),
            Some(present) if RingArc::new(present.id, self.id()).strictly_contains(peer.id) => {
                self.adopt_predecessor(peer, Some(present))
            }
            Some(_) => self.check_predecessor(Some(peer)),
            None => self.adopt_predecessor(peer, None),
        }
        if self.is_alone() {
            self.approach(peer);
        }
    }

    /// Ends the newcomer's quarantine, during which the successor's answer about it would be ignored.
    pub(super) fn followed(&mut self, newcomer: NodeRef) {
        self.dead.remove(&newcomer.ring_address());
        self.stabilize();
    }

    fn adopt_predecessor(&mut self, peer: NodeRef, present: Option<NodeRef>) {
        self.predecessor = Some(peer);
        self.check_predecessor(present);
    }

    pub(super) fn check_predecessor(&mut self, fallback: Option<NodeRef>) {
        if let Some(present) = self.predecessor {
            self.call_once(present, RingRequest::Neighbours, Purpose::Predecessor { fallback });
        }
    }

    pub(super) fn predecessor_answered(&mut self, node: NodeRef, theirs: &Neighbours, fallback: Option<NodeRef>) {
        if theirs.node.id != node.id {
            self.predecessor_failed(node, fallback);
        } else if theirs.successors.is_empty() {
            self.recheck_membership(node, fallback);
        }
    }

    pub(super) fn predecessor_failed(&mut self, node: NodeRef, fallback: Option<NodeRef>) {
        let was_present = self.predecessor == Some(node);
        self.declare_dead(node);
        if let (true, Some(other)) = (was_present, fallback.filter(|&other| !self.is_dead(other))) {
            self.adopt_predecessor(other, None);
        }
    }

    /// Checks the list except its head, which `stabilize` contacts, so that a dead node leaves every list within one
    /// period and one call.
    pub(super) fn check_list(&mut self) {
        for node in self.successors.iter().skip(1).copied().collect::<Vec<_>>() {
            self.call_once(node, RingRequest::Info, Purpose::Liveness);
        }
    }

    pub(super) fn liveness_answered(&mut self, node: NodeRef, info: NodeRef) {
        if info.id != node.id {
            self.declare_dead(node);
        }
    }

    pub(super) fn connection_lost(&mut self, peer: std::net::SocketAddr) {
        if let Some(&node) = self.successors.iter().find(|node| node.ring_address() == peer) {
            let is_head = self.successors.first() == Some(&node);
            if is_head { self.stabilize() } else { self.call_once(node, RingRequest::Info, Purpose::Liveness) }
        }
        if self.predecessor.is_some_and(|node| node.ring_address() == peer) {
            self.check_predecessor(None);
        }
    }
}
