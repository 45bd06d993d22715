//! Programs that people run in a mount: tar unpacks a tree that the other mount compares with the archive, and git
//! commits to a repository that the other mount checks object by object.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{FinalCheck, Mounts, Record};
use crate::tree;

/// Within this time the other mount must see a new commit.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// The number of operations that a run of a program counts as, as for fio.
const RUN_OPERATIONS: u64 = 16;

pub(super) struct Programs {
    mounts: Mounts,
    /// Outside of the mounts: the archive that tar unpacks.
    outside: TempDir,
}

impl Programs {
    pub(super) fn new(mounts: Mounts) -> Self {
        let outside = tempfile::tempdir().expect("a temporary folder");
        let tree = outside.path().join("tree");
        for file in 0..40_u64 {
            let folder = tree.join(format!("folder-{}", file % 5));
            fs::create_dir_all(&folder).expect("a folder of the archive");
            fs::write(folder.join(format!("file-{file}")), tree::bytes(file, 1 << (file % 17)))
                .expect("a file of the archive");
        }
        let programs = Self { mounts, outside };
        programs.tar(&["-cf", "-C"], &tree, &["."]).expect("tar makes the archive");
        programs
    }

    pub(super) fn run(self, record: &Record) -> FinalCheck {
        let mut repository = None;
        for round in 0.. {
            if record.is_stopped() {
                break;
            }
            self.unpack(record, &format!("unpacked-{}-{round}", self.mounts.label));
            let name = repository.take().or_else(|| self.new_repository(record, round));
            repository = name.and_then(|name| self.commit(record, &name, round).map(|()| name));
        }
        Box::new(move |record, fresh| {
            let _ = repository.map(|name| self.check_repository(record, &fresh.join(name)));
        })
    }

    fn unpack(&self, record: &Record, name: &str) -> Option<()> {
        let (own, other) = (self.mounts.own.join(name), self.mounts.other.join(name));
        record.attempt("mkdir", &own, || fs::create_dir(&own))?;
        self.attempt(record, "tar -x", &own, || self.tar(&["-xf", "-C"], &own, &[]))?;
        record.keep(&own)?;
        self.attempt(record, "tar --diff", &other, || self.tar(&["-df", "-C"], &other, &[]))?;
        self.attempt(record, "rm -r", &own, || run(Command::new("rm").arg("-r").arg(&own)))
    }

    /// `options` end with `-C`, for the folder; the archive is the argument of the option before.
    fn tar(&self, options: &[&str; 2], folder: &Path, more: &[&str]) -> io::Result<()> {
        let archive = self.outside.path().join("archive.tar");
        run(Command::new("tar").arg(options[0]).arg(archive).arg(options[1]).arg(folder).args(more))
    }

    fn new_repository(&self, record: &Record, round: u64) -> Option<String> {
        let name = format!("repository-{}-{round}", self.mounts.label);
        let path = self.mounts.own.join(&name);
        self.attempt(record, "git init", &path, || run(Command::new("git").args(["init", "--quiet"]).arg(&path)))?;
        Some(name)
    }

    fn commit(&self, record: &Record, name: &str, round: u64) -> Option<()> {
        let (own, other) = (self.mounts.own.join(name), self.mounts.other.join(name));
        for file in 0..5 {
            let path = own.join(format!("file-{file}"));
            record.attempt("write", &path, || fs::write(&path, tree::bytes(round * 8 + file, 3_000)))?;
        }
        self.attempt(record, "git add", &own, || git(&own, &["add", "--all"]))?;
        self.attempt(record, "git commit", &own, || git(&own, &["commit", "--quiet", "-m", "a round"]))?;
        record.keep(&own)?;
        let committed = record.attempt("git rev-parse", &own, || head(&own))?;
        record.attempt("git rev-parse elsewhere", &other, || wait_for_head(&other, &committed))?;
        self.check_repository(record, &other)
    }

    fn check_repository(&self, record: &Record, path: &Path) -> Option<()> {
        self.attempt(record, "git fsck", path, || git(path, &["fsck", "--strict", "--no-progress"]))
    }

    fn attempt(
        &self,
        record: &Record,
        program: &'static str,
        path: &Path,
        work: impl FnOnce() -> io::Result<()>,
    ) -> Option<()> {
        record.attempt(program, path, work)?;
        record.count(RUN_OPERATIONS - 1);
        Some(())
    }
}

fn git_command(repository: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=load", "-c", "user.email=load@localhost", "-c", "gc.auto=0"]);
    command.args(["-c", "safe.directory=*", "-C"]).arg(repository).args(args);
    command
}

fn git(repository: &Path, args: &[&str]) -> io::Result<()> {
    run(&mut git_command(repository, args))
}

fn head(repository: &Path) -> io::Result<String> {
    output(&mut git_command(repository, &["rev-parse", "HEAD"]))
}

fn wait_for_head(repository: &Path, wanted: &str) -> io::Result<()> {
    let end = Instant::now() + SEEN_WITHIN;
    loop {
        match head(repository) {
            Ok(found) if found == wanted => return Ok(()),
            found if Instant::now() > end => {
                return Err(io::Error::other(format!("{found:?} and not {wanted} after {SEEN_WITHIN:?}")));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> io::Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    let printed = format!("{}{}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
    Err(io::Error::other(format!("{command:?} ended with {}: {}", out.status, printed.trim())))
}
