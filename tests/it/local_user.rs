//! A ring and a mount on one machine, as an ordinary user runs them: the root belongs to that user, other users of the
//! machine cannot read what is stored, and a full disk under the logs ends nothing.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use harness::{Cluster, TempMount, wait_for};
use nix::sys::signal::Signal;

const USER: u32 = 65_534;

/// The root of a new ring belonged to the superuser, with mode 0755, so an ordinary user could create nothing in it.
#[test]
fn the_root_of_a_new_ring_belongs_to_the_user_for_whom_it_was_founded() {
    let mut cluster = Cluster::empty();
    cluster.run_args = vec!["--root-owner", "65534:65534"];
    cluster.add();
    let mount = TempMount::with_options(&cluster, &["allow_other"]);
    wait_for("the root has its owner", Duration::from_secs(20), || match fs::metadata(mount.path()) {
        Ok(root) if (root.uid(), root.gid()) == (USER, USER) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let made = fs::metadata(mount.path()).unwrap().modified().unwrap();
    assert!(SystemTime::now().duration_since(made).unwrap() < Duration::from_secs(600), "{made:?}");
    let touched = Command::new("touch").arg(mount.join("mine")).uid(USER).gid(USER).status().unwrap();
    assert!(touched.success());

    // An owner that was chosen stays, whatever a later start says.
    nix::unistd::chown(mount.path(), Some(7.into()), None).unwrap();
    cluster.stop(0);
    cluster.start_node(0);
    cluster.wait_ready(0);
    let stays = fs::metadata(mount.path()).unwrap();
    assert_eq!((stays.uid(), stays.gid()), (7, USER));
}

/// Every user of the machine could read every file in a node's data folder.
#[test]
fn no_other_user_can_read_the_data_folder() {
    let mut cluster = Cluster::empty();
    cluster.add();
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("secret"), [b's'; 10_000]).unwrap();
    let folder = &cluster.nodes[0].data;
    assert_closed(folder);
    let read = Command::new("cat").arg(folder.join("FORMAT")).uid(USER).gid(USER).status().unwrap();
    assert!(!read.success());
}

fn assert_closed(path: &Path) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| assert_closed(&entry.unwrap().path()));
    }
}

/// A log line that could not be written was reported by a panic, which ended the thread that logged it: two of three
/// nodes died when the disk with data and logs was full.
#[test]
fn a_full_disk_under_the_logs_ends_neither_node_nor_mount() {
    let mut cluster = Cluster::empty();
    symlink("/dev/full", cluster.folder().join("node-1.log")).unwrap();
    cluster.add();
    let mount = TempMount::with_options(&cluster, &["log=/dev/full"]);
    fs::write(mount.join("file"), [b'x'; 100_000]).unwrap();
    assert_eq!(fs::read(mount.join("file")).unwrap().len(), 100_000);
    mount.unmount();
    cluster.signal(0, Signal::SIGTERM);
    cluster.wait_ended(0);
}

/// After `kill -9` of a mount's process, the mount point was "already mounted" until somebody ran umount.
#[test]
fn a_mount_replaces_one_whose_process_was_killed_and_never_a_living_one() {
    let cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("f"), "bytes").unwrap();
    let source = cluster.ip(0).to_string();
    let refused = mount.attach(&source, &[]);
    assert!(refused.code == Some(32) && refused.stderr.contains("already mounted"), "{}", refused.stderr);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(mount.pid() as i32), Signal::SIGKILL).unwrap();
    wait_for("the mount is dead", Duration::from_secs(10), || match fs::read_dir(mount.path()) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTCONN) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let replaced = mount.attach(&source, &[]);
    assert_eq!(replaced.code, Some(0), "{}", replaced.stderr);
    assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "bytes");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = format!(" {} ", mount.path().display());
    assert_eq!(mounts.lines().filter(|line| line.contains(&point)).count(), 1, "the dead one is gone");
}
