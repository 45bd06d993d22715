//! The nodes that did not answer recently. Other nodes are preferred for a while, so that a node that is stopped or cut
//! off delays one request and not every request; a node that is only slow is used again soon.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long other nodes are preferred.
const REMEMBERED_FOR: Duration = Duration::from_secs(3);

/// Maps ring addresses to the time of the last missing answer.
#[derive(Debug, Default)]
pub(super) struct UnresponsiveNodes(HashMap<SocketAddr, Instant>);

impl UnresponsiveNodes {
    pub(super) fn insert(&mut self, node: SocketAddr, now: Instant) {
        self.0.retain(|_, since| now.duration_since(*since) < REMEMBERED_FOR);
        self.0.insert(node, now);
    }

    pub(super) fn remove(&mut self, node: SocketAddr) {
        self.0.remove(&node);
    }

    pub(super) fn all(&self, now: Instant) -> HashSet<SocketAddr> {
        self.0.keys().filter(|node| self.contains(**node, now)).copied().collect()
    }

    pub(super) fn contains(&self, node: SocketAddr, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|since| now.duration_since(*since) < REMEMBERED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_unresponsive_until_it_answers_or_time_has_passed() {
        let (mut unresponsive, start) = (UnresponsiveNodes::default(), Instant::now());
        let nodes: [SocketAddr; 2] = ["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()];
        nodes.iter().for_each(|node| unresponsive.insert(*node, start));
        assert!(unresponsive.contains(nodes[0], start) && unresponsive.contains(nodes[1], start));
        unresponsive.remove(nodes[0]);
        assert!(!unresponsive.contains(nodes[0], start) && unresponsive.contains(nodes[1], start));
        assert!(!unresponsive.contains(nodes[1], start + REMEMBERED_FOR));
    }
}
