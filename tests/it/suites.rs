//! Suites of others: pjdfstest asks for each call what POSIX says of it, and fsx does random operations on one file and
//! compares. `tests/check.sh` installs both.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{Cluster, TempMount, programs::run_command};
use tempfile::TempDir;

const LONGEST: Duration = Duration::from_secs(1200);

fn suite(program: &str) -> Command {
    let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder").join("suites/bin");
    let path = bin.join(program);
    assert!(path.exists(), "{} is missing: tests/check.sh installs it", path.display());
    Command::new(path)
}

fn write(folder: &TempDir, name: &str, contents: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}

/// The users are those of any Debian; the suite runs as root and acts for them.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
"#;

/// Why tests are left out, by a part of their names.
const LEFT_OUT: [(&str, &str); 3] = [
    ("erofs", "mounts itself again, read-only"),
    ("exdev", "needs a second file system of its own"),
    ("link_count_max", "makes as many links as `pathconf` says: for FUSE, the kernel says a number that is not ours"),
];

#[test]
fn pjdfstest_finds_nothing() {
    let cluster = Cluster::start(3);
    let mount = TempMount::with_options(&cluster, &["allow_other", "dev", "suid"]);
    let folder = tempfile::tempdir().unwrap();
    let config = write(&folder, "pjdfstest.toml", PJDFSTEST);
    let mut command = suite("pjdfstest");
    command.args([OsStr::new("-c"), config.as_os_str(), OsStr::new("-p"), mount.path().as_os_str()]);
    let printed = run_command(command.current_dir(mount.path()), LONGEST).ok();
    let (mut passed, mut left_out) = (0, 0);
    for line in printed.lines() {
        match line.rsplit(' ').next() {
            Some("ok") => passed += 1,
            Some("skipped") => {
                assert!(LEFT_OUT.iter().any(|(part, _)| line.contains(part)), "left out for no reason: {line}");
                left_out += 1;
            }
            _ => {}
        }
    }
    assert!(printed.contains(&format!("Summary: 0 failed, {left_out} skipped, {passed} passed")), "{printed}");
    assert!(passed > 370, "{passed} passed");
}

/// With operations that are long enough for copies to share chunks.
const FSX: &str = "
flen = 4194304
[opsize]
max = 1048576
[weights]
close_open = 1
invalidate = 1
mapread = 5
mapwrite = 5
read = 10
write = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 2
copy_file_range = 10
";

/// Several at a time, each with a file and a seed of its own, which is in its output.
fn run_fsx(seeds: &[u64], operations: u64) {
    let cluster = Cluster::start(3);
    let mounts = [TempMount::new(&cluster), TempMount::new(&cluster)];
    let folder = tempfile::tempdir().unwrap();
    let config = write(&folder, "fsx.toml", FSX);
    std::thread::scope(|scope| {
        for (number, seed) in seeds.iter().enumerate() {
            let (mounts, mount, config, folder) = (&mounts, &mounts[number % 2], &config, &folder);
            scope.spawn(move || {
                let mut command = suite("fsx");
                command.arg("-f").arg(config).arg("-P").arg(folder.path());
                command.args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
                let outcome = run_command(command.arg(mount.join(format!("fsx-{seed}"))), LONGEST);
                assert_eq!(outcome.code, Some(0), "seed {seed}: {}\n{}", outcome.stdout, outcome.stderr);
                // What this mount shows, the other one shows.
                let file = |mount: &TempMount| fs::read(mount.join(format!("fsx-{seed}"))).unwrap();
                assert!(file(&mounts[0]) == file(&mounts[1]), "seed {seed}: the mounts disagree");
            });
        }
    });
}

#[test]
fn fsx_finds_nothing() {
    run_fsx(&[1, 2], 700);
}

#[test]
#[ignore = "slow: forty thousand operations; SLOW_TESTS=1 tests/check.sh runs it"]
fn fsx_finds_nothing_for_a_long_time() {
    let seed = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    run_fsx(&[seed, seed + 1, seed + 2, seed + 3], 10_000);
}
