//! The settings of the cache of chunks that each node keeps in memory.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ConfigError, fields::wrong};
use crate::{byte_size, rate_limit::RateLimit};

/// A smaller cache would hold hardly a few chunks in each of its parts.
pub const MIN_CACHE_BYTES: u64 = 1 << 20;

/// How the cache of each node works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// For each node.
    pub capacity: CacheCapacity,
    /// Which chunk gives way to a new one.
    pub policy: CachePolicy,
    /// How often operators have cleared the caches of all nodes. A node empties its cache when this changes.
    pub clears: u64,
}

impl CacheConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.capacity {
            CacheCapacity::Bytes(0) => {
                Err(wrong("cache.capacity", "0 bytes are no cache; to switch the cache off, set it to \"off\""))
            }
            CacheCapacity::Bytes(bytes) if bytes < MIN_CACHE_BYTES => {
                Err(wrong("cache.capacity", format!("{bytes} bytes are too few: at least 1M, or \"off\"")))
            }
            _ => Ok(()),
        }
    }
}

/// How much memory a node may spend on chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheCapacity {
    /// The share of its memory that each node computes for itself.
    #[default]
    DefaultShare,
    /// No cache at all.
    Off,
    /// On every node, as far as its memory allows.
    Bytes(u64),
}

impl fmt::Display for CacheCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultShare => f.write_str("default"),
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) => RateLimit(Some(*bytes)).fmt(f),
        }
    }
}

impl FromStr for CacheCapacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::DefaultShare),
            "off" => Ok(Self::Off),
            _ => byte_size::parse(text).map(Self::Bytes).map_err(|_| {
                format!("{text:?} is no capacity: bytes for each node, as in 512M or 2G, or \"default\", or \"off\"")
            }),
        }
    }
}

/// Which chunk leaves a full cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePolicy {
    /// The one that was not read for the longest time.
    #[default]
    Lru,
    /// Any of them.
    Random,
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lru => "lru",
            Self::Random => "random",
        })
    }
}

impl FromStr for CachePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "lru" => Ok(Self::Lru),
            "random" => Ok(Self::Random),
            _ => Err(format!("{text:?} is no replacement policy: lru or random")),
        }
    }
}
