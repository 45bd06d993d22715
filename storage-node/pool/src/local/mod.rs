//! `storage-node pool --local`: processes on this machine that grow and shrink in number by the policy.
//!
//! One loop owns everything. Every quarter of a second it looks after the processes (one that ended is started again
//! with its folder, one that was drained is forgotten and its folder removed), and once a period it measures and takes
//! the step that the policy asks for. A pool that was killed leaves its nodes running; the next one finds them.

mod ask;
mod process;
mod state;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chordfs_net::admin_client::AdminClient;
use chordfs_types::{admin::DrainPhase, ring_id::NodeAddress};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use self::{
    ask::{begin_drain, usage},
    process::{Process, Start},
    state::{Leaving, Remembered, StateFile},
};
use super::{
    policy::{Now, Policy},
    scaler::{Scaler, Step},
};

const LOOK_AFTER_EVERY: Duration = Duration::from_millis(250);
/// A node that has not come up after this is not on its way any more, but silent.
const COMES_UP_WITHIN: Duration = Duration::from_secs(60);
/// Between the starts of a node that ends again and again; the first time it is started at once.
const MAX_RESTART_PAUSE: Duration = Duration::from_secs(30);
/// A node that ran for so long may be started again at once.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Nodes end within this after SIGTERM, or are killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const PORTS_OF_A_NODE: u16 = 3;

#[derive(Clone, Debug)]
pub struct LocalPool {
    pub data: PathBuf,
    pub ip: IpAddr,
    /// Of node 1's ring.
    pub port: u16,
    pub capacity_mib: u64,
    pub policy: Policy,
    /// storage-node itself.
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
    nodes: Vec<Node>,
    client: AdminClient,
    /// Said last, so that a reason is logged when it changes and not once a period.
    said: Step,
}

struct Node {
    number: u16,
    process: Option<Process>,
    leaving: Leaving,
    started_at: Option<Instant>,
    restart_pause: Duration,
    /// It has answered since it was started.
    came_up: bool,
}

impl Node {
    fn new(number: u16) -> Self {
        Self {
            number,
            process: None,
            leaving: Leaving::No,
            started_at: None,
            restart_pause: Duration::ZERO,
            came_up: false,
        }
    }

    fn of(remembered: &Remembered) -> Self {
        let process = Process::adopt(remembered.pid, remembered.started);
        if process.is_some() {
            info!(node = remembered.number, pid = remembered.pid, "still runs");
        }
        // Whether a drain got on while no pool looked, its process says; without one it begins anew.
        let leaving = match (&process, remembered.leaving) {
            (None, Leaving::Draining) => Leaving::No,
            (_, leaving) => leaving,
        };
        Self { process, leaving, started_at: Some(Instant::now()), ..Self::new(remembered.number) }
    }

    fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_alive)
    }

    fn may_start(&self) -> bool {
        self.started_at.is_none_or(|at| at.elapsed() >= self.restart_pause)
    }

    fn is_young(&self) -> bool {
        self.started_at.is_some_and(|at| at.elapsed() < COMES_UP_WITHIN)
    }
}

impl Pool {
    fn new(config: LocalPool, file: StateFile, remembered: Vec<Remembered>) -> Self {
        let nodes = remembered.iter().map(Node::of).collect();
        let scaler = Scaler::new(config.policy.clone());
        Self { config, file, scaler, nodes, client: ask::client(), said: Step::Hold(None) }
    }

