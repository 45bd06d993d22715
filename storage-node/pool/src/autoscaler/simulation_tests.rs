//! Pools under two scalers, from a seed: nodes that take their time to come, fill and leave, crashes, caches that have
//! to warm up, loads that change, scalers that are killed and started again.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::{
    admin::{PoolDecisionLine, PoolNodes, PoolTarget},
    namespace::{PoolDecider, PoolDecision, PoolSize, PoolStep, REMEMBERED_POOL_DECISIONS, Time},
    ring_config::{Decimal, PoolConfig, RingConfig},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    misses::{CacheCounters, MissMeter},
    rule::{DiskUse, ScalerAction, Situation, SizeChoice, decide},
};

const PERIOD: u64 = 60;
const COOLDOWN: u64 = 120;
const HOUR: u64 = 3600;
const CACHE_CHUNKS: f64 = 1000.0;
/// Reads of the whole pool in a second.
const READS: f64 = 500.0;
const SEEDS: u64 = 40;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Arriving,
    Filling,
    Whole,
    Silent,
    Draining,
}

struct SimulatedNode {
    address: SocketAddr,
    stage: Stage,
    /// When the stage ends by itself.
    until: u64,
    /// Chunks of the hot set that are in its cache.
    warm: f64,
    hits: f64,
    misses: f64,
}

struct SimulatedPool {
    rng: StdRng,
    now: u64,
    config: PoolConfig,
    size: PoolSize,
    nodes: Vec<SimulatedNode>,
    next_address: u16,
    /// Chunks that are read again and again; 0: nobody reads.
    hot_chunks: f64,
    /// The data, in disks of one node, without copies.
    data: f64,
    crashes: bool,
    /// The times of the decisions.
    decided: Vec<u64>,
}

/// A scaler that asks at its own phase of the period.
struct SimulatedScaler {
    phase: u64,
    meter: MissMeter,
}

