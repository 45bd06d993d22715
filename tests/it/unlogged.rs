//! Changes that a mount has answered and not logged yet: what a crash leaves of them, what makes them durable, and what
//! other mounts wait for.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use harness::{Cluster, TempMount, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn signal(mount: &TempMount, signal: Signal) {
    kill(Pid::from_raw(mount.pid() as i32), signal).unwrap();
}

fn wait_ended(pid: u32) {
    // A process that has ended and that nobody has waited for has no command line.
    let has_ended = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty();
    wait_for("the mount's process ends", Duration::from_secs(60), || has_ended().then_some(()).ok_or("it runs".into()));
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    wait_for(what, Duration::from_secs(60), || condition().then_some(()).ok_or_else(|| "not yet".to_owned()));
}

/// Kills the mount without any warning, and mounts again.
fn crash(cluster: &Cluster, mount: TempMount) -> TempMount {
    let pid = mount.pid();
    signal(&mount, Signal::SIGKILL);
    wait_ended(pid);
    // Its session keeps its leases until they run out: the next mount waits for them where it needs to.
    drop(mount);
    TempMount::new(cluster)
}

fn contents(number: usize) -> String {
    format!("contents of file {number}\n").repeat(200)
}

/// What an unpacking program does for each file: written under another name, then renamed into place.
fn unpack(folder: &Path, number: usize) {
    let (part, name) = (folder.join(format!("part-{number}")), folder.join(format!("file-{number:05}")));
    fs::write(&part, contents(number)).unwrap();
    fs::rename(part, name).unwrap();
}

/// Checks that what is there of the files is a prefix of the order in which they were unpacked, and returns how many.
fn check_prefix(folder: &Path) -> usize {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let (parts, files): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.starts_with("part-"));
    for (number, name) in files.iter().enumerate() {
        assert_eq!(*name, format!("file-{number:05}"), "one before it is missing");
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), contents(number), "{name}");
    }
    assert!(parts.len() <= 1, "not in order: {parts:?} beside {} files", files.len());
    if let Some(part) = parts.first() {
        assert_eq!(*part, format!("part-{}", files.len()));
    }
    files.len()
}

#[test]
fn a_killed_mount_leaves_a_prefix_of_what_its_programs_did() {
    let cluster = Cluster::start(3);
    let mut mount = TempMount::new(&cluster);
    let mut all_kept = 0;
    for round in 0..3 {
        let folder = format!("folder-{round}");
        fs::create_dir(mount.join(&folder)).unwrap();
        let path = mount.join(&folder);
        let written = thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let mut written = 0;
                // Ends with an error when the mount is gone.
                while written < 20_000 {
                    let part = path.join(format!("part-{written}"));
                    let name = path.join(format!("file-{written:05}"));
                    if fs::write(&part, contents(written)).is_err() || fs::rename(part, name).is_err() {
                        break;
                    }
                    written += 1;
                }
                written
            });
            wait_until("some files", || path.join("file-00300").exists());
            thread::sleep(Duration::from_millis(37 * round));
            let pid = mount.pid();
            signal(&mount, Signal::SIGKILL);
            wait_ended(pid);
            unpacking.join().unwrap()
        });
        drop(mount);
        mount = TempMount::new(&cluster);
        let kept = check_prefix(&mount.join(&folder));
        assert!(kept <= written + 1, "{kept} of {written} files");
        all_kept += kept;
    }
    // On a busy machine few may have been logged.
    assert!(all_kept > 0);
}

#[test]
fn fsync_of_a_folder_keeps_all_that_was_done_before_it() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let folder = mount.join("folder");
    fs::create_dir(&folder).unwrap();
    (0..200).for_each(|number| unpack(&folder, number));
    symlink("file-00000", folder.join("zz-link")).unwrap();
    fs::remove_file(folder.join("zz-link")).unwrap();
    File::open(&folder).unwrap().sync_all().unwrap();
    let mount = crash(&cluster, mount);
    assert_eq!(check_prefix(&mount.join("folder")), 200);
}

#[test]
fn fsync_of_a_file_keeps_what_was_done_to_other_files_before_it() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let folder = mount.join("folder");
    fs::create_dir(&folder).unwrap();
    (0..100).for_each(|number| unpack(&folder, number));
    let mut last = File::create(mount.join("last")).unwrap();
    last.write_all(b"last").unwrap();
    last.sync_all().unwrap();
    let mount = crash(&cluster, mount);
    assert_eq!(check_prefix(&mount.join("folder")), 100);
    assert_eq!(fs::read_to_string(mount.join("last")).unwrap(), "last");
}

#[test]
fn a_mount_that_is_asked_to_stop_logs_everything() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::create_dir(mount.join("folder")).unwrap();
    (0..300).for_each(|number| unpack(&mount.join("folder"), number));
    let pid = mount.pid();
    signal(&mount, Signal::SIGTERM);
    wait_ended(pid);
    drop(mount);
    let mount = TempMount::new(&cluster);
    assert_eq!(check_prefix(&mount.join("folder")), 300);
}

