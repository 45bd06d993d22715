//! The rules by which a pool changes its size: the statistic, the thresholds, the limits, and the reasons that hold a
//! step back. They do not know time; `scaler` adds it.
#![deny(clippy::disallowed_methods)]

use std::{fmt, str::FromStr, time::Duration};

use chordfs_types::chunk_api::REPLICAS;
use thiserror::Error;

/// Which statistic of the nodes' disks is compared with the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ScaleOn {
    /// The fullest disk: it is the first to refuse writes, however empty the others are.
    #[default]
    Max,
    Avg,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub min: usize,
    pub max: usize,
    pub scale_on: ScaleOn,
    /// Percent of a disk.
    pub grow_above: f64,
    /// Percent of a disk; `None`: the pool never shrinks.
    pub shrink_below: Option<f64>,
    /// The number of consecutive periods beyond a threshold that trigger a step.
    pub periods: u32,
    pub period: Duration,
    /// The time after a step in which no other is taken.
    pub cooldown: Duration,
    /// Nodes that are added at a time. Only one leaves at a time.
    pub grow_by: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error(
        "a pool of {min} to {max} nodes is impossible: the minimum is at least 1, and the maximum at least the minimum"
    )]
    Size { min: usize, max: usize },
    #[error("a threshold is a percentage between 0 and 100, not {percent}")]
    Threshold { percent: String },
    #[error(
        "shrinking below {shrink}% and growing above {grow}% would undo each other; leave at least 10 between them"
    )]
    TooClose { shrink: String, grow: String },
    #[error(
        "a threshold is watched over at least one period of at least a second, not {periods} of {}",
        humantime::format_duration(*period)
    )]
    Periods { periods: u32, period: Duration },
}

/// The state of the pool at one moment.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PoolUsage {
    /// The used share of the disk of each node that answered, in percent.
    pub used_percent: Vec<f64>,
    /// The number of nodes that are not draining, whether they answer or not.
    pub nodes: usize,
    /// The number of these that are starting or joining.
    pub arriving: usize,
    /// The number of these that are being filled, or do not know yet whether they lack chunks.
    pub filling: usize,
    /// The number of draining nodes.
    pub draining: usize,
}

impl PoolUsage {
    /// Why no node may leave now, whatever the reason for a smaller pool: one drains at a time, and only while all
    /// others are whole.
    pub fn obstacle_to_shrinking(&self) -> Option<HoldReason> {
        let obstacles = [
            (self.draining > 0, HoldReason::Draining),
            (self.arriving > 0, HoldReason::Arriving),
            (self.filling > 0, HoldReason::Filling),
            (self.used_percent.len() < self.nodes, HoldReason::Unresponsive),
        ];
        obstacles.into_iter().find(|(is_there, _)| *is_there).map(|(_, reason)| reason)
    }
}

/// Why a step that a threshold requests is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    Cooldown,
    /// The pool has its largest or smallest size.
    Limit,
    /// A node is starting or joining.
    Arriving,
    /// A node is being filled, so some chunks have fewer holders than they should.
    Filling,
    /// A node is draining, and only one drains at a time.
    Draining,
    /// Not all nodes answer: one may be dead, and its chunks have only two holders now.
    Unresponsive,
    /// The other nodes would be too full without this one.
    NoRoom,
}

/// The smallest distance between the thresholds, in percent of a disk.
const MIN_GAP: f64 = 10.0;

impl Policy {
    pub fn checked(self) -> Result<Self, PolicyError> {
        let percent = |value: f64| match value {
            value if value > 0.0 && value < 100.0 => Ok(()),
            other => Err(PolicyError::Threshold { percent: other.to_string() }),
        };
        percent(self.grow_above)?;
        self.shrink_below.map_or(Ok(()), percent)?;
        if self.min == 0 || self.max < self.min {
            return Err(PolicyError::Size { min: self.min, max: self.max });
        }
        if let Some(shrink) = self.shrink_below.filter(|shrink| shrink + MIN_GAP > self.grow_above) {
            return Err(PolicyError::TooClose { shrink: shrink.to_string(), grow: self.grow_above.to_string() });
        }
        if self.periods == 0 || self.period < Duration::from_secs(1) {
            return Err(PolicyError::Periods { periods: self.periods, period: self.period });
        }
        Ok(self)
    }

