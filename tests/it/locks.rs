//! Locks of programs on two mounts: they exclude each other, wait in order, and end with whoever holds them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use harness::{Cluster, TempMount, wait::wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOON: Duration = Duration::from_secs(20);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/locks.py")
}

/// A program that runs `locks.py`.
struct LockingProgram {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl LockingProgram {
    fn start(file: &Path, command: &str, args: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.arg(script()).arg(command).arg(file).args(args).process_group(0);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("it is piped")));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn hold(file: &Path, kind: &str) -> Self {
        let mut program = Self::start(file, "hold", &[kind]);
        assert_eq!(program.line(), "held", "{kind}");
        program
    }

    fn wait(file: &Path, kind: &str) -> Self {
        let mut program = Self::start(file, "wait", &[kind]);
        assert_eq!(program.line(), "waiting");
        program
    }

    /// Asks a program that holds a lock to wait for another one as well.
    fn ask(&mut self, kind: &str) {
        writeln!(self.input.as_mut().expect("it reads"), "{kind}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn end(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for LockingProgram {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn attempt(file: &Path, kind: &str) -> String {
    LockingProgram::start(file, "try", &[kind]).line()
}

fn two_mounts() -> (Cluster, TempMount, TempMount) {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    std::fs::write(one.join("f"), "0").unwrap();
    (cluster, one, two)
}

/// A lock can be had once the program that held it is gone, and the mount has noticed.
fn wait_until_free(file: &Path, kind: &str) {
    wait_for("the lock is free", SOON, || match attempt(file, kind).as_str() {
        "got" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn each_kind_of_lock_excludes_the_same_kind_on_the_other_mount() {
    let (_cluster, one, two) = two_mounts();
    let files = [one.join("f"), two.join("f")];
    for (holder, other) in [(0, 1), (1, 0), (0, 0)] {
        for kind in ["flock", "range:0:10", "ofd:0:10", "range:0:0"] {
            let held = LockingProgram::hold(&files[holder], kind);
            assert_eq!(attempt(&files[other], kind), "EAGAIN", "{kind}");
            let others = if kind == "flock" { "range:0:0" } else { "flock" };
            assert_eq!(attempt(&files[other], others), "got", "{others} beside {kind}");
            held.end();
            wait_until_free(&files[other], kind);
        }
        let held = LockingProgram::hold(&files[holder], "shared:5:5");
        let seen: Vec<String> =
            ["shared:0:0", "range:0:5", "range:9:1", "range:10:0"].map(|kind| attempt(&files[other], kind)).into();
        assert_eq!(seen, ["got", "got", "EAGAIN", "got"]);
        assert_eq!(LockingProgram::start(&files[other], "test", &[]).line(), "shared 5 5");
        held.end();
        wait_for("nothing is locked", SOON, || {
            match LockingProgram::start(&files[other], "test", &[]).line().as_str() {
                "free 0 0" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
}

/// What was written under a lock is read under the next one, also if no file was closed in between.
#[test]
fn a_number_that_programs_on_two_mounts_count_under_a_lock_misses_nothing() {
    let (_cluster, one, two) = two_mounts();
    for (kind, times) in [("range:0:100", 60), ("flock", 60), ("ofd:0:0", 30)] {
        std::fs::write(one.join("f"), "0").unwrap();
        let files = [one.join("f"), two.join("f"), one.join("f"), two.join("f")];
        let counting: Vec<LockingProgram> =
            files.iter().map(|file| LockingProgram::start(file, "count", &[kind, &times.to_string()])).collect();
        counting.into_iter().for_each(LockingProgram::end);
        let expected = (4 * times).to_string();
        assert_eq!(
            [&one, &two].map(|mount| std::fs::read_to_string(mount.join("f")).unwrap()),
            [expected.clone(), expected],
            "{kind}"
        );
    }
}

#[test]
fn a_program_that_waits_gets_the_lock_when_its_holder_ends_however_it_ends() {
    let (_cluster, one, two) = two_mounts();
    let end = |held: LockingProgram| held.end();
    let die = |held: LockingProgram| held.signal(Signal::SIGKILL);
    for kind in ["flock", "range:3:4"] {
        for ends in [end as fn(LockingProgram), die] {
            let held = LockingProgram::hold(&one.join("f"), kind);
            let mut waiting = LockingProgram::wait(&two.join("f"), kind);
            ends(held);
            assert_eq!(waiting.line(), "got", "{kind}");
            waiting.end();
        }
    }
    let held = LockingProgram::hold(&two.join("f"), "range:0:1");
    let mut waiting = LockingProgram::wait(&one.join("f"), "range:0:1");
    kill(Pid::from_raw(two.pid() as i32), Signal::SIGKILL).unwrap();
    assert_eq!(waiting.line(), "got", "the mount of the holder is gone");
    drop(held);
}

#[test]
fn a_signal_ends_waiting_and_nothing_is_left_of_it() {
    let (_cluster, one, two) = two_mounts();
    for file in [one.join("f"), two.join("f")] {
        let held = LockingProgram::hold(&one.join("f"), "range:0:10");
        let mut waiting = LockingProgram::wait(&file, "range:5:1");
        wait_for("it waits in the kernel", SOON, || {
            let state = std::fs::read_to_string(format!("/proc/{}/syscall", waiting.child.id())).unwrap();
            if state.starts_with("72 ") || state.starts_with("25 ") { Ok(()) } else { Err(state) }
        });
        waiting.signal(Signal::SIGALRM);
        assert_eq!(waiting.line(), "EINTR");
        let killed = LockingProgram::wait(&file, "range:5:1");
        drop(killed);
        held.end();
        wait_until_free(&two.join("f"), "range:0:10");
    }
}

/// The first handle is released when the child ends, after the lock was taken again.
#[test]
fn a_lock_stays_when_an_earlier_handle_of_its_owner_is_released() {
    let (_cluster, one, two) = two_mounts();
    for file in ["f", "g"] {
        let mut held = LockingProgram::start(&one.join(file), "reopen", &["range:0:10"]);
        assert_eq!(held.line(), "held");
        for _ in 0..10 {
            assert_eq!(attempt(&two.join(file), "range:0:10"), "EAGAIN");
        }
        held.end();
    }
}

#[test]
fn with_local_locks_a_mount_keeps_them_to_itself() {
    let cluster = Cluster::start(1);
    let (one, two) = (TempMount::with_options(&cluster, &["local_locks"]), TempMount::new(&cluster));
    let held = LockingProgram::hold(&one.join("f"), "flock");
    assert_eq!([&one, &two].map(|mount| attempt(&mount.join("f"), "flock")), ["EAGAIN", "got"]);
    held.end();
}

#[test]
fn programs_on_two_mounts_that_wait_for_each_other_are_told() {
    let (_cluster, one, two) = two_mounts();
    let (mut first, mut second) =
        (LockingProgram::hold(&one.join("f"), "range:0:1"), LockingProgram::hold(&two.join("f"), "range:1:1"));
    first.ask("range:1:1");
    let mut third = LockingProgram::wait(&one.join("f"), "range:0:1");
    second.ask("range:0:1");
    // Python has two names for one number.
    assert!(["EDEADLK", "EDEADLOCK"].contains(&second.line().as_str()));
    second.end();
    assert_eq!(first.line(), "got");
    first.end();
    assert_eq!(third.line(), "got");
}

#[test]
fn locks_outlive_the_leader_of_the_namespace() {
    let (mut cluster, one, two) = two_mounts();
    // The first is known to its mount alone, the second to the namespace.
    let alone = LockingProgram::hold(&one.join("alone"), "range:0:10");
    let known = LockingProgram::hold(&one.join("f"), "flock");
    assert_eq!(attempt(&two.join("f"), "flock"), "EAGAIN");
    let mut waiting = LockingProgram::wait(&two.join("f"), "flock");
    cluster.kill(cluster.leader());
    assert_eq!(attempt(&two.join("alone"), "range:9:5"), "EAGAIN");
    assert_eq!(attempt(&two.join("f"), "flock"), "EAGAIN");
    known.end();
    assert_eq!(waiting.line(), "got");
    alone.end();
    wait_until_free(&two.join("alone"), "range:0:0");
}
