//! Rings of our nodes and of foreign ones, which know the ten calls alone. A failure prints its seed; `RING_SEED=n`
//! runs that one alone, `RING_SEEDS=n` the first n of each test.

use ring_tests::{
    conditions::Conditions,
    mixed::{Stats, conditions, mixed},
};

use crate::lives::seeds;

/// Of a ring of `size`, how many of the members a seed makes foreign.
fn share(seed: u64, size: u64) -> usize {
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
        let foreign = share(seed, size);
        assert_mixed(seed, size as usize - foreign, foreign, conditions());
    }
}

#[test]
fn one_of_ours_among_foreign_ones() {
    for seed in seeds(60) {
        assert_mixed(seed, 1, 1 + (seed % 15) as usize, conditions());
    }
}

#[test]
fn one_foreign_among_ours() {
    for seed in seeds(60) {
        assert_mixed(seed, 1 + (seed % 15) as usize, 1, conditions());
    }
}

#[test]
fn mixed_rings_converge_while_messages_are_lost() {
    let bounded_losses = Conditions { longest_way: conditions().longest_way, ..Conditions::bounded_losses() };
    for seed in seeds(60) {
        let size = 2 + seed % 15;
        let foreign = share(seed, size);
        assert_mixed(seed, size as usize - foreign, foreign, bounded_losses);
    }
}
