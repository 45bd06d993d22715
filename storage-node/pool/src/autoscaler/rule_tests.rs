//! The rule, case by case.

use std::time::Duration;

use chordfs_types::{
    admin::{PoolDecisionLine, PoolNodes, PoolTarget},
    namespace::{MAX_POOL_REASON_BYTES, PoolDecider, PoolSize, Time},
    ring_config::{MAX_POOL_NODES, PoolConfig, RingConfig},
};

use super::{
    misses::Misses,
    rule::{DiskUse, ScalerAction, Situation, SizeChoice, decide},
};

const COOLDOWN: Duration = Duration::from_secs(120);

/// A settled pool in automatic mode, and the figures of one moment.
struct Case {
    config: PoolConfig,
    wanted: Option<u32>,
    since: u64,
    decisions: Vec<PoolDecisionLine>,
    nodes: PoolNodes,
    misses: Misses,
    disks: DiskUse,
}

impl Case {
    fn of(size: u32) -> Self {
        let config = RingConfig::default().with([("pool.mode", "automatic")]).unwrap().pool;
        let nodes = PoolNodes { serving: size, missing_copies: Some(0), ..PoolNodes::default() };
        let disks = DiskUse { fullest: Some(0.2), sum: 0.2 * f64::from(size) };
        Self { config, wanted: Some(size), since: 500, decisions: Vec::new(), nodes, misses: Misses::Rate(0.3), disks }
    }

    fn misses(size: u32, rate: f64) -> Self {
        Self { misses: Misses::Rate(rate), ..Self::of(size) }
    }

    fn with(mut self, settings: &[(&str, &str)]) -> Self {
        let config = RingConfig { pool: self.config, ..RingConfig::default() };
        self.config = config.with(settings.iter().copied()).unwrap().pool;
        self
    }

    fn decide(&self) -> ScalerAction {
        let size = PoolSize { wanted: self.wanted, ..PoolSize::default() };
        let mut target = PoolTarget::new(&self.config, &size, Time::default());
        target.seconds_since_decision = Some(self.since);
        decide(&Situation {
            config: &self.config,
            target: &target,
            decisions: &self.decisions,
            nodes: self.nodes,
            misses: self.misses,
            disks: self.disks,
            cooldown: COOLDOWN,
        })
    }

    #[track_caller]
    fn decides(&self, to: u32, reason: &str) -> SizeChoice {
        match self.decide() {
            ScalerAction::Decide(choice) => {
                assert_eq!((choice.to, choice.reason.as_str()), (to, reason));
                choice
            }
            hold => panic!("{hold:?}"),
        }
    }

    #[track_caller]
    fn holds(&self, reason: &str) {
        match self.decide() {
            ScalerAction::Hold(found) => assert!(found.contains(reason), "{found}"),
            decided => panic!("{decided:?}"),
        }
    }
}

#[test]
fn operators_decide_in_manual_mode() {
    Case::misses(2, 0.9).with(&[("pool.mode", "manual")]).holds("pool.mode is manual");
}

#[test]
fn the_first_choice_is_the_size_that_there_is() {
    let nobody = |nodes: PoolNodes| Case { wanted: None, nodes, ..Case::misses(1, 0.9) };
    let three = PoolNodes { serving: 2, silent: 1, ..PoolNodes::default() };
    nobody(three).decides(3, "nobody had chosen a size: the scaler steers from now on, beginning with 3 nodes");
    let many = PoolNodes { serving: 20, ..PoolNodes::default() };
    nobody(many).decides(8, "nobody had chosen a size: the scaler steers from now on, beginning with 8 nodes");
}

#[test]
fn limits_that_were_changed_hold_at_once() {
    let busy = |size| Case { since: 0, nodes: PoolNodes { draining: 1, ..PoolNodes::default() }, ..Case::of(size) };
    busy(6).with(&[("pool.largest", "4")]).decides(4, "pool.largest is 4: 6 nodes become 4");
    busy(1).with(&[("pool.smallest", "2")]).decides(2, "pool.smallest is 2: 1 node becomes 2");
}

#[test]
fn a_step_that_is_under_way_and_the_cooldown_hold_the_next_one() {
    let with = |nodes| Case { nodes, ..Case::misses(3, 0.9) };
    with(PoolNodes { serving: 2, arriving: 1, ..PoolNodes::default() }).holds("1 node is arriving");
    with(PoolNodes { serving: 3, draining: 2, ..PoolNodes::default() }).holds("2 nodes are draining");
    with(PoolNodes { serving: 2, silent: 1, ..PoolNodes::default() }).holds("2 nodes are serving, and 3 are wanted");
    Case { since: 119, ..Case::misses(3, 0.9) }.holds("less than the cooldown of 2m");
    Case { since: 120, ..Case::misses(3, 0.9) }
        .decides(6, "miss rate 0.90 is above 0.50: 3 nodes become 6 (3 × 2.0, rounded up)");
}

