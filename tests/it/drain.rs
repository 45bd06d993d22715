//! Draining nodes: no operation at a mount fails, no data is lost, and a drain that is impossible is refused with a
//! reason.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use harness::{Cluster, Outcome, TempMount, binary, programs::run_command, tree, wait_for};
use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

fn storage_node(args: &[&str]) -> Outcome {
    let mut command = Command::new(binary("storage-node"));
    run_command(command.args(args), DEADLINE)
}

fn drain(cluster: &Cluster, node: usize, more: &[&str]) -> Outcome {
    let address = cluster.ip(node).to_string();
    storage_node(&[&["drain", "--node", &address], more].concat())
}

/// Starts `storage-node drain`, and returns once it has printed some progress.
fn watch_drain(cluster: &Cluster, node: usize, more: &[&str]) -> Child {
    let mut command = Command::new(binary("storage-node"));
    command.args(["drain", "--node", &cluster.ip(node).to_string()]).args(more).stdin(Stdio::null());
    // A shell that runs the tests in the background makes them and their children ignore Ctrl-C.
    // SAFETY: between fork and exec this makes one system call, which may be made there.
    unsafe {
        command.pre_exec(|| Ok(signal(Signal::SIGINT, SigHandler::SigDfl).map(drop)?));
    }
    let mut watcher = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("storage-node starts");
    let (mut first, stdout) = (String::new(), watcher.stdout.as_mut().expect("it is piped"));
    BufReader::new(stdout).read_line(&mut first).expect("its output is read");
    assert!(first.starts_with("handing over"), "{first:?}");
    watcher
}

/// Waits until the watcher has ended by itself; returns what it printed.
fn ended(mut watcher: Child) -> Output {
    wait_for("the command that watches the drain ends", DEADLINE, || match watcher.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    watcher.wait_with_output().expect("its output is read")
}

fn wait_for_drain(cluster: &Cluster, node: usize, what: &str, is: impl Fn(&Value) -> bool) {
    wait_for(what, DEADLINE, || match cluster.status(node)["drain"].clone() {
        drain if is(&drain) => Ok(()),
        drain => Err(drain.to_string()),
    });
}

/// Writes files, reads them back at once and older ones again, until `stop`; panics at the first error. Returns how
/// many it wrote.
fn work(folder: &Path, stop: &AtomicBool) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let contents = |number: u64| tree::bytes(number, 1 + (number as usize * 7_919) % 150_000);
        let path = |number: u64| folder.join(format!("f{number}"));
        let mut file = File::create(path(count)).unwrap_or_else(|error| panic!("create f{count}: {error}"));
        file.write_all(&contents(count)).unwrap_or_else(|error| panic!("write f{count}: {error}"));
        if count % 3 == 0 {
            file.sync_all().unwrap_or_else(|error| panic!("fsync f{count}: {error}"));
        }
        drop(file);
        for number in [count, count / 2] {
            let read = fs::read(path(number)).unwrap_or_else(|error| panic!("read f{number}: {error}"));
            assert!(read == contents(number), "f{number} has other contents");
        }
        count += 1;
    }
    count
}

fn check_work(folder: &Path, count: u64) {
    for number in 0..count {
        let read = fs::read(folder.join(format!("f{number}"))).unwrap();
        assert!(read == tree::bytes(number, 1 + (number as usize * 7_919) % 150_000), "f{number} has other contents");
    }
}

/// Checks that every chunk is on at least `copies` nodes.
fn check_copies(cluster: &Cluster, copies: usize) -> Result<(), String> {
    let mut holders: HashMap<_, HashSet<usize>> = HashMap::new();
    for node in cluster.live() {
        for stored in cluster.ls(node) {
            holders.entry(stored).or_default().insert(node);
        }
    }
    let short = holders.iter().filter(|(_, nodes)| nodes.len() < copies).count();
    if short == 0 && holders.len() > 10 { Ok(()) } else { Err(format!("{short} of {} have fewer", holders.len())) }
}

fn wait_for_copies(cluster: &Cluster, copies: usize) {
    wait_for("every chunk has its holders", DEADLINE, || check_copies(cluster, copies));
}

