//! A ring whose nodes are machines: each storage-node process in a network namespace of its own, with an address, a cable
//! and the standard ports; mounts on workstations beside them. What `Cluster` is on loopback addresses, for the tests that
//! pull cables.
//!
//! The test itself has no cable. It asks a node from inside the node's namespace, so it always gets an answer, also from a
//! node that nobody else can reach.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{Stored, binary, check_members, parse_stored},
    kept,
    mount::TempMount,
    netns::{Namespace, Network, Side},
    raw_rpc::{RawNode, RawRpc},
    wait::wait_for,
};

/// Starting, joining, settling and electing, on a machine that is busy with other tests too.
const SETTLE: Duration = Duration::from_secs(90);

struct Machine {
    name: String,
    ip: Ipv4Addr,
    namespace: Namespace,
    child: Option<Child>,
}

pub struct Lab {
    nodes: Vec<Machine>,
    workstations: Vec<(String, Namespace)>,
    network: Network,
    folder: TempDir,
}

impl Lab {
    /// `count` nodes that have settled into one ring, and have as many voters as such a ring should.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let network = Network::new();
        let folder = TempDir::with_prefix(format!("{}-", network.tag())).expect("a temporary folder");
        let mut lab = Self { nodes: Vec::new(), workstations: Vec::new(), network, folder };
        lab.grow(count);
        lab
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
        self.nodes.push(Machine { name, ip, namespace, child: None });
        self.start_node(index);
        index
    }

    /// Starts a node, new or with its old data, without waiting.
    #[track_caller]
    pub fn start_node(&mut self, index: usize) {
        let join = self.live().into_iter().find(|&at| at != index).map(|at| self.nodes[at].ip.to_string());
        let data = self.folder.path().join(&self.nodes[index].name);
        fs::create_dir_all(&data).expect("the node's folder");
        let mut command = Command::new(binary("storage-node"));
        command.arg("run").arg("--data").arg(&data).arg("--ip").arg(self.nodes[index].ip.to_string());
        command.args(join.iter().flat_map(|member| ["--join", member]));
        command.env("RUST_LOG", std::env::var("CHORDFS_TEST_LOG").unwrap_or("info".into()));
        let log = File::options().create(true).append(true).open(self.log_path(index)).expect("the node's log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let machine = &mut self.nodes[index];
        machine.child = Some(machine.namespace.run(|| command.spawn()).expect("storage-node starts"));
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

    pub fn ip(&self, index: usize) -> Ipv4Addr {
        self.nodes[index].ip
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.nodes[index].name))
    }

    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    /// Nodes whose process runs.
    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].child.is_some()).collect()
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        let child = self.nodes[index].child.as_ref().expect("the node runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("our own child can be signalled");
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// SIGTERM; returns when the process has ended by itself.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self.signal(index, Signal::SIGTERM);
        let mut child = self.nodes[index].child.take().expect("the node runs");
        wait_for("the node ends after SIGTERM", SETTLE, || match child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => panic!("it ended with {status}"),
            _ => Err("still running".into()),
        });
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
            if let Some(status) = self.nodes[index].child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("node {} ended with {status}; its log:\n{}", index + 1, self.log(index));
            }
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
        let url = format!("http://{}:5059/{path}", self.ip(index));
        let answer = self.nodes[index].namespace.run(|| {
            let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(10)).build()?;
            let answer = client.get(url).send()?;
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

    /// `storage-node ls`, asked on the node's own machine.
    pub fn ls(&self, index: usize) -> Result<Vec<Stored>, String> {
        let mut command = Command::new(binary("storage-node"));
        command.args(["ls", "--node", &self.ring_address(index)]);
        let out = self.nodes[index].namespace.run(|| command.output()).map_err(|error| error.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let lines = String::from_utf8_lossy(&out.stdout);
        lines.lines().map(|line| parse_stored(line).ok_or_else(|| format!("ls printed {line:?}"))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for index in self.live() {
            self.kill(index);
        }
        if std::thread::panicking() {
            for (index, node) in self.nodes.iter().enumerate() {
                let name = format!("{}-{}", self.network.tag(), node.name);
                kept::show(&format!("node {}", index + 1), &self.log_path(index), &name);
            }
        }
    }
}
