//! The tables as snapshots of format 8 hold them: the settings of the pool lack the thresholds of the disks, and there
//! is no size of the pool.
//!
//! Postcard has neither names nor lengths of fields, so a former form is read by a type of its own. Its fields stand in
//! the order in which they are stored.

use std::sync::Arc;

use chordfs_types::{
    chunk::Version,
    namespace::{AcceptedToken, Ino, SessionId},
    ring_config::{CacheConfig, Decimal, PoolConfig, PoolMode, RingConfig, RingName},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    Counters, DeadRun, DentryKey, DetachedContents, DetachedKey, EndedHolds, ExtentKey, ExtentValue, Inode,
    OrphanInode, SessionRecord, SkippedRange, Tables, VersionUse, map,
};

/// Read whole, and then turned into [`Tables`].
#[derive(Deserialize)]
pub struct TablesOfFormat8 {
    #[serde(with = "map")]
    inodes: OrdMap<Ino, Arc<Inode>>,
    #[serde(with = "map")]
    entries: OrdMap<DentryKey, Ino>,
    #[serde(with = "map")]
    extents: OrdMap<ExtentKey, ExtentValue>,
    #[serde(with = "map")]
    versions: OrdMap<Version, VersionUse>,
    #[serde(with = "map")]
    orphans: OrdMap<Ino, OrphanInode>,
    #[serde(with = "map")]
    unheld: OrdMap<(u64, Ino), ()>,
    #[serde(with = "map")]
    dead: OrdMap<u64, DeadRun>,
    #[serde(with = "map")]
    dead_versions: OrdMap<(Version, u32), u64>,
    #[serde(with = "map")]
    retired_versions: OrdMap<Version, Version>,
    #[serde(with = "map")]
    sessions: OrdMap<SessionId, Arc<SessionRecord>>,
    #[serde(with = "map")]
    nonces: OrdMap<u64, SessionId>,
    #[serde(with = "map")]
    places: OrdMap<(Ino, u32), Ino>,
    #[serde(with = "map")]
    detached: OrdMap<DetachedKey, DetachedContents>,
    #[serde(with = "map")]
    ended: OrdMap<SessionId, EndedHolds>,
    next: Counters,
    stored_bytes: u64,
    skipped: Vec<SkippedRange>,
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
    fn from(former: TablesOfFormat8) -> Self {
        Self {
            inodes: former.inodes,
            entries: former.entries,
            extents: former.extents,
            versions: former.versions,
            orphans: former.orphans,
            unheld: former.unheld,
            dead: former.dead,
            dead_versions: former.dead_versions,
            retired_versions: former.retired_versions,
            sessions: former.sessions,
            nonces: former.nonces,
            places: former.places,
            detached: former.detached,
            ended: former.ended,
            next: former.next,
            stored_bytes: former.stored_bytes,
            skipped: former.skipped,
            config: former.config.into(),
            operator_tokens: former.operator_tokens,
            pool_size: Arc::default(),
        }
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
