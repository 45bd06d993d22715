//! Keeping the neighbours right: stabilize, rectify, and noticing who is gone (Zave 2017, section 4).

use chordfs_types::ring_id::{Neighbours, NodeRef, RingArc};

use super::{
    Action, Purpose, Ring,
    event::{Message, RingRequest},
};

impl Ring {
    /// Asks the successor for its predecessor and its list. In a ring of one the successor is the node itself, and a
    /// predecessor, if it has one, leads to the others.
    pub(super) fn stabilize(&mut self) {
        match (self.successors.first(), self.predecessor) {
            (Some(&head), _) => self.ask_once(head, RingRequest::Neighbours, Purpose::Successor),
            (None, Some(peer)) => self.approach(peer),
            (None, None) => {}
        }
    }

    /// `node`, our successor or nearer than it, has answered: take it with its whole list, go on to its predecessor if
    /// that lies between us, and otherwise tell it of ourselves.
    pub(super) fn consider(&mut self, node: NodeRef, theirs: &Neighbours) {
        if theirs.node.id != node.id {
            return self.gone(node); // It has taken another position: nobody is at this one.
        }
        let is_head = self.successors.first() == Some(&node);
        if !is_head && !self.is_nearer(node) {
            return;
        }
        if theirs.successors.is_empty() && self.successors.iter().any(|other| *other != node) {
            return self.met_outsider(node, is_head);
        }
        self.successors = self.assemble(node, &theirs.successors);
        self.look_between(node, theirs.predecessor);
    }

    fn look_between(&mut self, head: NodeRef, between: Option<NodeRef>) {
        match between {
            Some(other) if other.id == self.id() && !self.is_me(other) && !self.is_silent(other) => {
                self.ask_once(other, RingRequest::Info, Purpose::Rival)
            }
            Some(other) if self.is_nearer(other) && !self.is_me(other) && !self.is_silent(other) => {
                self.ask_once(other, RingRequest::Neighbours, Purpose::Successor)
            }
            _ => self.notify(head),
        }
    }

    /// It answers, but is in a ring of one: started again, or apart from us. It is no successor yet, but hears of us.
    fn met_outsider(&mut self, node: NodeRef, is_head: bool) {
        if is_head {
            return self.doubt_membership(node, None);
        }
        self.notify(node);
        if let Some(&head) = self.successors.first() {
            self.notify(head);
        }
    }

    /// Its answer may be older than what we have heard of it since: one that was alone when it was asked, took us in,
    /// and answered another question before this one arrived. So it is asked once more before it is dropped.
    fn doubt_membership(&mut self, node: NodeRef, otherwise: Option<NodeRef>) {
        self.ask_once(node, RingRequest::Neighbours, Purpose::Outsider { otherwise });
    }

    pub(super) fn outsider_answered(&mut self, node: NodeRef, theirs: &Neighbours, otherwise: Option<NodeRef>) {
        if theirs.node.id == node.id && !theirs.successors.is_empty() {
            return;
        }
        self.predecessor_failed(node, otherwise);
        self.met_outsider(node, false);
    }

    pub(super) fn successor_failed(&mut self, node: NodeRef) {
        let was_candidate = self.successors.first() != Some(&node);
        self.gone(node);
        if let (true, Some(&head)) = (was_candidate, self.successors.first()) {
            self.notify(head);
        }
    }

    /// `head` and the nodes after it, as far as they go on clockwise before they reach us.
    fn assemble(&self, head: NodeRef, after: &[NodeRef]) -> Vec<NodeRef> {
        let mut list = vec![head];
        for &node in after.iter().filter(|node| !self.is_silent(**node)) {
            let last = list[list.len() - 1];
            let goes_on = RingArc::new(last.id, self.id()).strictly_contains(node.id) && !self.is_me(node);
            if !goes_on || list.len() >= self.settings.successor_list_len.max(2) {
                break;
            }
            list.push(node);
        }
        list
    }

    pub(super) fn notify(&mut self, to: NodeRef) {
        self.actions.push(Action::Tell { to, message: Message::Notify(self.me) });
    }

    /// `peer` believes that it precedes us. It is right if it lies between, or if the present predecessor is gone. What
    /// was adopted is asked, so that a false notification does not last.
    pub(super) fn rectify(&mut self, peer: NodeRef) {
        if self.is_me(peer) || peer.id == self.id() {
            return;
        }
        self.silent.remove(&peer.ring_address());
        match self.predecessor {
            Some(present) if present == peer => {}
            Some(present) if present.ring_address() == peer.ring_address() => self.adopt_predecessor(peer, None),
            Some(present) if RingArc::new(present.id, self.id()).strictly_contains(peer.id) => {
                self.adopt_predecessor(peer, Some(present))
            }
            Some(_) => self.check_predecessor(Some(peer)),
            None => self.adopt_predecessor(peer, None),
        }
        if self.alone() {
            self.approach(peer);
        }
    }

    /// Clears the newcomer's silence: a node that was silent a moment ago would not be looked at for seconds.
    pub(super) fn followed(&mut self, newcomer: NodeRef) {
        self.silent.remove(&newcomer.ring_address());
        self.stabilize();
    }

    fn adopt_predecessor(&mut self, peer: NodeRef, present: Option<NodeRef>) {
        self.predecessor = Some(peer);
        self.check_predecessor(present);
    }

    pub(super) fn check_predecessor(&mut self, otherwise: Option<NodeRef>) {
        if let Some(present) = self.predecessor {
            self.ask_once(present, RingRequest::Neighbours, Purpose::Predecessor { otherwise });
        }
    }

    pub(super) fn predecessor_answered(&mut self, node: NodeRef, theirs: &Neighbours, otherwise: Option<NodeRef>) {
        if theirs.node.id != node.id {
            self.predecessor_failed(node, otherwise);
        } else if theirs.successors.is_empty() {
            self.doubt_membership(node, otherwise);
        }
    }

    pub(super) fn predecessor_failed(&mut self, node: NodeRef, otherwise: Option<NodeRef>) {
        let was_present = self.predecessor == Some(node);
        self.gone(node);
        if let (true, Some(other)) = (was_present, otherwise.filter(|&other| !self.is_silent(other))) {
            self.adopt_predecessor(other, None);
        }
    }

    /// The head of the list is asked by `stabilize`; these are the others, so that a dead node leaves every list that
    /// holds it within one period and one call.
    pub(super) fn check_list(&mut self) {
        for node in self.successors.iter().skip(1).copied().collect::<Vec<_>>() {
            self.ask_once(node, RingRequest::Info, Purpose::Alive);
        }
    }

    pub(super) fn alive_answered(&mut self, node: NodeRef, info: NodeRef) {
        if info.id != node.id {
            self.gone(node);
        }
    }

    pub(super) fn connection_lost(&mut self, peer: std::net::SocketAddr) {
        if let Some(&node) = self.successors.iter().find(|node| node.ring_address() == peer) {
            let is_head = self.successors.first() == Some(&node);
            if is_head { self.stabilize() } else { self.ask_once(node, RingRequest::Info, Purpose::Alive) }
        }
        if self.predecessor.is_some_and(|node| node.ring_address() == peer) {
            self.check_predecessor(None);
        }
    }
}
