//! Rings of our and foreign nodes; the foreign ones support only the ten calls. A failure prints its seed;
//! `RING_SEED=n` runs only that seed, `RING_SEEDS=n` the first n of each test.

use ring_tests::{
    conditions::Conditions,
    mixed::{Stats, conditions, mixed},
};

use crate::lives::seeds;

/// How many members of a ring of `size` are foreign, by seed.
fn foreign_count(seed: u64, size: u64) -> usize {
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % (size as usize + 1)
}

#[track_caller]
fn assert_mixed(seed: u64, ours: usize, foreign: usize, conditions: Conditions) -> Stats {
    let lived = mixed(seed, ours, foreign, conditions);
    lived.unwrap_or_else(|violation| panic!("{ours} of ours, {foreign} foreign: {violation}"))
}

#[test]
fn mixed_rings_converge_and_lookups_through_either_kind_are_right() {
    for seed in seeds(150) {
        let size = 2 + seed % 15;
        let foreign = foreign_count(seed, size);
        assert_mixed(seed, size as usize - foreign, foreign, conditions());
    }
}

#[test]
fn one_of_our_nodes_joins_a_foreign_ring() {
    for seed in seeds(60) {
        assert_mixed(seed, 1, 1 + (seed % 15) as usize, conditions());
    }
}

#[test]
fn one_foreign_node_joins_our_ring() {
    for seed in seeds(60) {
        assert_mixed(seed, 1 + (seed % 15) as usize, 1, conditions());
    }
}

#[test]
fn mixed_rings_converge_while_messages_are_lost() {
    let bounded_losses = Conditions { longest_delay: conditions().longest_delay, ..Conditions::bounded_losses() };
    for seed in seeds(60) {
        let size = 2 + seed % 15;
        let foreign = foreign_count(seed, size);
        assert_mixed(seed, size as usize - foreign, foreign, bounded_losses);
    }
}
