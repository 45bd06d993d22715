//! The long forms: minutes of faults, and the experiments in full.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use harness::{Lab, TempMount, load::Record, netns::Side, tree, wait_for};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{SECONDS, Scene};

/// Prints its seed, so that a failure can be reproduced.
pub(super) fn random() -> StdRng {
    let seed = std::env::var("CHORDFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("CHORDFS_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// How many minutes a test of random faults takes.
pub(super) fn minutes(default: u64) -> u64 {
    std::env::var("CHORDFS_TEST_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(default)
}

/// Kills (`kill -9`) and restarts random nodes for ten minutes.
#[test]
#[ignore = "slow: ten minutes of random crashes; SLOW_TESTS=1 tests/check.sh runs it"]
fn random_crashes_for_ten_minutes() {
    let (mut random, mut scene) = (random(), Scene::start(5));
    let end = Instant::now() + SECONDS(60 * minutes(10));
    let mut crashes = 0;
    while Instant::now() < end {
        let victim = random.random_range(0..5);
        scene.lab.kill(victim);
        scene.load.run_for(Duration::from_millis(random.random_range(0..6_000)));
        scene.restart(victim);
        wait_three_copies(&scene.lab);
        crashes += 1;
    }
    eprintln!("{crashes} crashes");
    scene.finish();
}

/// Two of three holders of many chunks die at the same moment. The voters keep their majority.
#[test]
#[ignore = "slow: a ring of five is repaired after two crashes; SLOW_TESTS=1 tests/check.sh runs it"]
fn two_neighbours_crash_at_once() {
    let mut scene = Scene::start(5);
    let (order, voters) = (scene.lab.ring_order(), scene.lab.voters().unwrap());
    let bystander = (0..5).find(|at| !voters.contains(&order[*at])).expect("three of five vote");
    let pair = [order[bystander], order[(bystander + 1) % 5]];
    for node in pair {
        scene.lab.kill(node);
    }
    scene.load.progress(100);
    for node in pair {
        scene.lab.start_node(node);
    }
    scene.lab.wait_settled();
    wait_three_copies(&scene.lab);
    scene.finish();
}

/// Up to five nodes come or go at a time.
#[test]
#[ignore = "slow: ten nodes join and seven drain; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_ring_grows_to_ten_and_shrinks_to_three() {
    let mut scene = Scene::start(1);
    for nodes in [5, 10] {
        scene.join_at_once(nodes - scene.lab.live().len());
        scene.lab.wait_balanced(1.3);
        wait_three_copies(&scene.lab);
    }
    for leaving in [5..10, 3..5] {
        scene.drain_at_once(leaving);
        scene.lab.wait_balanced(1.3);
    }
    scene.load.progress(100);
    scene.finish();
}

/// Waits until every chunk has three holders. The load continues, so the nodes are listed at different moments: a chunk
/// counts as missing if two rounds in a row lack a copy.
pub(super) fn wait_three_copies(lab: &Lab) {
    let mut missing: Option<HashSet<_>> = None;
    wait_for("every chunk has three holders", SECONDS(120), || {
        let mut holders = HashMap::new();
        for node in lab.live() {
            lab.ls(node)?.into_iter().for_each(|stored| *holders.entry(stored).or_insert(0) += 1);
        }
        let wanted = lab.live().len().min(3);
        let now = holders.into_iter().filter(|(_, count)| *count < wanted).map(|(stored, _)| stored);
        let now: HashSet<_> = match &missing {
            Some(before) => now.filter(|stored| before.contains(stored)).collect(),
            None => now.collect(),
        };
        let left = now.len();
        let example = now.iter().next().cloned();
        missing = Some(now);
        if left == 0 { Ok(()) } else { Err(format!("{left} have fewer, one is {example:?}")) }
    });
}

#[test]
#[ignore = "slow: two cuts of a minute; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_node_loses_its_network_for_a_minute() {
    let mut scene = Scene::start(5);
    let leader = scene.lab.leader();
    let other = (0..5).find(|node| *node != leader).expect("there are five");
    scene.cut(other, SECONDS(60));
    scene.cut(leader, SECONDS(60));
    scene.finish();
}

#[test]
#[ignore = "slow: two pauses of twenty seconds; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_node_is_stopped_for_twenty_seconds() {
    let mut scene = Scene::start(5);
    let leader = scene.lab.leader();
    let other = (0..5).find(|node| *node != leader).expect("there are five");
    scene.pause(other, SECONDS(20));
    scene.pause(leader, SECONDS(20));
    scene.finish();
}

/// In a ring of three no voter can be replaced: both other voters are needed for every change.
#[test]
#[ignore = "slow: three faults of up to forty seconds; SLOW_TESTS=1 tests/check.sh runs it"]
fn the_leader_of_three_is_stopped_and_cut_off() {
    let mut scene = Scene::start(3);
    let leader = scene.lab.leader();
    scene.pause(leader, SECONDS(20));
    let leader = scene.lab.leader();
    scene.cut(leader, SECONDS(40));
    let leader = scene.lab.leader();
    scene.lab.kill(leader);
    scene.load.run_for(SECONDS(40));
    scene.load.progress(10);
    scene.restart(leader);
    scene.finish();
}

