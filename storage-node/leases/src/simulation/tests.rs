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
    let (mut operations, mut reads, mut changes, mut longest) = (0, 0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed, None);
        world.shows_events = var("LEASE_EVENTS").is_ok();
        if let Err(error) = world.run() {
            panic!("seed {seed}: {error}\nLEASE_SEED={seed} cargo test -p chordfs-leases");
        }
        operations += world.history.operations;
        reads += world.history.reads_from_memory;
        changes += world.history.changes_from_memory;
        longest = longest.max(world.history.longest);
    }
    println!("{operations} operations; from memory {reads} reads, {changes} changes; the longest took {longest} ms");
    assert!(reads * 3 > operations, "only {reads} of {operations} were answered from memory");
    assert!(changes * 50 > operations, "only {changes} of {operations} were answered before they were logged");
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
        Omission::ClaimsAreKept,
        Omission::LateClaimsAreRefused,
        Omission::RecallsBeforeChanges,
        Omission::Intents,
        Omission::NamesAreOrdered,
        Omission::RecallsWaitForTheLog,
        Omission::Wanted,
        Omission::ReturnedIsForgotten,
        Omission::Order,
    ];
    for omission in all {
        let noticed = (1..=MOST_SEEDS).find_map(|seed| Some((seed, World::new(seed, Some(omission)).run().err()?)));
        let (seed, error) = noticed.unwrap_or_else(|| panic!("{omission:?} goes unnoticed"));
        println!("{omission:?}: seed {seed}: {error}");
    }
}
