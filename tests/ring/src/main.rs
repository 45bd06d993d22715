//! Prints what the ring does at large sizes beside what was published of Chord. `tests/ring-report.sh` builds and starts
//! it.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use ring_tests::tables::{Table, churn, failures, invariants, load, path};

/// What the ring of chordfs does at sizes that no machine here could hold, beside what was published of Chord.
#[derive(Clone, Copy, Parser)]
struct Options {
    /// What everything random follows from; the same seed gives the same tables.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The largest ring of the path lengths, as a power of two. 16 takes some minutes more, and 20 hours.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(3..=20))]
    up_to: u32,
    /// Random lives in which the invariants are checked, in each kind of network.
    #[arg(long, default_value_t = 1000)]
    lives: u64,
}

type Job = Box<dyn FnOnce() -> Result<Table, String> + Send>;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let started = Instant::now();
    println!("ring-report --seed {} --up-to {} --lives {}", options.seed, options.up_to, options.lives);
    let (done, tables) = mpsc::channel();
    for jobs in lanes(options) {
        let done = done.clone();
        thread::spawn(move || jobs.into_iter().for_each(|job| report(job, &done)));
    }
    drop(done);
    for (table, took) in tables {
        print(&table.map_err(anyhow::Error::msg).with_context(|| format!("seed {}", options.seed))?, took);
    }
    println!("\n{:.0} s in all, seed {}", started.elapsed().as_secs_f64(), options.seed);
    Ok(())
}

/// Two lanes of about equal length, for two cores.
fn lanes(Options { seed, up_to, lives }: Options) -> [Vec<Job>; 2] {
    [
        vec![Box::new(move || path::report(seed, up_to))],
        vec![
            Box::new(move || invariants::report(seed, lives)),
            Box::new(move || failures::report(seed)),
            Box::new(move || churn::report(seed)),
            Box::new(move || Ok(load::report(seed))),
        ],
    ]
}

type Reported = (Result<Table, String>, Duration);

fn report(job: Job, done: &mpsc::Sender<Reported>) {
    let started = Instant::now();
    let table = job();
    // Nobody listens any more once a table has failed.
    let _ = done.send((table, started.elapsed()));
}

fn print(table: &Table, took: Duration) {
    println!();
    table.lines().iter().for_each(|line| println!("{line}"));
    println!("  ({:.1} s)", took.as_secs_f64());
}
