//! One node's process: started by this pool, or by one before it.

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

/// How a node is started.
pub struct Start<'a> {
    pub program: &'a Path,
    pub data: PathBuf,
    pub log: PathBuf,
    pub address: SocketAddr,
    pub join: Vec<SocketAddr>,
    pub capacity_mib: u64,
    pub more: &'a [String],
}

pub struct Process {
    pub pid: u32,
    pub started: u64,
    /// Ours to wait for; `None` if another pool started it.
    child: Option<Child>,
}

impl Process {
    pub fn start(start: Start<'_>) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&start.log);
        let log = log.with_context(|| format!("open the log {}", start.log.display()))?;
        let mut command = Command::new(start.program);
        command.arg("run").arg("--data").arg(&start.data);
        command.args(["--ip", &start.address.ip().to_string(), "--port", &start.address.port().to_string()]);
        command.args(["--capacity", &start.capacity_mib.to_string()]);
        for member in &start.join {
            command.args(["--join", &member.to_string()]);
        }
        command.args(start.more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", start.program.display()))?;
        let pid = child.id();
        Ok(Self { pid, started: start_of(pid).unwrap_or(0), child: Some(child) })
    }

    /// The process that a pool before this one started, if it still runs.
    pub fn adopt(pid: u32, started: u64) -> Option<Self> {
        (pid > 0 && start_of(pid) == Some(started)).then_some(Self { pid, started, child: None })
    }

    /// Also takes note of its end, so that it does not stay as a zombie.
    pub fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => true,
                Ok(Some(_)) => false,
                Err(error) => {
                    warn!(pid = self.pid, %error, "whether a node runs cannot be found out");
                    true
                }
            },
            None => start_of(self.pid) == Some(self.started),
        }
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended this moment, which is as good.
        let _ = signal::kill(Pid::from_raw(self.pid as i32), signal);
    }
}

/// In ticks since boot; `None` if there is no such process, or only what is left of one.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
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
        assert!(Process::adopt(own, started).expect("it runs").is_alive());
        assert!(Process::adopt(own, started + 1).is_none(), "another one with that pid");
        assert!(Process::adopt(0, 0).is_none());
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(start_of(child.id()), None);
    }
}
