//! Running other programs, with their output at hand when they fail.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::wait::wait_for;

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Returns the standard output after a success; panics with everything that the program printed otherwise.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The binary of that name beside the test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test.ancestors().nth(2).expect("tests lie in <profile>/deps").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p storage-node -p fuse-client makes it", path.display());
    path
}

const DEADLINE: Duration = Duration::from_secs(300);
/// The scripts that drive a browser have shorter limits of their own, and show where they stood.
const BROWSER_DEADLINE: Duration = Duration::from_secs(3000);

/// Runs a program to its end; it is killed after five minutes.
#[track_caller]
pub fn run(program: impl AsRef<OsStr>, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    run_within(DEADLINE, program, args, folder)
}

#[track_caller]
fn run_within(deadline: Duration, program: impl AsRef<OsStr>, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    let mut command = Command::new(program);
    command.args(args.iter().map(|arg| arg.as_ref())).current_dir(folder);
    run_command(&mut command, deadline)
}

/// Runs a shell script with `set -e`.
#[track_caller]
pub fn shell(script: &str, folder: &Path) -> Outcome {
    run("bash", &[&"-euo", &"pipefail", &"-c", &script], folder)
}

/// Runs a Python script of `tests/scripts`, in the environment with the old scripts' packages.
#[track_caller]
pub fn python(script: &str, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    run_python(DEADLINE, "scripts", script, args, folder)
}

/// Runs a Python script of `tests/browser`, which drives a browser.
#[track_caller]
pub fn browser(script: &str, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    run_python(BROWSER_DEADLINE, "browser", script, args, folder)
}

/// Runs a module of that environment as a program.
#[track_caller]
pub fn python_module(module: &str, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    let mut all: Vec<&dyn AsRef<OsStr>> = vec![&"-m", &module];
    all.extend(args);
    run(interpreter(), &all, folder)
}

#[track_caller]
fn run_python(deadline: Duration, room: &str, script: &str, args: &[&dyn AsRef<OsStr>], folder: &Path) -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(room).join(script);
    let mut all: Vec<&dyn AsRef<OsStr>> = vec![&path];
    all.extend(args);
    run_within(deadline, interpreter(), &all, folder)
}

fn interpreter() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv/bin/python");
    let path = env::var_os("CHORDFS_TEST_PYTHON").map_or_else(default, PathBuf::from);
    assert!(path.exists(), "{} is missing: tests/check.sh makes it", path.display());
    path
}

#[track_caller]
pub fn run_command(command: &mut Command, deadline: Duration) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let pid = child.id();
    let waiter = std::thread::spawn(move || child.wait_with_output());
    wait_for(&format!("{command:?}"), deadline, || {
        if waiter.is_finished() {
            return Ok(());
        }
        Err(format!("process {pid} is still running"))
    });
    let Output { status, stdout, stderr } = waiter.join().expect("the waiter does not panic").expect("output is read");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
