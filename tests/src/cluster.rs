//! A ring of real storage-node processes, each on its own loopback address with the standard ports.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    kept,
    raw_rpc::{RawNode, RawRpc},
    wait::wait_for,
};

/// Starting, joining and settling, on a machine that is busy with other tests too.
const SETTLE: Duration = Duration::from_secs(60);
/// A dead voter is replaced after half a minute; this is some time more.
const VOTERS_SETTLE: Duration = Duration::from_secs(120);

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
    child: Option<Child>,
}

pub struct Cluster {
    folder: TempDir,
    /// Clusters of tests that run side by side have different networks.
    network: [u8; 2],
    pub nodes: Vec<Node>,
    /// More arguments of `storage-node run`, for nodes started from now on.
    pub run_args: Vec<&'static str>,
}

/// The binary of that name beside the test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.ancestors().nth(2).expect("tests lie in <profile>/deps").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p storage-node -p fuse-client makes it", path.display());
    path
}

impl Cluster {
    /// `count` nodes that have settled into one ring.
    #[track_caller]
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::empty();
        for _ in 0..count {
            cluster.add();
        }
        cluster.wait_settled();
        cluster
    }

    pub fn empty() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let network = [20 + (std::process::id() % 200) as u8, NEXT.fetch_add(1, Ordering::Relaxed)];
        let folder = TempDir::with_prefix("chordfs-ring-").expect("a temporary folder");
        Self { folder, network, nodes: Vec::new(), run_args: Vec::new() }
    }

    /// One more node, ready to serve.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        let data = self.folder.path().join(format!("node-{}", self.nodes.len() + 1));
        self.add_with_data(data)
    }

    /// One more node, which is told of this member alone.
    #[track_caller]
    pub fn add_through(&mut self, member: SocketAddr) -> usize {
        let index = self.nodes.len();
        let data = self.folder.path().join(format!("node-{}", index + 1));
        let [a, b] = self.network;
        self.nodes.push(Node { ip: Ipv4Addr::new(127, a, b, index as u8 + 1), data, child: None });
        self.start_node_through(index, Some(member));
        self.wait_ready(index);
        index
    }

    #[track_caller]
    pub fn add_with_data(&mut self, data: PathBuf) -> usize {
        let index = self.nodes.len();
        let [a, b] = self.network;
        self.nodes.push(Node { ip: Ipv4Addr::new(127, a, b, index as u8 + 1), data, child: None });
        self.start_node(index);
        self.wait_ready(index);
        index
    }

    /// Starts a node, new or with its old data, without waiting.
    #[track_caller]
    pub fn start_node(&mut self, index: usize) {
        let join = self.nodes.iter().enumerate().find(|(at, node)| *at != index && node.child.is_some());
        let join = join.map(|(_, node)| SocketAddr::from((node.ip, 5057)));
        self.start_node_through(index, join);
    }

    fn start_node_through(&mut self, index: usize, join: Option<SocketAddr>) {
        let log = self.log_file(index);
        let node = &mut self.nodes[index];
        fs::create_dir_all(&node.data).expect("the node's folder");
        let mut command = Command::new(binary("storage-node"));
        command.arg("run").arg("--data").arg(&node.data).arg("--ip").arg(node.ip.to_string()).args(&self.run_args);
        if let Some(join) = join {
            command.arg("--join").arg(join.to_string());
        }
        command.env("RUST_LOG", std::env::var("CHORDFS_TEST_LOG").unwrap_or("info".into()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().expect("storage-node starts"));
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}.log", index + 1))
    }

    fn log_file(&self, index: usize) -> File {
        File::options().create(true).append(true).open(self.log_path(index)).expect("the node's log")
    }

    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ip(&self, index: usize) -> Ipv4Addr {
        self.nodes[index].ip
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].child.as_ref().expect("the node runs").id()
    }

    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].child.is_some()).collect()
    }

    /// What mount.chordfs takes as SOURCE: all nodes.
    pub fn source(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.ip.to_string()).collect();
        nodes.join(",")
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
        self.wait_ended(index);
    }

    /// Returns when the process has ended by itself, with success.
    #[track_caller]
    pub fn wait_ended(&mut self, index: usize) {
        let mut child = self.nodes[index].child.take().expect("the node runs");
        wait_for("the node ends by itself", SETTLE, || match child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => panic!("it ended with {status} (signal {:?})", status.signal()),
            _ => Err("still running".into()),
        });
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        kill(Pid::from_raw(self.pid(index) as i32), signal).expect("our own child can be signalled");
    }

    #[track_caller]
    pub fn wait_ready(&mut self, index: usize) {
        let url = format!("http://{}:5059/readyz", self.nodes[index].ip);
        wait_for(&format!("node {} is ready", index + 1), SETTLE, || {
            if let Some(status) = self.nodes[index].child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("node {} ended with {status}; its log:\n{}", index + 1, self.log(index));
            }
            let answer = reqwest::blocking::get(&url).map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().unwrap_or_default()) }
        });
    }

    /// One ring of all live nodes: each one's successor and predecessor are the next and the previous by id.
    #[track_caller]
    pub fn wait_settled(&mut self) {
        for index in self.live() {
            self.wait_ready(index);
        }
        wait_for("the ring is whole", SETTLE, || self.check_ring());
    }

    pub fn check_ring(&self) -> Result<(), String> {
        let known = |index| RawRpc::connect(self.ip(index))?.neighbours();
        let members = self.live().into_iter().map(|index| known(index).map_err(|error| error.to_string()));
        check_members(members.collect::<Result<_, _>>()?)
    }

    /// `storage-node status --json` of a node.
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

/// Is each member's successor the next and its predecessor the previous one by id? A member is itself, its successor and
/// its predecessor.
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
        if std::thread::panicking() {
            for index in 0..self.nodes.len() {
                let name = format!("{}-n{}", self.folder.path().file_name().unwrap_or_default().display(), index + 1);
                kept::show(&format!("node {}", index + 1), &self.log_path(index), &name);
            }
        }
    }
}
