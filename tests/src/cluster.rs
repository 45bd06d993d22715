//! A ring of real storage-node processes, each on its own loopback address with the standard ports.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    kept_logs,
    process::{NodeProcess, operator_token},
    programs::binary,
    raw_rpc::{RawNode, RawRpc},
    wait::wait_for,
};

/// Time for starting, joining and settling, on a machine that is busy with other tests too.
const SETTLE: Duration = Duration::from_secs(60);
/// A dead voter is replaced after half a minute; this leaves some margin.
const VOTERS_SETTLE: Duration = Duration::from_secs(120);

/// How many voters the namespace of a ring has once it has settled.
pub(crate) fn wanted_voters(nodes: usize) -> usize {
    if nodes >= 7 { 5 } else { nodes.min(3) }
}

/// One line of `storage-node ls`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub name: String,
    pub bytes: u64,
    pub version: u64,
}

pub struct Node {
    pub ip: Ipv4Addr,
    pub data: PathBuf,
    process: NodeProcess,
}

pub struct Cluster {
    folder: TempDir,
    /// The first part of all addresses. Clusters of tests that run side by side have different networks.
    network: [u8; 2],
    pub nodes: Vec<Node>,
    /// Additional arguments of `storage-node run`, for nodes started from now on.
    pub run_args: Vec<&'static str>,
    /// Whether nodes that are started from now on are to have identities. Most tests are about other things: their rings
    /// have none, so that any test program may speak to their nodes.
    pub has_identities: bool,
}

