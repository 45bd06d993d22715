//! Which nodes hold a key: its owner, and the next nodes after it that share neither zone nor host with those before.
//!
//! Where zones and hosts do not matter, that is the owner and the next two. One host twice, or one zone twice, are taken
//! only if no other is found among the nodes that count ([`SPREAD_OVER`]); then, too, everybody takes the same.
//!
//! A node's zone is part of its id. So whoever knows a stretch of the ring (a mount, a node that repairs, one that
//! drains, an operator's check) comes to the same holders without asking anybody, and neither the ten calls nor foreign
//! members need to know of zones. Of the 32 bits the low twelve say it: six that mark an id as having a zone, six for its
//! number. A position is a million places fine, then; a ring of ten thousand nodes has a hundred of them for each. An id
//! that is marked by chance counts as a node in a zone of its own making, which costs nothing.

use crate::{
    chunk_api::REPLICAS,
    ring_id::{NodeRef, RingId},
};

/// So many nodes count, the owner included. Of three zones in no order one is missing among them in one of five thousand
/// arcs; and in a ring of one zone nobody looks farther than this for another.
pub const SPREAD_OVER: usize = 24;

/// A failure that takes all nodes of a zone at once: an availability zone, a rack, a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(u8);

impl Zone {
    /// Names that differ in their last letter or digit alone, as zones of a region do, have different numbers. Of others
    /// one pair in 64 has the same, and counts as one zone.
    pub fn of_name(name: &str) -> Self {
        let hash = name.bytes().fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        Self((hash & ZONE_BITS) as u8)
    }

