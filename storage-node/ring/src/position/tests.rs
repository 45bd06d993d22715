use std::net::Ipv4Addr;

use chordfs_types::{
    placement::{holders, onwards},
    ring_id::RingArc,
};

use super::*;

pub(super) fn zone(number: u32) -> Zone {
    Zone::of_name(&format!("eu-central-1{}", char::from(b'a' + number as u8)))
}

/// The `nth` node on host `host`.
pub(super) fn joiner(host: u32, nth: u16, zone: Option<Zone>, salt: u64) -> Joiner {
    Joiner { address: (Ipv4Addr::from(0x0a00_0001 + host), 5057 + 3 * nth).into(), zone, salt }
}

/// The loads, by the rule of placement, of a ring that stores `bytes` of each arc.
pub(super) fn stored(nodes: &[NodeRef], copies: usize, bytes: impl Fn(RingArc) -> u64) -> Vec<Member> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|node| node.id.0);
    let mut members: Vec<Member> = nodes.iter().map(|&node| Member { node, load_bytes: 0 }).collect();
    for (at, node) in nodes.iter().enumerate() {
        let own = bytes(RingArc::new(nodes[(at + nodes.len() - 1) % nodes.len()].id, node.id));
        let holders_of_arc: Vec<NodeRef> = holders(&onwards(&nodes, at)).into_iter().take(copies).collect();
        let holding = members.iter_mut().filter(|member| holders_of_arc.contains(&member.node));
        holding.for_each(|member| member.load_bytes += own);
    }
    members
}

/// The loads of a ring whose keys are spread evenly.
fn even(nodes: &[NodeRef]) -> Vec<Member> {
    stored(nodes, 3, RingArc::len)
}

pub(super) fn largest(members: &[Member]) -> u64 {
    members.iter().map(|member| member.load_bytes).max().unwrap_or(0)
}

fn place(members: &[Member], promised: &[NodeRef], joiner: &Joiner) -> NodeRef {
    let id = RingMap { members, promised, taken: &[], copies: 3 }.place_for(joiner);
    let node = joiner.at(id);
    assert_eq!(node.id, id, "the id encodes the joiner's zone");
    node
}

/// Nodes on hosts of their own, without zones.
fn plain(ids: &[u32]) -> Vec<NodeRef> {
    ids.iter().enumerate().map(|(host, &id)| joiner(host as u32, 0, None, 0).at(RingId(id))).collect()
}

fn another(salt: u64) -> Joiner {
    joiner(1000, 0, None, salt)
}

fn near(id: RingId, wanted: u32, slack: u32) -> bool {
    id.steps_to(RingId(wanted)).min(RingId(wanted).steps_to(id)) <= slack
}

#[test]
fn the_second_node_stands_opposite_the_first() {
    let id = place(&even(&plain(&[0])), &[], &another(0)).id;
    assert!(near(id, 1 << 31, 1 << 20), "{id}");
}

#[test]
fn the_fullest_node_is_relieved() {
    let nodes = plain(&[0, 1 << 29, 2 << 29, 3 << 29, 4 << 29, 5 << 29]);
    let before = even(&nodes); // Five small arcs; node 0 holds what comes after 5 << 29.
    let after: Vec<NodeRef> = nodes.iter().copied().chain([place(&before, &[], &another(0))]).collect();
    assert!(largest(&even(&after)) < largest(&before) * 9 / 10);
}

#[test]
fn nodes_that_ask_at_once_take_different_ids() {
    let members = even(&plain(&[1, 1 << 30]));
    let ids: std::collections::BTreeSet<u32> =
        (1..50).map(|salt| place(&members, &[], &another(salt * 7919)).id.0).collect();
    assert_eq!(ids.len(), 49);
}

#[test]
fn a_promised_position_counts_as_a_node() {
    let members = even(&plain(&[0]));
    let first = place(&members, &[], &another(0));
    let second = place(&members, &[first], &joiner(1001, 0, None, 0)).id;
    assert!(near(second, 1 << 30, 1 << 21) || near(second, 3 << 30, 1 << 21), "{second}");
}

#[test]
fn a_taken_id_is_never_given() {
    let crowded = even(&plain(&[0, 1, 2, 3, 4, 5, 6, 7]));
    let wanted = RingMap { members: &crowded, promised: &[], taken: &[], copies: 3 };
    let first = wanted.place_for(&another(0));
    for zone in [None, Some(zone(1))] {
        let joiner = Joiner { zone, ..another(0) };
        let first = wanted.place_for(&joiner);
        let taken = [first, joiner.at(first.advance(STEP)).id];
        let id = RingMap { taken: &taken, ..wanted }.place_for(&joiner);
        assert!(!taken.contains(&id) && crowded.iter().all(|member| member.node.id != id), "{id}");
        assert_eq!(Zone::of_id(id), zone);
    }
    let promised = [another(0).at(first)];
    assert_ne!(RingMap { promised: &promised, ..wanted }.place_for(&another(0)), first);
}

