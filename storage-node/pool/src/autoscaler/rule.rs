//! The rule of the scaler: from the settings, the decisions so far, the nodes and their figures to the next decision.
//!
//! It keeps nothing: what it has to remember, it reads from the decisions in the namespace. So a scaler may be killed
//! and started again, and two of them come to the same decision, of which the namespace takes one.
//!
//! A pool that shrank and grew again at once, because the smaller one had too many misses, would shrink again as soon
//! as it may. So a size that proved too small in this way is not chosen for a while, and each time for twice as long; a
//! larger one in between may be.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use chordfs_types::{
    admin::{PoolDecisionLine, PoolNodes, PoolTarget},
    chunk_api::REPLICAS,
    namespace::PoolDecider,
    ring_config::{Decimal, PoolConfig, PoolMode},
};

use super::misses::Misses;

/// A growth so many cooldowns after a shrinking shows that the pool had become too small.
const REGRET_COOLDOWNS: u32 = 3;
/// For so many cooldowns a size that was too small is not chosen again: for an hour with the default cooldown, and
/// twice as long each time that it proves too small again.
const REGRET_MEMORY_COOLDOWNS: u32 = 30;
const MAX_DOUBLINGS: u32 = 6;
/// Nodes that are wanted and have not come so many cooldowns after the decision are not waited for: the group may have
/// a limit of its own, or its cloud no room.
const PATIENCE_COOLDOWNS: u32 = 5;
const MILLION: u64 = 1_000_000;

/// All that the rule looks at.
#[derive(Clone, Debug)]
pub(super) struct Situation<'a> {
    pub config: &'a PoolConfig,
    pub target: &'a PoolTarget,
    /// Newest first.
    pub decisions: &'a [PoolDecisionLine],
    pub nodes: PoolNodes,
    pub misses: Misses,
    pub disks: DiskUse,
    /// The time after a decision in which no other is made.
    pub cooldown: Duration,
}

/// The used shares of the disks of the nodes that serve.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct DiskUse {
    /// 0 to 1; `None` if no node has reported its own.
    pub fullest: Option<f64>,
    pub sum: f64,
}

/// What the scaler does now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScalerAction {
    Decide(SizeChoice),
    /// Nothing, for this reason.
    Hold(String),
}

/// A decision before it is made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SizeChoice {
    pub to: u32,
    /// For people, with the figures and the arithmetic.
    pub reason: String,
    /// The miss rate, if the choice rests on it.
    pub miss_rate: Option<f64>,
    /// The used share of the fullest disk, if the choice rests on it.
    pub fullest_disk: Option<f64>,
}

impl SizeChoice {
    fn new(to: u32, reason: String) -> Self {
        Self { to, reason, miss_rate: None, fullest_disk: None }
    }
}

/// The first of these that applies: the mode, the first choice, the limits, a step that is still under way, the
/// cooldown, full disks, too many misses, too few misses, no reads at all.
pub(super) fn decide(now: &Situation<'_>) -> ScalerAction {
    let PoolConfig { mode, smallest, largest, .. } = *now.config;
    if mode == PoolMode::Manual {
        return hold("operators choose the size: pool.mode is manual");
    }
    let Some(size) = now.target.wanted else {
        let size = now.nodes.staying().clamp(smallest, largest);
        let reason = format!("nobody had chosen a size: the scaler steers from now on, beginning with {}", nodes(size));
        return ScalerAction::Decide(SizeChoice::new(size, reason));
    };
    if let Some(choice) = within_limits(size, now.config) {
        return ScalerAction::Decide(choice);
    }
    if let Some(reason) = under_way(&now.nodes).or_else(|| cooling_down(now)) {
        return ScalerAction::Hold(reason);
    }
    if now.nodes.serving == size {
        return by_figures(now, size);
    }
    let waits = format!("{} serving, and {size} are wanted", are(now.nodes.serving));
    if now.nodes.serving < size && is_patience_over(now) {
        without_the_missing(now, &waits)
    } else {
        ScalerAction::Hold(waits)
    }
}

fn hold(reason: &str) -> ScalerAction {
    ScalerAction::Hold(reason.to_owned())
}

fn within_limits(size: u32, config: &PoolConfig) -> Option<SizeChoice> {
    let (to, limit) = match size {
        size if size > config.largest => (config.largest, "pool.largest"),
        size if size < config.smallest => (config.smallest, "pool.smallest"),
        _ => return None,
    };
    Some(SizeChoice::new(to, format!("{limit} is {to}: {}", change(size, to))))
}

/// Figures mean little while nodes come or go.
fn under_way(now: &PoolNodes) -> Option<String> {
    if now.arriving > 0 {
        return Some(format!("{} arriving", are(now.arriving)));
    }
    (now.draining > 0).then(|| format!("{} draining", are(now.draining)))
}

