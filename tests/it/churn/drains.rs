//! Drains under adverse conditions: with crashes of the leader, with other drains, and where they are impossible.

use std::{fs, time::Duration};

use harness::{Lab, disk::Disk, tree, wait_for};
use rand::Rng;

use super::{
    SECONDS, Scene,
    slow::{random, wait_three_copies},
};

/// A drain is refused after a minute without progress, or after another one in which it cannot give up its vote.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(180);

impl Scene {
    /// Stores some data to hand over, so that a drain takes a while.
    #[track_caller]
    pub(super) fn store_mib(&self, mib: usize) {
        fs::write(self.mounts[0].join(format!("weight-{mib}")), tree::bytes(9, mib << 20)).unwrap();
    }

    #[track_caller]
    fn begin_drain(&self, node: usize) {
        self.lab.begin_drain(node);
        wait_for("the drain is under way", SECONDS(30), || match self.lab.drain_phase(node)?.0.as_str() {
            "" => Err("not yet".into()),
            _ => Ok(()),
        });
    }

    /// Begins a drain that the node must refuse; returns the reason. The node and the ring continue to serve.
    #[track_caller]
    fn refused(&self, node: usize) -> String {
        self.begin_drain(node);
        let reason = wait_refused(&self.lab, node);
        self.load.progress(10);
        reason
    }

    #[track_caller]
    fn drained(&mut self, node: usize) {
        self.lab.wait_drained(node);
        self.load.progress(10);
    }

    /// Begins all drains at the same moment, and waits until all nodes have left.
    #[track_caller]
    pub(super) fn drain_at_once(&mut self, nodes: impl IntoIterator<Item = usize> + Clone) {
        nodes.clone().into_iter().for_each(|node| self.begin_drain(node));
        nodes.into_iter().for_each(|node| self.drained(node));
        self.wait_recovered();
    }
}

#[track_caller]
fn wait_refused(lab: &Lab, node: usize) -> String {
    let mut reason = String::new();
    wait_for("the drain is refused", REFUSAL_DEADLINE, || match lab.drain_phase(node)? {
        (phase, why) if phase == "refused" => {
            reason = why;
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    let status = lab.status(node).expect("the node answers");
    assert_eq!(status["state"], "serving", "{status}");
    eprintln!("refused: {reason}");
    reason
}

#[test]
fn the_leader_dies_while_another_node_drains() {
    let mut scene = Scene::start(5);
    scene.store_mib(16);
    let leader = scene.lab.leader();
    let node = (0..5).find(|node| *node != leader).expect("there are five");
    scene.begin_drain(node);
    scene.crash(leader);
    scene.drained(node);
    scene.restart(leader);
    scene.finish();
}

/// The restarted node keeps the chunks it had: it serves again, and can be drained again.
#[test]
fn the_leader_dies_while_it_drains() {
    let mut scene = Scene::start(4);
    scene.store_mib(16);
    let leader = scene.lab.leader();
    scene.begin_drain(leader);
    scene.crash(leader);
    scene.restart(leader);
    scene.begin_drain(leader);
    scene.drained(leader);
    scene.wait_recovered();
    scene.finish();
}

#[test]
fn two_of_five_drain_at_once() {
    let mut scene = Scene::start(5);
    scene.store_mib(16);
    let leader = scene.lab.leader();
    let other = (0..5).find(|node| *node != leader).expect("there are five");
    scene.drain_at_once([leader, other]);
    scene.finish();
}

#[test]
fn a_drain_without_room_elsewhere_is_refused_and_succeeds_later() {
    let mut scene = Scene::in_lab(Lab::start_on_disks(4, Disk::Memory(1024)));
    scene.store_mib(16);
    // Chunks never take the last 64 MiB of a disk.
    scene.lab.fill_disk(3, 64 << 20);
    let reason = scene.refused(1);
    assert!(reason.contains(&scene.lab.ip(3).to_string()) && reason.contains("MiB free"), "{reason}");
    scene.lab.empty_disk(3);
    scene.begin_drain(1);
    scene.drained(1);
    scene.wait_recovered();
    scene.finish();
}

/// A node drains and the leader dies at a random moment, alternating with drains of the leader that dies itself.
#[test]
#[ignore = "slow: ten drains, each with a crash of the leader; SLOW_TESTS=1 tests/check.sh runs it"]
fn the_leader_dies_at_any_moment_of_a_drain() {
    let (mut random, mut scene) = (random(), Scene::start(5));
    scene.store_mib(64);
    for round in 0..10 {
        let leader = scene.lab.leader();
        let others: Vec<_> = scene.lab.live().into_iter().filter(|node| *node != leader).collect();
        let node = if round % 2 == 0 { others[random.random_range(0..others.len())] } else { leader };
        scene.begin_drain(node);
        scene.load.run_for(Duration::from_millis(random.random_range(0..4_000)));
        let phase = scene.lab.drain_phase(node);
        eprintln!("round {round}: the leader dies while node {} is {phase:?}", node + 1);
        if node == leader && phase.is_ok_and(|(phase, _)| phase == "left") {
            scene.drained(node);
        } else if node == leader {
            scene.crash(leader);
            scene.restart(leader);
        } else {
            scene.crash(leader);
            scene.drained(node);
            scene.restart(leader);
        }
        scene.grow(5);
        wait_three_copies(&scene.lab);
    }
    scene.finish();
}

#[test]
#[ignore = "slow: eight nodes, five drains; SLOW_TESTS=1 tests/check.sh runs it"]
fn five_of_eight_drain_at_once() {
    let mut scene = Scene::start(8);
    scene.store_mib(64);
    scene.drain_at_once(0..5);
    scene.finish();
}

/// Only one voter is left. When the others are back, the stored file is intact and the drain succeeds.
#[test]
#[ignore = "slow: the drain is refused after a minute or two; SLOW_TESTS=1 tests/check.sh runs it"]
fn a_drain_without_a_majority_is_refused_and_succeeds_later() {
    let mut lab = Lab::start(6);
    let mount = lab.mount();
    fs::write(mount.join("file"), tree::bytes(1, 8 << 20)).unwrap();
    wait_three_copies(&lab);
    let voters = lab.voters().unwrap();
    for node in &voters[1..] {
        lab.kill(*node);
    }
    lab.begin_drain(voters[0]);
    let reason = wait_refused(&lab, voters[0]);
    assert!(reason.contains("majority"), "{reason}");
    for node in &voters[1..] {
        lab.start_node(*node);
    }
    lab.wait_settled();
    lab.begin_drain(voters[0]);
    lab.wait_drained(voters[0]);
    lab.wait_settled();
    wait_three_copies(&lab);
    let fresh = lab.mount();
    assert!(fs::read(fresh.join("file")).unwrap() == tree::bytes(1, 8 << 20));
}
