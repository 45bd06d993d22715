//! Stored data stays intact and deleted data is removed: damage on a disk, garbage of nodes that were away, disk space.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{Cluster, Stored, TempMount, binary, run, tree, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MINUTE: Duration = Duration::from_secs(60);

fn segments(cluster: &Cluster, node: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.nodes[node].data.join("chunks")).expect("the node's chunks");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect()
}

/// Flips one bit in every `every` bytes: headers, names, lengths and data alike.
fn flip_bits(path: &Path, every: usize) -> usize {
    let mut bytes = fs::read(path).expect("the segment");
    let places: Vec<usize> = (7..bytes.len()).step_by(every).collect();
    places.iter().for_each(|at| bytes[*at] ^= 1 << (at % 8));
    // In place, because the node has the file open.
    let file = fs::File::options().write(true).open(path).expect("the segment");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("the segment takes it");
    places.len()
}

fn chunks(cluster: &Cluster, node: usize) -> Vec<Stored> {
    let mut list = cluster.ls(node);
    list.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
    list
}

#[track_caller]
fn wait_for_copies(cluster: &Cluster, expected: &[Stored]) {
    wait_for("every node has every chunk", MINUTE, || {
        let lens: Vec<usize> = (0..3).map(|node| chunks(cluster, node).len()).collect();
        let all = (0..3).all(|node| chunks(cluster, node) == expected);
        if all { Ok(()) } else { Err(format!("{lens:?} of {}", expected.len())) }
    });
}

fn scrub(cluster: &Cluster, node: usize) -> String {
    let address = format!("{}:5057", cluster.ip(node));
    run(binary("storage-node"), &[&"scrub", &"--node", &address], cluster.folder()).ok()
}

fn scrub_status(cluster: &Cluster, node: usize) -> serde_json::Value {
    let url = format!("http://{}:5059/scrub", cluster.ip(node));
    reqwest::blocking::get(url).expect("the node answers").json().expect("JSON")
}

#[test]
fn flipped_bits_reach_no_reader_and_are_repaired() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let contents = tree::bytes(3, 3_000_000);
    fs::write(mount.join("f"), &contents).unwrap();
    wait_for("three copies of 733 chunks", MINUTE, || {
        let lens: Vec<usize> = (0..3).map(|node| cluster.ls(node).len()).collect();
        if lens == [733; 3] { Ok(()) } else { Err(format!("{lens:?}")) }
    });
    let stored = chunks(&cluster, 0);

    // Under the running node: only the scrub reads the damaged chunks.
    let flipped: usize = segments(&cluster, 1).iter().map(|path| flip_bits(path, 20_011)).sum();
    assert!(flipped > 100, "{flipped}");
    let printed = scrub(&cluster, 1);
    let status = scrub_status(&cluster, 1);
    // Repair may restore some of them first, as it notices missing chunks.
    assert_eq!(status["damaged"], flipped, "{printed}\n{status}");
    assert!(status["mended"].as_u64() > Some(0), "{status}");
    assert_eq!((&status["waiting"], &status["lost"]), (&0.into(), &0.into()));
    wait_for_copies(&cluster, &stored);
    assert!(cluster.log(1).contains("damaged chunk replaced from another holder chunk=f_chunk_"));
    assert!(scrub(&cluster, 1).contains("damaged      0 in this pass"));

    // Under a stopped node, and a reader reads the damaged chunks first.
    cluster.kill(2);
    for path in segments(&cluster, 2) {
        flip_bits(&path, 9_001);
    }
    cluster.start_node(2);
    cluster.wait_settled();
    let fresh = TempMount::new(&cluster);
    assert!(fs::read(fresh.join("f")).unwrap() == contents);
    scrub(&cluster, 2);
    wait_for_copies(&cluster, &stored);
    assert!(scrub(&cluster, 2).contains("damaged      0 in this pass"));
}

pub(super) fn disk_bytes(cluster: &Cluster) -> u64 {
    let sizes = cluster.live().into_iter().flat_map(|node| segments(cluster, node));
    sizes.map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum()
}

