//! `storage-node autoscaler`: a process of its own that chooses the size of the pool in automatic mode.
//!
//! Once a period it asks one node about the whole ring, measures the misses of the period, and asks the rule. What is
//! decided goes to the namespace, which checks it; the pools follow it (`local/`, an Auto Scaling group). The scaler
//! keeps only the counters of the last period, so it can be killed and started again, and two may run: the namespace
//! takes one of two decisions that were made from the same state.
//!
//! | file | what |
//! |---|---|
//! | `rule` | pure: from settings, decisions, nodes and figures to the next decision |
//! | `misses` | pure: from the counters of the nodes to the miss rate of a period |
//! | `source` | where the miss rate comes from |
//! | `members` | which node is asked |

mod members;
mod misses;
mod rule;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod simulation_tests;
mod source;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chordfs_identity::Role;
use chordfs_net::{
    admin_client::{AdminClient, AdminError},
    http_pool::HttpPool,
    operator_token::{find_token, read_token},
    ring_access::RingAccess,
};
use chordfs_types::{
    admin::{NodeLine, PoolNodes, RingNodeState, RingStatus, ScalerDecision},
    operator::OperatorToken,
    ring_config::PoolMode,
    ring_id::NodeAddress,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use self::{
    members::{KnownNodes, RingReport},
    rule::{DiskUse, ScalerAction, Situation, SizeChoice, decide},
};
pub use self::{
    misses::{CacheCounters, MissMeter, Misses},
    source::{MissRateSource, RingMissRate},
};

/// A node gathers the status of its ring within three seconds, whoever does not answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// HTTP's status for a decision that the namespace did not take.
const CONFLICT: u16 = 409;

#[derive(Clone, Debug)]
pub struct Autoscaler {
    /// Nodes of the ring; one that answers is enough, and the others are learnt.
    pub join: Vec<NodeAddress>,
    /// How often it measures.
    pub period: Duration,
    /// The time after a decision in which it makes no other.
    pub cooldown: Duration,
    /// The file with the operator's token; without one, that of a node on this machine.
    pub token_file: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Autoscaler, source: Box<dyn MissRateSource>) -> Result<()> {
    let catch = |kind| signal(kind).context("cannot catch signals");
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let nodes: Vec<SocketAddr> = config.join.iter().map(|node| node.ring()).collect();
    let access = RingAccess::find(&nodes, Role::Operator, "autoscaler").await.context("the ring")?;
    let client = AdminClient::new(Arc::new(HttpPool::over(access.connector().clone())), DEADLINE);
    tokio::spawn(access.keep_valid(move || nodes.clone()));
    let members = KnownNodes::new(client.clone(), config.join.clone());
    let mut process = ScalerProcess { config, client, members, source, said: None };
    info!(period = ?process.config.period, cooldown = ?process.config.cooldown, "watches the ring");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = process.work() => {}
    }
    info!("stops; the pool keeps its size");
    Ok(())
}

struct ScalerProcess {
    config: Autoscaler,
    client: AdminClient,
    members: KnownNodes,
    source: Box<dyn MissRateSource>,
    /// What was logged last.
    said: Option<Said>,
}

/// Texts without their figures.
#[derive(PartialEq)]
enum Said {
    Failure(String),
    Hold(String),
}

impl ScalerProcess {
    async fn work(&mut self) {
        let mut periods = interval(self.config.period);
        periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            periods.tick().await;
            if let Err(failure) = self.look().await {
                self.say_failure(failure);
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let report = self.members.report().await?;
        // In manual mode nothing rests on the misses, and CloudWatch charges for each question.
        let misses = match report.config.mode {
            PoolMode::Automatic => self.source.measure(&report.ring).await,
            PoolMode::Manual => Misses::NotMeasured,
        };
        let nodes = PoolNodes::of(&report.ring);
        let action = decide(&Situation {
            config: &report.config,
            target: &report.pool.target,
            decisions: &report.pool.decisions,
            nodes,
            misses,
            disks: disk_use(&report.ring),
            cooldown: self.config.cooldown,
        });
        match action {
            ScalerAction::Hold(reason) => {
                self.say_hold(reason);
                Ok(())
            }
            ScalerAction::Decide(choice) => self.send(&report, nodes, choice).await,
        }
    }

    async fn send(&mut self, report: &RingReport, nodes: PoolNodes, choice: SizeChoice) -> Result<(), String> {
        let SizeChoice { to, reason, miss_rate, fullest_disk } = choice;
        let (expected, from) = (report.pool.target.serial, nodes.serving);
        let decision = ScalerDecision { expected, from, to, reason, miss_rate, fullest_disk };
        let client = self.client.clone().with_token(self.token()?);
        match client.decide_pool_size(report.node, &decision).await {
            Ok(decided) => {
                info!(serial = decided.serial, from, to, reason = decision.reason, "has decided");
                self.said = None;
                Ok(())
            }
            Err(AdminError::Refused { status, text, .. }) if status.as_u16() == CONFLICT => {
                info!(to, reason = text.trim_end(), "the decision was not taken");
                Ok(())
            }
            Err(error) => Err(format!("the decision to have {to} nodes was not taken: {error}")),
        }
    }

    /// It is read for each decision, because tokens are revoked and made anew. A node that needs one says so.
    fn token(&self) -> Result<Option<OperatorToken>, String> {
        match &self.config.token_file {
            Some(file) => read_token(file).map(Some).map_err(|error| format!("the operator's token: {error}")),
            None => Ok(self.members.all().into_iter().find_map(|node| find_token(node.0))),
        }
    }

    fn say_failure(&mut self, failure: String) {
        if self.is_new(Said::Failure(without_digits(&failure))) {
            warn!(failure, "cannot choose the size of the pool now; the next period tries again");
        }
    }

    fn say_hold(&mut self, reason: String) {
        if self.is_new(Said::Hold(without_digits(&reason))) {
            info!(reason, "no decision now");
        }
    }

    fn is_new(&mut self, said: Said) -> bool {
        let is_new = self.said.as_ref() != Some(&said);
        self.said = Some(said);
        is_new
    }
}

/// Figures change all the time, and a line of the log is for a change of the reason.
fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

fn disk_use(ring: &RingStatus) -> DiskUse {
    let serving = ring.nodes.iter().filter(|node| matches!(node.state, RingNodeState::Up | RingNodeState::Joining));
    let used: Vec<f64> = serving.filter_map(used_share).collect();
    DiskUse { fullest: used.iter().copied().reduce(f64::max), sum: used.iter().sum() }
}

fn used_share(node: &NodeLine) -> Option<f64> {
    let (free, capacity) = (node.free_bytes?, node.capacity_bytes.filter(|bytes| *bytes > 0)?);
    Some((1.0 - free as f64 / capacity as f64).clamp(0.0, 1.0))
}