impl SimulatedPool {
    fn new(seed: u64, config: PoolConfig) -> Self {
        let mut pool = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            config,
            size: PoolSize::default(),
            nodes: Vec::new(),
            next_address: 1,
            hot_chunks: 0.0,
            data: 0.05,
            crashes: false,
            decided: Vec::new(),
        };
        pool.add(Stage::Whole);
        pool
    }

    fn add(&mut self, stage: Stage) {
        let address = ([10, 0, 0, 1], self.next_address).into();
        self.next_address += 1;
        let until = self.now + self.rng.random_range(5..30);
        self.nodes.push(SimulatedNode { address, stage, until, warm: 0.0, hits: 0.0, misses: 0.0 });
    }

    fn count(&self, stage: Stage) -> u32 {
        self.nodes.iter().filter(|node| node.stage == stage).count() as u32
    }

    fn census(&self) -> PoolNodes {
        let (filling, silent) = (self.count(Stage::Filling), self.count(Stage::Silent));
        PoolNodes {
            serving: self.count(Stage::Whole) + filling,
            arriving: self.count(Stage::Arriving),
            filling,
            draining: self.count(Stage::Draining),
            silent,
            missing_copies: Some(u64::from(filling + silent) * 100),
        }
    }

    /// One second of the pool.
    fn step(&mut self) {
        self.now += 1;
        self.pass_stages();
        self.follow();
        self.read();
        if self.crashes && self.rng.random_bool(0.0005) {
            let victim = self.rng.random_range(0..self.nodes.len());
            let until = self.now + self.rng.random_range(5..120);
            let node = &mut self.nodes[victim];
            if matches!(node.stage, Stage::Whole | Stage::Filling) {
                (node.stage, node.until, node.warm, node.hits, node.misses) = (Stage::Silent, until, 0.0, 0.0, 0.0);
            }
        }
    }

    fn pass_stages(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.until <= self.now) {
            let next = match node.stage {
                Stage::Arriving | Stage::Silent => Stage::Filling,
                Stage::Filling => Stage::Whole,
                other => other,
            };
            if next != node.stage {
                (node.stage, node.until) = (next, self.now + self.rng.random_range(5..60));
            }
        }
        let now = self.now;
        self.nodes.retain(|node| node.stage != Stage::Draining || node.until > now);
    }

    /// The pool of processes: nodes come at once and leave one by one.
    fn follow(&mut self) {
        let Some(wanted) = self.size.wanted else { return };
        let staying = self.nodes.len() as u32 - self.count(Stage::Draining);
        if staying < wanted {
            self.add(Stage::Arriving);
        } else if staying > wanted && self.count(Stage::Whole) == self.nodes.len() as u32 {
            let until = self.now + self.rng.random_range(5..60);
            let youngest = self.nodes.last_mut().expect("there are more than are wanted");
            (youngest.stage, youngest.until) = (Stage::Draining, until);
        }
    }

    /// Reads of a hot set that is spread over all nodes evenly. A cache keeps what was read until it is full.
    fn read(&mut self) {
        let serving = |node: &SimulatedNode| !matches!(node.stage, Stage::Arriving | Stage::Silent);
        let count = self.nodes.iter().filter(|node| serving(node)).count() as f64;
        if self.hot_chunks == 0.0 || count == 0.0 {
            return;
        }
        let (own_hot, reads) = (self.hot_chunks / count, READS / count);
        for node in self.nodes.iter_mut().filter(|node| serving(node)) {
            let room = own_hot.min(CACHE_CHUNKS);
            node.warm = node.warm.min(room);
            let missed = reads * (1.0 - node.warm / own_hot);
            node.warm = (node.warm + missed).min(room);
            (node.hits, node.misses) = (node.hits + reads - missed, node.misses + missed);
        }
    }

    fn counters(&self) -> Vec<(SocketAddr, CacheCounters)> {
        let answering = self.nodes.iter().filter(|node| !matches!(node.stage, Stage::Arriving | Stage::Silent));
        let counters = |node: &SimulatedNode| CacheCounters { hits: node.hits as u64, misses: node.misses as u64 };
        answering.map(|node| (node.address, counters(node))).collect()
    }

    fn disks(&self) -> DiskUse {
        let count = self.nodes.len() as f64;
        let used = (self.data * count.min(3.0) / count).min(1.0);
        DiskUse { fullest: Some(used), sum: used * count }
    }

    fn look(&self, scaler: &mut SimulatedScaler) -> Option<(u64, SizeChoice)> {
        let misses = scaler.meter.next(&self.counters());
        let target = PoolTarget::new(&self.config, &self.size, self.time());
        let decisions: Vec<_> = self.size.decisions.iter().rev().map(PoolDecisionLine::from).collect();
        let action = decide(&Situation {
            config: &self.config,
            target: &target,
            decisions: &decisions,
            nodes: self.census(),
            misses,
            disks: self.disks(),
            cooldown: Duration::from_secs(COOLDOWN),
        });
        match action {
            ScalerAction::Decide(choice) => Some((target.serial, choice)),
            ScalerAction::Hold(_) => None,
        }
    }

    fn time(&self) -> Time {
        Time { secs: self.now as i64, nanos: 0 }
    }

    /// What the namespace does with a decision, and what every decision has to keep. Returns whether it counts.
    fn take(&mut self, (expected, choice): (u64, SizeChoice), seed: u64) -> bool {
        if expected != self.size.serial {
            return false;
        }
        let context = format!("seed {seed}, second {}: {choice:?} with {:?}", self.now, self.census());
        assert!((self.config.smallest..=self.config.largest).contains(&choice.to), "beyond the limits: {context}");
        let by_figures = choice.miss_rate.is_some() || choice.fullest_disk.is_some();
        if by_figures && self.size.wanted.is_some_and(|wanted| choice.to < wanted) {
            let whole = self.count(Stage::Whole) as usize == self.nodes.len();
            assert!(whole, "shrinks while copies are missing: {context}");
        }
        if by_figures && let Some(last) = self.decided.last() {
            assert!(self.now - last >= COOLDOWN, "within the cooldown: {context}");
        }
        let share = |share: f64| Decimal::from_f64(share).expect("a share");
        let step = PoolStep {
            from: self.census().serving,
            to: Some(choice.to),
            by: PoolDecider::Scaler,
            reason: choice.reason,
            miss_rate: choice.miss_rate.map(share),
            fullest_disk: choice.fullest_disk.map(share),
        };
        let serial = expected + 1;
        (self.size.serial, self.size.wanted) = (serial, step.to);
        self.size.decisions.push(PoolDecision { serial, at: self.time(), step });
        let surplus = self.size.decisions.len().saturating_sub(REMEMBERED_POOL_DECISIONS);
        self.size.decisions.drain(..surplus);
        self.decided.push(self.now);
        true
    }
}