#[test]
fn nodes_are_drained_under_load_and_no_operation_fails() {
    let mut cluster = Cluster::start(5);
    let mount = TempMount::new(&cluster);
    let stop = AtomicBool::new(false);
    let folder = mount.join("work");
    fs::create_dir(&folder).unwrap();
    let count = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&folder, &stop));
        wait_for("the work is under way", DEADLINE, || match folder.join("f20").exists() {
            _ if worker.is_finished() => Ok(()),
            true => Ok(()),
            false => Err("not yet".into()),
        });
        // The leader first, then any other.
        for _ in 0..2 {
            let node = cluster.leader();
            let said = drain(&cluster, node, &[]);
            let said = said.ok();
            assert!(said.contains("has left the ring"), "{said}");
            cluster.wait_ended(node);
            assert!(!worker.is_finished(), "the work broke off");
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().expect("no operation failed")
    });
    assert!(count > 30, "only {count} files");
    cluster.wait_settled();
    assert_eq!(cluster.live().len(), 3);
    check_work(&folder, count);
    wait_for_copies(&cluster, 3);
    cluster.wait_for_voters(3);
    let fresh = TempMount::new(&cluster);
    check_work(&fresh.join("work"), count);
}

#[test]
fn with_too_few_nodes_a_drain_is_refused_unless_it_may_leave_fewer_copies() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("before"), tree::bytes(1, 300_000)).unwrap();
    let refused = drain(&cluster, 1, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("only 2 other nodes") && refused.stderr.contains("--allow-fewer-copies"));
    cluster.wait_ready(1);
    let status = cluster.status(1);
    assert_eq!((&status["state"], &status["drain"]["phase"]), (&"serving".into(), &"refused".into()), "{status}");
    fs::write(mount.join("after"), tree::bytes(2, 300_000)).unwrap();

    // Down to two, and to one.
    for node in [cluster.leader(), usize::MAX] {
        let node = if node == usize::MAX { cluster.leader() } else { node };
        drain(&cluster, node, &["--allow-fewer-copies"]).ok();
        cluster.wait_ended(node);
        cluster.wait_for_voters(cluster.live().len());
        fs::write(mount.join(format!("without {node}")), tree::bytes(3, 300_000)).unwrap();
    }
    let last = cluster.live()[0];
    let refused = drain(&cluster, last, &["--allow-fewer-copies"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("only node"), "{}", refused.stderr);
    let fresh = TempMount::new(&cluster);
    for (name, seed) in [("before", 1), ("after", 2)] {
        assert!(fs::read(fresh.join(name)).unwrap() == tree::bytes(seed, 300_000), "{name}");
    }
}

/// Bug: the mount knew only the node that it was given and what that node had told of the ring. It stored and read
/// nothing while other nodes came and this one left, and then failed every write, although its session with the
/// namespace had followed the ring.
#[test]
fn a_mount_that_was_idle_while_every_node_that_it_knew_left_goes_on() {
    let mut cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("before"), tree::bytes(1, 300_000)).unwrap();
    cluster.add();
    cluster.add();
    cluster.wait_settled();
    wait_for_copies(&cluster, 3);
    drain(&cluster, 0, &["--allow-fewer-copies"]).ok();
    cluster.wait_ended(0);
    fs::write(mount.join("after"), tree::bytes(2, 300_000)).unwrap();
    let fresh = TempMount::new(&cluster);
    for (name, seed) in [("before", 1), ("after", 2)] {
        assert!(fs::read(fresh.join(name)).unwrap() == tree::bytes(seed, 300_000), "{name}");
    }
}

