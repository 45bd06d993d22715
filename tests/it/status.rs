//! The operator's view of a ring: `storage-node status` and `storage-node check`, on a sound ring and with a fault.

use std::{
    fs,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use harness::{Cluster, Outcome, TempMount, binary, run, tree, wait_for};
use serde_json::Value;

fn ask(cluster: &Cluster, node: usize, command: &str, options: &[&str]) -> Outcome {
    let address = cluster.ip(node).to_string();
    let all = [&[command, "--node", &address], options].concat();
    let args: Vec<&dyn AsRef<std::ffi::OsStr>> = all.iter().map(|arg| arg as &dyn AsRef<std::ffi::OsStr>).collect();
    run(binary("storage-node"), &args, cluster.folder())
}

fn check(cluster: &Cluster, node: usize, options: &[&str]) -> (Option<i32>, Value) {
    let outcome = ask(cluster, node, "check", &[&["--json"], options].concat());
    let report = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.stderr));
    (outcome.code, report)
}

fn states(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().expect("a list of nodes");
    nodes.iter().filter_map(|node| node["state"].as_str()).collect()
}

#[test]
fn any_node_reports_the_state_of_all() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::write(mount.join("file"), tree::bytes(1, 100_000)).unwrap();
    mount.unmount();
    for node in 0..3 {
        wait_for("all nodes have all chunks", Duration::from_secs(60), || {
            let status: Value = serde_json::from_str(&ask(&cluster, node, "status", &["--json"]).stdout).unwrap();
            let share: f64 = status["nodes"].as_array().unwrap().iter().filter_map(|node| node["share"].as_f64()).sum();
            let full = status["nodes"].as_array().unwrap().iter().all(|node| node["chunks"] == 25);
            let whole = states(&status) == ["up"; 3] && (share - 1.0).abs() < 1e-6;
            let voters = status["namespace"]["voters"].as_array().map_or(0, Vec::len);
            let agreed = status["under_replicated"] == 0 && voters == 3;
            if full && whole && agreed { Ok(()) } else { Err(status.to_string()) }
        });
    }
    let table = ask(&cluster, 1, "status", &[]).ok();
    assert_eq!(table.lines().filter(|line| line.contains(":5057") && line.contains(" up ")).count(), 3, "{table}");
    eprintln!("{table}");
    assert!(table.ends_with("health            OK\n"), "{table}");
    cluster.kill(2);
    wait_for("the dead voter is shown", Duration::from_secs(20), || {
        let outcome = ask(&cluster, 0, "status", &["--json"]);
        let status: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let shown = matches!(
            states(&status)[..],
            ["up", "up", "unreachable"] | ["up", "unreachable", "up"] | ["unreachable", "up", "up"]
        );
        // Every chunk lacks the copy of the dead node.
        let lacking = status["under_replicated"] == 25;
        let warned = outcome.code == Some(1) && status["health"]["level"] == "WARN";
        if shown && lacking && warned { Ok(()) } else { Err(status.to_string()) }
    });
    let table = ask(&cluster, 0, "status", &[]).stdout;
    assert!(table.contains("WARN: 1 of 3 voters does not answer"), "{table}");
    let (code, report) = check(&cluster, 0, &["--grace", "0"]);
    assert_eq!((code, &report["under_replicated"]["count"]), (Some(1), &25.into()), "{report}");
    cluster.kill(1);
    wait_for("the lost majority is shown", Duration::from_secs(20), || {
        let began = Instant::now();
        let outcome = ask(&cluster, 0, "status", &[]);
        let soon = began.elapsed() < Duration::from_secs(3);
        let said = outcome.stdout.contains("ERROR: no majority: nothing can be read or written");
        if soon && said && outcome.code == Some(2) { Ok(()) } else { Err(outcome.stdout) }
    });
}