fn is_patience_over(now: &Situation<'_>) -> bool {
    let since = now.target.seconds_since_decision.map(Duration::from_secs);
    since.is_some_and(|since| since >= now.cooldown * PATIENCE_COOLDOWNS)
}

/// The pool has not become as large as it should. More cannot be asked of it, and fewer nodes may do by now.
fn without_the_missing(now: &Situation<'_>, waits: &str) -> ScalerAction {
    match by_figures(now, now.nodes.serving) {
        ScalerAction::Decide(choice) if choice.to < now.nodes.serving => {
            ScalerAction::Decide(SizeChoice { reason: format!("{waits}; {}", choice.reason), ..choice })
        }
        _ => ScalerAction::Hold(waits.to_owned()),
    }
}

fn cooling_down(now: &Situation<'_>) -> Option<String> {
    let since = Duration::from_secs(now.target.seconds_since_decision?);
    (since < now.cooldown).then(|| {
        let cooldown = humantime::format_duration(now.cooldown);
        format!("the last decision is {} s old, less than the cooldown of {cooldown}", since.as_secs())
    })
}

fn by_figures(now: &Situation<'_>, size: u32) -> ScalerAction {
    let config = now.config;
    if let Some(fullest) = now.disks.fullest.filter(|fullest| *fullest > config.max_disk_use.as_f64()) {
        return for_full_disk(now, size, fullest);
    }
    match now.misses {
        Misses::Rate(rate) if rate > config.max_miss_rate.as_f64() => for_many_misses(now, size, rate),
        Misses::Rate(rate) if rate < config.min_miss_rate.as_f64() => for_few_misses(now, size, rate),
        Misses::Rate(rate) => ScalerAction::Hold(format!(
            "miss rate {rate:.2} is between {} and {}",
            two_digits(config.min_miss_rate),
            two_digits(config.max_miss_rate)
        )),
        Misses::NotMeasured => hold("the first period is being measured"),
        Misses::NoReads => without_reads(now, size),
    }
}

fn for_full_disk(now: &Situation<'_>, size: u32, fullest: f64) -> ScalerAction {
    let above = format!("the fullest disk is used by {fullest:.2}, above {}", two_digits(now.config.max_disk_use));
    if size >= now.config.largest {
        return ScalerAction::Hold(format!("{above}, and the pool has its largest size"));
    }
    let to = size + 1;
    let reason = format!("{above}: {}", change(size, to));
    ScalerAction::Decide(SizeChoice { fullest_disk: Some(fullest), ..SizeChoice::new(to, reason) })
}

fn for_many_misses(now: &Situation<'_>, size: u32, rate: f64) -> ScalerAction {
    let PoolConfig { expand_ratio: ratio, largest, max_miss_rate, .. } = *now.config;
    let above = format!("miss rate {rate:.2} is above {}", two_digits(max_miss_rate));
    if size >= largest {
        return ScalerAction::Hold(format!("{above}, and the pool has its largest size"));
    }
    let product = times(size, ratio).div_ceil(MILLION).max(u64::from(size) + 1);
    let to = product.min(largest.into()) as u32;
    let limited = if product > u64::from(largest) { format!(", at most {largest}") } else { String::new() };
    let reason = format!("{above}: {} ({size} × {}, rounded up{limited})", change(size, to), one_digit(ratio));
    ScalerAction::Decide(SizeChoice { miss_rate: Some(rate), ..SizeChoice::new(to, reason) })
}

fn for_few_misses(now: &Situation<'_>, size: u32, rate: f64) -> ScalerAction {
    let PoolConfig { shrink_ratio: ratio, min_miss_rate, .. } = *now.config;
    let below = format!("miss rate {rate:.2} is below {}", two_digits(min_miss_rate));
    let product = (times(size, ratio) / MILLION) as u32;
    match smaller(now, size, product) {
        Err(obstacle) => ScalerAction::Hold(format!("{below}, and {obstacle}")),
        Ok((to, adjusted)) => {
            let ratio = one_digit(ratio);
            let reason = format!("{below}: {} ({size} × {ratio}, rounded down{adjusted})", change(size, to));
            ScalerAction::Decide(SizeChoice { miss_rate: Some(rate), ..SizeChoice::new(to, reason) })
        }
    }
}

fn without_reads(now: &Situation<'_>, size: u32) -> ScalerAction {
    let min = now.config.min_disk_use;
    let Some(fullest) = now.disks.fullest else { return hold("no reads, and no node has reported its disk") };
    let used = format!("no reads, and the fullest disk is used by {fullest:.2}");
    if fullest >= min.as_f64() {
        return ScalerAction::Hold(format!("{used}, not below {}", two_digits(min)));
    }
    match smaller(now, size, size - 1) {
        Err(obstacle) => ScalerAction::Hold(format!("{used}, and {obstacle}")),
        Ok((to, adjusted)) => {
            let reason = format!("{used}, below {}: {}{adjusted}", two_digits(min), change(size, to));
            ScalerAction::Decide(SizeChoice { fullest_disk: Some(fullest), ..SizeChoice::new(to, reason) })
        }
    }
}

