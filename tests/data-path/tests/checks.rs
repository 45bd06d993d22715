//! Runs of many seeds. A failure prints its seed; `DATA_PATH_SEED=n` runs that one alone, `DATA_PATH_SEEDS=n` the first
//! n. `DATA_PATH_SURVEY=1` lists the failures of all instead of ending at the first one.

use std::{
    env::var,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread::{available_parallelism, scope},
    time::{Duration, Instant},
};

use data_path::{
    faults::Faults,
    run::{RunReport, run},
};

/// The check uses all cores for this long.
const BUDGET: Duration = Duration::from_secs(60);
const LONG_BUDGET: Duration = Duration::from_secs(900);
/// The long check begins with this seed; the other one never comes so far.
const FIRST_OF_LONG: u64 = 100_001;
const MOST_SEEDS: u64 = 100_000;

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
    if let Some(seed) = number("DATA_PATH_SEED") {
        let report = run(seed, faults());
        println!("{}", report.last_events);
        return assert_holds(&report);
    }
    let seeds = Seeds {
        next: AtomicU64::new(first),
        end: first + number("DATA_PATH_SEEDS").unwrap_or(MOST_SEEDS),
        end_time: Instant::now() + if var("DATA_PATH_SEEDS").is_ok() { LONG_BUDGET } else { budget },
        // A child that is forked must find no lock of the environment taken.
        faults: faults(),
        goes_on: var("DATA_PATH_SURVEY").is_ok(),
        failed: AtomicBool::new(false),
    };
    let start = Instant::now();
    let reports: Vec<RunReport> = scope(|threads| {
        let cores = available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| threads.spawn(|| seeds.work())).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let operations: u64 = reports.iter().map(|report| report.operations).sum();
    let virtual_time: Duration = reports.iter().map(|report| report.virtual_time).sum();
    println!(
        "{} seeds from {first}, {operations} operations, {virtual_time:?} of virtual time in {:?}",
        reports.len(),
        start.elapsed()
    );
    let mut failed: Vec<&RunReport> = reports.iter().filter(|report| report.failure.is_some()).collect();
    failed.sort_by_key(|report| report.seed);
    if seeds.goes_on {
        failed.iter().for_each(|it| println!("seed {}: {}", it.seed, it.failure.as_deref().unwrap_or_default()));
    } else {
        failed.into_iter().for_each(assert_holds);
    }
}

/// The seeds that a few threads share.
struct Seeds {
    next: AtomicU64,
    end: u64,
    end_time: Instant,
    faults: Faults,
    /// Whether a failure ends nothing.
    goes_on: bool,
    failed: AtomicBool,
}

impl Seeds {
    /// Runs one seed after the other, and returns the reports.
    fn work(&self) -> Vec<RunReport> {
        let mut reports = Vec::new();
        while Instant::now() < self.end_time && (self.goes_on || !self.failed.load(SeqCst)) {
            let seed = self.next.fetch_add(1, SeqCst);
            if seed >= self.end {
                break;
            }
            let report = run(seed, self.faults);
            self.failed.fetch_or(report.failure.is_some(), SeqCst);
            reports.push(report);
        }
        reports
    }
}

#[test]
fn promises_hold_in_every_run() {
    run_seeds(1, BUDGET);
}

#[test]
#[ignore = "slow: thousands of other seeds, for a quarter of an hour"]
fn promises_hold_in_many_more_runs() {
    run_seeds(number("DATA_PATH_FIRST_SEED").unwrap_or(FIRST_OF_LONG), LONG_BUDGET);
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