#[test]
fn a_check_finds_what_is_wrong_and_nothing_else() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Files are created, changed and removed all the time; a check must not take that for a fault.
        scope.spawn(|| {
            for round in 0.. {
                let path = mount.join(format!("f{}", round % 7));
                fs::write(&path, tree::bytes(round, 300_000)).unwrap();
                if round % 3 == 0 {
                    fs::remove_file(&path).unwrap();
                }
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        for node in 0..3 {
            let (code, report) = check(&cluster, node, &["--grace", "5"]);
            assert_eq!(code, Some(0), "{report}");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    fs::write(mount.join("last"), tree::bytes(99, 500_000)).unwrap();
    mount.unmount();
    let (code, report) = check(&cluster, 0, &["--verify", "--grace", "30"]);
    assert_eq!(
        (code, &report["missing"]["count"], &report["orphaned"]["count"]),
        (Some(0), &0.into(), &0.into()),
        "{report}"
    );
    eprintln!("{}", ask(&cluster, 0, "check", &["--grace", "0"]).stdout);
    damage(&cluster, 1);
    let (code, report) = check(&cluster, 0, &["--verify", "--grace", "0"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report["damaged"]["count"].as_u64() >= Some(1) && report["missing"]["count"] == 0, "{report}");
    let holder = format!("{}:5057", cluster.ip(1));
    assert_eq!(report["damaged"]["first"][0]["nodes"], serde_json::json!([holder]), "{report}");
    cluster.kill(1);
    cluster.kill(2);
    // The leader's lease expires a moment later.
    wait_for("no majority, no check", Duration::from_secs(30), || match ask(&cluster, 0, "check", &["--json"]) {
        Outcome { code: Some(2), .. } => Ok(()),
        other => Err(format!("ended with {:?}: {}", other.code, other.stdout)),
    });
}

/// Flips a byte in every few records of a node's segments, in place, as a disk would: the node has the files open.
fn damage(cluster: &Cluster, node: usize) {
    for entry in fs::read_dir(cluster.nodes[node].data.join("chunks")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "seg") {
            let segment = fs::File::options().read(true).write(true).open(entry.path()).unwrap();
            for at in (9_000..segment.metadata().unwrap().len()).step_by(20_000) {
                let mut byte = [0];
                segment.read_exact_at(&mut byte, at).unwrap();
                segment.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
            }
        }
    }
}

#[test]
fn the_sessions_show_what_a_mount_has_open_and_not_stored() {
    let cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    let file = fs::File::create(mount.join("file")).unwrap();
    let writer = Writer::start(file);
    wait_for("the session of the mount is listed", Duration::from_secs(60), || {
        let url = format!("http://{}:5059/sessions", cluster.ip(0));
        let sessions: Value = serde_json::from_str(&run("curl", &[&"-sf", &url], cluster.folder()).stdout).unwrap();
        let all = sessions.as_array().unwrap();
        let mount = all.iter().find(|session| session["open_files"] == 1 && session["dirty_bytes"].as_u64() > Some(0));
        let node = all.iter().find(|session| session["client"].as_str().unwrap().starts_with("storage-node"));
        let is_told = mount.is_some_and(|mount| mount["addresses"].as_array().unwrap().len() == 1);
        if is_told && node.is_some_and(|node| node["open_files"].is_null()) {
            Ok(())
        } else {
            Err(sessions.to_string())
        }
    });
    drop(writer);
    mount.unmount();
}

/// A mount that is stopped while it holds leases makes another one wait: the operator sees for whom, and how often.
#[test]
fn what_a_mount_holds_and_who_waits_for_it_is_shown() {
    let cluster = Cluster::start(1);
    let (holder, other) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::create_dir(holder.join("folder")).unwrap();
    let line = |mount: &TempMount| -> Vec<String> {
        let status = ask(&cluster, 0, "status", &[]).stdout;
        let of_mount = |line: &&str| line.contains(&*mount.path().to_string_lossy());
        status.lines().find(of_mount).map_or(Vec::new(), |line| line.split_whitespace().map(str::to_owned).collect())
    };
    // MOUNT SESSION HEARD("0 s ago") LEASES RECALLS
    let number = |line: &[String], column: usize| line.get(column).and_then(|cell| cell.parse::<u64>().ok());
    wait_for("the mount holds leases", Duration::from_secs(20), || {
        let line = line(&holder);
        if number(&line, 5) > Some(0) { Ok(()) } else { Err(line.join(" ")) }
    });
    let pid = nix::unistd::Pid::from_raw(holder.pid() as i32);
    // On a busy machine the leases may run out before the status is shown.
    let is_shown = (0..10).any(|round| {
        fs::write(holder.join(format!("folder/own-{round}")), "of the holder").unwrap();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| fs::write(other.join(format!("folder/other-{round}")), "of the other one"));
            let mut is_shown = false;
            while !is_shown && !waiting.is_finished() {
                is_shown = number(&line(&holder), 6) > Some(0);
            }
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
            waiting.join().unwrap().unwrap();
            is_shown
        })
    });
    assert!(is_shown, "no recall was shown: {}", ask(&cluster, 0, "status", &[]).stdout);
    let metrics = run("curl", &[&"-sf", &format!("http://{}:5059/metrics", cluster.ip(0))], cluster.folder()).stdout;
    for counter in [r#"chordfs_lease_notices_total{kind="recalled"}"#, "chordfs_lease_waits_total"] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse::<u64>().ok());
        assert!(value > Some(0), "{counter} in {metrics}");
    }
}

#[test]
fn changes_that_are_not_logged_yet_are_shown() {
    let cluster = Cluster::start(1);
    let mount = TempMount::new(&cluster);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Relaxed) {
                    return;
                }
                fs::write(mount.join(format!("file-{number}")), "").unwrap();
            }
        });
        wait_for("unlogged changes are shown", Duration::from_secs(60), || {
            let url = format!("http://{}:5059/sessions", cluster.ip(0));
            let sessions: Value = serde_json::from_str(&run("curl", &[&"-sf", &url], cluster.folder()).stdout).unwrap();
            let all = sessions.as_array().unwrap();
            let is_shown = all.iter().any(|session| session["unlogged_changes"].as_u64() > Some(0));
            if is_shown { Ok(()) } else { Err(sessions.to_string()) }
        });
        stop.store(true, Relaxed);
    });
}

/// Writes all the time until it is dropped. The mount stores what is some seconds old, and reports in the same rhythm:
/// with pauses between the writes, every report could come when all of them were stored.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(file: fs::File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let write = move || {
            for at in (0..1024_u64).cycle() {
                if stopped.load(Relaxed) {
                    return;
                }
                file.write_all_at(b"not stored yet", at << 16).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        };
        Self { stop, thread: Some(thread::spawn(write)) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "a write failed");
    }
}
