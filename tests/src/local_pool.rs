//! `storage-node pool --local`: a real pool of nodes on a loopback address of its own.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{programs::binary, wait::wait_for};

const DEADLINE: Duration = Duration::from_secs(120);

pub struct LocalPool {
    folder: TempDir,
    ip: Ipv4Addr,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl LocalPool {
    /// Starts a pool with further arguments of `storage-node pool`.
    pub fn start(arguments: &[&str]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let ip = Ipv4Addr::new(127, 19, (std::process::id() % 250) as u8, NEXT.fetch_add(1, Ordering::Relaxed));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut pool = Self { folder: TempDir::with_prefix("chordfs-pool-").unwrap(), ip, arguments, child: None };
        pool.launch();
        pool
    }

    /// Starts it again, after [`signal`](Self::signal) has ended it.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(binary("storage-node"));
        command.args(["pool", "--local", "--data"]).arg(self.data()).args(["--ip", &self.ip.to_string()]);
        // Last, since they may end with those for each node.
        command.args(&self.arguments);
        self.child = Some(command.stdin(Stdio::null()).stderr(log).spawn().expect("the pool starts"));
    }

    /// Node 1 has the standard ports at this address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The folder with the folders of the nodes, named by their numbers.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Number, pid, and whether it stays, for each node in the pool's file.
    pub fn nodes(&self) -> Vec<(u64, i32, bool)> {
        let text = fs::read(self.data().join("pool.json")).unwrap_or_default();
        let saved: Value = serde_json::from_slice(&text).unwrap_or_default();
        let node = |node: &Value| {
            (node["number"].as_u64().unwrap(), node["pid"].as_i64().unwrap() as i32, node["leaving"] == "no")
        };
        saved["nodes"].as_array().into_iter().flatten().map(node).collect()
    }

    /// Returns when the pool has enough nodes and none of them leaves.
    #[track_caller]
    pub fn wait_for_nodes(&self, what: &str, enough: impl Fn(usize) -> bool) {
        wait_for(what, DEADLINE, || match self.nodes() {
            nodes if enough(nodes.len()) && nodes.iter().all(|node| node.2) => Ok(()),
            nodes => Err(format!("{nodes:?}; its log:\n{}", self.log())),
        });
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        let url = format!("http://{}:5059/readyz", self.ip);
        wait_for("the first node is ready", DEADLINE, || {
            let answer = reqwest::blocking::get(&url).map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(self.log()) }
        });
    }

    /// Sends a signal that ends the pool, and waits for its end.
    pub fn signal(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the pool runs");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }
}

impl Drop for LocalPool {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = (child.kill(), child.wait());
        }
        for (_, pid, _) in self.nodes().into_iter().filter(|node| node.1 > 0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Whether the process runs.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
