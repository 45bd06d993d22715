//! Prints measurements of large simulated rings beside the published figures of Chord. `tests/ring-report.sh` builds
//! and starts it.

use std::{process::Command, time::Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use ring_tests::{
    exhaustive::Size,
    tables::{Table, churn, exhaustive, failures, invariants, load, mixed, path, zones},
};

/// Measures the ring of chordfs at sizes that no machine here could hold, beside the published figures of Chord.
#[derive(Parser)]
struct Options {
    /// Seed of all random choices; equal seeds give equal tables.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest ring for the path lengths, as a power of two. 16 takes some minutes more, 20 takes hours.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(3..=20))]
    up_to: u32,
    /// Number of random histories in which the invariants are checked, in each kind of network.
    #[arg(long, default_value_t = 1000)]
    lives: u64,
    /// Also try every interleaving in larger scopes; takes some minutes more.
    #[arg(long)]
    long_search: bool,
    /// Print only these tables.
    #[arg(long, value_enum, value_delimiter = ',')]
    tables: Vec<ReportTable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReportTable {
    Path,
    Invariants,
    Exhaustive,
    Mixed,
    Failures,
    Churn,
    Load,
    Zones,
}

impl ReportTable {
    const ALL: [Self; 8] = [
        Self::Path,
        Self::Invariants,
        Self::Exhaustive,
        Self::Mixed,
        Self::Failures,
        Self::Churn,
        Self::Load,
        Self::Zones,
    ];

    fn measure(self, options: &Options) -> Result<Table, String> {
        let seed = options.seed;
        match self {
            Self::Path => path::report(seed, options.up_to),
            Self::Invariants => invariants::report(seed, options.lives),
            Self::Exhaustive => exhaustive::report(if options.long_search { Size::Long } else { Size::Short }),
            Self::Mixed => mixed::report(seed, options.lives / 5),
            Self::Failures => failures::report(seed),
            Self::Churn => churn::report(seed),
            Self::Load => Ok(load::report(seed)),
            Self::Zones => Ok(zones::report(seed)),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.tables.is_empty() {
        report_all(&options)
    } else {
        options.tables.iter().try_for_each(|&which| report(which, &options))
    }
}

/// Runs two processes for two cores: the path lengths, which take as long as the rest, have a process of their own, so
/// that its memory is that of its ring.
fn report_all(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    println!("ring-report --seed {} --up-to {} --lives {}", options.seed, options.up_to, options.lives);
    let (seed, up_to) = (options.seed.to_string(), options.up_to.to_string());
    let this = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut path = Command::new(this)
        .args(["--tables", "path", "--seed", &seed, "--up-to", &up_to])
        .spawn()
        .context("cannot start this program again")?;
    let rest = ReportTable::ALL.into_iter().filter(|&which| which != ReportTable::Path);
    let result = rest.into_iter().try_for_each(|which| report(which, options));
    let path = path.wait().context("cannot wait for the path lengths")?;
    println!("\n{:.0} s in all", started.elapsed().as_secs_f64());
    anyhow::ensure!(path.success(), "the path lengths could not be measured: {path}");
    result
}

fn report(which: ReportTable, options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let table = which.measure(options).map_err(anyhow::Error::msg);
    let table = table.with_context(|| format!("{which:?}, seed {}", options.seed))?;
    let lines = table.lines().join("\n");
    println!("\n{lines}\n  ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
