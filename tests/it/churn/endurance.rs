//! Every kind of fault in random order, for as long as one has patience: `CHORDFS_TEST_MINUTES=60` is the form in which
//! a release is tried. Afterwards everything is as it was before: no file is wrong, no chunk is left, no node has grown
//! by more than its cache, and no mount has more memory than it promises.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use harness::{Lab, disk::Disk, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    SECONDS, Scene,
    disks::{ALL, CHUNKS_ALONE},
    slow::{minutes, random, wait_three_copies},
};

const NODES: usize = 5;
/// Chunks that no file has named for this long count as left behind.
const ORPHAN_GRACE: Duration = Duration::from_secs(180);
/// What a node may have grown by between the first half minute and the end, when all files are removed and the cache,
/// which may take a sixteenth of the machine's memory, is empty.
const NODE_GROWTH_MIB: u64 = 150;
/// A node remembers for ten minutes what was deleted, and gives free memory back every half minute.
const RELEASED: Duration = Duration::from_secs(12 * 60);
/// How often the memory of the nodes is printed: a leak grows with the time, and caches do not.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// What a mount promises: the defaults of its options `cache` and `dirty`, and 100 MiB.
const MOUNT_MIB: u64 = 256 + 64 + 100;

#[test]
#[ignore = "slow: ten minutes of every fault; SLOW_TESTS=1 tests/check.sh runs it"]
fn every_fault_in_random_order_leaves_nothing_behind() {
    let (mut random, mut scene) = (random(), Scene::in_lab(Lab::start_on_disks(NODES, Disk::Memory(1024))));
    scene.load.add_programs(scene.mounts[0].path(), scene.mounts[1].path());
    scene.load.run_for(SECONDS(30));
    let before = nodes_memory(&scene.lab);
    let pauses = MountPauses::start(&scene, random.random());
    let end = Instant::now() + SECONDS(60 * minutes(10));
    let (mut faults, mut next_look) = (0, Instant::now() + LOOK_EVERY);
    while Instant::now() < end {
        if Instant::now() > next_look {
            eprintln!("{:?} before the end the nodes have {:?} MiB", end - Instant::now(), nodes_memory(&scene.lab));
            next_look += LOOK_EVERY;
        }
        scene.random_fault(&mut random);
        wait_three_copies(&scene.lab);
        faults += 1;
    }
    pauses.end();
    eprintln!("{faults} faults");
    scene.finish_empty(&before);
}

impl Scene {
    #[track_caller]
    fn random_fault(&mut self, random: &mut StdRng) {
        let node = random.random_range(0..NODES);
        let seconds = random.random_range(3..20);
        match random.random_range(0..6) {
            0 => self.full_disk(node, CHUNKS_ALONE, SECONDS(seconds)),
            1 => self.full_disk(node, ALL, SECONDS(seconds)),
            2 => self.pause(node, SECONDS(seconds)),
            3 => self.cut(node, SECONDS(seconds)),
            4 => self.crash_for(node, Duration::from_millis(random.random_range(0..6_000))),
            _ => {
                let leader = self.lab.leader();
                self.crash_for(leader, Duration::from_millis(random.random_range(0..6_000)));
            }
        }
    }

    #[track_caller]
    fn crash_for(&mut self, node: usize, time: Duration) {
        self.lab.kill(node);
        self.load.run_for(time);
        self.restart(node);
    }

    /// Checks every file and every copy, then removes all files, and waits until the nodes have removed all chunks.
    #[track_caller]
    fn finish_empty(mut self, before: &[u64]) {
        let fresh = self.lab.mount();
        let report = self.load.finish(fresh.path());
        eprintln!("{report}");
        report.assert_clean();
        self.lab.wait_settled();
        self.lab.assert_no_orphans(ORPHAN_GRACE);
        self.lab.wait_clean_verified();
        let mounts: Vec<u64> = self.mounts.iter().map(|mount| resident_mib(mount.pid())).collect();
        eprintln!("the mounts have {mounts:?} MiB");
        assert!(mounts.iter().all(|mib| *mib < MOUNT_MIB), "a mount has more than {MOUNT_MIB} MiB");
        remove_everything(fresh.path());
        wait_for("all chunks are gone", SECONDS(300), || {
            let left = self.lab.loads()?;
            if left.iter().all(|bytes| *bytes == 0.0) { Ok(()) } else { Err(format!("{left:.0?}")) }
        });
        eprintln!("the nodes had {before:?} MiB, and with their caches {:?}", nodes_memory(&self.lab));
        self.lab.clear_caches();
        wait_for(&format!("no node has more than {NODE_GROWTH_MIB} MiB beyond {before:?}"), RELEASED, || {
            let after = nodes_memory(&self.lab);
            let grown = before.iter().zip(&after).any(|(before, after)| *after > before + NODE_GROWTH_MIB);
            if grown { Err(format!("{after:?}")) } else { Ok(()) }
        });
        drop(self.mounts);
    }
}

/// The resident memory of each node, in MiB.
fn nodes_memory(lab: &Lab) -> Vec<u64> {
    lab.live().into_iter().map(|at| resident_mib(lab.pid(at))).collect()
}

fn remove_everything(mount: &std::path::Path) {
    for entry in fs::read_dir(mount).expect("the top folder").map(|entry| entry.expect("an entry")) {
        let is_folder = entry.file_type().expect("its type").is_dir();
        let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.unwrap_or_else(|error| panic!("remove {}: {error}", entry.path().display()));
    }
}

fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Stops and continues the mounts at random, each alone, shorter than a session lives.
struct MountPauses {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl MountPauses {
    fn start(scene: &Scene, seed: u64) -> Self {
        let pids: Vec<_> = scene.mounts.iter().map(|mount| Pid::from_raw(mount.pid() as i32)).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let (flag, mut random) = (ended.clone(), StdRng::seed_from_u64(seed));
        let thread = spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let pid = pids[random.random_range(0..pids.len())];
                kill(pid, Signal::SIGSTOP).expect("the mount runs");
                sleep(Duration::from_millis(random.random_range(100..12_000)));
                kill(pid, Signal::SIGCONT).expect("the mount is stopped");
                sleep(Duration::from_millis(random.random_range(5_000..30_000)));
            }
        });
        Self { ended, thread }
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the mounts can be signalled");
    }
}
