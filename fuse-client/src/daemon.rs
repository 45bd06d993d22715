//! Running in the background. The process forks before it has started any thread; the child mounts and reports the
//! outcome to the parent over a pipe, so that the command returns when the mount is ready, or fails with the child's
//! error.
//!
//! ```text
//! offset size field of the report
//!      0    1 exit code, 0 for "ready"
//!      1    n message, UTF-8, up to the end of the pipe
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    fcntl::OFlag,
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid},
};

use crate::exit::MountError;

pub enum ForkSide {
    /// This process is the parent, and the child has reported its exit code and message.
    Parent(DaemonReport),
    /// This process is the child, or runs in the foreground.
    Child(Reporter),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonReport {
    /// 0: the mount is ready.
    pub code: u8,
    pub message: String,
}

/// Reports the outcome to the parent. In the foreground there is no parent, and the caller reports the outcome.
pub struct Reporter {
    pipe: Option<File>,
}

/// Forks. Must be called before any thread is started.
pub fn fork_into_background() -> Result<ForkSide, MountError> {
    let cannot = |step: &str, error: nix::Error| MountError::system(format!("{step}: {error}"));
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC).map_err(|error| cannot("open a pipe", error))?;
    // SAFETY: this process has one thread, so the child inherits no lock that is held forever.
    match unsafe { fork() }.map_err(|error| cannot("start a process in the background", error))? {
        ForkResult::Parent { child } => {
            drop(writing);
            Ok(ForkSide::Parent(wait_for_report(reading, child)))
        }
        ForkResult::Child => {
            drop(reading);
            setsid().map_err(|error| cannot("leave the terminal", error))?;
            Ok(ForkSide::Child(Reporter { pipe: Some(writing.into()) }))
        }
    }
}

impl Reporter {
    pub fn foreground() -> Self {
        Self { pipe: None }
    }

    /// Reports that the mount is ready, and detaches from the terminal. An error means that the parent has exited: the
    /// user gave up waiting.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        pipe.write_all(&[0])
    }

    /// Returns true if the parent has received the report; otherwise the caller reports the error.
    pub fn failed(&mut self, error: &MountError) -> bool {
        let Some(mut pipe) = self.pipe.take() else { return false };
        let report = [&[error.code as u8], error.message.as_bytes()].concat();
        pipe.write_all(&report).is_ok()
    }
}

fn wait_for_report(reading: OwnedFd, child: Pid) -> DaemonReport {
    let mut bytes = Vec::new();
    let fd = reading.as_raw_fd();
    let read = File::from(reading).read_to_end(&mut bytes);
    match (read, bytes.split_first()) {
        (Ok(_), Some((&code, message))) => {
            DaemonReport { code, message: String::from_utf8_lossy(message).into_owned() }
        }
        (Ok(_), None) => {
            let end = waitpid(child, None).map_or_else(|error| error.to_string(), |status| format!("{status:?}"));
            no_report(&format!("the process in the background ended without a report ({end})"))
        }
        (Err(error), _) => no_report(&format!("read the report from descriptor {fd}: {error}")),
    }
}

fn no_report(message: &str) -> DaemonReport {
    let error = MountError::bug(message);
    DaemonReport { code: error.code as u8, message: error.message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(child: impl FnOnce(&mut Reporter)) -> DaemonReport {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        child(&mut Reporter { pipe: Some(writing.into()) });
        wait_for_report(reading, Pid::from_raw(i32::MAX))
    }

    #[test]
    fn a_failure_arrives_whole() {
        let error = MountError::failure("no node answered");
        let report = report_of(|reporter| assert!(reporter.failed(&error)));
        assert_eq!(report, DaemonReport { code: 32, message: "no node answered".into() });
    }

    #[test]
    fn a_child_that_ends_without_a_report_is_a_bug() {
        assert_eq!(report_of(|_| ()).code, 4);
    }

    #[test]
    fn in_the_foreground_the_caller_reports_failures() {
        let mut reporter = Reporter::foreground();
        assert!(!reporter.failed(&MountError::failure("x")));
        assert!(reporter.ready().is_ok());
    }
}