#[test]
fn without_fsync_changes_are_logged_within_a_second() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    fs::create_dir(mount.join("folder")).unwrap();
    (0..50).for_each(|number| unpack(&mount.join("folder"), number));
    // Longer than promised: other tests keep the machine busy.
    thread::sleep(Duration::from_secs(3));
    let mount = crash(&cluster, mount);
    assert_eq!(check_prefix(&mount.join("folder")), 50);
}

#[test]
fn with_sync_or_dirsync_each_change_is_logged_before_it_is_answered() {
    let cluster = Cluster::start(3);
    for option in ["sync", "dirsync"] {
        let mount = TempMount::with_options(&cluster, &[option]);
        fs::create_dir(mount.join(option)).unwrap();
        (0..20).for_each(|number| unpack(&mount.join(option), number));
        let mount = crash(&cluster, mount);
        assert_eq!(check_prefix(&mount.join(option)), 20, "{option}");
    }
}

#[test]
fn a_new_leader_misses_nothing_and_repeats_nothing() {
    let mut cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let folder = mount.join("folder");
    fs::create_dir(&folder).unwrap();
    for round in 0..3 {
        thread::scope(|scope| {
            let unpacking = scope.spawn(|| (round * 400..(round + 1) * 400).for_each(|number| unpack(&folder, number)));
            wait_until("some files", || folder.join(format!("file-{:05}", round * 400 + 50)).exists());
            let leader = cluster.leader();
            cluster.kill(leader);
            cluster.start_node(leader);
            unpacking.join().unwrap();
        });
    }
    let other = TempMount::new(&cluster);
    assert_eq!(check_prefix(&other.join("folder")), 1200);
}

/// The other mount waits for the lease of the stopped one, no longer, and what the stopped one has done besides stays.
#[test]
fn a_stopped_mount_delays_others_by_its_lease_and_keeps_what_does_not_conflict() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::create_dir(one.join("tree")).unwrap();
    (0..50).for_each(|number| unpack(&one.join("tree"), number));
    File::open(one.join("tree")).unwrap().sync_all().unwrap();
    fs::write(one.join("tree/kept"), "kept").unwrap();
    signal(&one, Signal::SIGSTOP);
    let begun = Instant::now();
    fs::write(two.join("tree/other"), "other").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "waited for {:?}", begun.elapsed());
    fs::remove_file(two.join("tree/file-00000")).unwrap();
    signal(&one, Signal::SIGCONT);
    wait_until("the other's change is seen in the stopped mount", || one.join("tree/other").exists());
    assert!(!one.join("tree/file-00000").exists());
    for mount in [&one, &two] {
        assert_eq!(fs::read_to_string(mount.join("tree/kept")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(mount.join("tree/file-00049")).unwrap(), contents(49));
    }
}

/// The session used to end after a minute, and with it what was not logged.
#[test]
#[ignore = "slow: a mount is stopped for more than a minute; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_mount_that_slept_for_longer_than_a_minute_keeps_what_it_had_answered() {
    sleep_for_more_than_a_minute(|_| {});
}

/// The new leader waits for no session that the former one has suspended, and knows it when it is back.
#[test]
#[ignore = "slow: a mount is stopped for more than a minute; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_mount_that_slept_while_the_leader_died_keeps_what_it_had_answered() {
    sleep_for_more_than_a_minute(|cluster| {
        let leader = cluster.leader();
        cluster.kill(leader);
        cluster.leader();
    });
}

/// A mount is stopped under load until its session is suspended, and then `fault` happens.
#[track_caller]
fn sleep_for_more_than_a_minute(fault: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    fs::create_dir(one.join("tree")).unwrap();
    let session = session_of(&cluster, &one);
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                unpack(&one.join("tree"), written.load(Relaxed));
                written.fetch_add(1, Relaxed);
            }
        });
        wait_until("some files", || written.load(Relaxed) > 50);
        signal(&one, Signal::SIGSTOP);
        fs::write(two.join("tree/other"), "other").unwrap();
        wait_for("it has slept for more than a minute", Duration::from_secs(120), || {
            let asleep = session_of(&cluster, &one);
            if asleep["silent_seconds"].as_u64() > Some(70) { Ok(()) } else { Err(asleep.to_string()) }
        });
        fault(&mut cluster);
        let began = Instant::now();
        fs::write(two.join("tree/after"), "after").unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "a suspended session delays another for {:?}",
            began.elapsed()
        );
        stop.store(true, Relaxed);
        signal(&one, Signal::SIGCONT);
    });
    File::open(one.join("tree")).unwrap().sync_all().expect("nothing contradicts what it has answered");
    assert_eq!(session_of(&cluster, &one)["id"], session["id"]);
    assert_eq!(fs::read_to_string(one.join("tree/other")).unwrap(), "other");
    fs::remove_file(two.join("tree/other")).unwrap();
    fs::remove_file(two.join("tree/after")).unwrap();
    assert_eq!(check_prefix(&two.join("tree")), written.load(Relaxed));
}

