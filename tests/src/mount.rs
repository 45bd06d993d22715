//! A real mount in a temporary folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    cluster::Cluster,
    kept_logs,
    programs::{Outcome, binary, run, run_command},
    wait::wait_for,
};

pub struct TempMount {
    folder: TempDir,
    point: PathBuf,
}

impl TempMount {
    #[track_caller]
    pub fn new(cluster: &Cluster) -> Self {
        Self::with_options(cluster, &[])
    }

    #[track_caller]
    pub fn with_options(cluster: &Cluster, options: &[&str]) -> Self {
        Self::of(&cluster.source(), options, &std::env::temp_dir())
    }

    /// A mount of SOURCE, in a new folder below `parent`.
    #[track_caller]
    pub fn of(source: &str, options: &[&str], parent: &Path) -> Self {
        let folder = TempDir::with_prefix_in("chordfs-mount-", parent).expect("a temporary folder");
        let point = folder.path().join("mnt");
        std::fs::create_dir(&point).expect("the mount point");
        let mount = Self { folder, point };
        mount.attach(source, options).ok();
        mount
    }

    /// `mount.chordfs`; it returns when the mount is ready.
    #[track_caller]
    pub fn attach(&self, source: &str, options: &[&str]) -> Outcome {
        let log = format!("log={}", self.log_path().display());
        let all = [&[log.as_str()], options].concat().join(",");
        let mut command = Command::new(binary("mount.chordfs"));
        command.arg(source).arg(&self.point).args(["-o", &all]);
        run_command(&mut command, Duration::from_secs(60))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn path(&self) -> &Path {
        &self.point
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point.join(name)
    }

    /// `umount`, which flushes; the mount process has ended when this returns.
    #[track_caller]
    pub fn unmount(&self) {
        run("umount", &[&self.point], Path::new("/")).ok();
        wait_for("the mount is gone", Duration::from_secs(30), || {
            let log = self.log_path();
            match pids_with_argument(&self.point) {
                pids if pids.is_empty() => Ok(()),
                pids => Err(format!("processes {pids:?} still run; log: {}", log.display())),
            }
        });
    }

    /// The process that serves this mount.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        *pids_with_argument(&self.point).first().expect("the mount's process")
    }
}

fn pids_with_argument(argument: &Path) -> Vec<u32> {
    let wanted = argument.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0);
        let program = arguments.next().unwrap_or_default();
        program.ends_with(b"mount.chordfs") && arguments.any(|argument| argument == wanted)
    })
    .collect()
}

impl Drop for TempMount {
    fn drop(&mut self) {
        if kept_logs::are_wanted() {
            let name = self.folder.path().file_name().expect("a temporary folder has a name").to_string_lossy();
            kept_logs::show("the mount", &self.log_path(), &name);
        }
        let pids = pids_with_argument(&self.point);
        // The mount is detached first. If it were killed while it invalidates pages in the kernel, it would wait for a
        // reader that waits for the mount; and a process with an open file must not block the end of the test.
        let _ = umount2(&self.point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        for pid in pids {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}
