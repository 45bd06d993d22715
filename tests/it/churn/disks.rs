//! Disks that are full, slow or corrupt, under load: other nodes take the chunks that one cannot, and no reader sees
//! wrong data.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use harness::{
    Lab,
    disk::{self, Disk},
    tree, wait_for,
};
use rand::{Rng, rngs::StdRng};

use super::{
    SECONDS, Scene,
    slow::{random, wait_three_copies},
};

/// Leaves no space for any file of the node. (Chunks never take the last 64 MiB of a disk.)
pub(super) const ALL: u64 = 0;
/// Leaves no space for chunks, but some for the node's other files.
pub(super) const CHUNKS_ALONE: u64 = 48 << 20;

impl Scene {
    /// Keeps the node's disk full for `time`, then frees it.
    #[track_caller]
    pub(super) fn full_disk(&mut self, node: usize, leave: u64, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.lab.fill_disk(node, leave);
            self.load.run_for(Duration::from_millis(300));
        }
        self.load.progress(10);
        let status = self.lab.status(node).expect("the node answers");
        assert_eq!(status["state"], "serving", "{status}");
        self.lab.empty_disk(node);
        self.load.progress(10);
        self.wait_recovered();
    }
}

#[test]
fn the_leaders_disk_is_full() {
    let mut scene = Scene::in_lab(Lab::start_on_disks(4, Disk::Memory(1024)));
    let leader = scene.lab.leader();
    scene.full_disk(leader, CHUNKS_ALONE, SECONDS(5));
    let leader = scene.lab.leader();
    scene.full_disk(leader, ALL, SECONDS(10));
    scene.finish();
}

#[test]
#[ignore = "slow: eight minutes of full disks; SLOW_TESTS=1 tests/check.sh runs it"]
fn disks_are_full_for_minutes() {
    for nodes in [3, 5] {
        let mut scene = Scene::in_lab(Lab::start_on_disks(nodes, Disk::Memory(2048)));
        for leave in [CHUNKS_ALONE, ALL] {
            let leader = scene.lab.leader();
            let other = (0..nodes).find(|node| *node != leader).expect("there are more");
            scene.full_disk(other, leave, SECONDS(60));
            let leader = scene.lab.leader();
            scene.full_disk(leader, leave, SECONDS(60));
            wait_three_copies(&scene.lab);
        }
        scene.finish();
    }
}

/// The disk is full when the node dies, and still full when it restarts.
#[test]
#[ignore = "slow: a full disk over a restart; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_node_whose_disk_is_full_is_started_again() {
    let mut scene = Scene::in_lab(Lab::start_on_disks(4, Disk::Memory(1024)));
    let leader = scene.lab.leader();
    scene.lab.fill_disk(leader, ALL);
    scene.load.run_for(SECONDS(5));
    scene.lab.kill(leader);
    scene.load.progress(10);
    scene.lab.fill_disk(leader, ALL);
    scene.lab.start_node(leader);
    scene.lab.wait_ready(leader);
    scene.full_disk(leader, ALL, SECONDS(10));
    scene.finish();
}

impl Scene {
    /// Lets each write to the node's disk take up to two seconds, for `time`.
    #[track_caller]
    fn slow_disk(&mut self, node: usize, time: Duration) {
        let (end, folder) = (Instant::now() + time, self.lab.data(node));
        while Instant::now() < end {
            let frozen = disk::freeze(&folder);
            self.load.run_for(SECONDS(2));
            drop(frozen);
            self.load.run_for(Duration::from_millis(20));
        }
        self.load.progress(10);
        self.wait_recovered();
    }
}

#[test]
#[ignore = "slow: eighty seconds of a slow disk; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_disk_takes_two_seconds_a_write() {
    let mut scene = Scene::in_lab(Lab::start_on_disks(4, Disk::Image(1024)));
    for _ in 0..2 {
        let leader = scene.lab.leader();
        let other = (0..4).find(|node| *node != leader).expect("there are four");
        scene.slow_disk(other, SECONDS(20));
        let leader = scene.lab.leader();
        scene.slow_disk(leader, SECONDS(20));
    }
    scene.finish();
}

#[test]
fn bits_flip_on_one_disk_and_no_reader_sees_them() {
    flipped_bits(Scene::start(4), 8 << 20, 1);
}

#[test]
#[ignore = "slow: six rounds of damage and repair in 128 MiB; SLOW_TESTS=1 tests/check.sh runs it"]
fn bits_flip_on_one_disk_again_and_again() {
    flipped_bits(Scene::start(5), 128 << 20, 6);
}

/// Flips bits and reads a file that no mount has in its cache, beside the load.
fn flipped_bits(mut scene: Scene, bytes: usize, rounds: usize) {
    let mut random = random();
    let contents = tree::bytes(5, bytes);
    fs::write(scene.mounts[0].join("calm"), &contents).unwrap();
    wait_three_copies(&scene.lab);
    for round in 0..rounds {
        let node = random.random_range(0..scene.lab.live().len());
        let flipped = flip_bits(&scene.lab.data(node).join("chunks"), &mut random);
        let reader = scene.lab.mount();
        assert!(fs::read(reader.join("calm")).unwrap() == contents, "a reader saw a flipped bit");
        scene.load.progress(10);
        let printed = scene.lab.scrub(node);
        let status = scene.lab.scrub_status(node).unwrap();
        eprintln!("round {round}: node {}, {flipped} bits flipped: {status}", node + 1);
        assert!(status["damaged"].as_u64() > Some(0) && status["lost"] == 0, "{printed}\n{status}");
        assert!(fs::read(reader.join("calm")).unwrap() == contents);
    }
    wait_for("nothing damaged is left", SECONDS(60), || {
        let left: Vec<_> = scene.lab.live().into_iter().map(|node| scene.lab.scrub_status(node)).collect();
        let sound = left.iter().all(|status| status.as_ref().is_ok_and(|status| status["waiting"] == 0));
        if sound { Ok(()) } else { Err(format!("{left:?}")) }
    });
    scene.finish_verified();
}

/// Flips one bit in every 40,000 bytes or so, under the running node: headers, names and data alike. Returns how many.
fn flip_bits(chunks: &Path, random: &mut StdRng) -> usize {
    let entries = fs::read_dir(chunks).expect("the node's chunks").map(|entry| entry.expect("an entry").path());
    let segments = entries.filter(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.map(|path| flip_bits_of(&path, random)).sum()
}

fn flip_bits_of(segment: &Path, random: &mut StdRng) -> usize {
    // Compaction may have removed it since.
    let Ok(file) = File::options().read(true).write(true).open(segment) else { return 0 };
    let len = file.metadata().expect("its length").len();
    let (mut at, mut flipped) = (random.random_range(0..40_000), 0);
    while at < len {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a segment only grows");
        file.write_all_at(&[byte[0] ^ 1 << random.random_range(0..8)], at).expect("the segment takes it");
        (at, flipped) = (at + random.random_range(1..80_000), flipped + 1);
    }
    flipped
}
