//! The process of a node, started by this pool or by an earlier one.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tracing::warn;

/// The command line of a node.
pub(super) struct ProcessArgs<'a> {
    pub program: &'a Path,
    pub data: PathBuf,
    pub log: PathBuf,
    pub address: SocketAddr,
    pub join: Vec<SocketAddr>,
    pub capacity_mib: u64,
    pub threads: usize,
    pub node_args: &'a [String],
}

/// The threads of each of so many nodes on this machine: more than it has cores wake each other in vain.
pub(super) fn threads_each(nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / nodes.max(1)).max(1)
}

pub(super) struct NodeProcess {
    pub pid: u32,
    pub started: u64,
    /// `None` if an earlier pool started the process, so that it is not a child of this one.
    child: Option<Child>,
}

impl NodeProcess {
    pub(super) fn start(args: ProcessArgs<'_>) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&args.log);
        let log = log.with_context(|| format!("open the log {}", args.log.display()))?;
        let mut command = Command::new(args.program);
        command.arg("run").arg("--data").arg(&args.data);
        command.args(["--ip", &args.address.ip().to_string(), "--port", &args.address.port().to_string()]);
        command.args(["--capacity", &args.capacity_mib.to_string()]);
        // The nodes share this machine's cores. An argument for the nodes comes before this.
        command.env("CHORDFS_THREADS", args.threads.to_string());
        for member in &args.join {
            command.args(["--join", &member.to_string()]);
        }
        command.args(args.node_args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", args.program.display()))?;
        let pid = child.id();
        Ok(Self { pid, started: start_of(pid).unwrap_or(0), child: Some(child) })
    }

    /// The process that an earlier pool started, if it still runs.
    pub(super) fn adopt(pid: u32, started: u64) -> Option<Self> {
        (pid > 0 && start_of(pid) == Some(started)).then_some(Self { pid, started, child: None })
    }

    /// Whether the process runs. Reaps it if it has ended, so that it does not stay as a zombie.
    pub(super) fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => true,
                Ok(Some(_)) => false,
                Err(error) => {
                    warn!(pid = self.pid, %error, "cannot find out whether a node still runs");
                    true
                }
            },
            None => start_of(self.pid) == Some(self.started),
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        // An error means that the process has just ended, which is the goal anyway.
        let _ = signal::kill(Pid::from_raw(self.pid as i32), signal);
    }
}

/// When a process was started, in ticks since boot; `None` if there is no such process, or only a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name is in brackets and may contain any characters, brackets included.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, start) = (fields.first()?, fields.get(19)?);
    if matches!(*state, "Z" | "X") { None } else { start.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let own = std::process::id();
        let started = start_of(own).expect("this very process");
        assert!(NodeProcess::adopt(own, started).expect("it runs").is_alive());
        assert!(NodeProcess::adopt(own, started + 1).is_none(), "another one with that pid");
        assert!(NodeProcess::adopt(0, 0).is_none());
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(start_of(child.id()), None);
    }
}