    async fn run(&mut self) -> Result<()> {
        let catch = |kind| signal(kind).context("catch signals");
        let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let mut ticks = interval(LOOK_AFTER_EVERY);
        let mut periods = interval(self.config.policy.period);
        for timer in [&mut ticks, &mut periods] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = ticks.tick() => self.look_after().await?,
                _ = periods.tick() => self.measure_and_act().await?,
            }
        }
    }

    async fn measure_and_act(&mut self) -> Result<()> {
        let now = self.measure().await;
        let step = self.scaler.next(Instant::now(), &now);
        match &step {
            Step::Grow { by } => self.grow(*by, &now)?,
            Step::Shrink => self.shrink(&now).await?,
            Step::Hold(Some(why)) if self.said != step => info!(nodes = now.nodes, "no step now: {why}"),
            Step::Hold(_) => {}
        }
        self.said = step;
        Ok(())
    }

    async fn measure(&mut self) -> Now {
        let draining = self.nodes.iter().filter(|node| node.leaving != Leaving::No).count();
        let staying = self.nodes.iter().filter(|node| node.leaving == Leaving::No).map(|node| node.number);
        let addresses: Vec<_> = staying.map(|number| (number, self.address(number))).collect();
        let looks = join_all(addresses.iter().map(|(_, address)| usage(&self.client, *address))).await;
        let mut now = Now { nodes: addresses.len(), draining, ..Now::default() };
        for ((number, _), seen) in addresses.into_iter().zip(looks) {
            let node = self.node(number);
            match seen {
                Ok(seen) if seen.serving => {
                    node.came_up = true;
                    now.used_percent.push(seen.used_percent);
                    now.filling += usize::from(seen.filling);
                }
                _ => now.arriving += usize::from(!node.came_up && node.is_young()),
            }
        }
        now
    }

    fn grow(&mut self, by: usize, now: &Now) -> Result<()> {
        for _ in 0..by {
            let number = (1..).find(|number| self.nodes.iter().all(|node| node.number != *number));
            let number = number.context("all numbers are taken")?;
            let measured = self.config.policy.measure(&now.used_percent).map(|percent| percent.round());
            info!(node = number, nodes = self.nodes.len() + 1, used_percent = measured, "grows");
            self.nodes.push(Node::new(number));
            self.nodes.sort_by_key(|node| node.number);
        }
        self.save()?;
        self.start_missing()
    }

    /// The youngest goes: the longer a node is there, the longer mounts and scripts have known its address.
    async fn shrink(&mut self, now: &Now) -> Result<()> {
        let last = self.nodes.iter().rfind(|node| node.leaving == Leaving::No).map(|node| node.number);
        let Some(number) = last else { return Ok(()) };
        let fewer = Policy::leaves_fewer_copies(now.nodes);
        match begin_drain(&self.client, self.address(number), fewer).await {
            Ok(()) => {
                info!(node = number, nodes = now.nodes - 1, "shrinks: a node drains");
                self.node(number).leaving = Leaving::Draining;
                self.save()
            }
            Err(reason) => {
                warn!(node = number, reason, "does not shrink: the node cannot be drained");
                Ok(())
            }
        }
    }

    /// Processes that ended, and drains that got on.
    async fn look_after(&mut self) -> Result<()> {
        for number in self.nodes.iter().map(|node| node.number).collect::<Vec<_>>() {
            if self.node(number).leaving == Leaving::Draining {
                self.follow_drain(number).await?;
            }
            if self.node(number).leaving == Leaving::Left && !self.node(number).is_alive() {
                self.forget(number)?;
            }
        }
        self.start_missing()
    }

    async fn follow_drain(&mut self, number: u16) -> Result<()> {
        if !self.node(number).is_alive() {
            warn!(node = number, "ended before it was drained; it is started again with its data");
            self.node(number).leaving = Leaving::No;
            return self.save();
        }
        let Ok(Some(status)) = self.client.drain(self.address(number)).await else { return Ok(()) };
        match status.phase {
            DrainPhase::Left => self.node(number).leaving = Leaving::Left,
            DrainPhase::Refused | DrainPhase::Cancelled => {
                let reason = status.reason.unwrap_or_default();
                warn!(node = number, reason, "does not shrink: the node was not drained and serves on");
                self.node(number).leaving = Leaving::No;
                self.scaler.step_ended(Instant::now());
            }
            DrainPhase::Copying | DrainPhase::Voting | DrainPhase::Leaving => return Ok(()),
        }
        self.save()
    }

    /// It has left the ring: every chunk that it had is elsewhere, so its folder is of no use to anybody.
    fn forget(&mut self, number: u16) -> Result<()> {
        let folder = self.folder(number);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(%error, "the folder {} of a node that has left stays", folder.display());
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
            if node.leaving == Leaving::No && !node.is_alive() && node.may_start() {
                self.start(number)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, number: u16) -> Result<()> {
        let others = self.nodes.iter().filter(|node| node.number != number && node.leaving == Leaving::No);
        let join: Vec<SocketAddr> = others.map(|node| self.address(node.number).ring()).collect();
        // Only the very first node of all is told of none; the others of a new pool wait for it.
        let join = if self.begins_the_ring(number) { Vec::new() } else { join };
        let process = Process::start(Start {
            program: &self.config.program,
            data: self.folder(number),
            log: self.config.data.join(format!("{number}.log")),
            address: self.address(number).ring(),
            join,
            capacity_mib: self.config.capacity_mib,
            more: &self.config.node_args,
        })?;
        let node = self.node(number);
        let again = node.process.is_some() || node.started_at.is_some();
        info!(node = number, pid = process.pid, again, "started");
        let ran_well = node.started_at.is_none_or(|at| at.elapsed() >= RAN_WELL);
        node.restart_pause = match ran_well {
            true => Duration::from_secs(1),
            false => (node.restart_pause * 2).clamp(Duration::from_secs(1), MAX_RESTART_PAUSE),
        };
        (node.process, node.started_at, node.came_up) = (Some(process), Some(Instant::now()), false);
        self.save()
    }

    /// No node of this pool has ever had a folder, and this is the first of them.
    fn begins_the_ring(&self, number: u16) -> bool {
        let first = self.nodes.first().is_some_and(|node| node.number == number);
        first && self.nodes.iter().all(|node| !self.folder(node.number).exists())
    }

    fn save(&self) -> Result<()> {
        let remember = |node: &Node| Remembered {
            number: node.number,
            pid: node.process.as_ref().map_or(0, |process| process.pid),
            started: node.process.as_ref().map_or(0, |process| process.started),
            leaving: node.leaving,
        };
        self.file.write(self.nodes.iter().map(remember).collect())
    }

    fn node(&mut self, number: u16) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.number == number);
        found.expect("numbers come from the list, and nobody else changes it")
    }

    fn folder(&self, number: u16) -> PathBuf {
        self.config.data.join(number.to_string())
    }

    fn address(&self, number: u16) -> NodeAddress {
        SocketAddr::new(self.config.ip, self.config.port + PORTS_OF_A_NODE * (number - 1)).into()
    }

    /// SIGTERM for all of them; who does not end is killed.
    async fn stop(&mut self) {
        info!(nodes = self.nodes.len(), "stopping the nodes; their data stays");
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            process.signal(Signal::SIGTERM);
        }
        let end = Instant::now() + STOP_DEADLINE;
        let mut ticks = interval(Duration::from_millis(50));
        while self.nodes.iter_mut().any(Node::is_alive) {
            ticks.tick().await;
            if Instant::now() > end {
                for node in self.nodes.iter_mut().filter_map(|node| node.is_alive().then_some(node)) {
                    warn!(node = node.number, "does not end within {STOP_DEADLINE:?} and is killed");
                    node.process.iter().for_each(|process| process.signal(Signal::SIGKILL));
                }
                return;
            }
        }
    }
}
