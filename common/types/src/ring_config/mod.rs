//! The configuration that all nodes of a ring share. It is one value in the namespace, so every node has the same one,
//! also a node that joins later and after a restart of all.
//!
//! | file | its idea |
//! |---|---|
//! | `cache` | capacity and replacement policy of the cache of chunks |
//! | `pool` | the number of nodes: who chooses it, and by which rules |
//! | `name` | the name of the ring |
//! | `decimal` | rates and ratios, exact, so that every replica of the namespace compares them alike |
//! | `fields` | every setting by its name, for the command line, JSON and forms; what people type is checked here |
//!
//! A changed configuration is checked as a whole, and is then stored as a whole or refused as a whole.

mod cache;
mod decimal;
mod fields;
mod name;
mod pool;

use serde::{Deserialize, Serialize};

pub use self::{
    cache::{CacheCapacity, CacheConfig, CachePolicy, MIN_CACHE_BYTES},
    decimal::Decimal,
    fields::{CONFIG_FIELDS, ConfigError, ConfigField},
    name::{MAX_RING_NAME_BYTES, RingName},
    pool::{MAX_POOL_NODES, PoolConfig, PoolMode},
};

/// Everything that operators configure for the whole ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingConfig {
    /// Grows by one with each change; 0 is the configuration of a new ring. A change names the version that it was made
    /// from, and is refused if that is no longer the current one.
    pub version: u64,
    /// By which people tell the ring from others.
    pub name: RingName,
    /// The cache of chunks of each node.
    pub cache: CacheConfig,
    /// How many nodes there should be.
    pub pool: PoolConfig,
}

impl RingConfig {
    /// Checks all settings. The error names the first one that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.cache.check()?;
        self.pool.check()
    }

    /// Returns this configuration with some settings changed, each given by its name, or the reason why not.
    pub fn with<'a>(&self, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<RingConfig, ConfigError> {
        let mut changed = *self;
        for (name, text) in settings {
            fields::field(name)?.set(&mut changed, text)?;
        }
        changed.check()?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(settings: &[(&str, &str)], text: &str) {
        let error = RingConfig::default().with(settings.iter().copied()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(error.starts_with(settings[0].0), "it names the setting: {error}");
    }

    #[test]
    fn the_configuration_of_a_new_ring_is_valid() {
        assert_eq!(RingConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_change_sets_what_it_names_and_keeps_the_rest() {
        let old = RingConfig { version: 7, ..RingConfig::default() };
        let new = old.with([("cache.capacity", "512M"), ("cache.policy", "random"), ("pool.shrink_ratio", ".5")]);
        let new = new.unwrap();
        assert_eq!(new.cache.capacity, CacheCapacity::Bytes(512 << 20));
        assert_eq!((new.cache.policy, new.pool, new.version), (CachePolicy::Random, old.pool, 7));
        let off = new.with([("cache.capacity", "off")]).unwrap();
        assert_eq!((off.cache.capacity, off.cache.policy), (CacheCapacity::Off, CachePolicy::Random));
    }

    #[test]
    fn a_capacity_that_makes_no_sense_is_refused() {
        refused(&[("cache.capacity", "0")], "\"off\"");
        refused(&[("cache.capacity", "4k")], "at least 1M");
        for text in ["-1", "much", "", "NaN"] {
            refused(&[("cache.capacity", text)], "as in 512M");
        }
        refused(&[("cache.policy", "fifo")], "lru or random");
    }

    #[test]
    fn ratios_that_would_not_change_the_pool_in_their_direction_are_refused() {
        for ratio in ["0", "1", "0.5"] {
            refused(&[("pool.expand_ratio", ratio)], "larger than 1");
        }
        for ratio in ["0", "1", "2"] {
            refused(&[("pool.shrink_ratio", ratio)], "between 0 and 1");
        }
        for field in ["pool.expand_ratio", "pool.shrink_ratio", "pool.max_miss_rate", "pool.min_miss_rate"] {
            for text in ["-1", "NaN", "inf", "", "half", "1e300"] {
                refused(&[(field, text)], text);
            }
        }
    }

    #[test]
    fn thresholds_and_sizes_the_wrong_way_round_are_refused() {
        refused(&[("pool.min_miss_rate", "0.5"), ("pool.max_miss_rate", "0.2")], "below pool.max_miss_rate");
        refused(&[("pool.min_miss_rate", "0.5"), ("pool.max_miss_rate", "0.5")], "below pool.max_miss_rate");
        refused(&[("pool.max_miss_rate", "1.5")], "between 0 and 1");
        refused(&[("pool.max_disk_use", "1.5")], "between 0 and 1");
        refused(&[("pool.min_disk_use", "0.61")], "at least 0.1 below pool.max_disk_use, which is 0.7");
        RingConfig::default().with([("pool.min_disk_use", "0.6")]).unwrap();
        refused(&[("pool.smallest", "5"), ("pool.largest", "4")], "pool.largest is 4");
        refused(&[("pool.smallest", "0")], "from 1 to");
        refused(&[("pool.largest", "-3")], "from 1 to");
        refused(&[("pool.mode", "both")], "manual or automatic");
    }

    #[test]
    fn a_ring_has_a_name_that_one_can_type() {
        assert_eq!(RingConfig::default().name.as_str(), "chordfs");
        let longest = "a".repeat(MAX_RING_NAME_BYTES);
        for name in ["prod-2.eu_1", "x", &longest] {
            let config = RingConfig::default().with([("ring.name", name)]).unwrap();
            assert_eq!((config.name.as_str(), &config.to_json()["ring"]["name"]), (name, &name.into()));
        }
        for name in ["", "a b", "ö", "a/b", &format!("{longest}a")] {
            refused(&[("ring.name", name)], "no name of a ring");
        }
    }

    /// Nodes keep their last configuration as JSON, also through an upgrade.
    #[test]
    fn the_json_of_a_release_without_disk_thresholds_is_read() {
        let mut kept = serde_json::to_value(RingConfig::default()).unwrap();
        let pool = kept["pool"].as_object_mut().unwrap();
        assert!(pool.remove("max_disk_use").is_some() && pool.remove("min_disk_use").is_some());
        pool.insert("mode".into(), "Manual".into());
        assert_eq!(serde_json::from_value::<RingConfig>(kept).unwrap(), RingConfig::default());
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused_with_the_list_of_those_that_do() {
        let error = RingConfig::default().with([("cache.size", "1M")]).unwrap_err().to_string();
        assert!(error.starts_with("cache.size") && error.contains("cache.capacity, cache.policy"), "{error}");
    }
}
