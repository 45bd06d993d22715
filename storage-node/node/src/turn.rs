//! One at a time among equals that can only ask each other: who may found the ring, whose drain comes next.
//!
//! Lamport's bakery without tickets: everybody shows what it is about, says that it tries *before* it asks the others,
//! and goes ahead only if it then sees nobody who is ahead of it or may just be going ahead. Of two that try at the
//! same time at least one sees the other, and the one behind steps back. Who does not answer is not seen here; whether
//! it may be passed over is for the caller to know.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

/// What a node shows to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bid {
    /// It does not want to.
    #[default]
    None,
    /// It wants to, and waits.
    Wants,
    /// It asks the others at this moment, and will go ahead if nothing speaks against it.
    Tries,
    /// It is at it.
    Has,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Only for one who shows `Tries` and has asked everybody since.
    Go,
    /// Somebody comes first: show `Wants`, and begin anew later.
    StepBack,
    /// Somebody who comes later may be going ahead already: that is known in a moment, so ask again.
    AskAgain,
}

/// `mine` and the others' keys say who comes first: the smallest.
pub fn verdict<K: Ord>(mine: &K, others: impl IntoIterator<Item = (K, Bid)>) -> Verdict {
    let mut verdict = Verdict::Go;
    for (key, bid) in others {
        match bid {
            Bid::Has => return Verdict::StepBack,
            Bid::Wants | Bid::Tries if key < *mine => return Verdict::StepBack,
            Bid::Tries => verdict = Verdict::AskAgain,
            Bid::Wants | Bid::None => {}
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_smallest_goes_and_nobody_beside_another() {
        use Bid::{Has, None, Tries, Wants};
        for (others, wanted) in [
            (vec![], Verdict::Go),
            (vec![(9, None), (1, None)], Verdict::Go),
            (vec![(9, Wants)], Verdict::Go),
            (vec![(1, Wants)], Verdict::StepBack),
            (vec![(1, Tries)], Verdict::StepBack),
            (vec![(9, Tries)], Verdict::AskAgain),
            (vec![(9, Tries), (1, Wants)], Verdict::StepBack),
            (vec![(9, Has)], Verdict::StepBack),
        ] {
            assert_eq!(verdict(&5, others.clone()), wanted, "{others:?}");
        }
    }

    /// A node between two steps; a step is what no other can come between: to show something, or to see one other.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Node {
        shows: Bid,
        seen: Vec<(usize, Bid)>,
    }

    fn step(nodes: &[Node], me: usize) -> Vec<Node> {
        let mut next = nodes.to_vec();
        let node = &mut next[me];
        let others = (0..nodes.len()).filter(|other| *other != me);
        match node.shows {
            Bid::None | Bid::Wants => (node.shows, node.seen) = (Bid::Tries, Vec::new()),
            Bid::Tries => match others.clone().find(|other| node.seen.iter().all(|(seen, _)| seen != other)) {
                Some(other) => node.seen.push((other, nodes[other].shows)),
                None => match verdict(&me, std::mem::take(&mut node.seen)) {
                    Verdict::Go => node.shows = Bid::Has,
                    Verdict::StepBack => node.shows = Bid::Wants,
                    Verdict::AskAgain => {}
                },
            },
            Bid::Has => node.shows = Bid::None,
        }
        next
    }

    /// Every order in which the steps of all nodes can happen.
    #[test]
    fn no_interleaving_lets_two_go_ahead() {
        for count in [2, 3] {
            let start = vec![Node { shows: Bid::None, seen: Vec::new() }; count];
            let (mut open, mut known) = (vec![start.clone()], HashSet::from([start]));
            let mut went = 0;
            while let Some(nodes) = open.pop() {
                let at_it = nodes.iter().filter(|node| node.shows == Bid::Has).count();
                assert!(at_it <= 1, "two go ahead");
                went += at_it;
                for me in 0..count {
                    let next = step(&nodes, me);
                    if known.insert(next.clone()) {
                        open.push(next);
                    }
                }
            }
            assert!(went > 0 && known.len() > 40, "{count} nodes: {} states", known.len());
        }
    }
}
