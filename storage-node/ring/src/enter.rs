//! Ways into a ring and out of it: join, the search for a ring apart from ours, another position, leave.
//!
//! All ways in are one: find the node that would be our successor, ask it, and take it with its whole list (Zave 2017).

use chordfs_types::ring_id::{Neighbours, NodeRef, RingId};

use super::{
    Action, Purpose, Ring,
    event::{JoinError, Message, RingRequest, Tag},
    lookup::LookupPurpose,
};

/// How many remembered peers a node without a ring asks per period.
const ASKED_WHEN_ALONE: usize = 3;

impl Ring {
    pub(super) fn join(&mut self, tag: Tag, member: NodeRef) {
        if self.left {
            return self.joined(Some(tag), Err(JoinError::Left));
        }
        if self.is_me(member) {
            return self.joined(Some(tag), Err(JoinError::Itself { member }));
        }
        self.known.add(member);
        if self.alone() {
            self.look_up_through(member, self.id(), LookupPurpose::Enter { join: Some(tag), member })
        } else {
            self.joined(Some(tag), Ok(()))
        }
    }

    /// Asks peers that we remember but do not see: is there somebody between us and our successor?
    pub(super) fn ask_known_peers(&mut self) {
        for _ in 0..if self.alone() { ASKED_WHEN_ALONE } else { 1 } {
            let seen = self.neighbours();
            let is_seen = |node: NodeRef| seen.predecessor == Some(node) || seen.successors.contains(&node);
            let Some(member) = self.known.next(|peer| !is_seen(peer)) else { return };
            self.look_up_through(member, self.id().advance(1), LookupPurpose::Enter { join: None, member });
        }
    }

    /// `found`: the successor of our position in the ring of `member`.
    pub(super) fn place_found(&mut self, join: Option<Tag>, member: NodeRef, found: Option<NodeRef>) {
        match found {
            Some(node) if self.is_me(node) => self.enter_around(member, join),
            Some(by) if by.id == self.id() => self.joined(join, Err(JoinError::IdTaken { by })),
            Some(node) if self.is_nearer(node) => {
                self.ask(node, RingRequest::Neighbours, Purpose::Adopt { join, through: member })
            }
            // Its ring has nobody nearer than our successor. If it does not know us either, it learns of us here.
            Some(node) => {
                if self.successors.first() != Some(&node) {
                    self.notify(node);
                }
                self.joined(join, Ok(()));
            }
            None => self.enter_around(member, join),
        }
    }

    /// Alone, and `peer` is somewhere in the ring that we want to be in. One search through it at a time.
    pub(super) fn approach(&mut self, peer: NodeRef) {
        let purpose = LookupPurpose::Enter { join: None, member: peer };
        if !self.is_looking_up(purpose) {
            self.look_up_through(peer, self.id().advance(1), purpose);
        }
    }

    /// The lookup led nowhere or to ourselves: that ring still counts on us from before, or it has nobody but us and
    /// `member`. Its neighbours tell which.
    fn enter_around(&mut self, member: NodeRef, join: Option<Tag>) {
        match self.alone() {
            true if self.left => self.joined(join, Err(JoinError::Left)),
            true if !self.is_silent(member) => {
                self.ask_once(member, RingRequest::Neighbours, Purpose::Approach { join });
            }
            true => self.joined(join, Err(JoinError::NoAnswer { member })),
            false => self.joined(join, Ok(())),
        }
    }

    /// A peer with nobody else is our successor. One with others is not known to be: to take it would skip who stands
    /// between. The one that its list has behind us is, as that list skips nobody whom ours may not skip. Otherwise its
    /// ring will notice that we are not in it, and then the lookup leads to our place; but a ring of foreign nodes
    /// never notices, as to them we are a successor like any other.
    pub(super) fn approach_answered(&mut self, peer: NodeRef, theirs: &Neighbours, join: Option<Tag>) {
        let peer = NodeRef { id: theirs.node.id, ..peer };
        let rival = theirs.successors.iter().find(|node| node.id == self.id() && !self.is_me(**node));
        match rival {
            Some(&by) => self.joined(join, Err(JoinError::IdTaken { by })),
            None if peer.id == self.id() => self.joined(join, Err(JoinError::IdTaken { by: peer })),
            None if theirs.successors.iter().all(|&node| self.is_me(node)) => {
                self.adopt_answered(peer, theirs, join, peer)
            }
            None => match self.behind_us(&theirs.successors) {
                Some(next) => self.ask_once(next, RingRequest::Neighbours, Purpose::Adopt { join, through: peer }),
                None => self.joined(join, Err(JoinError::NotYet { member: peer })),
            },
        }
    }

