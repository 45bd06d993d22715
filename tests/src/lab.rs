//! A ring whose nodes are machines: each storage-node process in a network namespace of its own, with an address, a cable
//! and the standard ports; mounts on workstations beside them. What `Cluster` is on loopback addresses, for the tests that
//! pull cables.
//!
//! The test itself has no cable. It asks a node from inside the node's namespace, so it always gets an answer, also from a
//! node that nobody else can reach.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{Stored, check_members, parse_stored},
    disk::{self, Disk},
    kept,
    mount::TempMount,
    netns::{Namespace, Network, Side},
    process::NodeProcess,
    programs::{Outcome, binary, run_command},
    raw_rpc::{RawNode, RawRpc},
    wait::wait_for,
};

/// Starting, joining, settling and electing, on a machine that is busy with other tests too.
const SETTLE: Duration = Duration::from_secs(90);

/// What an operator asks for and the nodes need time for: handing over, comparing, taking copies away.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(180);

struct Machine {
    name: String,
    ip: Ipv4Addr,
    namespace: Namespace,
    process: NodeProcess,
}

pub struct Lab {
    nodes: Vec<Machine>,
    workstations: Vec<(String, Namespace)>,
    network: Network,
    folder: TempDir,
    /// What each node's folder is, if it is a disk of its own.
    disk: Option<Disk>,
}

