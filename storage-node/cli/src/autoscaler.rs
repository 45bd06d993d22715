//! `storage-node autoscaler`: chooses the size of the pool in automatic mode, in a process of its own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chordfs_pool::autoscaler::{Autoscaler, RingMissRate};
use chordfs_types::{duration, ring_id::NodeAddress};
use clap::Args;

use crate::node_arg::ring_address;

#[derive(Args, Clone, Debug)]
pub struct AutoscalerArgs {
    /// Nodes of the ring [IP:PORT of the ring plane, or IP for port 5057]. One that answers is enough; the others are
    /// learnt from it
    #[arg(long, value_name = "ADDRESS", num_args = 1.., value_parser = ring_address)]
    #[cfg_attr(not(feature = "aws"), arg(required = true))]
    #[cfg_attr(feature = "aws", arg(required_unless_present = "asg"))]
    join: Vec<SocketAddr>,
    /// The Auto Scaling group of the nodes, which are asked if --join names none. The miss rate is then the one that
    /// CloudWatch has, not the one that the nodes report
    #[cfg(feature = "aws")]
    #[arg(long, value_name = "NAME", env = "CHORDFS_ASG")]
    asg: Option<String>,
    /// CloudWatch namespace of the metrics, with --asg
    #[cfg(feature = "aws")]
    #[arg(long, value_name = "NAME", env = "CHORDFS_METRIC_NAMESPACE", default_value = "ChordFS")]
    metric_namespace: String,
    /// How often the miss rate of the time since then is measured [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALER_PERIOD", default_value = "1m", value_parser = duration::parse_positive)]
    period: Duration,
    /// Time after a decision in which no other is made [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", env = "CHORDFS_SCALER_COOLDOWN", default_value = "2m", value_parser = duration::parse)]
    cooldown: Duration,
    /// The file with the operator's token, which lies in the data folder of any node of the ring [default: that of a
    /// node of the ring that runs on this machine, if you may read it]
    #[arg(long, value_name = "FILE", env = "CHORDFS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Runs until SIGTERM.
pub async fn run(args: AutoscalerArgs) -> anyhow::Result<()> {
    let join: Vec<NodeAddress> = args.join.iter().copied().map(NodeAddress).collect();
    #[cfg(feature = "aws")]
    if let Some(group) = &args.asg {
        let source =
            chordfs_aws::CloudWatchMisses::new(args.metric_namespace.clone(), group.clone(), args.period).await;
        let join = if join.is_empty() { chordfs_aws::nodes_of_group(group).await } else { join };
        return chordfs_pool::autoscaler::run(args.scaler(join), Box::new(source)).await;
    }
    chordfs_pool::autoscaler::run(args.scaler(join), Box::new(RingMissRate::default())).await
}

impl AutoscalerArgs {
    fn scaler(self, join: Vec<NodeAddress>) -> Autoscaler {
        Autoscaler { join, period: self.period, cooldown: self.cooldown, token_file: self.token_file }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct ScalerCli {
        #[command(flatten)]
        scaler: AutoscalerArgs,
    }

    fn parse(line: &str) -> Result<AutoscalerArgs, String> {
        let args = ["autoscaler"].into_iter().chain(line.split_whitespace());
        ScalerCli::try_parse_from(args).map(|cli| cli.scaler).map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_line_becomes_a_scaler() {
        let args = parse("--join 10.0.0.1 10.0.0.2:6000 --join 10.0.0.3 --period 5s").unwrap();
        let join: Vec<String> = args.join.iter().map(SocketAddr::to_string).collect();
        assert_eq!(join, ["10.0.0.1:5057", "10.0.0.2:6000", "10.0.0.3:5057"]);
        assert_eq!((args.period, args.cooldown), (Duration::from_secs(5), Duration::from_secs(120)));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("", "--join"),
            ("--join here", "neither IP:PORT nor an IP"),
            ("--join 10.0.0.1 --period 0s", "period"),
            ("--join 10.0.0.1 --cooldown soon", "cooldown"),
        ] {
            let refused = parse(line).expect_err(line);
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }
}
