//! Random lives of a ring. A failure prints its seed; `RING_SEED=n` runs that one alone,
//! `RING_SEEDS=n` the first n of each test.

use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

use common::ring_id::RingId;
use ring_tests::network::*;
use storage_node::ring::RingSettings;

const LONG: Duration = Duration::from_secs(120);

fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("RING_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RING_SEEDS").unwrap_or(count)).collect(),
    }
}

fn settings(successor_list_len: usize) -> RingSettings {
    RingSettings { successor_list_len, ..RingSettings::default() }
}

fn pick(sim: &mut Sim, from: &[usize]) -> Option<usize> {
    let place = sim.rng.below(from.len() as u64) as usize;
    from.get(place).copied()
}

fn assert_sound(sim: &Sim, seed: u64) {
    if let Some(fault) = sim.fault() {
        panic!("seed {seed} at {:?}: {fault}\n{}", sim.now, sim.describe_all());
    }
}

/// Since when each member has been in every list that passes it.
type Established = BTreeMap<usize, Duration>;

/// By then whatever list was on its way when a member came has arrived, or its caller has given up.
const SETTLED: Duration = Duration::from_secs(2);

/// Steps for `time`, with the invariants checked whenever somebody's view has changed: those of `Sim::fault`, and that
/// nobody who is established is skipped by any list again while it lives.
fn run_soundly(sim: &mut Sim, seed: u64, time: Duration, established: &mut Established) {
    let end = sim.now + time;
    while sim.now < end {
        if sim.step() {
            assert_sound(sim, seed);
            let principals = sim.principals();
            let skipped = established.iter().find(|(node, since)| {
                sim.is_member(**node) && !principals.contains(node) && sim.now > **since + SETTLED
            });
            if let Some((&node, since)) = skipped {
                let (now, node) = (sim.now, sim.describe(node));
                panic!("seed {seed} at {now:?}: {node} is skipped, known since {since:?}\n{}", sim.describe_all());
            }
            established.retain(|node, _| principals.contains(node));
            // The proof begins with one member more than a list is long.
            let count_from = if principals.len() > 4 { sim.now } else { Duration::MAX - SETTLED };
            principals.into_iter().for_each(|node| {
                let since = established.entry(node).or_insert(count_from);
                *since = count_from.min(*since);
            });
        }
    }
}

fn assert_becomes_ideal(sim: &mut Sim, seed: u64) {
    if !sim.run_until(LONG, Sim::is_ideal) {
        panic!("seed {seed}: not ideal after {LONG:?}\n{}", sim.describe_all());
    }
}

fn assert_lookups_right(sim: &mut Sim, seed: u64) {
    for _ in 0..20 {
        let key = RingId(sim.rng.next_u64() as u32);
        let up = sim.up();
        let node = pick(sim, &up).expect("somebody is up");
        let found = sim.find_successor(node, key, LONG);
        assert_eq!(found, sim.owner(key), "seed {seed}: successor of {key} asked of {}", sim.describe(node));
    }
}

/// A ring of `nodes`, all of whom join the first at random moments of its first ten seconds.
fn grown(seed: u64, nodes: usize, conditions: Conditions, settings: RingSettings) -> Sim {
    let mut sim = Sim::new(seed, conditions, settings);
    sim.start(None);
    for _ in 1..nodes {
        let pause = Duration::from_millis(sim.rng.below(10_000 / nodes as u64));
        let end = sim.now + pause;
        sim.run_until(end - sim.now, |_| false);
        let (members, node) = (sim.members(), sim.start(None));
        let member = pick(&mut sim, &members).expect("the first is a member");
        sim.join(node, member);
    }
    sim
}

/// The life that Zave's proof speaks of: any joins, and any crash that leaves each member a live successor. Crashed nodes
/// may come back at once, to a ring that has not noticed yet.
fn live_soundly(seed: u64) {
    let most = match seed % 50 {
        0 => 64,
        10 | 20 | 30 | 40 => 24,
        _ => 4 + (seed % 9) as usize,
    };
    let mut sim = Sim::new(seed, Conditions::reliable(), settings(4));
    sim.start(None);
    let (mut crashed, mut established) = (Vec::new(), Established::new());
    for _ in 0..most * 3 {
        let time = sim.rng.up_to(Duration::from_millis(if most > 16 { 500 } else { 1500 }));
        run_soundly(&mut sim, seed, time, &mut established);
        let (members, up) = (sim.members(), sim.up());
        match sim.rng.below(4) {
            0 if members.len() > 5 => {
                let node = pick(&mut sim, &members).expect("there are members");
                if sim.can_spare(node) && sim.principals().len() > 5 {
                    sim.crash(node);
                    assert_sound(&sim, seed);
                    crashed.push(node);
                }
            }
            1 if !crashed.is_empty() && members.len() == up.len() => {
                let place = sim.rng.below(crashed.len() as u64) as usize;
                sim.restart(crashed.swap_remove(place));
            }
            _ if up.len() < most => {
                let node = sim.start(None);
                let member = pick(&mut sim, &members).expect("there are members");
                sim.join(node, member);
            }
            _ => {}
        }
    }
    run_soundly(&mut sim, seed, Duration::from_secs(3), &mut established);
    assert_becomes_ideal(&mut sim, seed);
    assert_lookups_right(&mut sim, seed);
}