/// A group of at most four, in a ring that allows eight, kept four nodes for ever.
#[test]
fn nodes_that_do_not_come_do_not_keep_a_pool_from_shrinking() {
    let stuck = |since, rate| Case { since, wanted: Some(8), ..Case::misses(4, rate) };
    stuck(599, 0.01).holds("4 nodes are serving, and 8 are wanted");
    stuck(600, 0.9).holds("4 nodes are serving, and 8 are wanted");
    stuck(600, 0.01).decides(
        2,
        "4 nodes are serving, and 8 are wanted; miss rate 0.01 is below 0.10: 4 nodes become 2 (4 × 0.5, rounded down)",
    );
    let silent = PoolNodes { silent: 1, ..Case::of(4).nodes };
    Case { nodes: silent, ..stuck(600, 0.01) }.holds("4 nodes are serving, and 8 are wanted");
}

#[test]
fn many_misses_multiply_the_pool() {
    let choice =
        Case::misses(2, 0.62).decides(4, "miss rate 0.62 is above 0.50: 2 nodes become 4 (2 × 2.0, rounded up)");
    assert_eq!((choice.miss_rate, choice.fullest_disk), (Some(0.62), None));
    let slowly = |size| Case::misses(size, 0.62).with(&[("pool.expand_ratio", "1.2")]);
    slowly(1).decides(2, "miss rate 0.62 is above 0.50: 1 node becomes 2 (1 × 1.2, rounded up)");
    slowly(6).decides(8, "miss rate 0.62 is above 0.50: 6 nodes become 8 (6 × 1.2, rounded up)");
    Case::misses(5, 0.62).decides(8, "miss rate 0.62 is above 0.50: 5 nodes become 8 (5 × 2.0, rounded up, at most 8)");
    Case::misses(8, 0.62).holds("above 0.50, and the pool has its largest size");
    Case::misses(2, 0.5).holds("between 0.10 and 0.50");
    let filling = PoolNodes { filling: 1, missing_copies: None, ..Case::of(2).nodes };
    Case { nodes: filling, ..Case::misses(2, 0.9) }
        .decides(4, "miss rate 0.90 is above 0.50: 2 nodes become 4 (2 × 2.0, rounded up)");
}

#[test]
fn few_misses_divide_the_pool() {
    let choice =
        Case::misses(5, 0.04).decides(2, "miss rate 0.04 is below 0.10: 5 nodes become 2 (5 × 0.5, rounded down)");
    assert_eq!((choice.miss_rate, choice.fullest_disk), (Some(0.04), None));
    Case::misses(5, 0.04)
        .with(&[("pool.smallest", "3")])
        .decides(3, "miss rate 0.04 is below 0.10: 5 nodes become 3 (5 × 0.5, rounded down, at least pool.smallest)");
    Case::misses(2, 0.04)
        .with(&[("pool.shrink_ratio", "0.1")])
        .decides(1, "miss rate 0.04 is below 0.10: 2 nodes become 1 (2 × 0.1, rounded down, at least pool.smallest)");
    Case::misses(1, 0.0).holds("below 0.10, and the pool has its smallest size");
}

#[test]
fn the_pool_never_shrinks_while_copies_are_missing() {
    let whole = Case::of(4).nodes;
    for (nodes, reason) in [
        (PoolNodes { filling: 1, ..whole }, "1 node is still being filled"),
        (PoolNodes { silent: 1, ..whole }, "1 node is not answering"),
        (PoolNodes { missing_copies: Some(12), ..whole }, "12 copies are missing"),
        (PoolNodes { missing_copies: None, ..whole }, "have not compared"),
    ] {
        Case { nodes, ..Case::misses(4, 0.01) }.holds(reason);
        let idle = DiskUse { fullest: Some(0.1), sum: 0.4 };
        Case { nodes, misses: Misses::NoReads, disks: idle, ..Case::of(4) }.holds(reason);
    }
}

