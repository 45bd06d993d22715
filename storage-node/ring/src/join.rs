//! Joining and leaving a ring: join, the search for a separate ring, a change of position, leave.
//!
//! Every join works alike: find the node that would be our successor, ask it for its neighbours, and take it with its
//! whole successor list (Zave 2017).

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use super::{
    Action, Purpose, Ring,
    event::{JoinError, Message, RingRequest, Tag},
    lookup::LookupPurpose,
};

/// How many remembered peers a node that is alone contacts in a period.
const PEERS_ASKED_WHEN_ALONE: usize = 3;

impl Ring {
    pub(super) fn join(&mut self, tag: Tag, member: NodeRef) {
        if self.left {
            return self.finish_join(Some(tag), Err(JoinError::Left));
        }
        if self.is_me(member) {
            return self.finish_join(Some(tag), Err(JoinError::Itself { member }));
        }
        if self.is_alone() {
            self.known.add_named(member);
            self.look_up_through(member, self.id(), LookupPurpose::Join { join: Some(tag), member })
        } else {
            self.call(member, RingRequest::Neighbours, Purpose::Introduction { join: tag })
        }
    }

    /// A peer that this node is to remember while it is in a ring. If that is a member of another ring, the two rings
    /// find each other through it.
    pub(super) fn introduction_answered(&mut self, peer: NodeRef, theirs: &Neighbours, join: Tag) {
        self.known.add(NodeRef { id: theirs.node.id, ..peer });
        self.finish_join(Some(join), Ok(()))
    }

    /// A peer that does not answer is not remembered: it would be asked every few seconds from then on.
    pub(super) fn introduction_failed(&mut self, member: NodeRef, join: Tag) {
        self.finish_join(Some(join), Err(JoinError::NoAnswer { member }))
    }

    /// Searches through remembered peers that are not our neighbours for a node between us and our successor.
    pub(super) fn search_through_known_peers(&mut self) {
        for _ in 0..if self.is_alone() { PEERS_ASKED_WHEN_ALONE } else { 1 } {
            let seen = self.neighbours();
            let is_seen = |node: NodeRef| seen.predecessor == Some(node) || seen.successors.contains(&node);
            let Some(member) = self.known.next(|peer| !is_seen(peer)) else { return };
            self.look_up_through(member, self.id().advance(1), LookupPurpose::Join { join: None, member });
        }
    }

    /// The lookup of our position in the ring of `member` has finished; `found` is the successor there.
    pub(super) fn join_lookup_finished(&mut self, join: Option<Tag>, member: NodeRef, found: Option<NodeRef>) {
        match found {
            Some(node) if self.is_me(node) => self.join_through_neighbours(member, join),
            Some(by) if by.id == self.id() => self.finish_join(join, Err(JoinError::IdTaken { by })),
            Some(node) if self.is_nearer(node) => {
                self.call(node, RingRequest::Neighbours, Purpose::Adopt { join, through: member })
            }
            // Its ring has no node nearer than our successor. A node that may not know us yet is notified.
            Some(node) => {
                if self.successors.first() != Some(&node) {
                    self.notify(node);
                }
                self.finish_join(join, Ok(()));
            }
            None => self.join_through_neighbours(member, join),
        }
    }

    /// This node is alone and `peer` is a member of the ring to join: searches through it, once at a time.
    pub(super) fn approach(&mut self, peer: NodeRef) {
        let purpose = LookupPurpose::Join { join: None, member: peer };
        if !self.is_looking_up(purpose) {
            self.look_up_through(peer, self.id().advance(1), purpose);
        }
    }

    /// The lookup found no successor, or this node itself: either the ring still lists us from before a restart, or
    /// `member` is its only other node. The neighbours of `member` show which.
    fn join_through_neighbours(&mut self, member: NodeRef, join: Option<Tag>) {
        match self.is_alone() {
            true if self.left => self.finish_join(join, Err(JoinError::Left)),
            true if !self.is_dead(member) => {
                self.call_once(member, RingRequest::Neighbours, Purpose::Approach { join });
            }
            true => self.finish_join(join, Err(JoinError::NoAnswer { member })),
            false => self.finish_join(join, Ok(())),
        }
    }

