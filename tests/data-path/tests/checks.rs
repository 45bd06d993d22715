//! Runs of many seeds. A failure prints its seed; `DATA_PATH_SEED=n` runs that one alone, `DATA_PATH_SEEDS=n` the first
//! n.

use std::{
    env::var,
    time::{Duration, Instant},
};

use data_path::{
    faults::Faults,
    run::{RunReport, run},
};

/// What the check may take of one core.
const BUDGET: Duration = Duration::from_secs(60);
const MOST_SEEDS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    var(name).ok()?.parse().ok()
}

/// `DATA_PATH_KNOBS=all` provokes every known defect, `=power_cuts,...` those named.
fn faults() -> Faults {
    match var("DATA_PATH_KNOBS").as_deref() {
        Ok("all") => Faults::ALL,
        Ok(names) => names.split(',').fold(Faults::default(), Faults::with),
        Err(_) => Faults::default(),
    }
}

fn assert_holds(report: &RunReport) {
    if let Some(failure) = &report.failure {
        panic!(
            "seed {}: {failure}\n\nThe last events:\n{}\n\nDATA_PATH_SEED={} cargo test -p chordfs-data-path-tests",
            report.seed, report.last_events, report.seed
        );
    }
}

fn run_seeds(first: u64, budget: Duration) {
    let start = Instant::now();
    if let Some(seed) = number("DATA_PATH_SEED") {
        let report = run(seed, faults());
        println!("{}", report.last_events);
        return assert_holds(&report);
    }
    let count = number("DATA_PATH_SEEDS").unwrap_or(MOST_SEEDS);
    let (mut seeds, mut operations, mut virtual_time) = (0, 0, Duration::ZERO);
    for seed in first..first + count {
        if start.elapsed() > budget && number("DATA_PATH_SEEDS").is_none() {
            break;
        }
        let report = run(seed, faults());
        match &report.failure {
            Some(failure) if var("DATA_PATH_SURVEY").is_ok() => println!("seed {seed}: {failure}"),
            _ => assert_holds(&report),
        }
        (seeds, operations) = (seeds + 1, operations + report.operations);
        virtual_time += report.virtual_time;
    }
    println!("{seeds} seeds, {operations} operations, {virtual_time:?} of virtual time in {:?}", start.elapsed());
}

#[test]
fn promises_hold_in_every_run() {
    run_seeds(1, BUDGET);
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 1..=5 {
        let (one, other) = (run(seed, Faults::ALL), run(seed, Faults::ALL));
        if one.digest != other.digest {
            let (one, other) = (one.last_events.lines(), other.last_events.lines());
            let at = one.clone().zip(other.clone()).position(|(one, other)| one != other);
            panic!(
                "seed {seed}: after {at:?} events one run has\n{:?}\nand the other\n{:?}",
                one.skip(at.unwrap_or(0)).take(12).collect::<Vec<_>>(),
                other.skip(at.unwrap_or(0)).take(12).collect::<Vec<_>>()
            );
        }
        assert_eq!(one.failure, other.failure, "seed {seed}");
    }
}