#[test]
fn invariants_hold_through_joins_and_crashes() {
    seeds(200).into_iter().for_each(live_soundly);
}

#[test]
fn a_ring_recovers_from_lost_and_late_messages() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 3 + (seed % 14) as usize, Conditions::lossy(), RingSettings::default());
        sim.run_until(Duration::from_secs(10), |_| false);
        let up = sim.up();
        let crashed = pick(&mut sim, &up).expect("somebody is up");
        sim.crash(crashed);
        sim.run_until(Duration::from_secs(10), |_| false);
        sim.calm();
        sim.restart(crashed); // Somebody may know nobody else.
        assert_becomes_ideal(&mut sim, seed);
        assert_lookups_right(&mut sim, seed);
    }
}

#[test]
fn a_dead_node_is_dropped_within_three_seconds() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 3 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_becomes_ideal(&mut sim, seed);
        let up = sim.up();
        let crashed = pick(&mut sim, &up).expect("somebody is up");
        sim.crash(crashed);
        sim.run_until(Duration::from_secs(3), |_| false);
        let lingering = sim.lingering(Duration::from_secs(2));
        assert!(lingering.is_none(), "seed {seed}: {lingering:?}");
        assert_becomes_ideal(&mut sim, seed);
    }
}

#[test]
fn a_restarted_node_comes_back_to_its_place() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 2 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_becomes_ideal(&mut sim, seed);
        let up = sim.up();
        let node = pick(&mut sim, &up).expect("somebody is up");
        let id = sim.ring(node).me().id;
        sim.crash(node);
        let pause = sim.rng.up_to(Duration::from_secs(4));
        sim.run_until(pause, |_| false);
        sim.restart(node);
        assert_becomes_ideal(&mut sim, seed);
        assert_eq!(sim.ring(node).me().id, id, "seed {seed}");
    }
}

#[test]
fn nodes_killed_at_once_and_started_again_form_one_ring() {
    for seed in seeds(100) {
        let nodes = if seed % 25 == 0 { 64 } else { 2 + (seed % 15) as usize };
        let mut sim = grown(seed, nodes, Conditions::reliable(), RingSettings::default());
        assert_becomes_ideal(&mut sim, seed);
        (0..nodes).for_each(|node| sim.crash(node));
        for node in 0..nodes {
            let pause = sim.rng.up_to(Duration::from_millis(300));
            sim.run_until(pause, |_| false);
            sim.restart(node);
        }
        assert_becomes_ideal(&mut sim, seed);
        assert_lookups_right(&mut sim, seed);
    }
}

#[test]
fn a_partition_heals() {
    for seed in seeds(100) {
        let nodes = 2 + (seed % 20) as usize;
        let mut sim = grown(seed, nodes, Conditions::reliable(), settings(4));
        assert_becomes_ideal(&mut sim, seed);
        let cut = 1 + sim.rng.below(nodes as u64 - 1) as usize;
        sim.cut_at(cut);
        sim.run_until(Duration::from_secs(15), |_| false);
        sim.calm();
        assert_becomes_ideal(&mut sim, seed);
        assert_lookups_right(&mut sim, seed);
    }
}

#[test]
fn a_leaving_node_is_no_gap() {
    for seed in seeds(50) {
        let mut sim = grown(seed, 2 + (seed % 10) as usize, Conditions::reliable(), RingSettings::default());
        assert_becomes_ideal(&mut sim, seed);
        let up = sim.up();
        let node = pick(&mut sim, &up).expect("somebody is up");
        sim.leave(node);
        assert_becomes_ideal(&mut sim, seed);
    }
}

#[test]
fn nodes_with_one_id_that_join_at_once_both_get_in() {
    for seed in seeds(100) {
        let mut sim = grown(seed, 1 + (seed % 6) as usize, Conditions::reliable(), RingSettings::default());
        assert_becomes_ideal(&mut sim, seed);
        let id = RingId(sim.rng.next_u64() as u32);
        for _ in 0..3 {
            let node = sim.start(Some(id));
            sim.join(node, 0);
        }
        let in_all = |sim: &Sim| sim.is_ideal() && sim.members().len() == sim.up().len();
        let came = sim.run_until(LONG, in_all);
        let ids: BTreeSet<u32> = sim.up().into_iter().map(|node| sim.ring(node).me().id.0).collect();
        assert!(came && ids.len() == sim.up().len(), "seed {seed}\n{}", sim.describe_all());
    }
}

#[test]
fn one_seed_is_one_history() {
    let history = |seed| {
        let mut sim = grown(seed, 9, Conditions::lossy(), RingSettings::default());
        sim.run_until(Duration::from_secs(20), |_| false);
        sim.describe_all()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}