/// Runs a pool under two scalers. Both look at a pool before either decides, whenever their phases meet.
fn run(pool: &mut SimulatedPool, scalers: &mut [SimulatedScaler; 2], seconds: u64, seed: u64) {
    for _ in 0..seconds {
        pool.step();
        let now = pool.now;
        let looking = scalers.iter_mut().filter(|scaler| now % PERIOD == scaler.phase);
        let choices: Vec<_> = looking.filter_map(|scaler| pool.look(scaler)).collect();
        let several = choices.len() > 1;
        let taken = choices.into_iter().filter(|choice| pool.take(choice.clone(), seed)).count();
        assert!(!several || taken == 1, "seed {seed}: {taken} of two decisions counted");
        if pool.crashes && pool.rng.random_bool(0.001) {
            let restarted = pool.rng.random_range(0..2);
            scalers[restarted].meter = MissMeter::default();
        }
    }
}

/// Two scalers; with an even seed they look at the same moments.
fn scalers(seed: u64) -> [SimulatedScaler; 2] {
    let scaler = |phase| SimulatedScaler { phase, meter: MissMeter::default() };
    [scaler(0), scaler(if seed.is_multiple_of(2) { 0 } else { seed % PERIOD })]
}

fn automatic(settings: &[(&str, &str)]) -> PoolConfig {
    let config = RingConfig::default().with([("pool.mode", "automatic")]).unwrap();
    config.with(settings.iter().copied()).unwrap().pool
}

#[test]
fn a_steady_load_settles_at_one_size() {
    for seed in 0..SEEDS {
        let mut pool = SimulatedPool::new(seed, automatic(&[]));
        pool.hot_chunks = pool.rng.random_range(100.0..20_000.0);
        pool.data = pool.rng.random_range(0.01..1.0);
        let mut scalers = scalers(seed);
        run(&mut pool, &mut scalers, 24 * HOUR, seed);
        let late = pool.decided.iter().filter(|time| **time > 16 * HOUR).count();
        let (decisions, hot_chunks) = (&pool.size.decisions, pool.hot_chunks);
        assert_eq!(late, 0, "seed {seed}, {hot_chunks} hot chunks: it goes to and fro: {decisions:#?}");
        assert!(decisions.len() < 20, "seed {seed}, {hot_chunks} hot chunks: {decisions:#?}");
    }
}

#[test]
fn the_pool_follows_its_load_up_and_down() {
    for seed in 0..SEEDS {
        let mut pool = SimulatedPool::new(seed, automatic(&[]));
        let mut scalers = scalers(seed);
        let mut wanted_after = |pool: &mut SimulatedPool, hot_chunks: f64| {
            pool.hot_chunks = hot_chunks;
            run(pool, &mut scalers, 2 * HOUR, seed);
            pool.size.wanted
        };
        assert_eq!(wanted_after(&mut pool, 50_000.0), Some(8), "seed {seed}: misses everywhere");
        assert_eq!(wanted_after(&mut pool, 400.0), Some(1), "seed {seed}: one cache holds it all");
        assert_eq!(wanted_after(&mut pool, 50_000.0), Some(8), "seed {seed}: again");
        assert_eq!(wanted_after(&mut pool, 0.0), Some(1), "seed {seed}: no reads");
        pool.data = 2.0;
        let for_data = wanted_after(&mut pool, 0.0);
        assert_eq!(for_data, Some(8), "seed {seed}: six disks' worth of copies need more than eight disks at 0.7");
    }
}

#[test]
fn crashes_wild_settings_and_changing_loads_break_no_rule() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xd1ce);
        let mut number = |from: f64, to: f64| format!("{:.3}", rng.random_range(from..to));
        let (min, max) = (number(0.0, 0.45), number(0.5, 1.0));
        let (expand, shrink) = (number(1.05, 4.0), number(0.1, 0.95));
        let (smallest, largest) = (rng.random_range(1..4).to_string(), rng.random_range(4..12).to_string());
        let mut pool = SimulatedPool::new(
            seed,
            automatic(&[
                ("pool.max_miss_rate", &max),
                ("pool.min_miss_rate", &min),
                ("pool.expand_ratio", &expand),
                ("pool.shrink_ratio", &shrink),
                ("pool.smallest", &smallest),
                ("pool.largest", &largest),
            ]),
        );
        pool.crashes = true;
        let mut scalers = scalers(seed);
        for _ in 0..12 {
            pool.hot_chunks = if rng.random_bool(0.2) { 0.0 } else { rng.random_range(100.0..20_000.0) };
            pool.data = rng.random_range(0.01..2.0);
            run(&mut pool, &mut scalers, HOUR / 2, seed);
        }
        assert!(!pool.decided.is_empty(), "seed {seed}");
    }
}