impl Lab {
    /// `count` nodes that have settled into one ring, and have as many voters as such a ring should.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let mut lab = Self::empty(None);
        lab.grow(count);
        lab
    }

    /// The same, each node's folder on a disk of its own.
    #[track_caller]
    pub fn start_on_disks(count: usize, disk: Disk) -> Self {
        let mut lab = Self::empty(Some(disk));
        lab.grow(count);
        lab
    }

    #[track_caller]
    fn empty(disk: Option<Disk>) -> Self {
        let network = Network::new();
        let folder = TempDir::with_prefix(format!("{}-", network.tag())).expect("a temporary folder");
        Self { nodes: Vec::new(), workstations: Vec::new(), network, folder, disk }
    }

    /// Joins until there are `count` live nodes, one after the other.
    #[track_caller]
    pub fn grow(&mut self, count: usize) {
        while self.live().len() < count {
            self.add();
        }
        self.wait_settled();
        self.wait_voters();
    }

    /// One more machine with a node, ready to serve.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        let index = self.begin_add();
        self.wait_ready(index);
        index
    }

    /// One more machine, whose node has only just been started.
    #[track_caller]
    pub fn begin_add(&mut self) -> usize {
        let index = self.nodes.len();
        let (name, ip) = (format!("n{}", index + 1), Ipv4Addr::new(10, 77, 0, index as u8 + 1));
        let namespace = self.network.attach(&name, ip);
        let log = self.folder.path().join(format!("{name}.log"));
        if let Some(disk) = self.disk {
            disk.attach(&self.folder.path().join(&name));
        }
        self.nodes.push(Machine { name, ip, namespace, process: NodeProcess::new(log) });
        self.start_node(index);
        index
    }

    /// Starts a node, new or with its old data, without waiting.
    #[track_caller]
    pub fn start_node(&mut self, index: usize) {
        let join = self.live().into_iter().find(|&at| at != index).map(|at| self.nodes[at].ip.to_string());
        let data = self.data(index);
        let machine = &mut self.nodes[index];
        let mut command = machine.process.command(&data, &machine.ip.to_string(), join.as_deref(), &[]);
        machine.namespace.run(|| machine.process.start(&mut command));
    }

    /// A mount on a workstation of its own; it knows the nodes that there are now.
    #[track_caller]
    pub fn mount(&mut self) -> TempMount {
        let index = self.workstations.len();
        let name = format!("w{}", index + 1);
        let namespace = self.network.attach(&name, Ipv4Addr::new(10, 77, 0, 201 + index as u8));
        let source: Vec<_> = self.nodes.iter().map(|node| node.ip.to_string()).collect();
        let mount = namespace.run(|| TempMount::of(&source.join(","), &[], self.folder.path()));
        self.workstations.push((name, namespace));
        mount
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The node's data folder.
    pub fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(&self.nodes[index].name)
    }

    /// Leaves so many bytes on the node's disk, which is one of its own.
    #[track_caller]
    pub fn fill_disk(&self, index: usize, leave: u64) {
        disk::fill(&self.data(index), leave);
    }

    #[track_caller]
    pub fn empty_disk(&self, index: usize) {
        disk::empty(&self.data(index));
    }

    pub fn ip(&self, index: usize) -> Ipv4Addr {
        self.nodes[index].ip
    }

    pub fn log(&self, index: usize) -> String {
        self.nodes[index].process.log()
    }

    /// Nodes whose process runs.
    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].process.is_live()).collect()
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        self.nodes[index].process.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].process.kill();
    }

    /// SIGTERM; returns when the process has ended by itself.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self.signal(index, Signal::SIGTERM);
        self.nodes[index].process.wait_ended(SETTLE);
    }

    /// Begins a drain, and does not wait for it.
    #[track_caller]
    pub fn begin_drain(&self, index: usize) {
        let said = self.admin(index, |client, url| client.post(url), "drain");
        said.unwrap_or_else(|error| panic!("node {} does not begin to drain: {error}", index + 1));
    }

    /// In which phase the drain of a node is, and why it was refused; empty before the first.
    pub fn drain_phase(&self, index: usize) -> Result<(String, String), String> {
        let status = self.status(index)?;
        let text = |field: &str| status["drain"][field].as_str().unwrap_or_default().to_owned();
        Ok((text("phase"), text("reason")))
    }

    /// Returns when the node has left the ring and its process has ended, with success.
    #[track_caller]
    pub fn wait_drained(&mut self, index: usize) {
        self.nodes[index].process.wait_ended(OPERATOR_PATIENCE);
    }

    /// `storage-node scrub`: what it printed when it was through.
    #[track_caller]
    pub fn scrub(&self, index: usize) -> String {
        self.storage_node(index, &["scrub"], &[]).ok()
    }

    pub fn scrub_status(&self, index: usize) -> Result<Value, String> {
        serde_json::from_str(&self.get(index, "scrub")?).map_err(|error| error.to_string())
    }

    /// From now on nothing reaches the node and nothing leaves it.
    #[track_caller]
    pub fn cut(&self, index: usize) {
        self.network.cut(&self.nodes[index].name);
    }

    #[track_caller]
    pub fn heal(&self, index: usize) {
        self.network.heal(&self.nodes[index].name);
    }

    /// Which side of a split network a node is on; `Side::First` for all is the whole network.
    #[track_caller]
    pub fn side(&self, index: usize, side: Side) {
        self.network.side(&self.nodes[index].name, side);
    }

    /// The same for the workstation of the mount that was made as number `mount`, from 0.
    #[track_caller]
    pub fn mount_side(&self, mount: usize, side: Side) {
        self.network.side(&self.workstations[mount].0, side);
    }

    #[track_caller]
    pub fn wait_ready(&mut self, index: usize) {
        wait_for(&format!("node {} is ready", index + 1), SETTLE, || {
            self.nodes[index].process.check_runs();
            self.get(index, "readyz").map(drop)
        });
    }

    /// One ring of all live nodes, each of them serving.
    #[track_caller]
    pub fn wait_settled(&mut self) {
        for index in self.live() {
            self.wait_ready(index);
        }
        wait_for("the ring is whole", SETTLE, || self.check_ring(&self.live()));
    }

    pub fn check_ring(&self, nodes: &[usize]) -> Result<(), String> {
        let known = nodes.iter().map(|&node| self.known_neighbours(node).map_err(|error| error.to_string()));
        check_members(known.collect::<Result<_, _>>()?)
    }

    /// The live nodes in the ring's order: each one's successor comes next, the last one's is the first.
    #[track_caller]
    pub fn ring_order(&self) -> Vec<usize> {
        let id = |node: &usize| self.known_neighbours(*node).expect("a live node answers")[0].id;
        let mut nodes = self.live();
        nodes.sort_by_cached_key(id);
        nodes
    }

    fn known_neighbours(&self, index: usize) -> std::io::Result<[RawNode; 3]> {
        self.nodes[index].namespace.run(|| RawRpc::connect(self.ip(index))?.neighbours())
    }

    /// The body of an answer 200 from the node's administration.
    fn get(&self, index: usize, path: &str) -> Result<String, String> {
        self.admin(index, |client, url| client.get(url), path)
    }

    fn admin(
        &self,
        index: usize,
        request: impl FnOnce(&Client, String) -> RequestBuilder + Send,
        path: &str,
    ) -> Result<String, String> {
        let url = format!("http://{}:5059/{path}", self.ip(index));
        let answer = self.nodes[index].namespace.run(|| {
            let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
            let answer = request(&client, url).send()?;
            Ok((answer.status(), answer.text()?))
        });
        let (status, text) = answer.map_err(|error: reqwest::Error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(text) }
    }

    /// What the node knows of itself, the ring and the namespace.
    pub fn status(&self, index: usize) -> Result<Value, String> {
        serde_json::from_str(&self.get(index, "status")?).map_err(|error| error.to_string())
    }

    /// The live nodes that vote in the namespace, as the first live node knows them.
    pub fn voters(&self) -> Result<Vec<usize>, String> {
        let status = self.status(self.live()[0])?;
        let addresses = status["namespace"]["voters"].as_array().ok_or_else(|| status.to_string())?;
        let is_voter = |&node: &usize| addresses.contains(&self.ring_address(node).into());
        Ok(self.live().into_iter().filter(is_voter).collect())
    }

    fn ring_address(&self, index: usize) -> String {
        format!("{}:5057", self.ip(index))
    }

    /// As many live voters as a ring of this size has: three, in a ring of seven or more five.
    #[track_caller]
    pub fn wait_voters(&self) {
        let wanted = if self.live().len() >= 7 { 5 } else { self.live().len().min(3) };
        wait_for(&format!("{wanted} voters live"), SETTLE, || match self.voters()? {
            voters if voters.len() == wanted => Ok(()),
            voters => Err(format!("{voters:?}; {:?}", self.status(self.live()[0]))),
        });
    }

    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_for("the namespace has a live leader", SETTLE, || {
            let status = self.status(self.live()[0])?;
            found = self.live().into_iter().find(|&node| status["namespace"]["leader"] == self.ring_address(node));
            found.map(drop).ok_or_else(|| status["namespace"].to_string())
        });
        found.expect("the wait ended with one")
    }

    /// A subcommand of `storage-node` about a node, run on the node's own machine.
    #[track_caller]
    fn storage_node(&self, index: usize, subcommand: &[&str], options: &[&str]) -> Outcome {
        let mut command = Command::new(binary("storage-node"));
        command.args(subcommand).args(["--node", &self.ring_address(index)]).args(options);
        self.nodes[index].namespace.run(|| run_command(&mut command, OPERATOR_PATIENCE))
    }

    /// `storage-node check`, once it has nothing to complain of: every chunk is at its holders and, but for what is part of
    /// no file, nowhere else.
    #[track_caller]
    pub fn wait_clean(&self) {
        self.wait_clean_with(&[]);
    }

    /// The same, and every copy was read.
    #[track_caller]
    pub fn wait_clean_verified(&self) {
        self.wait_clean_with(&["--verify"]);
    }

    #[track_caller]
    fn wait_clean_with(&self, more: &[&str]) {
        wait_for("storage-node check is clean", OPERATOR_PATIENCE, || {
            let options = [&["--json", "--grace", "0"], more].concat();
            let said = self.storage_node(self.live()[0], &["check"], &options);
            let report: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr.clone())?;
            let surplus = report["surplus_copies"].as_u64();
            if said.code == Some(0) && surplus == Some(0) { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// What each node of the ring keeps, in bytes of data.
    pub fn loads(&self) -> Result<Vec<f64>, String> {
        let ring: Value =
            serde_json::from_str(&self.get(self.live()[0], "ring")?).map_err(|error| error.to_string())?;
        let nodes = ring["nodes"].as_array().ok_or_else(|| ring.to_string())?;
        nodes.iter().map(|node| node["data_bytes"].as_f64().ok_or_else(|| node.to_string())).collect()
    }

    /// The fullest node has at most `bound` times the mean.
    #[track_caller]
    pub fn wait_balanced(&self, bound: f64) {
        wait_for(&format!("no node has more than {bound} times the mean"), OPERATOR_PATIENCE, || {
            let loads = self.loads()?;
            let mean = loads.iter().sum::<f64>() / loads.len() as f64;
            let fullest = loads.iter().copied().fold(0.0, f64::max) / mean;
            if fullest <= bound { Ok(()) } else { Err(format!("{fullest:.2} times: {loads:.0?}")) }
        });
    }

    /// `storage-node ls`, asked on the node's own machine.
    pub fn ls(&self, index: usize) -> Result<Vec<Stored>, String> {
        let out = self.storage_node(index, &["ls"], &[]);
        if out.code != Some(0) {
            return Err(out.stderr);
        }
        out.stdout.lines().map(|line| parse_stored(line).ok_or_else(|| format!("ls printed {line:?}"))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for index in self.live() {
            self.kill(index);
        }
        if kept::is_wanted() {
            for (index, node) in self.nodes.iter().enumerate() {
                let name = format!("{}-{}", self.network.tag(), node.name);
                node.process.show_log(&format!("node {}", index + 1), &name);
            }
        }
        if self.disk.is_some() {
            (0..self.nodes.len()).for_each(|index| disk::detach(&self.data(index)));
        }
    }
}
