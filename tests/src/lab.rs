//! A ring whose nodes are machines: each storage-node process runs in a network namespace of its own, with an address,
//! a cable and the standard ports; mounts run on workstations beside them. It is the counterpart of `Cluster`, which
//! uses loopback addresses, for tests that break the network.
//!
//! The test itself has no cable. It calls a node from inside the node's namespace, so it always gets an answer, even
//! from a node that no other node can reach.

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
    cluster::{Stored, check_members, parse_stored, wanted_voters},
    disk::{self, Disk},
    kept_logs,
    mount::TempMount,
    netns::{Namespace, Network, Side},
    process::{NodeProcess, operator_token},
    programs::{Outcome, binary, run_command},
    raw_rpc::{RawNode, RawRpc},
    wait::wait_for,
};

/// Time for starting, joining, settling and electing, on a machine that is busy with other tests too.
const SETTLE: Duration = Duration::from_secs(90);

/// Time for an operator's requests: handing chunks over, comparing, deleting copies.
const OPERATOR_DEADLINE: Duration = Duration::from_secs(180);

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
    /// The kind of disk at each node's folder, if it is not an ordinary folder.
    disk: Option<Disk>,
    has_identities: bool,
}

impl Lab {
    /// Starts `count` nodes that have settled into one ring with the full number of voters.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let mut lab = Self::empty(None);
        lab.grow(count);
        lab
    }

    /// Like `start`, with a separate disk for each node's folder.
    #[track_caller]
    pub fn start_on_disks(count: usize, disk: Disk) -> Self {
        let mut lab = Self::empty(Some(disk));
        lab.grow(count);
        lab
    }

    /// Like `start`, for a ring with identities. All machines read the local identities of one folder, as one machine does.
    #[track_caller]
    pub fn start_with_identities(count: usize) -> Self {
        let mut lab = Self::empty(None);
        lab.has_identities = true;
        lab.grow(count);
        lab
    }

    #[track_caller]
    fn empty(disk: Option<Disk>) -> Self {
        let network = Network::new();
        let folder = TempDir::with_prefix(format!("{}-", network.tag())).expect("a temporary folder");
        Self { nodes: Vec::new(), workstations: Vec::new(), network, folder, disk, has_identities: false }
    }

    /// Adds nodes one after the other until `count` are live.
    #[track_caller]
    pub fn grow(&mut self, count: usize) {
        while self.live().len() < count {
            self.add();
        }
        self.wait_settled();
        self.wait_voters();
    }

    /// Adds a machine with a node, and returns when the node is ready to serve.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        let index = self.begin_add();
        self.wait_ready(index);
        index
    }

    /// Adds a machine and starts its node, without waiting for it.
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
        let (insecure, runtime): (&[&str], _) =
            (if self.has_identities { &[] } else { &["--insecure"] }, self.runtime());
        let machine = &mut self.nodes[index];
        let mut command = machine.process.command(&data, &machine.ip.to_string(), join.as_deref(), insecure);
        command.env("CHORDFS_RUNTIME_DIR", runtime);
        machine.namespace.run(|| machine.process.start(&mut command));
    }

    /// Adds a workstation with a mount that knows the present nodes.
    #[track_caller]
    pub fn mount(&mut self) -> TempMount {
        let workstation = self.add_workstation();
        let source: Vec<_> = self.nodes.iter().map(|node| node.ip.to_string()).collect();
        self.on_workstation(workstation, || TempMount::of(&source.join(","), &[], self.folder.path()))
    }

    /// Adds a machine without a node.
    #[track_caller]
    pub fn add_workstation(&mut self) -> usize {
        let index = self.workstations.len();
        let name = format!("w{}", index + 1);
        let namespace = self.network.attach(&name, Ipv4Addr::new(10, 77, 0, 201 + index as u8));
        self.workstations.push((name, namespace));
        index
    }

    /// Runs `work` on a workstation; its processes and connections start there.
    pub fn on_workstation<T: Send>(&self, index: usize, work: impl FnOnce() -> T + Send) -> T {
        self.workstations[index].1.run(work)
    }

    fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The node's data folder.
    pub fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(&self.nodes[index].name)
    }

    /// Fills the node's disk up to `leave` bytes. The lab must have been started on disks.
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

    /// The nodes whose process runs.
    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].process.is_live()).collect()
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].process.pid()
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
        let token = operator_token(&self.data(index));
        let answer = self.admin(index, |client, url| client.post(url).bearer_auth(token), "drain");
        answer.unwrap_or_else(|error| panic!("node {} does not begin to drain: {error}", index + 1));
    }

    /// The phase of the node's drain, and the reason if it was refused; both empty before its first drain.
    pub fn drain_phase(&self, index: usize) -> Result<(String, String), String> {
        let status = self.status(index)?;
        let text = |field: &str| status["drain"][field].as_str().unwrap_or_default().to_owned();
        Ok((text("phase"), text("reason")))
    }

    /// Returns when the node has left the ring and its process has ended, with success.
    #[track_caller]
    pub fn wait_drained(&mut self, index: usize) {
        self.nodes[index].process.wait_ended(OPERATOR_DEADLINE);
    }

    /// Runs `storage-node scrub` to its end; returns what it printed.
    #[track_caller]
    pub fn scrub(&self, index: usize) -> String {
        self.storage_node(index, &["scrub"], &[]).ok()
    }

    pub fn scrub_status(&self, index: usize) -> Result<Value, String> {
        serde_json::from_str(&self.get(index, "scrub")?).map_err(|error| error.to_string())
    }

    /// Cuts the node's cable: it loses every packet in both directions from now on.
    #[track_caller]
    pub fn cut(&self, index: usize) {
        self.network.cut(&self.nodes[index].name);
    }

    #[track_caller]
    pub fn heal(&self, index: usize) {
        self.network.heal(&self.nodes[index].name);
    }

    /// Moves a node to one side of a split network; with all nodes on `Side::First` the network is whole.
    #[track_caller]
    pub fn side(&self, index: usize, side: Side) {
        self.network.side(&self.nodes[index].name, side);
    }

    /// Moves the workstation of a mount; mounts are numbered from 0 in the order in which they were made.
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

    /// Returns when all live nodes serve and form one ring.
    #[track_caller]
    pub fn wait_settled(&mut self) {
        for index in self.live() {
            self.wait_ready(index);
        }
        wait_for("the ring is whole", SETTLE, || self.check_ring(&self.live()));
    }

    pub fn check_ring(&self, nodes: &[usize]) -> Result<(), String> {
        let members = nodes.iter().map(|&node| self.neighbours(node).map_err(|error| error.to_string()));
        check_members(members.collect::<Result<_, _>>()?)
    }

    /// The live nodes in the order of the ring: the successor of each comes next, that of the last is the first.
    #[track_caller]
    pub fn ring_order(&self) -> Vec<usize> {
        let id = |node: &usize| self.neighbours(*node).expect("a live node answers")[0].id;
        let mut nodes = self.live();
        nodes.sort_by_cached_key(id);
        nodes
    }

    fn neighbours(&self, index: usize) -> std::io::Result<[RawNode; 3]> {
        self.nodes[index].namespace.run(|| RawRpc::connect(self.ip(index))?.neighbours())
    }

    /// GETs a path from the node's administration port; returns the body of a successful answer.
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

    /// The node's status: itself, the ring and the namespace.
    pub fn status(&self, index: usize) -> Result<Value, String> {
        serde_json::from_str(&self.get(index, "status")?).map_err(|error| error.to_string())
    }

    /// The live voters of the namespace, according to the first live node.
    pub fn voters(&self) -> Result<Vec<usize>, String> {
        let status = self.status(self.live()[0])?;
        let addresses = status["namespace"]["voters"].as_array().ok_or_else(|| status.to_string())?;
        let is_voter = |&node: &usize| addresses.contains(&self.ring_address(node).into());
        Ok(self.live().into_iter().filter(is_voter).collect())
    }

    fn ring_address(&self, index: usize) -> String {
        format!("{}:5057", self.ip(index))
    }

    /// Waits until as many voters are live as a ring of this size has: three, or five in a ring of seven or more.
    #[track_caller]
    pub fn wait_voters(&self) {
        let wanted = wanted_voters(self.live().len());
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

    /// Runs a subcommand of `storage-node` about a node, on the node's own machine.
    #[track_caller]
    pub fn storage_node(&self, index: usize, subcommand: &[&str], options: &[&str]) -> Outcome {
        self.storage_node_within(OPERATOR_DEADLINE, index, subcommand, options)
    }

    #[track_caller]
    fn storage_node_within(&self, deadline: Duration, index: usize, subcommand: &[&str], options: &[&str]) -> Outcome {
        let mut command = Command::new(binary("storage-node"));
        command.args(subcommand).args(["--node", &self.ring_address(index)]).args(options);
        // Several labs on one machine have the same addresses, so the node's runtime link may lead to another lab.
        command.env("CHORDFS_RUNTIME_DIR", self.runtime());
        command.env("CHORDFS_TOKEN_FILE", self.data(index).join("operator-token"));
        self.nodes[index].namespace.run(|| run_command(&mut command, deadline))
    }

    /// Waits until `storage-node check` finds no fault: every chunk of a file is at its holders and nowhere else.
    #[track_caller]
    pub fn wait_clean(&self) {
        self.wait_clean_with(&[]);
    }

    /// Like `wait_clean`, and reads every copy.
    #[track_caller]
    pub fn wait_clean_verified(&self) {
        self.wait_clean_with(&["--verify"]);
    }

    /// Checks that every chunk that belongs to no file is deleted within `grace`.
    #[track_caller]
    pub fn assert_no_orphans(&self, grace: Duration) {
        let seconds = grace.as_secs().to_string();
        let (subcommand, options) = (["check"], ["--json", "--grace", &seconds]);
        let outcome = self.storage_node_within(OPERATOR_DEADLINE + grace, self.live()[0], &subcommand, &options);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.stderr));
        assert_eq!(report["orphaned"]["count"], 0, "{report}");
    }

    #[track_caller]
    fn wait_clean_with(&self, more: &[&str]) {
        wait_for("storage-node check is clean", OPERATOR_DEADLINE, || {
            let options = [&["--json", "--grace", "0"], more].concat();
            let outcome = self.storage_node(self.live()[0], &["check"], &options);
            let report: Value = serde_json::from_str(&outcome.stdout).map_err(|_| outcome.stderr.clone())?;
            let surplus = report["surplus_copies"].as_u64();
            if outcome.code == Some(0) && surplus == Some(0) { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// The data of each node of the ring, in bytes.
    pub fn loads(&self) -> Result<Vec<f64>, String> {
        let ring: Value =
            serde_json::from_str(&self.get(self.live()[0], "ring")?).map_err(|error| error.to_string())?;
        let nodes = ring["nodes"].as_array().ok_or_else(|| ring.to_string())?;
        nodes.iter().map(|node| node["data_bytes"].as_f64().ok_or_else(|| node.to_string())).collect()
    }

    /// Empties the caches of all nodes.
    #[track_caller]
    pub fn clear_caches(&self) {
        let cleared = self.storage_node(self.live()[0], &["config", "clear-cache"], &[]);
        assert_eq!(cleared.code, Some(0), "{}", cleared.stderr);
    }

    /// Waits until the fullest node has at most `bound` times the mean.
    #[track_caller]
    pub fn wait_balanced(&self, bound: f64) {
        wait_for(&format!("no node has more than {bound} times the mean"), OPERATOR_DEADLINE, || {
            let loads = self.loads()?;
            let mean = loads.iter().sum::<f64>() / loads.len() as f64;
            let fullest = loads.iter().copied().fold(0.0, f64::max) / mean;
            if fullest <= bound { Ok(()) } else { Err(format!("{fullest:.2} times: {loads:.0?}")) }
        });
    }

    /// Runs `storage-node ls` on the node's own machine.
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
        if kept_logs::are_wanted() {
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
