//! Random histories of a ring. A failure prints its seed; `RING_SEED=n` runs only that seed, `RING_SEEDS=n` the first n
//! of each test.

use std::{collections::BTreeSet, time::Duration};

use chordfs_ring::RingSettings;
use chordfs_types::ring_id::RingId;
use ring_tests::{
    conditions::Conditions,
    lives::{CONVERGENCE_TIMEOUT, Violation, becomes_ideal, live, lookups_are_right},
    network::Sim,
};

pub(crate) fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("RING_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RING_SEEDS").unwrap_or(count)).collect(),
    }
}

fn settings(successor_list_len: usize) -> RingSettings {
    RingSettings { successor_list_len, ..RingSettings::default() }
}

fn pick(sim: &mut Sim) -> usize {
    let up = sim.up();
    sim.rng.pick(&up).expect("some node is up")
}

#[track_caller]
fn assert_holds<T>(result: Result<T, Violation>) -> T {
    result.unwrap_or_else(|violation| panic!("{violation}"))
}

/// A ring of `nodes` that join at random moments of its first ten seconds.
fn grown(seed: u64, nodes: usize, conditions: Conditions, settings: RingSettings) -> Sim {
    let mut sim = Sim::new(seed, conditions, settings);
    sim.start(None);
    for _ in 1..nodes {
        let pause = Duration::from_millis(sim.rng.below(10_000 / nodes as u64));
        let end = sim.now + pause;
        sim.run_for(end - sim.now);
        let (members, node) = (sim.members(), sim.start(None));
        let member = sim.rng.pick(&members).expect("the first is a member");
        sim.join(node, member);
    }
    sim
}

#[test]
fn invariants_hold_through_joins_and_crashes() {
    for seed in seeds(150) {
        assert_holds(live(seed, Conditions::reliable()));
    }
}

#[test]
fn invariants_hold_while_messages_are_lost_late_and_doubled() {
    for seed in seeds(150) {
        assert_holds(live(seed, Conditions::bounded_losses()));
    }
}

#[test]
fn a_ring_recovers_from_lost_and_late_messages() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 3 + (seed % 14) as usize, Conditions::unbounded_losses(), RingSettings::default());
        sim.run_for(Duration::from_secs(10));
        let crashed = pick(&mut sim);
        sim.crash(crashed);
        sim.run_for(Duration::from_secs(10));
        sim.make_reliable();
        sim.restart(crashed); // A node may know only this peer.
        assert_holds(becomes_ideal(&mut sim, seed));
        assert_holds(lookups_are_right(&mut sim, seed));
    }
}

#[test]
fn a_dead_node_is_dropped_within_three_seconds() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 3 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_holds(becomes_ideal(&mut sim, seed));
        let crashed = pick(&mut sim);
        sim.crash(crashed);
        sim.run_for(Duration::from_secs(3));
        let lingering = sim.lingering(Duration::from_secs(2));
        assert!(lingering.is_none(), "seed {seed}: {lingering:?}");
        assert_holds(becomes_ideal(&mut sim, seed));
    }
}

#[test]
fn a_restarted_node_returns_to_its_position() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 2 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_holds(becomes_ideal(&mut sim, seed));
        let node = pick(&mut sim);
        let id = sim.ring(node).me().id;
        sim.crash(node);
        let pause = sim.rng.up_to(Duration::from_secs(4));
        sim.run_for(pause);
        sim.restart(node);
        assert_holds(becomes_ideal(&mut sim, seed));
        assert_eq!(sim.ring(node).me().id, id, "seed {seed}");
    }
}

#[test]
fn nodes_that_crash_at_once_and_restart_form_one_ring() {
    for seed in seeds(100) {
        let nodes = if seed % 25 == 0 { 64 } else { 2 + (seed % 15) as usize };
        let mut sim = grown(seed, nodes, Conditions::reliable(), RingSettings::default());
        assert_holds(becomes_ideal(&mut sim, seed));
        (0..nodes).for_each(|node| sim.crash(node));
        for node in 0..nodes {
            let pause = sim.rng.up_to(Duration::from_millis(300));
            sim.run_for(pause);
            sim.restart(node);
        }
        assert_holds(becomes_ideal(&mut sim, seed));
        assert_holds(lookups_are_right(&mut sim, seed));
    }
}

#[test]
fn a_partition_heals() {
    for seed in seeds(100) {
        let nodes = 2 + (seed % 20) as usize;
        let mut sim = grown(seed, nodes, Conditions::reliable(), settings(4));
        assert_holds(becomes_ideal(&mut sim, seed));
        let cut = 1 + sim.rng.below(nodes as u64 - 1) as usize;
        sim.cut_at(cut);
        sim.run_for(Duration::from_secs(15));
        sim.make_reliable();
        assert_holds(becomes_ideal(&mut sim, seed));
        assert_holds(lookups_are_right(&mut sim, seed));
    }
}

#[test]
fn a_ring_becomes_ideal_after_a_node_leaves() {
    for seed in seeds(50) {
        let mut sim = grown(seed, 2 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_holds(becomes_ideal(&mut sim, seed));
        let node = pick(&mut sim);
        sim.leave(node);
        assert_holds(becomes_ideal(&mut sim, seed));
    }
}

#[test]
fn nodes_with_one_id_that_join_at_once_all_become_members() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 1 + (seed % 6) as usize, Conditions::reliable(), RingSettings::default());
        assert_holds(becomes_ideal(&mut sim, seed));
        let id = RingId(sim.rng.next_u64() as u32);
        for _ in 0..3 {
            let node = sim.start(Some(id));
            sim.join(node, 0);
        }
        let in_all = |sim: &Sim| sim.is_ideal() && sim.members().len() == sim.up().len();
        let came = sim.run_until(CONVERGENCE_TIMEOUT, in_all);
        let ids: BTreeSet<u32> = sim.up().into_iter().map(|node| sim.ring(node).me().id.0).collect();
        assert!(came && ids.len() == sim.up().len(), "seed {seed}\n{}", sim.describe_all());
    }
}

#[test]
fn equal_seeds_give_equal_histories() {
    let history = |seed| {
        let mut sim = grown(seed, 9, Conditions::unbounded_losses(), RingSettings::default());
        sim.run_for(Duration::from_secs(20));
        sim.describe_all()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}