#[test]
fn a_deleted_file_gives_its_space_back_within_a_minute() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("small"), tree::bytes(1, 500_000)).unwrap();
    let mut large = fs::File::create(mount.join("large")).unwrap();
    tree::write_stream(&mut large, 2, 64 << 20).unwrap();
    large.sync_all().unwrap();
    drop(large);
    wait_for("three copies", MINUTE, || match disk_bytes(&cluster) {
        bytes if bytes >= 3 * (64 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    fs::remove_file(mount.join("large")).unwrap();
    let deleted = std::time::Instant::now();
    wait_for("the space is back", MINUTE, || match disk_bytes(&cluster) {
        bytes if bytes < 3 * (2 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    eprintln!("64 MiB in three copies went within {:?}", deleted.elapsed());
    assert_eq!(fs::read(mount.join("small")).unwrap(), tree::bytes(1, 500_000));
}

/// The crashed mount has the file open. It is kept until the mount's session is given up.
#[test]
#[ignore = "slow: a session is given up after a minute; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_deleted_file_of_a_crashed_mount_gives_its_space_back_within_two_minutes() {
    let cluster = Cluster::start(3);
    let (mount, crashed) = (TempMount::new(&cluster), TempMount::new(&cluster));
    let mut large = fs::File::create(mount.join("large")).unwrap();
    tree::write_stream(&mut large, 2, 64 << 20).unwrap();
    large.sync_all().unwrap();
    drop(large);
    wait_for("three copies", MINUTE, || match disk_bytes(&cluster) {
        bytes if bytes >= 3 * (64 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    let mut open = fs::File::open(crashed.join("large")).unwrap();
    open.read_exact(&mut [0; 10]).unwrap();
    fs::remove_file(mount.join("large")).unwrap();
    open.read_exact(&mut [0; 10]).expect("a file that is open can be read after its removal elsewhere");
    kill(Pid::from_raw(crashed.pid() as i32), Signal::SIGKILL).unwrap();
    wait_for("the space is back", 2 * MINUTE, || match disk_bytes(&cluster) {
        bytes if bytes < 3 * (2 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
}

/// The disk usage of all data folders, from `du`.
fn used_bytes(cluster: &Cluster) -> u64 {
    let folders: Vec<_> = cluster.nodes.iter().map(|node| node.data.to_str().expect("a temporary folder")).collect();
    let usage =
        harness::programs::shell(&format!("du -s --block-size=1 {} | cut -f1", folders.join(" ")), cluster.folder());
    usage.ok().lines().map(|line| line.parse::<u64>().expect("a number")).sum()
}

#[test]
#[ignore = "slow: 3 GiB are written and deleted; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_deleted_gibibyte_gives_its_space_back_within_a_minute() {
    const GIB: u64 = 1 << 30;
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("small"), tree::bytes(1, 500_000)).unwrap();
    let before = used_bytes(&cluster);
    let mut large = fs::File::create(mount.join("large")).unwrap();
    tree::write_stream(&mut large, 2, GIB).unwrap();
    large.sync_all().unwrap();
    drop(large);
    wait_for("three copies", 3 * MINUTE, || match used_bytes(&cluster) {
        bytes if bytes >= 3 * GIB => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    eprintln!("{} MiB used", used_bytes(&cluster) >> 20);
    fs::remove_file(mount.join("large")).unwrap();
    let deleted = std::time::Instant::now();
    wait_for("the space is back", MINUTE, || match used_bytes(&cluster).saturating_sub(before) {
        bytes if bytes < 3 * (8 << 20) => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    eprintln!(
        "1 GiB in three copies went within {:?}; {} bytes more than before",
        deleted.elapsed(),
        used_bytes(&cluster) - before
    );
    assert_eq!(fs::read(mount.join("small")).unwrap(), tree::bytes(1, 500_000));
}

fn count(cluster: &Cluster, node: usize, file: &str) -> usize {
    let prefix = format!("{file}_chunk_");
    cluster.ls(node).iter().filter(|chunk| chunk.name.starts_with(&prefix)).count()
}

#[test]
fn garbage_of_a_node_that_was_away_is_deleted() {
    let mut cluster = Cluster::empty();
    cluster.run_args = vec!["--orphan-age", "8s"];
    for _ in 0..3 {
        cluster.add();
    }
    cluster.wait_settled();
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("stays"), tree::bytes(1, 400_000)).unwrap();
    fs::write(mount.join("goes"), tree::bytes(2, 400_000)).unwrap();
    wait_for("three copies", MINUTE, || {
        let lens: Vec<usize> =
            (0..3).map(|node| count(&cluster, node, "stays") + count(&cluster, node, "goes")).collect();
        if lens == [196; 3] { Ok(()) } else { Err(format!("{lens:?}")) }
    });
    cluster.kill(2);
    fs::remove_file(mount.join("goes")).unwrap();
    // Overwrites one chunk; the file keeps the others of the same version.
    let mut stays = tree::bytes(1, 400_000);
    stays[8192..12288].copy_from_slice(&tree::bytes(3, 4096));
    let file = fs::File::options().write(true).open(mount.join("stays")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &stays[8192..12288], 8192).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let counts = |cluster: &Cluster, node| (count(cluster, node, "goes"), count(cluster, node, "stays"));
    // The killed node had nothing open, so the deletion waits for the end of its session only if it led the namespace.
    wait_for("the others have deleted it", 2 * MINUTE, || {
        let lens = [0, 1].map(|node| counts(&cluster, node));
        if lens == [(0, 98); 2] { Ok(()) } else { Err(format!("{lens:?}")) }
    });
    // The nodes that deleted it would inform node 2, but only until they restart.
    for node in [0, 1] {
        cluster.kill(node);
        cluster.start_node(node);
    }
    cluster.start_node(2);
    cluster.wait_settled();
    wait_for("the garbage is gone everywhere, for good", 2 * MINUTE, || {
        let lens = [0, 1, 2].map(|node| counts(&cluster, node));
        if lens == [(0, 98); 3] { Ok(()) } else { Err(format!("{lens:?}; {}", scrub_status(&cluster, 2))) }
    });
    let found = "reported orphans to the namespace";
    assert!((0..3).any(|node| cluster.log(node).contains(found)), "it came back with its old chunks");
    assert!(fs::read(mount.join("stays")).unwrap() == stays);
}