    pub fn of_id(id: RingId) -> Option<Self> {
        (id.0 & MARK_BITS == MARK).then_some(Self((id.0 & ZONE_BITS) as u8))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// The position next to `id` that says this zone.
    pub fn mark(self, id: RingId) -> RingId {
        RingId(id.0 & !(MARK_BITS | ZONE_BITS) | MARK | u32::from(self.0))
    }
}

/// The position for a node without a zone: `id`, or one next to it that says none.
pub fn unmarked(id: RingId) -> RingId {
    match Zone::of_id(id) {
        Some(_) => RingId(id.0 ^ (ZONE_BITS + 1)),
        None => id,
    }
}

const ZONE_BITS: u32 = 0x3f;
const MARK_BITS: u32 = 0xfc0;
const MARK: u32 = 0b10_1101 << 6;
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The node at `at` of a whole circle and those after it, as far as they count.
pub fn onwards(circle: &[NodeRef], at: usize) -> Vec<NodeRef> {
    (0..circle.len().min(SPREAD_OVER)).map(|step| circle[(at + step) % circle.len()]).collect()
}

/// All of `nodes` (an owner and those after it, in the order of the ring), in the order in which they are to hold what
/// the first owns: its holders first, then those that would take their places.
pub fn preferred(nodes: &[NodeRef]) -> Vec<NodeRef> {
    let mut chosen = holders(nodes);
    let rest = nodes.iter().filter(|node| !chosen.contains(node)).copied();
    let rest: Vec<NodeRef> = rest.collect();
    chosen.extend(rest);
    chosen
}

/// The holders of what the first of `nodes` owns, as far as these nodes tell.
pub fn holders(nodes: &[NodeRef]) -> Vec<NodeRef> {
    let nodes = &nodes[..nodes.len().min(SPREAD_OVER)];
    let mut chosen: Vec<NodeRef> = Vec::with_capacity(REPLICAS);
    let strictest_first: [fn(&NodeRef, &NodeRef) -> bool; 3] = [is_apart, is_on_another_host, |_, _| true];
    for suits in strictest_first {
        for node in nodes {
            if chosen.len() == REPLICAS {
                return chosen;
            }
            if !chosen.contains(node) && chosen.iter().all(|other| suits(node, other)) {
                chosen.push(*node);
            }
        }
    }
    chosen
}

/// Would more nodes at the end of `nodes` leave the holders as they are?
pub fn is_certain(nodes: &[NodeRef]) -> bool {
    let chosen = holders(nodes);
    let all_apart =
        || chosen.iter().enumerate().all(|(at, node)| chosen[..at].iter().all(|other| is_apart(node, other)));
    nodes.len() >= SPREAD_OVER || (chosen.len() == REPLICAS && all_apart())
}

fn is_apart(a: &NodeRef, b: &NodeRef) -> bool {
    is_on_another_host(a, b) && Zone::of_id(a.id).is_none_or(|zone| Zone::of_id(b.id) != Some(zone))
}

fn is_on_another_host(a: &NodeRef, b: &NodeRef) -> bool {
    a.ip != b.ip
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a host of its own, in the zone that ends in `zone`, or in none.
    fn node(place: u32, zone: Option<char>) -> NodeRef {
        let id = RingId(place << 12);
        let id = zone.map_or(id, |zone| Zone::of_name(&format!("eu-central-1{zone}")).mark(id));
        NodeRef { ip: std::net::Ipv4Addr::from(place).into(), port: 5057, id }
    }

    fn ring(zones: &str) -> Vec<NodeRef> {
        let zone = |letter| Some(letter).filter(|&letter| letter != '-');
        zones.chars().enumerate().map(|(at, letter)| node(at as u32 + 1, zone(letter))).collect()
    }

    fn places(nodes: &[NodeRef]) -> Vec<u32> {
        nodes.iter().map(|node| node.id.0 >> 12).collect()
    }

    #[test]
    fn zones_of_a_region_have_different_numbers() {
        let numbers: std::collections::HashSet<u8> =
            ('a'..='z').map(|letter| Zone::of_name(&format!("us-east-1{letter}")).number()).collect();
        assert_eq!(numbers.len(), 26);
    }

    #[test]
    fn an_id_says_its_zone_and_hardly_moves() {
        for id in [0, 1, 4095, 4096, 0xb40, u32::MAX, 0x1234_5678].map(RingId) {
            let zone = Zone::of_name("rack 7");
            assert_eq!(Zone::of_id(zone.mark(id)), Some(zone));
            assert_eq!(zone.mark(id).0 >> 12, id.0 >> 12);
            assert_eq!(Zone::of_id(unmarked(zone.mark(id))), None);
            assert_eq!(Zone::of_id(unmarked(id)), None);
        }
    }

    #[test]
    fn holders_are_in_three_zones_where_there_are_three() {
        for (zones, wanted) in [
            ("---", vec![1, 2, 3]),
            ("----", vec![1, 2, 3]),
            ("abc", vec![1, 2, 3]),
            ("aabbcc", vec![1, 3, 5]),
            ("aaabaac", vec![1, 4, 7]),
            ("a-b", vec![1, 2, 3]),
            ("aab", vec![1, 3, 2]),
            ("aaaa", vec![1, 2, 3]),
            ("aabb", vec![1, 3, 2]),
            ("a", vec![1]),
        ] {
            assert_eq!(places(&holders(&ring(zones))), wanted, "{zones}");
        }
    }

    #[test]
    fn no_host_holds_a_chunk_twice_where_there_is_another() {
        let mut nodes = ring("-----");
        nodes[1].ip = nodes[0].ip;
        nodes[2].ip = nodes[0].ip;
        assert_eq!(places(&holders(&nodes)), [1, 4, 5]);
        nodes.truncate(4);
        assert_eq!(places(&holders(&nodes)), [1, 4, 2], "one host twice, as there are but two");
        // Another host counts more than another zone.
        let mut nodes = ring("abca");
        nodes[1].ip = nodes[0].ip;
        assert_eq!(places(&holders(&nodes)), [1, 3, 4]);
    }

    #[test]
    fn who_would_take_over_comes_in_the_order_of_the_ring() {
        assert_eq!(places(&preferred(&ring("aabbcc"))), [1, 3, 5, 2, 4, 6]);
        assert_eq!(places(&preferred(&ring("----"))), [1, 2, 3, 4]);
    }

    #[test]
    fn holders_are_certain_once_all_are_apart() {
        assert!(is_certain(&ring("---")) && is_certain(&ring("aabaac")));
        assert!(!is_certain(&ring("--")) && !is_certain(&ring("aabb")));
        assert!(is_certain(&ring(&"a".repeat(SPREAD_OVER))));
        let (few, more) = (ring("aabaac"), ring("aabaacaaabbbccc"));
        assert_eq!(holders(&few), holders(&more));
    }

    /// Beyond the nodes that count a third zone is not looked for, by anybody.
    #[test]
    fn everybody_looks_equally_far() {
        let far = "a".repeat(SPREAD_OVER) + "bc";
        assert_eq!(places(&holders(&ring(&far))), [1, 2, 3]);
    }
}
