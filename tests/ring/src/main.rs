//! Prints the tables of the ring beside the published ones. `tests/ring-report.sh` builds and starts it.

use std::{thread, time::Instant};

use clap::Parser;
use ring_tests::tables::{Table, churn, failures, path};

/// What the ring of chordfs does at sizes that no machine here could hold, beside what was published of Chord.
#[derive(Parser)]
struct Options {
    /// What everything random follows from; the same seed gives the same tables.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The largest ring of the path lengths, as a power of two.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(3..=22))]
    up_to: u32,
}

fn main() -> anyhow::Result<()> {
    let Options { seed, up_to } = Options::parse();
    let started = Instant::now();
    println!("seed {seed}");
    thread::scope(|scope| -> Result<(), String> {
        let large = scope.spawn(move || path::report(seed, up_to));
        print(&failures::report(seed)?);
        print(&churn::report(seed)?);
        print(&large.join().map_err(|_| "the path lengths could not be measured")??);
        Ok(())
    })
    .map_err(anyhow::Error::msg)?;
    println!("{:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn print(table: &Table) {
    println!();
    table.lines().iter().for_each(|line| println!("{line}"));
}