/// A rate at which the drain would take days keeps it under way.
#[test]
fn a_drain_is_cancelled_under_way_and_the_node_serves_as_before() {
    const NODE: usize = 1;
    let mut cluster = Cluster::start(4);
    let mount = TempMount::new(&cluster);
    let contents = tree::bytes(1, 24 << 20);
    fs::write(mount.join("file"), &contents).unwrap();
    wait_for_copies(&cluster, 3);
    let address = format!("{}:5057", cluster.ip(NODE));
    let nothing = drain(&cluster, NODE, &["--cancel"]);
    assert!(nothing.code == Some(1) && nothing.stderr.contains("no drain is under way"), "{}", nothing.stderr);

    let watcher = watch_drain(&cluster, NODE, &["--rate", "1K"]);
    wait_for_drain(&cluster, NODE, "it is under way", |drain| {
        drain["phase"] == "copying" && drain["bytes_sent"].as_u64() > Some(0) && drain["limit"] == 1024
    });
    let shown = storage_node(&["status", "--node", &cluster.ip(0).to_string()]).stdout;
    assert!(shown.contains("draining") && shown.contains(" left"), "{shown}");
    // Ctrl-C ends the watching command, and not the drain.
    kill(Pid::from_raw(watcher.id() as i32), Signal::SIGINT).unwrap();
    let interrupted = ended(watcher);
    let said = String::from_utf8_lossy(&interrupted.stderr);
    assert_eq!(interrupted.status.signal(), Some(Signal::SIGINT as i32), "{:?}: {said}", interrupted.status);
    assert!(said.contains("continues") && said.contains(&format!("drain --cancel --node {address}")), "{said}");
    assert_eq!(cluster.status(NODE)["state"], "draining");

    let watcher = watch_drain(&cluster, NODE, &[]);
    let cancelled = drain(&cluster, NODE, &["--cancel"]).ok();
    assert!(cancelled.contains("continues to serve"), "{cancelled}");
    let status = cluster.status(NODE);
    assert_eq!((&status["state"], &status["drain"]["phase"]), (&"serving".into(), &"cancelled".into()), "{status}");
    let watched = ended(watcher);
    let said = String::from_utf8_lossy(&watched.stderr);
    assert!(watched.status.code() == Some(1) && said.contains("cancelled"), "{:?}: {said}", watched.status);

    cluster.wait_settled();
    cluster.wait_for_voters(3);
    fs::write(mount.join("after"), &contents).unwrap();
    wait_for_copies(&cluster, 3);
    let shown = storage_node(&["status", "--node", &cluster.ip(0).to_string()]).stdout;
    assert!(shown.contains("cancelled") && !shown.contains("draining"), "{shown}");

    // The next drain, whose rate limit is lifted while it is under way, completes.
    let watcher = watch_drain(&cluster, NODE, &["--rate", "1K"]);
    wait_for_drain(&cluster, NODE, "it is under way again", |drain| {
        drain["phase"] == "copying" && drain["limit"] == 1024 && drain["chunks_left"].as_u64() > Some(0)
    });
    let said = drain(&cluster, NODE, &["--rate", "none"]).ok();
    assert!(said.contains("has left the ring"), "{said}");
    assert!(ended(watcher).status.success(), "the first watcher sees it leave as well");
    cluster.wait_ended(NODE);
    cluster.wait_settled();
    check_copies(&cluster, 3).unwrap();
    for name in ["file", "after"] {
        assert!(fs::read(mount.join(name)).unwrap() == contents, "{name}");
    }
}

#[test]
fn sigterm_drains_if_configured_and_a_second_one_stops_at_once() {
    let mut cluster = Cluster::empty();
    cluster.run_args = vec!["--drain-on-term"];
    for _ in 0..4 {
        cluster.add();
    }
    cluster.wait_settled();
    cluster.wait_for_voters(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), tree::bytes(1, 500_000)).unwrap();
    cluster.stop(3);
    assert!(cluster.log(3).contains("out of the ring"), "it was drained");
    // Checked at once: the drain made the copies, not repair.
    check_copies(&cluster, 3).unwrap();
    // With three nodes left none can be drained.
    cluster.signal(0, Signal::SIGTERM);
    wait_for("the drain is refused", DEADLINE, || match cluster.status(0) {
        status if status["drain"]["phase"] == "refused" && status["state"] == "serving" => Ok(()),
        status => Err(status.to_string()),
    });
    assert!(fs::read(mount.join("file")).unwrap() == tree::bytes(1, 500_000));
    cluster.stop(0);
    assert!(!cluster.log(0).contains("out of the ring"), "it was stopped");
}

#[test]
fn the_sole_survivor_of_three_continues_at_an_operators_request() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let mut file = File::create(mount.join("file")).unwrap();
    file.write_all(&tree::bytes(1, 300_000)).unwrap();
    file.sync_all().unwrap();
    drop(file);
    wait_for_copies(&cluster, 3);
    let data = cluster.nodes[0].data.to_str().expect("a temporary folder").to_owned();
    let recover = |more: &[&str]| storage_node(&[&["recover", "--sole-survivor", "--data", &data], more].concat());
    let running = recover(&["--yes"]);
    assert!(running.code == Some(1) && running.stderr.contains("another process"), "{}", running.stderr);
    for node in [1, 2, 0] {
        cluster.kill(node);
    }
    for node in [1, 2] {
        fs::remove_dir_all(&cluster.nodes[node].data).unwrap();
    }
    let unasked = recover(&[]);
    assert!(unasked.code == Some(1) && unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    let said = recover(&["--yes"]).ok();
    assert!(said.contains("are lost") && said.contains(&cluster.ip(1).to_string()), "{said}");
    cluster.start_node(0);
    cluster.wait_ready(0);
    let fresh = TempMount::new(&cluster);
    assert!(fs::read(fresh.join("file")).unwrap() == tree::bytes(1, 300_000));
    fs::write(fresh.join("alone"), b"goes on").unwrap();
    for node in [1, 2] {
        cluster.start_node(node);
        cluster.wait_ready(node);
    }
    cluster.wait_settled();
    cluster.wait_for_voters(3);
    wait_for_copies(&cluster, 3);
}
