//! fio's verified random writes: an independent program with its own model of a file's contents. It writes and checks
//! through its own mount, then a second run checks the closed file through the other one. The same file is written
//! again and again, in blocks from 512 bytes to 64 KiB, so most rounds merge new bytes into old chunks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{FinalCheck, Mounts, Record};

/// The number of operations that a run counts as. It writes or reads some eighty blocks; counted as one, it would make
/// a wait for progress a wait for fio alone.
const RUN_OPERATIONS: u64 = 16;

pub(super) struct Fio {
    mounts: Mounts,
    seed: u64,
}

/// One round: fio derives places, sizes and contents from the seed, so the same job can be checked later.
#[derive(Clone)]
struct Job {
    name: String,
    seed: u64,
}

impl Fio {
    pub(super) fn new(mounts: Mounts, seed: u64) -> Self {
        Self { mounts, seed }
    }

    pub(super) fn run(self, record: &Record) -> FinalCheck {
        let (mut last, mut file) = (None, 0);
        for round in 0.. {
            if record.is_stopped() {
                break;
            }
            let job = Job { name: format!("fio-{}-{file}", self.mounts.label), seed: self.seed << 32 | round };
            if self.one_round(record, &job).is_some() {
                last = Some(job);
            } else {
                // The contents of the old file are uncertain.
                (last, file) = (None, file + 1);
            }
        }
        Box::new(move |record, fresh| {
            let _ = last.map(|job| job.check(record, "fio verify at the end", fresh));
        })
    }

    fn one_round(&self, record: &Record, job: &Job) -> Option<()> {
        let path = self.mounts.own.join(&job.name);
        record.attempt("fio write and verify", &path, || job.fio(&path, &[]))?;
        record.count(RUN_OPERATIONS - 1);
        job.check(record, "fio verify elsewhere", &self.mounts.other)
    }
}

impl Job {
    fn check(&self, record: &Record, operation: &'static str, mount: &Path) -> Option<()> {
        let path: PathBuf = mount.join(&self.name);
        record.attempt(operation, &path, || self.fio(&path, &["--verify_only"]))?;
        record.count(RUN_OPERATIONS - 1);
        Some(())
    }

    fn fio(&self, path: &Path, more: &[&str]) -> io::Result<()> {
        let mut command = Command::new("fio");
        command.args(["--name=verified", "--rw=randwrite", "--bssplit=512/20:4k/40:16k/30:64k/10", "--size=1m"]);
        command.args([
            "--ioengine=psync",
            "--fallocate=none",
            "--fsync=16",
            "--end_fsync=1",
            "--thread",
            "--output-format=terse",
        ]);
        command.args(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]);
        command.arg(format!("--filename={}", path.display())).arg(format!("--randseed={}", self.seed)).args(more);
        // After a failure fio leaves a copy of the block in its working folder.
        let own_folder = tempfile::tempdir()?;
        let out = command.current_dir(own_folder.path()).stdin(Stdio::null()).output()?;
        if out.status.success() && fs::metadata(path)?.len() > 0 {
            return Ok(());
        }
        let printed = format!("{}{}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        Err(io::Error::other(format!("fio ended with {}: {}", out.status, printed.trim())))
    }
}
