//! Selects the node to ask for the leader next: one of those that were given, or of the leaders learnt since.

use std::{collections::VecDeque, net::SocketAddr};

/// Leaders remembered in addition to the nodes that were given.
const MAX_LEARNT: usize = 16;

pub(super) struct LeaderCandidates {
    seeds: Vec<SocketAddr>,
    learnt: VecDeque<SocketAddr>,
    preferred: Option<SocketAddr>,
    turn: usize,
}

impl LeaderCandidates {
    /// `seeds` must not be empty.
    pub(super) fn new(seeds: Vec<SocketAddr>, turn: usize) -> Self {
        Self { seeds, learnt: VecDeque::new(), preferred: None, turn }
    }

    /// Replaces the nodes that were given; `seeds` must not be empty. Leaders that were learnt stay.
    pub(super) fn replace_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.seeds = seeds;
    }

    /// Returns the preferred node once, then the others in turn.
    pub(super) fn next(&mut self) -> SocketAddr {
        if let Some(preferred) = self.preferred.take() {
            return preferred;
        }
        self.turn = (self.turn + 1) % (self.seeds.len() + self.learnt.len());
        match self.turn.checked_sub(self.seeds.len()) {
            None => self.seeds[self.turn],
            Some(learnt) => self.learnt[learnt],
        }
    }

    /// Stops preferring the node; it is still asked in turn.
    pub(super) fn avoid(&mut self, node: SocketAddr) {
        self.preferred.take_if(|preferred| *preferred == node);
    }

    pub(super) fn prefer(&mut self, node: SocketAddr) {
        self.preferred = Some(node);
        if self.seeds.contains(&node) || self.learnt.contains(&node) {
            return;
        }
        if self.learnt.len() == MAX_LEARNT {
            self.learnt.pop_front();
        }
        self.learnt.push_back(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn new_seeds_take_the_place_of_the_old_ones() {
        let mut candidates = LeaderCandidates::new(vec![node(1), node(2), node(3)], 2);
        candidates.prefer(node(9));
        candidates.replace_seeds(vec![node(4)]);
        let asked: Vec<_> = (0..5).map(|_| candidates.next().port()).collect();
        assert_eq!(asked, [9, 9, 4, 9, 4]);
    }

    #[test]
    fn a_learnt_leader_is_asked_first_and_then_all_nodes_in_turn() {
        let mut candidates = LeaderCandidates::new(vec![node(1), node(2)], 1);
        candidates.prefer(node(3));
        let asked: Vec<_> = (0..5).map(|_| candidates.next().port()).collect();
        assert_eq!(asked, [3, 3, 1, 2, 3]);
    }

    #[test]
    fn the_number_of_learnt_leaders_is_bounded() {
        let mut candidates = LeaderCandidates::new(vec![node(1)], 0);
        (2..1000).for_each(|port| candidates.prefer(node(port)));
        assert_eq!(candidates.learnt.len(), MAX_LEARNT);
        assert!((0..50).any(|_| candidates.next() == node(1)), "the seeds stay");
    }
}