    fn behind_us(&self, list: &[NodeRef]) -> Option<NodeRef> {
        let place = list.iter().position(|&node| self.is_me(node) && node.id == self.id())?;
        list.get(place + 1).copied().filter(|&next| !self.is_silent(next))
    }

    /// A node that is alone is a ring only if it was the one to be joined. Where others pointed us to it, it was
    /// started again and will come back to them; with us it would be a second ring.
    pub(super) fn adopt_answered(&mut self, node: NodeRef, theirs: &Neighbours, join: Option<Tag>, through: NodeRef) {
        if theirs.successors.is_empty() && node.ring_address() != through.ring_address() {
            return self.joined(join, Err(JoinError::NotYet { member: node }));
        }
        self.consider(node, theirs);
        if self.alone() {
            self.joined(join, Err(JoinError::NoAnswer { member: node }))
        } else {
            self.joined(join, Ok(()))
        }
    }

    pub(super) fn enter_failed(&mut self, node: NodeRef, join: Option<Tag>) {
        self.gone(node);
        if self.alone() {
            self.joined(join, Err(JoinError::NoAnswer { member: node }))
        } else {
            self.joined(join, Ok(()))
        }
    }

    /// Tells whoever asked for it; a search of our own has nobody to tell.
    fn joined(&mut self, join: Option<Tag>, result: Result<(), JoinError>) {
        match (join, result) {
            (Some(tag), result) => self.actions.push(Action::Joined { tag, result }),
            (None, Err(JoinError::IdTaken { by })) => self.give_up_position(by),
            (None, _) => {}
        }
    }

    /// The successor's predecessor has our id: it came first, so we are the one to move.
    pub(super) fn rival_answered(&mut self, rival: NodeRef, info: NodeRef) {
        if info.id == self.id() { self.give_up_position(rival) } else { self.rival_failed(rival) }
    }

    /// The successor's predecessor is gone; told of us, the successor will find that out and take us.
    pub(super) fn rival_failed(&mut self, rival: NodeRef) {
        self.gone(rival);
        if let Some(&head) = self.successors.first() {
            self.notify(head);
        }
    }

    fn give_up_position(&mut self, by: NodeRef) {
        self.known.add(by);
        self.stand_alone();
        self.actions.push(Action::IdTaken { by });
    }

    pub(super) fn reposition(&mut self, id: RingId) {
        if self.alone() {
            self.stand_alone();
            self.me.id = id;
        }
    }

    pub(super) fn leave(&mut self) {
        let view = self.neighbours();
        let mut told: Vec<NodeRef> = view.predecessor.into_iter().chain(view.successors.first().copied()).collect();
        told.dedup();
        for to in told {
            self.actions.push(Action::Tell { to, message: Message::Leave(view.clone()) });
        }
        self.stand_alone();
        self.left = true;
        self.calls.clear();
        self.give_up_lookups();
    }

    /// Its neighbours become each other's at once; both are asked like any other.
    pub(super) fn peer_left(&mut self, peer: NodeRef, predecessor: Option<NodeRef>, successors: Vec<NodeRef>) {
        let was_predecessor = self.predecessor == Some(peer);
        if self.is_me(peer) {
            return;
        }
        self.gone(peer);
        self.known.remove(peer);
        if let (true, Some(before)) = (was_predecessor, predecessor) {
            self.rectify(before);
        }
        if self.alone()
            && let Some(&next) = successors.iter().find(|&&node| !self.is_me(node))
        {
            self.approach(next);
        }
    }
}
