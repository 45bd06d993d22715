//! `storage-node pool --local`: nodes as processes on this machine, whose number follows the size that was chosen for
//! the ring, or else the pool's own policy.
//!
//! One loop owns everything. Every quarter of a second it supervises the processes (a process that has ended is started
//! again with its folder; a drained node is forgotten and its folder removed). Every second it asks a node for the
//! wanted size and takes a step towards it (`follow`); while nobody has chosen one, it measures once a period and takes
//! the step that the policy requests. A pool that was killed leaves its nodes running; the next pool finds them.

mod ask;
mod follow;
mod process;
mod state;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chordfs_net::{
    admin_client::AdminClient,
    operator_token::{read_token, token_path},
};
use chordfs_types::{admin::DrainPhase, ring_id::NodeAddress};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use self::{
    ask::{PoolClient, begin_drain, usage},
    follow::{Authority, FollowStep, WantedSize, next_step},
    process::{NodeProcess, ProcessArgs, threads_each},
    state::{LeaveStage, SavedNode, StateFile},
};
use super::{
    policy::{Policy, PoolUsage},
    scaler::{Scaler, ScalingStep},
};

const SUPERVISE_INTERVAL: Duration = Duration::from_millis(250);
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// A node that does not serve after this time counts as unresponsive, and no longer as arriving.
const STARTUP_DEADLINE: Duration = Duration::from_secs(60);
/// The longest pause between the starts of a node that keeps ending. After its first end it is started at once.
const MAX_RESTART_PAUSE: Duration = Duration::from_secs(30);
/// A node that ran for at least this long is started again without a pause.
const STABLE_RUN: Duration = Duration::from_secs(60);
/// Nodes that do not end within this time after SIGTERM are killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const PORTS_OF_A_NODE: u16 = 3;

#[derive(Clone, Debug)]
pub struct LocalPool {
    pub data: PathBuf,
    pub ip: IpAddr,
    /// Port of node 1's ring.
    pub port: u16,
    pub capacity_mib: u64,
    pub policy: Policy,
    /// The program storage-node.
    pub program: PathBuf,
    /// Further arguments of every node's `run`.
    pub node_args: Vec<String>,
}

/// Runs until SIGTERM or SIGINT, and then stops the nodes.
pub async fn run(config: LocalPool) -> Result<()> {
    let last = usize::from(config.port) + usize::from(PORTS_OF_A_NODE).saturating_mul(config.policy.max);
    if last > usize::from(u16::MAX) {
        bail!("{} nodes of three ports each from {} on need ports beyond 65535", config.policy.max, config.port);
    }
    let (file, remembered) = StateFile::open(&config.data)?;
    let mut pool = Pool::new(config, file, remembered);
    let ended = pool.run().await;
    pool.stop().await;
    ended
}

struct Pool {
    config: LocalPool,
    file: StateFile,
    scaler: Scaler,
    nodes: Vec<PoolNode>,
    client: PoolClient,
    wanted: WantedSize,
    /// The last steps, so that a reason is logged when it changes and not every time.
    last_step: ScalingStep,
    last_follow: FollowStep,
}

struct PoolNode {
    number: u16,
    process: Option<NodeProcess>,
    leaving: LeaveStage,
    started_at: Option<Instant>,
    restart_pause: Duration,
    /// True once the node has answered since its last start.
    came_up: bool,
}

impl PoolNode {
    fn new(number: u16) -> Self {
        Self {
            number,
            process: None,
            leaving: LeaveStage::No,
            started_at: None,
            restart_pause: Duration::ZERO,
            came_up: false,
        }
    }

    fn restore(remembered: &SavedNode) -> Self {
        let process = NodeProcess::adopt(remembered.pid, remembered.started);
        if process.is_some() {
            info!(node = remembered.number, pid = remembered.pid, "still runs");
        }
        // A running process reports its drain's progress; without a process the drain starts over.
        let leaving = match (&process, remembered.leaving) {
            (None, LeaveStage::Draining) => LeaveStage::No,
            (_, leaving) => leaving,
        };
        Self { process, leaving, started_at: Some(Instant::now()), ..Self::new(remembered.number) }
    }

    fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(NodeProcess::is_alive)
    }

    fn may_start(&self) -> bool {
        self.started_at.is_none_or(|at| at.elapsed() >= self.restart_pause)
    }

    fn is_young(&self) -> bool {
        self.started_at.is_some_and(|at| at.elapsed() < STARTUP_DEADLINE)
    }
}

impl Pool {
    fn new(config: LocalPool, file: StateFile, remembered: Vec<SavedNode>) -> Self {
        let nodes = remembered.iter().map(PoolNode::restore).collect();
        let scaler = Scaler::new(config.policy.clone());
        Self {
            config,
            file,
            scaler,
            nodes,
            client: PoolClient::plain(),
            wanted: WantedSize::default(),
            last_step: ScalingStep::Hold(None),
            last_follow: FollowStep::Done,
        }
    }

    async fn run(&mut self) -> Result<()> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let mut ticks = interval(SUPERVISE_INTERVAL);
        let mut periods = interval(self.config.policy.period);
        let mut follows = interval(FOLLOW_INTERVAL);
        for timer in [&mut ticks, &mut periods, &mut follows] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = ticks.tick() => self.supervise().await?,
                _ = periods.tick() => self.measure_and_act().await?,
                _ = follows.tick() => self.follow().await?,
            }
        }
    }

    /// Asks for the wanted size, and takes the next step towards it if there is one.
    async fn follow(&mut self) -> Result<()> {
        let before = self.wanted.authority();
        let nodes: Vec<NodeAddress> = self.nodes.iter().map(|node| self.address(node.number)).collect();
        if let Some(node) = self.nodes.first() {
            let data = self.folder(node.number);
            self.client.renew(&data, &nodes).await;
        }
        self.wanted.ask(self.client.get(), &nodes).await;
        match self.wanted.authority() {
            Authority::Chosen(wanted) => self.step_towards(wanted).await,
            Authority::OwnRules if before != Authority::OwnRules => {
                self.scaler = Scaler::new(self.config.policy.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn step_towards(&mut self, wanted: usize) -> Result<()> {
        let goal = self.wanted.within_ports(wanted, self.config.policy.max);
        if self.nodes.len() == goal {
            self.last_follow = FollowStep::Done;
            return Ok(());
        }
        let now = self.measure().await;
        let step = next_step(goal, &now);
        let is_new = self.last_follow != step;
        self.last_follow = step;
        match step {
            FollowStep::Add(count) => self.add_for_decision(count),
            FollowStep::DrainOne if self.wanted.is_paused(Instant::now()) => Ok(()),
            FollowStep::DrainOne => self.shrink(&now).await,
            FollowStep::Wait(reason) if is_new => {
                info!(nodes = now.nodes, goal, "no step now: {reason}");
                Ok(())
            }
            FollowStep::Wait(_) | FollowStep::Done => Ok(()),
        }
    }

    /// Adds nodes as far as the machine has ports: one that drains still has its own.
    fn add_for_decision(&mut self, count: usize) -> Result<()> {
        let count = count.min(self.config.policy.max.saturating_sub(self.nodes.len()));
        if count == 0 {
            return Ok(());
        }
        let reason = self.wanted.reason();
        info!(nodes = self.nodes.len() + count, reason, "grows");
        self.add_nodes(count)
    }

    async fn measure_and_act(&mut self) -> Result<()> {
        match self.wanted.authority() {
            Authority::Chosen(_) => Ok(()),
            Authority::Unknown => self.keep_minimum(),
            Authority::OwnRules => self.follow_own_rules().await,
        }
    }

    fn keep_minimum(&mut self) -> Result<()> {
        match self.config.policy.missing(self.nodes.len()) {
            0 => Ok(()),
            by => {
                info!(nodes = self.nodes.len() + by, "grows to its minimum");
                self.add_nodes(by)
            }
        }
    }

    async fn follow_own_rules(&mut self) -> Result<()> {
        let now = self.measure().await;
        let step = self.scaler.next(Instant::now(), &now);
        match &step {
            ScalingStep::Grow { by } => self.grow(*by, &now)?,
            ScalingStep::Shrink => self.shrink(&now).await?,
            ScalingStep::Hold(Some(reason)) if self.last_step != step => {
                info!(nodes = now.nodes, "no step now: {reason}")
            }
            ScalingStep::Hold(_) => {}
        }
        self.last_step = step;
        Ok(())
    }

    async fn measure(&mut self) -> PoolUsage {
        let draining = self.nodes.iter().filter(|node| node.leaving != LeaveStage::No).count();
        let staying = self.nodes.iter().filter(|node| node.leaving == LeaveStage::No).map(|node| node.number);
        let addresses: Vec<_> = staying.map(|number| (number, self.address(number))).collect();
        let answers = join_all(addresses.iter().map(|(_, address)| usage(self.client.get(), *address))).await;
        let mut now = PoolUsage { nodes: addresses.len(), draining, ..PoolUsage::default() };
        for ((number, _), answer) in addresses.into_iter().zip(answers) {
            let node = self.node(number);
            match answer {
                Ok(usage) if usage.serving => {
                    node.came_up = true;
                    now.used_percent.push(usage.used_percent);
                    now.filling += usize::from(usage.filling);
                }
                _ => now.arriving += usize::from(!node.came_up && node.is_young()),
            }
        }
        now
    }

    fn grow(&mut self, by: usize, now: &PoolUsage) -> Result<()> {
        let measured = self.config.policy.measure(&now.used_percent).map(|percent| percent.round());
        info!(nodes = self.nodes.len() + by, used_percent = measured, "grows");
        self.add_nodes(by)
    }

    fn add_nodes(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let number = (1..).find(|number| self.nodes.iter().all(|node| node.number != *number));
            let number = number.context("all node numbers are in use")?;
            self.nodes.push(PoolNode::new(number));
            self.nodes.sort_by_key(|node| node.number);
        }
        self.save()?;
        self.start_missing()
    }

    /// Drains the youngest node: mounts and scripts have known the addresses of the others for longer.
    async fn shrink(&mut self, now: &PoolUsage) -> Result<()> {
        let last = self.nodes.iter().rfind(|node| node.leaving == LeaveStage::No).map(|node| node.number);
        let Some(number) = last else { return Ok(()) };
        let fewer = Policy::leaves_fewer_copies(now.nodes);
        match begin_drain(&self.operator(number), self.address(number), fewer).await {
            Ok(()) => {
                info!(node = number, nodes = now.nodes - 1, "shrinks: a node drains");
                self.node(number).leaving = LeaveStage::Draining;
                self.save()
            }
            Err(reason) => {
                warn!(node = number, reason, "does not shrink: the node cannot be drained");
                self.wanted.pause(Instant::now());
                Ok(())
            }
        }
    }

    /// Handles processes that have ended and drains that have progressed.
    async fn supervise(&mut self) -> Result<()> {
        for number in self.nodes.iter().map(|node| node.number).collect::<Vec<_>>() {
            if self.node(number).leaving == LeaveStage::Draining {
                self.follow_drain(number).await?;
            }
            if self.node(number).leaving == LeaveStage::Left && !self.node(number).is_alive() {
                self.forget(number)?;
            }
        }
        self.start_missing()
    }

    async fn follow_drain(&mut self, number: u16) -> Result<()> {
        if !self.node(number).is_alive() {
            warn!(node = number, "the node ended before it was drained; it is started again with its data");
            self.node(number).leaving = LeaveStage::No;
            return self.save();
        }
        let Ok(Some(status)) = self.client.get().drain(self.address(number)).await else { return Ok(()) };
        match status.phase {
            DrainPhase::Left => self.node(number).leaving = LeaveStage::Left,
            DrainPhase::Refused | DrainPhase::Cancelled => {
                let reason = status.reason.unwrap_or_default();
                warn!(node = number, reason, "does not shrink: the node was not drained and continues to serve");
                self.node(number).leaving = LeaveStage::No;
                self.scaler.step_ended(Instant::now());
                self.wanted.pause(Instant::now());
            }
            DrainPhase::Copying | DrainPhase::Voting | DrainPhase::Leaving => return Ok(()),
        }
        self.save()
    }

    /// Forgets a node that has left the ring, and removes its folder: all its chunks are on other nodes.
    fn forget(&mut self, number: u16) -> Result<()> {
        let folder = self.folder(number);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(%error, "cannot remove the folder {} of a node that has left", folder.display());
            }
            _ => {}
        }
        self.nodes.retain(|node| node.number != number);
        self.scaler.step_ended(Instant::now());
        info!(node = number, nodes = self.nodes.len(), "has left");
        self.save()
    }

    fn start_missing(&mut self) -> Result<()> {
        for number in self.nodes.iter().map(|node| node.number).collect::<Vec<_>>() {
            let node = self.node(number);
            if node.leaving == LeaveStage::No && !node.is_alive() && node.may_start() {
                self.start(number)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, number: u16) -> Result<()> {
        let others = self.nodes.iter().filter(|node| node.number != number && node.leaving == LeaveStage::No);
        let join: Vec<SocketAddr> = others.map(|node| self.address(node.number).ring()).collect();
        // Only the very first node founds a ring; the others of a new pool wait for it.
        let join = if self.founds_the_ring(number) { Vec::new() } else { join };
        let process = NodeProcess::start(ProcessArgs {
            program: &self.config.program,
            data: self.folder(number),
            log: self.config.data.join(format!("{number}.log")),
            address: self.address(number).ring(),
            join,
            capacity_mib: self.config.capacity_mib,
            threads: threads_each(self.config.policy.max),
            node_args: &self.config.node_args,
        })?;
        let node = self.node(number);
        let again = node.process.is_some() || node.started_at.is_some();
        info!(node = number, pid = process.pid, again, "started");
        let ran_well = node.started_at.is_none_or(|at| at.elapsed() >= STABLE_RUN);
        node.restart_pause = if ran_well {
            Duration::from_secs(1)
        } else {
            (node.restart_pause * 2).clamp(Duration::from_secs(1), MAX_RESTART_PAUSE)
        };
        (node.process, node.started_at, node.came_up) = (Some(process), Some(Instant::now()), false);
        self.save()
    }

    /// True for the first node of a pool none of whose nodes has a folder yet.
    fn founds_the_ring(&self, number: u16) -> bool {
        let first = self.nodes.first().is_some_and(|node| node.number == number);
        first && self.nodes.iter().all(|node| !self.folder(node.number).exists())
    }

    fn save(&self) -> Result<()> {
        let remember = |node: &PoolNode| SavedNode {
            number: node.number,
            pid: node.process.as_ref().map_or(0, |process| process.pid),
            started: node.process.as_ref().map_or(0, |process| process.started),
            leaving: node.leaving,
        };
        self.file.write(self.nodes.iter().map(remember).collect())
    }

    fn node(&mut self, number: u16) -> &mut PoolNode {
        let found = self.nodes.iter_mut().find(|node| node.number == number);
        found.expect("numbers come from the list, which only this loop changes")
    }

    /// A client that may change what the node does. A node that has not made its token yet cannot be changed.
    fn operator(&self, number: u16) -> AdminClient {
        let token = read_token(&token_path(&self.folder(number)));
        self.client.get().clone().with_token(token.ok())
    }

    fn folder(&self, number: u16) -> PathBuf {
        self.config.data.join(number.to_string())
    }

    fn address(&self, number: u16) -> NodeAddress {
        SocketAddr::new(self.config.ip, self.config.port + PORTS_OF_A_NODE * (number - 1)).into()
    }

    /// Sends SIGTERM to all nodes, and SIGKILL to those that do not end.
    async fn stop(&mut self) {
        info!(nodes = self.nodes.len(), "stopping the nodes; their data stays");
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            process.signal(Signal::SIGTERM);
        }
        let end = Instant::now() + STOP_DEADLINE;
        let mut ticks = interval(Duration::from_millis(50));
        while self.nodes.iter_mut().any(PoolNode::is_alive) {
            ticks.tick().await;
            if Instant::now() > end {
                for node in self.nodes.iter_mut().filter_map(|node| node.is_alive().then_some(node)) {
                    warn!(node = node.number, "does not end within {} s and is killed", STOP_DEADLINE.as_secs());
                    node.process.iter().for_each(|process| process.signal(Signal::SIGKILL));
                }
                return;
            }
        }
    }
}