/// The session of a mount, as the leader knows it.
fn session_of(cluster: &Cluster, mount: &TempMount) -> Value {
    let url = format!("http://{}:5059/sessions", cluster.ip(cluster.live()[0]));
    // No program is started: it would inherit open files of the mount that is stopped, and wait for it as it begins.
    let answer = reqwest::blocking::get(url).and_then(|answer| answer.text()).expect("the node answers");
    let sessions: Value = serde_json::from_str(&answer).unwrap();
    let point = mount.path().to_string_lossy();
    let is_it = |session: &&Value| session["client"].as_str().is_some_and(|client| client.contains(&*point));
    sessions.as_array().unwrap().iter().find(is_it).expect("the mount has a session").clone()
}

/// A close that kept a place in the order waited for ever for a change of attributes that waited for that place.
#[test]
fn closes_and_changes_of_attributes_of_one_file_wait_for_each_other_in_turn() {
    let cluster = Cluster::start(3);
    let mount = TempMount::new(&cluster);
    let path = mount.join("file");
    fs::write(&path, contents(0)).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
                }
            });
            scope.spawn(|| {
                while Instant::now() < end {
                    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(100).unwrap();
                    file.set_modified(std::time::SystemTime::now()).unwrap();
                }
            });
        }
    });
    fs::write(&path, contents(1)).unwrap();
    assert_eq!(fs::read_to_string(TempMount::new(&cluster).join("file")).unwrap(), contents(1));
}

/// Two mounts work in one tree, one creating what the other removes, without an end to either.
#[test]
fn a_tree_is_removed_while_another_mount_creates_in_it() {
    let cluster = Cluster::start(3);
    let (one, two) = (TempMount::new(&cluster), TempMount::new(&cluster));
    for round in 0..3 {
        let tree = format!("tree-{round}");
        for folder in 0..5 {
            fs::create_dir_all(one.join(&tree).join(format!("folder-{folder}"))).unwrap();
            (0..20).for_each(|number| unpack(&one.join(&tree).join(format!("folder-{folder}")), number));
        }
        thread::scope(|scope| {
            let creating = scope.spawn(|| {
                let mut created = 0;
                // Ends when the folder is gone.
                while created < 5000 && fs::write(two.join(&tree).join(format!("folder-4/new-{created}")), "x").is_ok()
                {
                    created += 1;
                }
                created
            });
            wait_until("the tree is removed", || fs::remove_dir_all(one.join(&tree)).is_ok());
            creating.join().unwrap();
        });
        assert!(!two.join(&tree).exists() && !one.join(&tree).exists(), "round {round}");
    }
}

/// Two mounts change one folder all the time. Neither stands still, and both see the same at the end.
fn fight(time: Duration) {
    let cluster = Cluster::start(3);
    let mounts = [TempMount::new(&cluster), TempMount::new(&cluster)];
    fs::create_dir(mounts[0].join("folder")).unwrap();
    let done = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        for (own, mount) in mounts.iter().enumerate() {
            let (done, stop, folder) = (&done[own], &stop, mount.join("folder"));
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let number = done.load(Relaxed);
                    fs::write(folder.join(format!("new-{own}-{number}")), "x").unwrap();
                    fs::rename(folder.join(format!("new-{own}-{number}")), folder.join(format!("{own}-{number}")))
                        .unwrap();
                    remove_if_there(&folder.join(format!("{}-{number}", 1 - own)));
                    if number % 20 == 0 {
                        fs::read_dir(&folder).unwrap().for_each(|entry| drop(entry.unwrap()));
                    }
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        while begun.elapsed() < time {
            let before = [0, 1].map(|own| done[own].load(Relaxed));
            wait_until("both go on", || [0, 1].iter().all(|own| done[*own].load(Relaxed) > before[*own] + 20));
        }
        stop.store(true, Relaxed);
    });
    let rounds = [0, 1].map(|own| done[own].load(Relaxed));
    println!("{rounds:?} rounds of create, rename and remove in {:?}", begun.elapsed());
    let [one, two] = mounts.each_ref().map(|mount| names_in(&mount.join("folder")));
    assert_eq!(one, two);
    assert!(one.iter().all(|name| !name.starts_with("new-")), "{one:?}");
}

fn remove_if_there(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("remove {}: {error}", path.display()),
        _ => {}
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_mounts_fight_for_one_folder() {
    fight(Duration::from_secs(5));
}

#[test]
#[ignore = "slow: ten minutes; SLOW_TESTS=1 tests/check.sh runs it"]
fn two_mounts_fight_for_one_folder_for_ten_minutes() {
    fight(Duration::from_secs(600));
}