    /// A peer without other neighbours is our successor. A peer with neighbours may not be: taking it could skip the
    /// nodes between. If its list contains us, the next node in that list is our successor, because the list skips no
    /// node that ours must not skip. Otherwise its ring will notice that we are not a member, and a later lookup finds
    /// our place. A ring of foreign nodes never notices: they treat us as a successor like any other.
    pub(super) fn approach_answered(&mut self, peer: NodeRef, theirs: &Neighbours, join: Option<Tag>) {
        let peer = NodeRef { id: theirs.node.id, ..peer };
        let rival = theirs.successors.iter().find(|node| node.id == self.id() && !self.is_me(**node));
        match rival {
            Some(&by) => self.finish_join(join, Err(JoinError::IdTaken { by })),
            None if peer.id == self.id() => self.finish_join(join, Err(JoinError::IdTaken { by: peer })),
            None if theirs.successors.iter().all(|&node| self.is_me(node)) => {
                self.adopt_answered(peer, theirs, join, peer)
            }
            None => match self.listed_after_us(&theirs.successors) {
                Some(next) => self.call_once(next, RingRequest::Neighbours, Purpose::Adopt { join, through: peer }),
                None => self.finish_join(join, Err(JoinError::NotYet { member: peer })),
            },
        }
    }

    fn listed_after_us(&self, list: &[NodeRef]) -> Option<NodeRef> {
        let place = list.iter().position(|&node| self.is_me(node) && node.id == self.id())?;
        list.get(place + 1).copied().filter(|&next| !self.is_dead(next))
    }

    /// A node that is alone counts as a ring only if it is the member that we join through. A lone node that others
    /// named has restarted and will return to their ring; joining it would form a second ring.
    pub(super) fn adopt_answered(&mut self, node: NodeRef, theirs: &Neighbours, join: Option<Tag>, through: NodeRef) {
        if theirs.successors.is_empty() && node.ring_address() != through.ring_address() {
            return self.finish_join(join, Err(JoinError::NotYet { member: node }));
        }
        self.consider_successor(node, theirs);
        if self.is_alone() {
            self.finish_join(join, Err(JoinError::NoAnswer { member: node }))
        } else {
            self.finish_join(join, Ok(()))
        }
    }

    pub(super) fn join_failed(&mut self, node: NodeRef, join: Option<Tag>) {
        self.declare_dead(node);
        if self.is_alone() {
            self.finish_join(join, Err(JoinError::NoAnswer { member: node }))
        } else {
            self.finish_join(join, Ok(()))
        }
    }

    /// Reports the result of a requested join; the node's own searches report to no caller.
    fn finish_join(&mut self, join: Option<Tag>, result: Result<(), JoinError>) {
        match (join, result) {
            (Some(tag), result) => self.actions.push(Action::Joined { tag, result }),
            (None, Err(JoinError::IdTaken { by })) => self.give_up_position(by),
            (None, _) => {}
        }
    }

    /// The successor's predecessor has our id. It came first, so this node moves.
    pub(super) fn rival_answered(&mut self, rival: NodeRef, info: NodeRef) {
        if info.id == self.id() { self.give_up_position(rival) } else { self.rival_failed(rival) }
    }

    /// The successor's predecessor is dead. Once notified, the successor finds that out and adopts this node.
    pub(super) fn rival_failed(&mut self, rival: NodeRef) {
        self.declare_dead(rival);
        if let Some(&head) = self.successors.first() {
            self.notify(head);
        }
    }

    fn give_up_position(&mut self, by: NodeRef) {
        self.known.add_named(by);
        self.forget_ring();
        self.actions.push(Action::IdTaken { by });
    }

    pub(super) fn reposition(&mut self, id: RingId) {
        if self.is_alone() {
            self.forget_ring();
            self.me.id = id;
        }
    }

    pub(super) fn leave(&mut self) {
        let view = self.neighbours();
        let mut recipients: Vec<NodeRef> =
            view.predecessor.into_iter().chain(view.successors.first().copied()).collect();
        recipients.dedup();
        for to in recipients {
            self.actions.push(Action::Send { to, message: Message::Leave(view.clone()) });
        }
        self.forget_ring();
        self.left = true;
        self.calls.clear();
        self.fail_lookups();
    }

    /// The neighbours of the node that left become each other's neighbours at once, and are checked like any other.
    pub(super) fn peer_left(&mut self, peer: NodeRef, predecessor: Option<NodeRef>, successors: Vec<NodeRef>) {
        let was_predecessor = self.predecessor == Some(peer);
        if self.is_me(peer) {
            return;
        }
        self.declare_dead(peer);
        self.known.remove(peer);
        if let (true, Some(before)) = (was_predecessor, predecessor) {
            self.rectify(before);
        }
        if self.is_alone()
            && let Some(&next) = successors.iter().find(|&&node| !self.is_me(node))
        {
            self.approach(next);
        }
    }
}