    /// The value that is compared with the thresholds; `None` if no node answered.
    pub fn measure(&self, used_percent: &[f64]) -> Option<f64> {
        match self.scale_on {
            ScaleOn::Max => used_percent.iter().copied().reduce(f64::max),
            ScaleOn::Avg if used_percent.is_empty() => None,
            ScaleOn::Avg => Some(used_percent.iter().sum::<f64>() / used_percent.len() as f64),
        }
    }

    /// The size below which the pool never shrinks: the minimum that the operator has set, even if it leaves chunks
    /// with fewer holders.
    pub fn floor(&self) -> usize {
        self.min
    }

    /// Whether fewer than a full set of holders stay when a pool of `nodes` shrinks by one.
    pub fn leaves_fewer_copies(nodes: usize) -> bool {
        nodes <= REPLICAS
    }

    /// How many nodes are missing for the minimum, regardless of the disks.
    pub fn missing(&self, nodes: usize) -> usize {
        self.min.saturating_sub(nodes)
    }

    /// How many nodes to add when the upper threshold is crossed.
    pub fn growth(&self, now: &PoolUsage) -> Result<usize, HoldReason> {
        match self.max.saturating_sub(now.nodes).min(self.grow_by) {
            0 => Err(HoldReason::Limit),
            // The effect of a new node on the others shows only once it holds its share.
            _ if now.arriving > 0 => Err(HoldReason::Arriving),
            by => Ok(by),
        }
    }

    /// Whether a node may leave when the lower threshold is crossed.
    pub fn shrinkage(&self, now: &PoolUsage) -> Result<(), HoldReason> {
        if now.nodes <= self.floor() {
            return Err(HoldReason::Limit);
        }
        if let Some(obstacle) = now.obstacle_to_shrinking() {
            return Err(obstacle);
        }
        if self.fits_on_one_less(now) { Ok(()) } else { Err(HoldReason::NoRoom) }
    }

    /// Assumes disks of equal size; the drain itself counts the bytes.
    fn fits_on_one_less(&self, now: &PoolUsage) -> bool {
        let total: f64 = now.used_percent.iter().sum();
        now.nodes > 1 && total / (now.nodes - 1) as f64 <= self.grow_above
    }
}

impl FromStr for ScaleOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            "avg" => Ok(Self::Avg),
            _ => Err(format!("{text:?} is neither max (the fullest disk) nor avg (all of them)")),
        }
    }
}