/// The smallest size from `product` on that the limits, the disks and the past allow, and in words what raised it. The
/// error says why the pool may not shrink at all.
fn smaller(now: &Situation<'_>, size: u32, product: u32) -> Result<(u32, String), String> {
    let smallest = now.config.smallest;
    if size <= smallest {
        return Err("the pool has its smallest size".into());
    }
    if let Some(obstacle) = missing_copies(&now.nodes) {
        return Err(obstacle);
    }
    let floor = product.max(smallest);
    let allowed = floor.max(regretted(now).map_or(0, |regretted| regretted + 1));
    let to = (allowed..size).find(|to| fits(now, size, *to));
    let why = match to {
        Some(to) if to > allowed => ", as the disks of fewer would be too full",
        Some(to) if to > floor => ", as fewer had too many misses lately",
        Some(to) if to > product => ", at least pool.smallest",
        Some(_) => "",
        None if allowed >= size => return Err("fewer nodes had too many misses lately".into()),
        None => return Err("the disks of fewer nodes would be too full".into()),
    };
    Ok((to.unwrap_or(size), why.to_owned()))
}

/// Copies that are missing now, or may be.
fn missing_copies(nodes: &PoolNodes) -> Option<String> {
    nodes.obstacle_to_shrinking().or_else(|| match nodes.missing_copies {
        None => Some("some nodes have not compared their chunks yet".into()),
        Some(0) => None,
        Some(copies) => Some(format!("{copies} copies are missing")),
    })
}

/// Whether the disks of `to` nodes take what those of `size` nodes have. Fewer nodes than [`REPLICAS`] keep fewer
/// copies. Assumes disks of equal size; the drain itself counts the bytes.
fn fits(now: &Situation<'_>, size: u32, to: u32) -> bool {
    let copies = |nodes: u32| f64::from(nodes.min(REPLICAS as u32));
    let needed = now.disks.sum / copies(size) * copies(to);
    needed / f64::from(to) <= now.config.max_disk_use.as_f64()
}

/// The largest size that the scaler may not choose yet, because it has left it again at once.
fn regretted(now: &Situation<'_>) -> Option<u32> {
    let regrets = regrets(now);
    let memory = seconds(now.cooldown * REGRET_MEMORY_COOLDOWNS);
    let is_remembered = |(size, age): &(u32, i64)| {
        let times = regrets.iter().filter(|(other, _)| other == size).count() as u32;
        *age <= memory.saturating_mul(1 << (times - 1).min(MAX_DOUBLINGS))
    };
    regrets.iter().filter(|regret| is_remembered(regret)).map(|(size, _)| *size).max()
}

/// The sizes that a decision for few misses chose and the next one left again for many, with the seconds since then.
fn regrets(now: &Situation<'_>) -> Vec<(u32, i64)> {
    let age = i64::try_from(now.target.seconds_since_decision.unwrap_or(0)).unwrap_or(i64::MAX);
    let newest = now.decisions.first().map_or(0, |line| line.time);
    let soon = seconds(now.cooldown * REGRET_COOLDOWNS);
    let by_misses = |line: &PoolDecisionLine| line.by == PoolDecider::Scaler && line.miss_rate.is_some();
    let regret = |three: &[PoolDecisionLine]| {
        let [grown, shrunk, before] = three else { return None };
        let (larger, small, former) = (grown.to?, shrunk.to?, before.to?);
        let is_regret = by_misses(grown) && by_misses(shrunk) && small < former && larger > small;
        let is_soon = grown.time.saturating_sub(shrunk.time) <= soon;
        (is_regret && is_soon).then(|| (small, age.saturating_add(newest.saturating_sub(grown.time))))
    };
    now.decisions.windows(3).filter_map(regret).collect()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// In millionths.
fn times(size: u32, ratio: Decimal) -> u64 {
    u64::from(size) * u64::from(ratio.millionths())
}

fn nodes(count: u32) -> String {
    if count == 1 { "1 node".into() } else { format!("{count} nodes") }
}

fn change(from: u32, to: u32) -> String {
    format!("{} {} {to}", nodes(from), if from == 1 { "becomes" } else { "become" })
}

fn are(count: u32) -> String {
    format!("{} {}", nodes(count), if count == 1 { "is" } else { "are" })
}

fn two_digits(number: Decimal) -> String {
    format!("{:.2}", number.as_f64())
}

fn one_digit(number: Decimal) -> String {
    let text = number.to_string();
    if text.contains('.') { text } else { text + ".0" }
}
