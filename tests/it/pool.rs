//! A pool on this machine grows as it fills and shrinks as it empties, and no operation in it fails.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::Duration,
};

use harness::{LocalPool, local_pool::is_alive, mount::TempMount, tree, wait::wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const DEADLINE: Duration = Duration::from_secs(120);
const FILE_BYTES: usize = 2 << 20;

const ARGUMENTS: [&str; 14] = [
    "--min",
    "1",
    "--max",
    "4",
    "--capacity",
    "32M",
    "--period",
    "1s",
    "--cooldown",
    "3s",
    "--threshold",
    "60",
    "--scale-in-below",
    "20",
];

fn write(folder: &Path, number: u64) {
    let mut file = File::create(folder.join(format!("f{number}"))).unwrap();
    file.write_all(&tree::bytes(number, FILE_BYTES)).unwrap_or_else(|error| panic!("write f{number}: {error}"));
    file.sync_all().unwrap_or_else(|error| panic!("fsync f{number}: {error}"));
}

fn check(folder: &Path, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let read =
            fs::read(folder.join(format!("f{number}"))).unwrap_or_else(|error| panic!("read f{number}: {error}"));
        assert!(read == tree::bytes(number, FILE_BYTES), "f{number} has other contents");
    }
}

#[test]
fn a_local_pool_grows_and_shrinks_and_no_operation_fails() {
    let mut pool = LocalPool::start(&ARGUMENTS);
    pool.wait_ready();
    pool.wait_for_nodes("one node", |count| count == 1);
    let mount = TempMount::of(&pool.ip().to_string(), &[], &std::env::temp_dir());

    // With up to three nodes each keeps everything, so only the fourth one relieves them.
    let mut files = 0;
    while pool.nodes().len() < 4 {
        assert!(files < 12, "24 of 32 MiB are full and it has not grown to four; its log:\n{}", pool.log());
        write(mount.path(), files);
        files += 1;
        if files * FILE_BYTES as u64 > 20 << 20 {
            pool.wait_for_nodes("it grows", |count| count == 4);
        }
    }
    pool.wait_for_nodes("four nodes", |count| count == 4);
    check(mount.path(), 0..files);

    // A killed pool leaves its nodes running, and the next one finds them.
    let before = pool.nodes();
    pool.signal(Signal::SIGKILL);
    assert!(before.iter().all(|(_, pid, _)| is_alive(*pid)), "the nodes keep running without their pool");
    write(mount.path(), files);
    pool.launch();
    wait_for("the pool finds its nodes", DEADLINE, || match pool.log().matches("still runs").count() {
        4 => Ok(()),
        other => Err(format!("{other} found")),
    });
    assert_eq!(pool.nodes(), before);

    // A node that dies is started again with its data.
    let (number, pid, _) = before[1];
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the dead node is started again", DEADLINE, || {
        let now = pool.nodes().into_iter().find(|node| node.0 == number);
        if now.is_some_and(|node| node.1 != pid && is_alive(node.1)) { Ok(()) } else { Err(pool.log()) }
    });
    check(mount.path(), 0..=files);

    for number in 1..=files {
        fs::remove_file(mount.path().join(format!("f{number}"))).unwrap();
    }
    pool.wait_for_nodes("it shrinks", |count| count <= 2);
    check(mount.path(), 0..1);
    write(mount.path(), 100);
    check(mount.path(), [0, 100].into_iter());
    for (number, ..) in before.iter().filter(|node| pool.nodes().iter().all(|left| left.0 != node.0)) {
        assert!(!pool.data().join(number.to_string()).exists(), "the folder of node {number} is gone with it");
    }

    drop(mount);
    let pids: Vec<i32> = pool.nodes().iter().map(|node| node.1).collect();
    pool.signal(Signal::SIGTERM);
    assert!(pids.into_iter().all(|pid| !is_alive(pid)), "SIGTERM stops the nodes too");
}
