//! Which nodes hold a key: its owner, and the next nodes after it that share neither zone nor host with earlier
//! holders.
//!
//! Without zones and with one node a host, these are the owner and the next two. A host or a zone is chosen twice only
//! if there is no other among the nodes that count ([`SPREAD_OVER`]); in that case, too, all nodes choose the same
//! holders.
//!
//! A node's zone is part of its id. So every program that knows a stretch of the ring (a mount, a node that repairs or
//! drains, an operator's check) computes the same holders without a request, and neither the ten calls nor foreign
//! members need to know about zones. The low twelve of the 32 bits hold it: six mark an id as having a zone, six are
//! its number. That leaves a million positions; a ring of ten thousand nodes has a hundred of them for each. An id that
//! has the mark by chance counts as a node in that zone, which does no harm.

use crate::{
    chunk_api::REPLICAS,
    ring_id::{NodeRef, RingId},
};

/// The number of nodes that count, the owner included. With three zones in random order, one arc in five thousand lacks
/// a zone among them; and in a ring of one zone no node looks farther than this for another.
pub const SPREAD_OVER: usize = 24;

/// A failure that takes all nodes of a zone at once: an availability zone, a rack, a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(u8);

impl Zone {
    /// Names that differ only in their last letter or digit, as the zones of a region do, have different numbers. Among
    /// other names, one pair in 64 shares a number, and counts as one zone.
    pub fn of_name(name: &str) -> Self {
        let hash = name.bytes().fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        Self((hash & ZONE_BITS) as u8)
    }

    /// `None` for an id without the mark.
    pub fn of_id(id: RingId) -> Option<Self> {
        (id.0 & MARK_BITS == MARK).then_some(Self((id.0 & ZONE_BITS) as u8))
    }

    /// 0 to 63.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The position next to `id` that carries this zone.
    pub fn mark(self, id: RingId) -> RingId {
        RingId(id.0 & !(MARK_BITS | ZONE_BITS) | MARK | u32::from(self.0))
    }
}

/// The position for a node without a zone: `id`, or one next to it that carries none.
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

/// The node at `at` of a whole circle and the nodes after it, as far as they count.
pub fn onwards(circle: &[NodeRef], at: usize) -> Vec<NodeRef> {
    (0..circle.len().min(SPREAD_OVER)).map(|step| circle[(at + step) % circle.len()]).collect()
}

/// Sorts `nodes` (an owner and the nodes after it, in ring order) into the order in which they hold what the first
/// owns: its holders first, then the nodes that would replace them.
pub fn preferred(nodes: &[NodeRef]) -> Vec<NodeRef> {
    let mut chosen = holders(nodes);
    let rest = nodes.iter().filter(|node| !chosen.contains(node)).copied();
    let rest: Vec<NodeRef> = rest.collect();
    chosen.extend(rest);
    chosen
}

/// The holders of what the first of `nodes` owns, as far as they follow from these nodes.
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

/// Whether more nodes at the end of `nodes` would leave the holders as they are.
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

    /// A node on a host of its own, in the zone that ends in `zone`, or in none.
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
    fn an_id_carries_its_zone_and_hardly_moves() {
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
        assert_eq!(places(&holders(&nodes)), [1, 4, 2], "one host twice, because there are only two");
        // Another host counts more than another zone.
        let mut nodes = ring("abca");
        nodes[1].ip = nodes[0].ip;
        assert_eq!(places(&holders(&nodes)), [1, 3, 4]);
    }

    #[test]
    fn replacements_come_in_ring_order() {
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

    /// No node looks for a third zone beyond the nodes that count.
    #[test]
    fn all_nodes_look_equally_far() {
        let far = "a".repeat(SPREAD_OVER) + "bc";
        assert_eq!(places(&holders(&ring(&far))), [1, 2, 3]);
    }
}