impl Cluster {
    /// Starts `count` nodes that have settled into one ring with the full number of voters: before that, the death of
    /// one node can be the loss of a majority.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::empty();
        for _ in 0..count {
            cluster.add();
        }
        cluster.wait_settled();
        cluster.wait_for_voters(wanted_voters(count));
        cluster
    }

    pub fn empty() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let network = [20 + (std::process::id() % 200) as u8, NEXT.fetch_add(1, Ordering::Relaxed)];
        let folder = TempDir::with_prefix("chordfs-ring-").expect("a temporary folder");
        Self { folder, network, nodes: Vec::new(), run_args: Vec::new(), has_identities: false }
    }

    /// Adds a node, and returns when it is ready to serve.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        let data = self.folder.path().join(format!("node-{}", self.nodes.len() + 1));
        self.add_with_data(data)
    }

    /// Adds a node that knows only this member.
    #[track_caller]
    pub fn add_through(&mut self, member: SocketAddr) -> usize {
        let data = self.folder.path().join(format!("node-{}", self.nodes.len() + 1));
        let index = self.push_node(data);
        self.start_node_through(index, Some(member));
        self.wait_ready(index);
        index
    }

    #[track_caller]
    pub fn add_with_data(&mut self, data: PathBuf) -> usize {
        let index = self.push_node(data);
        self.start_node(index);
        self.wait_ready(index);
        index
    }

    /// The operator's token of a node that has started.
    #[track_caller]
    pub fn operator_token(&self, index: usize) -> String {
        operator_token(&self.nodes[index].data)
    }

    /// Starts a node, new or with its old data, without waiting.
    #[track_caller]
    pub fn start_node(&mut self, index: usize) {
        let join = self.nodes.iter().enumerate().find(|(at, node)| *at != index && node.process.is_live());
        let join = join.map(|(_, node)| SocketAddr::from((node.ip, 5057)));
        self.start_node_through(index, join);
    }

    /// Starts a node with its old data and without `--join`, without waiting.
    #[track_caller]
    pub fn start_node_alone(&mut self, index: usize) {
        self.start_node_through(index, None);
    }

    #[track_caller]
    pub fn start_node_through(&mut self, index: usize, join: Option<SocketAddr>) {
        let node = &mut self.nodes[index];
        let (ip, join) = (node.ip.to_string(), join.map(|member| member.to_string()));
        let insecure = if self.has_identities { &[][..] } else { &["--insecure"] };
        let mut command = node.process.command(&node.data, &ip, join.as_deref(), &[insecure, &self.run_args].concat());
        node.process.start(&mut command);
    }

    /// Adds a node that is not started.
    pub fn push_stopped(&mut self, data: PathBuf) -> usize {
        self.push_node(data)
    }

    fn push_node(&mut self, data: PathBuf) -> usize {
        let index = self.nodes.len();
        let [a, b] = self.network;
        let log = self.folder.path().join(format!("node-{}.log", index + 1));
        let ip = Ipv4Addr::new(127, a, b, index as u8 + 1);
        self.nodes.push(Node { ip, data, process: NodeProcess::new(log) });
        index
    }

    pub fn log(&self, index: usize) -> String {
        self.nodes[index].process.log()
    }

    /// The second and the third part of all addresses, after 127.
    pub fn network(&self) -> [u8; 2] {
        self.network
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ip(&self, index: usize) -> Ipv4Addr {
        self.nodes[index].ip
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].process.pid()
    }

    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].process.is_live()).collect()
    }

    /// All nodes, as the SOURCE of `mount.chordfs`.
    pub fn source(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.ip.to_string()).collect();
        nodes.join(",")
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].process.kill();
    }

    /// SIGTERM; returns when the process has ended by itself.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self.signal(index, Signal::SIGTERM);
        self.wait_ended(index);
    }

    /// Returns when the process has ended by itself, with success.
    #[track_caller]
    pub fn wait_ended(&mut self, index: usize) {
        self.nodes[index].process.wait_ended(SETTLE);
    }

    /// Returns when the node has ended by itself, with an error.
    #[track_caller]
    pub fn wait_failed(&mut self, index: usize) {
        self.nodes[index].process.wait_failed(SETTLE);
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        self.nodes[index].process.signal(signal);
    }

    #[track_caller]
    pub fn wait_ready(&mut self, index: usize) {
        let url = format!("http://{}:5059/readyz", self.nodes[index].ip);
        wait_for(&format!("node {} is ready", index + 1), SETTLE, || {
            self.nodes[index].process.check_runs();
            let answer = reqwest::blocking::get(&url).map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().unwrap_or_default()) }
        });
    }

    /// Returns when all live nodes form one ring: the successor and the predecessor of each are the next and the
    /// previous node by id.
    #[track_caller]
    pub fn wait_settled(&mut self) {
        for index in self.live() {
            self.wait_ready(index);
        }
        wait_for("the ring is whole", SETTLE, || self.check_ring());
    }

    pub fn check_ring(&self) -> Result<(), String> {
        let neighbours = |index| RawRpc::connect(self.ip(index))?.neighbours();
        let members = self.live().into_iter().map(|index| neighbours(index).map_err(|error| error.to_string()));
        check_members(members.collect::<Result<_, _>>()?)
    }

    /// The status of a node, as `storage-node status --json` prints it.
    #[track_caller]
    pub fn status(&self, index: usize) -> serde_json::Value {
        let url = format!("http://{}:5059/status", self.ip(index));
        let answer = reqwest::blocking::get(url).expect("the node answers");
        answer.json().expect("the status is JSON")
    }

    /// The node that leads the namespace.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut found = None;
        wait_for("the namespace has a leader", VOTERS_SETTLE, || {
            let status = self.status(self.live()[0]);
            let address = status["namespace"]["leader"].as_str().ok_or_else(|| status.to_string())?;
            found = self.live().into_iter().find(|&node| address == format!("{}:5057", self.ip(node)));
            found.map(drop).ok_or_else(|| format!("{address} is none of the live nodes"))
        });
        found.expect("the wait ended with one")
    }

    #[track_caller]
    pub fn wait_for_voters(&self, count: usize) {
        wait_for(&format!("{count} voters"), VOTERS_SETTLE, || {
            let status = self.status(self.live()[0]);
            match status["namespace"]["voters"].as_array().map_or(0, Vec::len) {
                voters if voters == count => Ok(()),
                _ => Err(status.to_string()),
            }
        });
    }

    /// `storage-node ls`.
    #[track_caller]
    pub fn ls(&self, index: usize) -> Vec<Stored> {
        let node = format!("{}:5057", self.ip(index));
        let out = crate::run(binary("storage-node"), &[&"ls", &"--node", &node], self.folder()).ok();
        out.lines().map(|line| parse_stored(line).unwrap_or_else(|| panic!("ls printed {line:?}"))).collect()
    }
}

/// Checks that each member's successor is the next and its predecessor the previous one by id. A member is given as
/// itself, its successor and its predecessor.
pub(crate) fn check_members(mut members: Vec<[RawNode; 3]>) -> Result<(), String> {
    members.sort_by_key(|[own, ..]| own.id);
    let count = members.len();
    for (at, [own, successor, predecessor]) in members.iter().enumerate() {
        let next = &members[(at + 1) % count][0];
        let previous = &members[(at + count - 1) % count][0];
        if count > 1 && (successor != next || predecessor != previous) {
            return Err(format!("{own:?} has successor {successor:?} and predecessor {predecessor:?}"));
        }
    }
    Ok(())
}

pub(crate) fn parse_stored(line: &str) -> Option<Stored> {
    // The name comes first and may hold spaces.
    let mut fields = line.rsplitn(3, ' ');
    let version = fields.next()?.parse().ok()?;
    let bytes = fields.next()?.parse().ok()?;
    Some(Stored { name: fields.next()?.to_owned(), bytes, version })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in self.live() {
            self.kill(index);
        }
        if kept_logs::are_wanted() {
            let folder = self.folder.path().file_name().unwrap_or_default().display();
            for (index, node) in self.nodes.iter().enumerate() {
                node.process.show_log(&format!("node {}", index + 1), &format!("{folder}-n{}", index + 1));
            }
        }
    }
}