/// The larger side has the majority of the voters and continues. On the smaller side, which has the leader at first,
/// each change fails with an error and leaves no trace afterwards.
#[test]
#[ignore = "slow: mounts wait for their deadlines in a split network; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_split_of_two_and_three() {
    let mut scene = Scene::start(5);
    let lonely = scene.lab.mount();
    for name in REFUSED {
        fs::create_dir_all(lonely.join("lonely").join(name)).unwrap();
        fs::write(lonely.join("lonely").join(name).join("old"), tree::bytes(1, 50_000)).unwrap();
    }
    let leader = scene.lab.leader();
    let voters = scene.lab.voters().unwrap();
    let other = (0..5).find(|node| !voters.contains(node)).expect("three of five vote");
    for node in [leader, other] {
        scene.lab.side(node, Side::Second);
    }
    scene.lab.mount_side(2, Side::Second);
    let rest: Vec<_> = (0..5).filter(|node| ![leader, other].contains(node)).collect();
    wait_for("three nodes form a ring", SECONDS(60), || scene.lab.check_ring(&rest));
    wait_for("two nodes form a ring", SECONDS(60), || scene.lab.check_ring(&[leader, other]));
    nothing_is_accepted(&lonely);
    scene.load.progress(100);
    for node in [leader, other] {
        scene.lab.side(node, Side::First);
    }
    scene.lab.mount_side(2, Side::First);
    scene.lab.wait_settled();
    scene.load.progress(100);
    for name in REFUSED {
        let folder = lonely.join("lonely").join(name);
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["old"], "what the smaller side had refused: {name}");
        assert!(fs::read(folder.join("old")).unwrap() == tree::bytes(1, 50_000), "{name}");
    }
    drop(lonely);
    scene.finish();
}

type Attempt = Box<dyn Fn() -> std::io::Result<()> + Send + Sync>;

const REFUSED: [&str; 5] = ["create", "mkdir", "rename", "remove", "overwrite"];

/// Attempts each kind of change once, all at the same time: each takes as long as the deadline of the mount, or twice
/// as long where the kernel looks the name up first. Each has a folder of its own: the kernel serialises changes of a
/// folder.
fn nothing_is_accepted(mount: &TempMount) {
    let began = Instant::now();
    let attempts = REFUSED.map(|name| {
        let (old, new) = (mount.join("lonely").join(name).join("old"), mount.join("lonely").join(name).join("new"));
        let attempt: Attempt = match name {
            "create" => Box::new(move || fs::write(&new, "new")),
            "mkdir" => Box::new(move || fs::create_dir(&new)),
            "rename" => Box::new(move || fs::rename(&old, &new)),
            "remove" => Box::new(move || fs::remove_file(&old)),
            _ => Box::new(move || fs::write(&old, "overwritten")),
        };
        (name, attempt)
    });
    let accepted: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = attempts.iter().map(|(name, attempt)| (*name, scope.spawn(attempt))).collect();
        let done = running.into_iter().map(|(name, thread)| (name, thread.join().expect("attempts do not panic")));
        done.filter(|(_, result)| result.is_ok()).collect()
    });
    assert!(accepted.is_empty(), "the smaller side accepted {accepted:?}");
    assert!(began.elapsed() < SECONDS(90), "the errors came after {:?}", began.elapsed());
}

/// The course project's experiment: 1,000 operations while a node is killed and brought back, twice; here a node that
/// does not lead, and then the leader.
#[test]
#[ignore = "slow: two thousand operations; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_thousand_operations_while_a_node_dies_twice() {
    let mut lab = Lab::start(5);
    let mount = lab.mount();
    let calm = thousand(mount.path(), "calm", |_| {});
    let leader = lab.leader();
    let other = (0..5).find(|node| *node != leader).expect("there are five");
    let disturbed = thousand(mount.path(), "disturbed", |operation| match operation {
        150 => lab.kill(other),
        350 => lab.start_node(other),
        550 => lab.kill(leader),
        750 => lab.start_node(leader),
        _ => {}
    });
    eprintln!("{calm:.2?} undisturbed, {disturbed:.2?} disturbed: {:.3} times", disturbed.div_duration_f64(calm));
}

/// Writes and closes 500 files, and reads and compares each through the same mount. No operation may fail.
fn thousand(mount: &Path, name: &str, mut before: impl FnMut(u32)) -> Duration {
    let (record, began) = (Record::alone("thousand"), Instant::now());
    for round in 0..500 {
        let (path, contents) = (mount.join(format!("{name}-{round}")), tree::bytes(round.into(), 40_000));
        before(2 * round);
        report_if_slow(2 * round, || record.attempt("write", &path, || fs::write(&path, &contents)));
        before(2 * round + 1);
        let found = report_if_slow(2 * round + 1, || record.attempt("read", &path, || fs::read(&path)));
        if found.is_some_and(|found| found != contents) {
            record.wrong("read", &path, "it is not what was written".into());
        }
    }
    eprintln!("{name}: {}", record.report());
    record.report().assert_clean();
    began.elapsed()
}

/// Prints a slow operation, to help find where the time went.
fn report_if_slow<T>(operation: u32, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    if began.elapsed() > Duration::from_millis(100) {
        eprintln!("operation {operation} took {:.2?}", began.elapsed());
    }
    done
}
