//! A storage-node process: starting, pausing, killing and waiting for it, for both kinds of ring in this harness.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{kept_logs, programs::binary, wait::wait_for};

/// The process of a node, while there is one, and the log of all its runs.
pub(crate) struct NodeProcess {
    log: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    /// A process that is not started yet.
    pub(crate) fn new(log: PathBuf) -> Self {
        Self { log, child: None }
    }

    /// The command `storage-node run` with its data folder, its address, a member to join through, and `more`
    /// arguments.
    #[track_caller]
    pub(crate) fn command(&self, data: &Path, ip: &str, join: Option<&str>, more: &[&str]) -> Command {
        fs::create_dir_all(data).expect("the node's folder");
        let mut command = Command::new(binary("storage-node"));
        command.arg("run").arg("--data").arg(data).args(["--ip", ip]).args(more);
        command.args(join.iter().flat_map(|member| ["--join", *member]));
        command.env("RUST_LOG", std::env::var("CHORDFS_TEST_LOG").unwrap_or("info".into()));
        let log = File::options().create(true).append(true).open(&self.log).expect("the node's log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    #[track_caller]
    pub(crate) fn start(&mut self, command: &mut Command) {
        self.child = Some(command.spawn().expect("storage-node starts"));
    }

    /// Whether the process was started, and neither killed nor waited for since.
    pub(crate) fn is_live(&self) -> bool {
        self.child.is_some()
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("our own child can be signalled");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Returns when the process has ended by itself, with success.
    #[track_caller]
    pub(crate) fn wait_ended(&mut self, deadline: Duration) {
        let mut child = self.child.take().expect("the node runs");
        wait_for("the node ends by itself", deadline, || match child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => panic!("it ended with {status} (signal {:?})", status.signal()),
            _ => Err("still running".into()),
        });
    }

    /// Returns when it has ended by itself, with an error.
    #[track_caller]
    pub(crate) fn wait_failed(&mut self, deadline: Duration) {
        let mut child = self.child.take().expect("the node runs");
        wait_for("the node refuses to run", deadline, || match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(1) => Ok(()),
            Ok(Some(status)) => panic!("it ended with {status}"),
            _ => Err("still running".into()),
        });
    }

    /// Panics with the node's log if the process has ended by itself.
    #[track_caller]
    pub(crate) fn check_runs(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            panic!("a node ended with {status}; its log:\n{}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Prints the end of the log after a test has failed. `name` is unique in the test process.
    pub(crate) fn show_log(&self, what: &str, name: &str) {
        kept_logs::show(what, &self.log, name);
    }
}

/// The operator's token of the node with this data folder.
#[track_caller]
pub(crate) fn operator_token(data: &Path) -> String {
    let text = fs::read_to_string(data.join("operator-token")).expect("a node that has started has a token");
    text.trim().to_owned()
}
