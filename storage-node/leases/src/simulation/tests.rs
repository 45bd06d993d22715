//! Runs of the simulation. A failure prints its seed; `LEASE_SEED=n` runs that one alone, `LEASE_SEEDS=n` the first n;
//! `LEASE_EVENTS=1` shows every event.

use std::env::var;

use super::{Omission, world::World};

const SEEDS: u64 = 1_000;
const MOST_SEEDS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    var(name).ok()?.parse().ok()
}

#[test]
fn an_operation_sees_what_any_earlier_one_saw() {
    let seeds = match (number("LEASE_SEED"), number("LEASE_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(SEEDS),
    };
    let (mut operations, mut from_memory, mut longest) = (0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed, None);
        world.shows_events = var("LEASE_EVENTS").is_ok();
        if let Err(error) = world.run() {
            panic!("seed {seed}: {error}\nLEASE_SEED={seed} cargo test -p chordfs-leases");
        }
        operations += world.history.operations;
        from_memory += world.history.from_memory;
        longest = longest.max(world.history.longest);
    }
    println!("{operations} operations, {from_memory} from memory, the longest took {longest} ms");
    assert!(from_memory * 3 > operations, "only {from_memory} of {operations} were answered from memory");
}

#[test]
fn the_simulation_notices_each_rule_that_is_left_out() {
    let all = [
        Omission::ChangesWait,
        Omission::QueriesWait,
        Omission::Grace,
        Omission::Epochs,
        Omission::Expiry,
        Omission::OwnChanges,
        Omission::KernelForgets,
        Omission::ClaimsAreChecked,
    ];
    for omission in all {
        let noticed = (1..=MOST_SEEDS).find(|seed| World::new(*seed, Some(omission)).run().is_err());
        assert!(noticed.is_some(), "{omission:?} goes unnoticed");
        println!("{omission:?}: seed {noticed:?}");
    }
}
