//! The tables as snapshots of format 8 hold them: beside what format 9 lacks, the settings of the pool lack the
//! thresholds of the disks, and there is no size of the pool.
//!
//! Postcard has neither names nor lengths of fields, so a former form is read by a type of its own. Its fields stand in
//! the order in which they are stored.

use chordfs_types::{
    namespace::AcceptedToken,
    ring_config::{CacheConfig, Decimal, PoolConfig, PoolMode, RingConfig, RingName},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    Tables,
    format_9::{SessionRecordOfFormat9, TablesBeforeConfig},
    map,
};

/// Read whole, and then turned into [`Tables`].
#[derive(Deserialize)]
pub struct TablesOfFormat8 {
    before_config: TablesBeforeConfig<SessionRecordOfFormat9>,
    config: ConfigOfFormat8,
    #[serde(with = "map")]
    operator_tokens: OrdMap<u64, AcceptedToken>,
}

/// The configuration of the ring in format 8.
#[derive(Serialize, Deserialize)]
pub struct ConfigOfFormat8 {
    version: u64,
    name: RingName,
    cache: CacheConfig,
    pool: PoolConfigOfFormat8,
}

#[derive(Serialize, Deserialize)]
struct PoolConfigOfFormat8 {
    mode: PoolMode,
    smallest: u32,
    largest: u32,
    max_miss_rate: Decimal,
    min_miss_rate: Decimal,
    expand_ratio: Decimal,
    shrink_ratio: Decimal,
}

impl From<TablesOfFormat8> for Tables {
    fn from(TablesOfFormat8 { before_config, config, operator_tokens }: TablesOfFormat8) -> Self {
        Self { config: config.into(), operator_tokens, ..before_config.into() }
    }
}

impl From<ConfigOfFormat8> for RingConfig {
    fn from(ConfigOfFormat8 { version, name, cache, pool }: ConfigOfFormat8) -> Self {
        let PoolConfigOfFormat8 { mode, smallest, largest, max_miss_rate, min_miss_rate, expand_ratio, shrink_ratio } =
            pool;
        let pool = PoolConfig {
            mode,
            smallest,
            largest,
            max_miss_rate,
            min_miss_rate,
            expand_ratio,
            shrink_ratio,
            ..PoolConfig::default()
        };
        Self { version, name, cache, pool }
    }
}

impl From<RingConfig> for ConfigOfFormat8 {
    fn from(RingConfig { version, name, cache, pool }: RingConfig) -> Self {
        let PoolConfig { mode, smallest, largest, max_miss_rate, min_miss_rate, expand_ratio, shrink_ratio, .. } = pool;
        let pool =
            PoolConfigOfFormat8 { mode, smallest, largest, max_miss_rate, min_miss_rate, expand_ratio, shrink_ratio };
        Self { version, name, cache, pool }
    }
}
