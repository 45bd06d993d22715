//! The settings of the pool: how many nodes there should be.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ConfigError, Decimal, fields::wrong};

/// The most nodes that a pool may be configured to have. The default range, 1 to 8, is what one operator watches on one
/// page; larger pools are configured by whoever pays for them, and a typing error still does not start a million nodes.
pub const MAX_POOL_NODES: u32 = 1000;

/// The smallest distance between the thresholds of the disks: closer ones would undo each other's steps.
const MIN_DISK_GAP: Decimal = Decimal::from_millionths(100_000);

/// How the number of nodes is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// The one that chooses it: an operator or the scaler.
    pub mode: PoolMode,
    /// The pool never shrinks below this.
    pub smallest: u32,
    /// The pool never grows beyond this.
    pub largest: u32,
    /// Grow while the mean miss rate of the last minute is above this; 0 to 1.
    pub max_miss_rate: Decimal,
    /// Shrink while the mean miss rate of the last minute is below this; 0 to 1.
    pub min_miss_rate: Decimal,
    /// The number of nodes is multiplied by this to grow.
    pub expand_ratio: Decimal,
    /// The number of nodes is multiplied by this to shrink.
    pub shrink_ratio: Decimal,
    /// Grow while the fullest disk is used by more than this; 0 to 1.
    #[serde(default = "default_max_disk_use")]
    pub max_disk_use: Decimal,
    /// Without reads, shrink while the fullest disk is used by less than this; 0 to 1.
    #[serde(default = "default_min_disk_use")]
    pub min_disk_use: Decimal,
}

fn default_max_disk_use() -> Decimal {
    Decimal::from_millionths(700_000)
}

fn default_min_disk_use() -> Decimal {
    Decimal::from_millionths(300_000)
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            mode: PoolMode::Manual,
            smallest: 1,
            largest: 8,
            max_miss_rate: Decimal::from_millionths(500_000),
            min_miss_rate: Decimal::from_millionths(100_000),
            expand_ratio: Decimal::from_millionths(2_000_000),
            shrink_ratio: Decimal::from_millionths(500_000),
            max_disk_use: default_max_disk_use(),
            min_disk_use: default_min_disk_use(),
        }
    }
}

impl PoolConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        self.check_miss_rates()?;
        self.check_ratios()?;
        self.check_disk_use()
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        for (field, nodes) in [("pool.smallest", self.smallest), ("pool.largest", self.largest)] {
            if !(1..=MAX_POOL_NODES).contains(&nodes) {
                return Err(wrong(field, format!("{nodes} is no size of a pool: from 1 to {MAX_POOL_NODES}")));
            }
        }
        if self.smallest > self.largest {
            let reason = format!("{} is too large, because pool.largest is {}", self.smallest, self.largest);
            return Err(wrong("pool.smallest", reason));
        }
        Ok(())
    }

    fn check_miss_rates(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_miss_rate, self.max_miss_rate);
        for (field, rate) in [("pool.max_miss_rate", max), ("pool.min_miss_rate", min)] {
            if rate > Decimal::ONE {
                return Err(wrong(field, format!("{rate} is no miss rate: between 0 and 1, as in 0.2")));
            }
        }
        if min >= max {
            let reason = format!("{min} must be below pool.max_miss_rate, which is {max}");
            return Err(wrong("pool.min_miss_rate", reason));
        }
        Ok(())
    }

    fn check_ratios(&self) -> Result<(), ConfigError> {
        let (expand, shrink) = (self.expand_ratio, self.shrink_ratio);
        if expand <= Decimal::ONE {
            let reason = format!("{expand} would not grow the pool: it must be larger than 1, as in 2.0");
            return Err(wrong("pool.expand_ratio", reason));
        }
        if shrink == Decimal::default() || shrink >= Decimal::ONE {
            let reason = format!("{shrink} does not shrink the pool: it must be between 0 and 1, as in 0.5");
            return Err(wrong("pool.shrink_ratio", reason));
        }
        Ok(())
    }

    fn check_disk_use(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.min_disk_use, self.max_disk_use);
        for (field, share) in [("pool.max_disk_use", max), ("pool.min_disk_use", min)] {
            if share > Decimal::ONE {
                return Err(wrong(field, format!("{share} is no share of a disk: between 0 and 1, as in 0.7")));
            }
        }
        if min.millionths() + MIN_DISK_GAP.millionths() > max.millionths() {
            let reason = format!("{min} must be at least {MIN_DISK_GAP} below pool.max_disk_use, which is {max}");
            return Err(wrong("pool.min_disk_use", reason));
        }
        Ok(())
    }
}

/// The one that chooses the number of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// An operator, one node at a time.
    #[default]
    #[serde(alias = "Manual")]
    Manual,
    /// The scaler, by the miss rate and by the space on the disks.
    #[serde(alias = "Automatic")]
    Automatic,
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Automatic => "automatic",
        })
    }
}

impl FromStr for PoolMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "manual" => Ok(Self::Manual),
            "automatic" => Ok(Self::Automatic),
            _ => Err(format!("{text:?} is no mode: manual or automatic")),
        }
    }
}
