//! The command line of `storage-node pool`, and the settings of a policy that other commands share.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use chordfs_types::{byte_size, duration};
use clap::Args;

use super::{
    local::LocalPool,
    policy::{Policy, ScaleOn},
};

#[derive(Args, Clone, Debug)]
pub struct PoolArgs {
    /// Run the nodes as processes on this machine (the only kind of pool: an Auto Scaling group scales itself, see `run
    /// --aws`)
    #[arg(long, required = true)]
    local: bool,
    /// The fewest nodes; with less than 3 the pool may shrink so far that chunks have fewer than three holders
    #[arg(long, value_name = "N", default_value_t = 1)]
    min: usize,
    /// The most nodes
    #[arg(long, value_name = "N", default_value_t = 8)]
    max: usize,
    /// Folder for the nodes' folders and for the pool's own state
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address of all nodes
    #[arg(long, default_value = "127.0.0.1")]
    ip: IpAddr,
    /// Ring port of the first node; every node takes three ports, so the second one begins at this plus 3
    #[arg(long, default_value_t = 5057, value_parser = clap::value_parser!(u16).range(1..=65000))]
    port: u16,
    /// Total size of the chunks that each node may keep, as in 512M or 20G: the nodes share one disk, whose size says
    /// nothing about a single node
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    capacity: u64,
    /// Grow above this percentage of a node's capacity
    #[arg(long, value_name = "PERCENT", default_value_t = 70.0)]
    threshold: f64,
    /// Shrink below this percentage
    #[arg(long, value_name = "PERCENT", default_value_t = 30.0, conflicts_with = "no_scale_in")]
    scale_in_below: f64,
    /// Never shrink
    #[arg(long)]
    no_scale_in: bool,
    /// The usage that is compared with the thresholds: max (the fullest node) or avg
    #[arg(long, value_name = "HOW", default_value_t = ScaleOn::Max)]
    scale_on: ScaleOn,
    /// Number of consecutive periods beyond a threshold before the pool changes
    #[arg(long, value_name = "N", default_value_t = 2)]
    periods: u32,
    /// How often the nodes are measured [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse_positive)]
    period: Duration,
    /// Time after a change in which nothing is changed [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    cooldown: Duration,
    /// Nodes that are added at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    grow_by: usize,
    /// Further arguments of every node's `run`, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    node_args: Vec<String>,
}

impl PoolArgs {
    pub fn checked(self) -> anyhow::Result<LocalPool> {
        let policy = Policy {
            min: self.min,
            max: self.max,
            scale_on: self.scale_on,
            grow_above: self.threshold,
            shrink_below: (!self.no_scale_in).then_some(self.scale_in_below),
            periods: self.periods,
            period: self.period,
            cooldown: self.cooldown,
            grow_by: self.grow_by.max(1),
        }
        .checked()?;
        let program =
            std::env::current_exe().context("cannot find this program's own file, from which the nodes are started")?;
        Ok(LocalPool {
            data: self.data,
            ip: self.ip,
            port: self.port,
            capacity_mib: self.capacity >> 20,
            policy,
            program,
            node_args: self.node_args,
        })
    }
}

const MIN_CAPACITY: u64 = 16 << 20;

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a valid size; write a number of bytes as in 512M or 20G, at least 16M");
    byte_size::parse(text).ok().filter(|bytes| *bytes >= MIN_CAPACITY).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct PoolCli {
        #[command(flatten)]
        pool: PoolArgs,
    }

    fn parse(line: &str) -> Result<LocalPool, String> {
        let args = ["pool"].into_iter().chain(line.split_whitespace());
        let cli = PoolCli::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.pool.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_line_becomes_a_pool() {
        let pool = parse("--local --min 3 --max 5 --data /d --capacity 2G --no-scale-in -- --scrub-period 1d").unwrap();
        assert_eq!((pool.policy.min, pool.policy.max, pool.policy.shrink_below), (3, 5, None));
        assert_eq!((pool.capacity_mib, pool.port), (2048, 5057));
        assert_eq!(pool.node_args, ["--scrub-period", "1d"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("--data /d", "--local"),
            ("--local", "--data"),
            ("--local --data /d --min 4 --max 2", "4 to 2"),
            ("--local --data /d --capacity 1M", "at least 16M"),
            ("--local --data /d --capacity none", "at least 16M"),
            ("--local --data /d --threshold 20", "undo each other"),
            ("--local --data /d --scale-on most", "neither max"),
        ] {
            let refused = parse(line).expect_err(line);
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }
}