#[test]
fn equal_requests_get_equal_positions() {
    let members = even(&plain(&[5, 1 << 29, 1 << 31]));
    assert_eq!(place(&members, &[], &another(9)), place(&members, &[], &another(9)));
    assert_eq!(place(&[], &[], &another(9)), place(&[], &[], &another(9)));
}

/// The story: the choice assumed that the three holders are the owner and the next two nodes, and put the newcomer
/// where it would take load from nodes of all zones. But with three zones each chunk is once in each, and a newcomer
/// can relieve only nodes of its own zone.
#[test]
fn with_three_zones_the_fullest_node_of_the_own_zone_is_relieved() {
    // Zone 0 is divided 3 to 1, the others evenly; so node 0 is the fullest of all.
    let ids = [0, 3 << 30, 1 << 28, (1 << 28) + (1 << 31), 2 << 28, (2 << 28) + (1 << 31)];
    let in_zone = |at: usize, id: u32| joiner(at as u32, 0, Some(zone(at as u32 / 2)), 0).at(RingId(id));
    let nodes: Vec<NodeRef> = ids.iter().enumerate().map(|(at, &id)| in_zone(at, id)).collect();
    let before = even(&nodes);
    for number in 0..3 {
        let newcomer = place(&before, &[], &joiner(9, 0, Some(zone(number)), 7));
        let after = even(&[&nodes[..], &[newcomer]].concat());
        let of_zone = |members: &[Member]| {
            let there = members.iter().filter(|member| Zone::of_id(member.node.id) == Some(zone(number)));
            largest(&there.copied().collect::<Vec<_>>())
        };
        assert!(of_zone(&after) < of_zone(&before) * 7 / 10 || (number > 0 && of_zone(&after) == of_zone(&before)));
        assert!(largest(&after) <= largest(&before));
    }
}

/// The changes that a slot predicts are those that the newcomer causes.
#[test]
fn a_slot_predicts_the_loads() {
    let mut state = 1;
    let mut random = |below: u32| {
        state = 6_364_136_223_846_793_005_u64.wrapping_mul(state).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 32) * u64::from(below)) >> 32) as u32
    };
    for case in 0..300 {
        let (count, hosts, zones) = (1 + random(30), 1 + random(30), random(5));
        let mut one = |nth| {
            let zone = Some(random(5).min(zones)).filter(|&number| number > 0).map(zone);
            let joiner = joiner(random(hosts), nth as u16, zone, 0);
            joiner.at(RingId(random(u32::MAX)))
        };
        let nodes: Vec<NodeRef> = (0..count).map(&mut one).collect();
        let newcomer = one(count);
        let mut arcs = Vec::new();
        nodes.iter().for_each(|&node| insert(&mut arcs, node));
        let circle = Circle::new(arcs.clone(), 3);
        insert(&mut arcs, newcomer);
        let there = Circle::new(arcs, 3);
        let place = |circle: &Circle, node: &NodeRef| circle.arcs.iter().position(|arc| arc.node == *node);
        let at = place(&there, &newcomer).expect("it is there");
        let slot = Slot::new(&circle, &circle.loads(), at % circle.len(), newcomer);
        let share = there.arcs[at].mass / circle.arcs[at % circle.len()].mass;
        let (loads, actual) = (circle.loads(), there.loads());
        for node in &nodes {
            let (Some(before), Some(after)) = (place(&circle, node), place(&there, node)) else { continue };
            let predicted = loads[before] + slot.change_of(before, share);
            assert!(
                (predicted - actual[after]).abs() < 1e-9,
                "case {case}: {node} holds {}, not {predicted}",
                actual[after]
            );
        }
        assert!((slot.change_of(circle.len(), share) - actual[at]).abs() < 1e-9, "case {case}: the newcomer");
        let squares = |loads: &[f64]| loads.iter().map(|load| load * load).sum::<f64>();
        assert!((squares(&actual) - squares(&loads) - slot.unevenness(share)).abs() < 1e-9, "case {case}");
    }
}

/// With random loads in random rings a place is found, and its id encodes the joiner's zone.
#[test]
fn a_place_is_found_for_any_loads() {
    let mut state = 3_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 4
    };
    for count in 0..60 {
        let mut one = |nth: u32| {
            let zone = Some(random() % 4).filter(|&number| number > 0).map(zone);
            joiner(random() % 40, nth as u16, zone, u64::from(random()))
        };
        let joiners: Vec<Joiner> = (0..=count).map(&mut one).collect();
        let member = |joiner: &Joiner| Member {
            node: joiner.at(RingId((joiner.salt as u32) << 4)),
            load_bytes: [0, 1, u64::MAX / 100, joiner.salt][joiner.salt as usize % 4],
        };
        let members: Vec<Member> = joiners[1..].iter().map(member).collect();
        let newcomer = place(&members, &[], &joiners[0]);
        assert!(members.iter().all(|member| member.node.id != newcomer.id));
    }
}
