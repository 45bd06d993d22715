//! Mutual exclusion among equals that can only ask each other: founding the ring, draining one node after the other.
//!
//! Lamport's bakery without tickets. Each node publishes its claim, publishes `Trying` *before* it asks the others, and
//! goes ahead only if it then sees no claim that precedes its own or may be going ahead. If two nodes try at the same
//! time, at least one sees the other, and the one with the larger key backs off. An unresponsive node
//! is not seen here; the caller decides whether it may be ignored.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

/// What a node publishes to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Claim {
    /// The node makes no claim.
    #[default]
    #[serde(rename = "none")]
    Idle,
    /// The node wants to go ahead and waits for others.
    #[serde(rename = "wants")]
    Waiting,
    /// The node is asking the others, and goes ahead if no answer forbids it.
    #[serde(rename = "tries")]
    Trying,
    /// The node has gone ahead.
    #[serde(rename = "has")]
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimVerdict {
    /// Valid only for a node that publishes `Trying` and has asked all others since.
    Go,
    /// Another node precedes this one: publish `Waiting`, and start again later.
    BackOff,
    /// A node with a larger key may be going ahead already; its next answer will tell, so ask again.
    AskAgain,
}

/// Compares this node's key with the others' keys and claims. The smallest key goes first.
pub fn verdict<K: Ord>(mine: &K, others: impl IntoIterator<Item = (K, Claim)>) -> ClaimVerdict {
    let mut verdict = ClaimVerdict::Go;
    for (key, claim) in others {
        match claim {
            Claim::Held => return ClaimVerdict::BackOff,
            Claim::Waiting | Claim::Trying if key < *mine => return ClaimVerdict::BackOff,
            Claim::Trying => verdict = ClaimVerdict::AskAgain,
            Claim::Waiting | Claim::Idle => {}
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_smallest_key_goes_first_and_alone() {
        use Claim::{Held, Idle, Trying, Waiting};
        for (others, wanted) in [
            (vec![], ClaimVerdict::Go),
            (vec![(9, Idle), (1, Idle)], ClaimVerdict::Go),
            (vec![(9, Waiting)], ClaimVerdict::Go),
            (vec![(1, Waiting)], ClaimVerdict::BackOff),
            (vec![(1, Trying)], ClaimVerdict::BackOff),
            (vec![(9, Trying)], ClaimVerdict::AskAgain),
            (vec![(9, Trying), (1, Waiting)], ClaimVerdict::BackOff),
            (vec![(9, Held)], ClaimVerdict::BackOff),
        ] {
            assert_eq!(verdict(&5, others.clone()), wanted, "{others:?}");
        }
    }

    /// A node between two atomic steps: publishing a claim, or reading one other claim.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Node {
        claim: Claim,
        seen: Vec<(usize, Claim)>,
    }

    fn step(nodes: &[Node], me: usize) -> Vec<Node> {
        let mut next = nodes.to_vec();
        let node = &mut next[me];
        let others = (0..nodes.len()).filter(|other| *other != me);
        match node.claim {
            Claim::Idle | Claim::Waiting => (node.claim, node.seen) = (Claim::Trying, Vec::new()),
            Claim::Trying => match others.clone().find(|other| node.seen.iter().all(|(seen, _)| seen != other)) {
                Some(other) => node.seen.push((other, nodes[other].claim)),
                None => match verdict(&me, std::mem::take(&mut node.seen)) {
                    ClaimVerdict::Go => node.claim = Claim::Held,
                    ClaimVerdict::BackOff => node.claim = Claim::Waiting,
                    ClaimVerdict::AskAgain => {}
                },
            },
            Claim::Held => node.claim = Claim::Idle,
        }
        next
    }

    /// Explores every order in which the steps of all nodes can happen.
    #[test]
    fn no_interleaving_lets_two_go_ahead() {
        for count in [2, 3] {
            let start = vec![Node { claim: Claim::Idle, seen: Vec::new() }; count];
            let (mut open, mut known) = (vec![start.clone()], HashSet::from([start]));
            let mut went = 0;
            while let Some(nodes) = open.pop() {
                let holding = nodes.iter().filter(|node| node.claim == Claim::Held).count();
                assert!(holding <= 1, "two go ahead");
                went += holding;
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
