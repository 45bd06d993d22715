//! Which nodes did not answer of late. Others are asked first meanwhile, so that a node that is stopped or cut off costs one
//! request its patience and not every request; a node that is only slow is asked again soon.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// For so long others are preferred.
const REMEMBERED_FOR: Duration = Duration::from_secs(3);

/// By ring address.
#[derive(Debug, Default)]
pub struct Quiet(HashMap<SocketAddr, Instant>);

impl Quiet {
    pub fn note(&mut self, node: SocketAddr, now: Instant) {
        self.0.retain(|_, since| now.duration_since(*since) < REMEMBERED_FOR);
        self.0.insert(node, now);
    }

    pub fn heard(&mut self, node: SocketAddr) {
        self.0.remove(&node);
    }

    pub fn all(&self, now: Instant) -> HashSet<SocketAddr> {
        self.0.keys().filter(|node| self.holds(**node, now)).copied().collect()
    }

    pub fn holds(&self, node: SocketAddr, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|since| now.duration_since(*since) < REMEMBERED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_quiet_until_it_is_heard_or_time_has_passed() {
        let (mut quiet, start) = (Quiet::default(), Instant::now());
        let nodes: [SocketAddr; 2] = ["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()];
        nodes.iter().for_each(|node| quiet.note(*node, start));
        assert!(quiet.holds(nodes[0], start) && quiet.holds(nodes[1], start));
        quiet.heard(nodes[0]);
        assert!(!quiet.holds(nodes[0], start) && quiet.holds(nodes[1], start));
        assert!(!quiet.holds(nodes[1], start + REMEMBERED_FOR));
    }
}