#[test]
fn disks_raise_the_size_to_which_the_pool_shrinks() {
    let with = |size, fullest, sum| Case { disks: DiskUse { fullest: Some(fullest), sum }, ..Case::misses(size, 0.04) };
    with(8, 0.5, 3.6).decides(
        6,
        "miss rate 0.04 is below 0.10: 8 nodes become 6 (8 × 0.5, rounded down, as the disks of fewer would be too full)",
    );
    with(4, 0.69, 2.76).holds("the disks of fewer nodes would be too full");
    with(3, 0.6, 1.8).decides(1, "miss rate 0.04 is below 0.10: 3 nodes become 1 (3 × 0.5, rounded down)");
}

#[test]
fn a_full_disk_adds_one_node_whatever_the_misses_are() {
    let full = |size, misses| Case { misses, disks: DiskUse { fullest: Some(0.81), sum: 1.0 }, ..Case::of(size) };
    let reason = "the fullest disk is used by 0.81, above 0.70: 2 nodes become 3";
    for misses in [Misses::Rate(0.9), Misses::Rate(0.0), Misses::NoReads, Misses::NotMeasured] {
        let choice = full(2, misses).decides(3, reason);
        assert_eq!((choice.miss_rate, choice.fullest_disk), (None, Some(0.81)));
    }
    full(8, Misses::NoReads).holds("the pool has its largest size");
}

#[test]
fn without_reads_empty_disks_let_one_node_go() {
    let idle = |size, fullest| {
        let disks = DiskUse { fullest, sum: fullest.unwrap_or(0.0) * f64::from(size) };
        Case { misses: Misses::NoReads, disks, ..Case::of(size) }
    };
    idle(3, Some(0.05)).decides(2, "no reads, and the fullest disk is used by 0.05, below 0.30: 3 nodes become 2");
    idle(3, Some(0.3)).holds("not below 0.30");
    idle(1, Some(0.05)).holds("the pool has its smallest size");
    idle(3, None).holds("no node has reported its disk");
    Case { misses: Misses::NotMeasured, ..idle(3, Some(0.05)) }.holds("the first period is being measured");
}

/// From the oldest to the newest, each a number of seconds after the one before.
fn history(steps: &[(i64, u32)]) -> Vec<PoolDecisionLine> {
    let (mut time, mut lines) = (1000, Vec::new());
    for (serial, (later, to)) in steps.iter().enumerate() {
        time += later;
        let from = lines.last().map_or(*to, |line: &PoolDecisionLine| line.to.unwrap());
        let (by, reason, fullest_disk) = (PoolDecider::Scaler, String::new(), None);
        let serial = serial as u64 + 1;
        lines.push(PoolDecisionLine {
            serial,
            time,
            from,
            to: Some(*to),
            by,
            reason,
            miss_rate: Some(0.5),
            fullest_disk,
        });
    }
    lines.reverse();
    lines
}

#[test]
fn a_size_that_proved_too_small_is_not_chosen_again_for_a_while() {
    let after = |decisions: &[PoolDecisionLine], size, since| Case {
        decisions: decisions.to_vec(),
        since,
        ..Case::misses(size, 0.05)
    };
    let regretted = history(&[(0, 8), (600, 4), (180, 8)]);
    after(&regretted, 8, 200).decides(
        5,
        "miss rate 0.05 is below 0.10: 8 nodes become 5 (8 × 0.5, rounded down, as fewer had too many misses lately)",
    );
    let plainly = "miss rate 0.05 is below 0.10: 8 nodes become 4 (8 × 0.5, rounded down)";
    after(&regretted, 8, 3601).decides(4, plainly);
    after(&history(&[(0, 8), (600, 4), (361, 8)]), 8, 200).decides(4, plainly);
    let mut by_disk = regretted;
    (by_disk[0].miss_rate, by_disk[0].fullest_disk) = (None, Some(0.9));
    after(&by_disk, 8, 200).decides(4, plainly);
    let twice = history(&[(0, 3), (600, 1), (180, 2), (180, 3), (180, 2), (180, 3)]);
    after(&twice, 3, 200).holds("fewer nodes had too many misses lately");
}

#[test]
fn every_reason_fits_into_a_decision() {
    let huge = |size: u32, rate| {
        let largest = MAX_POOL_NODES.to_string();
        Case::misses(size, rate).with(&[("pool.largest", &largest), ("pool.expand_ratio", "999.999999")])
    };
    let mut shrinking = huge(1000, 0.000001).with(&[("pool.shrink_ratio", "0.000001"), ("pool.smallest", "100")]);
    shrinking.disks.sum = 699.0;
    for case in [huge(999, 0.999999), shrinking] {
        let ScalerAction::Decide(choice) = case.decide() else { panic!("{:?}", case.decide()) };
        assert!(choice.reason.len() <= MAX_POOL_REASON_BYTES, "{}: {}", choice.reason.len(), choice.reason);
    }
}
