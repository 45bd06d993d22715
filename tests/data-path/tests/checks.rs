//! Runs of many seeds. A failure prints its seed; `DATA_PATH_SEED=n` runs that one alone, `DATA_PATH_SEEDS=n` the first
//! n. `DATA_PATH_SURVEY=1` lists the failures of all instead of ending at the first one, `DATA_PATH_DIGESTS=1` the digest
//! of each run, by which two machines can be compared, and `DATA_PATH_EVENTS=1000000` shows all events of a run.

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

fn assert_holds(report: &RunReport, faults: Faults) {
    if let Some(failure) = &report.failure {
        let seed = report.seed;
        panic!(
            "seed {seed}: {failure}\n\nThe last events:\n{}\n\n{}\n\n\
             DATA_PATH_SEED={seed} cargo test -p chordfs-data-path-tests promises_hold_in_every_run",
            report.last_events,
            compare(report, &run(seed, faults))
        );
    }
}

/// Whether a second run of the seed was the same. If not, something besides the seed decides what a run does.
fn compare(one: &RunReport, other: &RunReport) -> String {
    if one.digest == other.digest {
        return format!("The run has {}; a second run of the seed has the same.", one.digest);
    }
    let outcome = other.failure.as_ref().map_or("holds".into(), |failure| format!("fails: {failure}"));
    let difference = match first_difference(one, other) {
        Some((event, other)) => format!("The first has\n{event}\nwhere the second has\n{other}"),
        None => "The events that differ are not among the last ones; DATA_PATH_EVENTS=1000000 keeps all".into(),
    };
    format!(
        "The run has {}; A SECOND RUN OF THE SEED DIFFERS: it has {}, and {outcome}. {difference}",
        one.digest, other.digest
    )
}

/// The first events of two runs, of those that both reports keep, that differ.
fn first_difference<'a>(one: &'a RunReport, other: &'a RunReport) -> Option<(&'a str, &'a str)> {
    let begin = |report: &RunReport| report.digest.events as usize - report.last_events.lines().count();
    let both = begin(one).max(begin(other));
    let (events, others) =
        (one.last_events.lines().skip(both - begin(one)), other.last_events.lines().skip(both - begin(other)));
    events.zip(others).find(|(event, other)| event != other)
}

fn run_seeds(first: u64, budget: Duration) {
    if let Some(seed) = number("DATA_PATH_SEED") {
        let report = run(seed, faults());
        println!("{}", report.last_events);
        println!("{}", report.digest);
        return assert_holds(&report, faults());
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
    if var("DATA_PATH_DIGESTS").is_ok() {
        reports.iter().for_each(|it| println!("digest of {}: {}", it.seed, it.digest));
    }
    let mut failed: Vec<&RunReport> = reports.iter().filter(|report| report.failure.is_some()).collect();
    failed.sort_by_key(|report| report.seed);
    if seeds.goes_on {
        failed.iter().for_each(|it| println!("seed {}: {}", it.seed, it.failure.as_deref().unwrap_or_default()));
    } else {
        failed.into_iter().for_each(|report| assert_holds(report, seeds.faults));
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
        assert!(one.digest == other.digest, "seed {seed}: {}", compare(&one, &other));
        assert_eq!(one.failure, other.failure, "seed {seed}");
    }
}

#[test]
fn a_report_says_whether_a_second_run_is_the_same() {
    let (one, other) = (run(1, Faults::NONE), run(2, Faults::NONE));
    assert!(compare(&one, &one).ends_with("a second run of the seed has the same."));
    let difference = compare(&one, &other);
    assert!(difference.contains("DIFFERS") && difference.contains(&other.digest.to_string()), "{difference}");
}
