//! Joins under adverse conditions: the joining node or a node that fills it dies at a random moment.

use std::time::Duration;

use rand::Rng;

use super::{
    Scene,
    slow::{random, wait_three_copies},
};

impl Scene {
    /// `count` nodes begin to join at the same moment.
    #[track_caller]
    pub(super) fn join_at_once(&mut self, count: usize) {
        for _ in 0..count {
            self.lab.begin_add();
        }
        self.wait_recovered();
    }
}

/// The joining node dies at a random moment before it is filled, and is started again with the data it has by then.
#[test]
#[ignore = "slow: twelve crashes in four joins; SLOW_TESTS=1 tests/check.sh runs it"]
fn nodes_crash_while_they_join() {
    let (mut random, mut scene) = (random(), Scene::start(3));
    for _ in 0..4 {
        let node = scene.lab.begin_add();
        for _ in 0..3 {
            scene.load.run_for(Duration::from_millis(random.random_range(0..1_500)));
            scene.lab.kill(node);
            scene.lab.start_node(node);
        }
        scene.lab.wait_settled();
        scene.load.progress(10);
    }
    wait_three_copies(&scene.lab);
    scene.finish();
}

/// Another node dies while one joins: first the leader, then random ones, among them those that fill the new node.
#[test]
#[ignore = "slow: four joins, each with a crash; SLOW_TESTS=1 tests/check.sh runs it"]
fn others_crash_while_a_node_joins() {
    let (mut random, mut scene) = (random(), Scene::start(4));
    scene.store_mib(64);
    for round in 0..4 {
        let leader = scene.lab.leader();
        let others = scene.lab.live();
        scene.lab.begin_add();
        scene.load.run_for(Duration::from_millis(random.random_range(0..2_000)));
        let victim = if round == 0 { leader } else { others[random.random_range(0..others.len())] };
        scene.crash(victim);
        scene.restart(victim);
        wait_three_copies(&scene.lab);
    }
    scene.finish();
}