impl fmt::Display for ScaleOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Max => "max",
            Self::Avg => "avg",
        })
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cooldown => "the last step was too recent",
            Self::Limit => "the pool has its largest, or smallest, size",
            Self::Arriving => "a node is still joining",
            Self::Filling => "a node is still being filled",
            Self::Draining => "a node is still draining",
            Self::Unresponsive => "not all nodes answer",
            Self::NoRoom => "the other nodes have no room for its chunks",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn policy() -> Policy {
        Policy {
            min: 1,
            max: 4,
            scale_on: ScaleOn::Max,
            grow_above: 70.0,
            shrink_below: Some(30.0),
            periods: 2,
            period: Duration::from_secs(60),
            cooldown: Duration::from_secs(180),
            grow_by: 1,
        }
    }

    fn now(used: &[f64]) -> PoolUsage {
        PoolUsage { used_percent: used.to_vec(), nodes: used.len(), ..PoolUsage::default() }
    }

    #[test]
    fn the_measure_is_the_fullest_disk_or_the_average() {
        let used = [10.0, 90.0, 20.0];
        assert_eq!(policy().measure(&used), Some(90.0));
        let average = Policy { scale_on: ScaleOn::Avg, ..policy() };
        assert_eq!(average.measure(&used), Some(40.0));
        for policy in [policy(), average] {
            assert_eq!(policy.measure(&[]), None, "no node answered, which is not 0");
        }
    }

    #[test]
    fn growth_has_a_ceiling_and_waits_for_arriving_nodes() {
        assert_eq!(policy().growth(&now(&[80.0])), Ok(1));
        assert_eq!(policy().growth(&now(&[80.0; 4])), Err(HoldReason::Limit));
        assert_eq!(policy().growth(&PoolUsage { arriving: 1, ..now(&[80.0, 80.0]) }), Err(HoldReason::Arriving));
        let by_two = Policy { grow_by: 2, ..policy() };
        assert_eq!((by_two.growth(&now(&[80.0])), by_two.growth(&now(&[80.0; 3]))), (Ok(2), Ok(1)));
        assert_eq!(
            policy().growth(&PoolUsage { draining: 1, ..now(&[80.0]) }),
            Ok(1),
            "it is full, so one more may come"
        );
    }

    #[test]
    fn shrinking_has_a_minimum_and_one_node_drains_at_a_time() {
        assert_eq!(policy().shrinkage(&now(&[10.0, 10.0])), Ok(()));
        assert_eq!(policy().shrinkage(&now(&[10.0])), Err(HoldReason::Limit));
        let of_three = Policy { min: 3, ..policy() };
        assert_eq!(of_three.shrinkage(&now(&[10.0; 3])), Err(HoldReason::Limit));
        assert_eq!(policy().shrinkage(&PoolUsage { draining: 1, ..now(&[10.0; 3]) }), Err(HoldReason::Draining));
        assert_eq!(policy().shrinkage(&PoolUsage { arriving: 1, ..now(&[10.0; 3]) }), Err(HoldReason::Arriving));
        assert_eq!(policy().shrinkage(&PoolUsage { filling: 1, ..now(&[10.0; 3]) }), Err(HoldReason::Filling));
        assert_eq!(
            policy().growth(&PoolUsage { filling: 1, ..now(&[80.0; 3]) }),
            Ok(1),
            "it is full, so one more may come"
        );
        assert_eq!(policy().shrinkage(&PoolUsage { nodes: 3, ..now(&[10.0; 2]) }), Err(HoldReason::Unresponsive));
    }

    #[test]
    fn no_node_leaves_if_the_others_have_no_room_for_its_data() {
        let average = Policy { scale_on: ScaleOn::Avg, shrink_below: Some(55.0), ..policy() };
        assert_eq!(average.shrinkage(&now(&[50.0, 50.0])), Err(HoldReason::NoRoom));
        assert_eq!(average.shrinkage(&now(&[50.0, 20.0])), Ok(()));
    }

    #[test]
    fn a_pool_of_three_leaves_fewer_copies_when_it_shrinks() {
        assert!(Policy::leaves_fewer_copies(3) && !Policy::leaves_fewer_copies(4));
        assert_eq!(policy().missing(0), 1);
        assert_eq!(policy().missing(2), 0);
    }

    #[test]
    fn impossible_policies_are_refused() {
        let refused = |policy: Policy| policy.checked().expect_err("nonsense").to_string();
        assert!(policy().checked().is_ok());
        assert!(refused(Policy { min: 0, ..policy() }).contains("0 to 4"));
        assert!(refused(Policy { min: 5, ..policy() }).contains("5 to 4"));
        for percent in [0.0, 100.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refused(Policy { grow_above: percent, ..policy() }).contains("percentage"));
        }
        assert!(refused(Policy { shrink_below: Some(65.0), ..policy() }).contains("undo each other"));
        assert!(refused(Policy { periods: 0, ..policy() }).contains("at least one period"));
        assert!(refused(Policy { period: Duration::from_millis(10), ..policy() }).contains("10ms"));
    }
}
