//! Every setting by its name. The command line, JSON and forms all use this one list, so that a value which one of them
//! refuses is refused by all, with the same text.

use std::str::FromStr;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{MAX_POOL_NODES, RingConfig};

/// A setting that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The name of the setting, as `cache.capacity`.
    pub field: String,
    /// For people.
    pub reason: String,
}

pub(super) fn wrong(field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError { field: field.to_owned(), reason: reason.into() }
}

/// One setting.
pub struct ConfigField {
    /// GROUP.SETTING.
    pub name: &'static str,
    /// One sentence for people, with the values that are allowed.
    pub help: &'static str,
    get: fn(&RingConfig) -> String,
    set: fn(&mut RingConfig, &str) -> Result<(), String>,
}

impl ConfigField {
    /// The setting's value as people type it.
    pub fn text(&self, config: &RingConfig) -> String {
        (self.get)(config)
    }

    /// Sets it; whether it suits the others is for [`RingConfig::check`].
    pub(super) fn set(&self, config: &mut RingConfig, text: &str) -> Result<(), ConfigError> {
        (self.set)(config, text.trim()).map_err(|reason| wrong(self.name, reason))
    }

    fn value(&self, config: &RingConfig) -> Value {
        let text = self.text(config);
        serde_json::from_str::<serde_json::Number>(&text).map_or(Value::String(text), Value::Number)
    }
}

/// All settings, in the order in which they are shown.
pub const CONFIG_FIELDS: [ConfigField; 12] = [
    ConfigField {
        name: "ring.name",
        help: "Name of the ring, which operators type before they delete everything: 1 to 32 letters, digits and -._",
        get: |config| config.name.to_string(),
        set: |config, text| put(&mut config.name, text),
    },
    ConfigField {
        name: "cache.capacity",
        help: "Memory of each node for chunks: bytes as in 512M, \"default\" for a share of the memory, or \"off\"",
        get: |config| config.cache.capacity.to_string(),
        set: |config, text| put(&mut config.cache.capacity, text),
    },
    ConfigField {
        name: "cache.policy",
        help: "Which chunk leaves a full cache: lru or random",
        get: |config| config.cache.policy.to_string(),
        set: |config, text| put(&mut config.cache.policy, text),
    },
    ConfigField {
        name: "pool.mode",
        help: "Who chooses the number of nodes: manual or automatic",
        get: |config| config.pool.mode.to_string(),
        set: |config, text| put(&mut config.pool.mode, text),
    },
    ConfigField {
        name: "pool.smallest",
        help: "The fewest nodes, 1 to 1000 (1 at first)",
        get: |config| config.pool.smallest.to_string(),
        set: |config, text| put_nodes(&mut config.pool.smallest, text),
    },
    ConfigField {
        name: "pool.largest",
        help: "The most nodes, 1 to 1000 (8 at first)",
        get: |config| config.pool.largest.to_string(),
        set: |config, text| put_nodes(&mut config.pool.largest, text),
    },
    ConfigField {
        name: "pool.max_miss_rate",
        help: "In automatic mode the pool grows above this miss rate, 0 to 1",
        get: |config| config.pool.max_miss_rate.to_string(),
        set: |config, text| put(&mut config.pool.max_miss_rate, text),
    },
    ConfigField {
        name: "pool.min_miss_rate",
        help: "In automatic mode the pool shrinks below this miss rate, 0 to 1",
        get: |config| config.pool.min_miss_rate.to_string(),
        set: |config, text| put(&mut config.pool.min_miss_rate, text),
    },
    ConfigField {
        name: "pool.expand_ratio",
        help: "Growing multiplies the number of nodes by this, more than 1",
        get: |config| config.pool.expand_ratio.to_string(),
        set: |config, text| put(&mut config.pool.expand_ratio, text),
    },
    ConfigField {
        name: "pool.shrink_ratio",
        help: "Shrinking multiplies the number of nodes by this, between 0 and 1",
        get: |config| config.pool.shrink_ratio.to_string(),
        set: |config, text| put(&mut config.pool.shrink_ratio, text),
    },
    ConfigField {
        name: "pool.max_disk_use",
        help: "In automatic mode the pool grows while the fullest disk is used by more than this share, 0 to 1",
        get: |config| config.pool.max_disk_use.to_string(),
        set: |config, text| put(&mut config.pool.max_disk_use, text),
    },
    ConfigField {
        name: "pool.min_disk_use",
        help: "In automatic mode without reads the pool shrinks while all disks are used by less than this, 0 to 1",
        get: |config| config.pool.min_disk_use.to_string(),
        set: |config, text| put(&mut config.pool.min_disk_use, text),
    },
];

fn put<T: FromStr<Err = String>>(setting: &mut T, text: &str) -> Result<(), String> {
    *setting = text.parse()?;
    Ok(())
}

fn put_nodes(nodes: &mut u32, text: &str) -> Result<(), String> {
    *nodes = text.parse().map_err(|_| format!("{text:?} is no number of nodes: from 1 to {MAX_POOL_NODES}"))?;
    Ok(())
}

pub(super) fn field(name: &str) -> Result<&'static ConfigField, ConfigError> {
    CONFIG_FIELDS.iter().find(|field| field.name == name).ok_or_else(|| {
        let names: Vec<&str> = CONFIG_FIELDS.iter().map(|field| field.name).collect();
        wrong(name, format!("no such setting; there are {}", names.join(", ")))
    })
}

impl RingConfig {
    /// Returns the settings as JSON: `{"version": 3, "cache": {"capacity": "512M", ...}, "pool": {...}}`.
    pub fn to_json(&self) -> Value {
        let mut all = Map::from_iter([("version".to_owned(), self.version.into())]);
        for field in &CONFIG_FIELDS {
            let (group, setting) = field.name.split_once('.').expect("every name has a group");
            let group = all.entry(group).or_insert_with(|| Value::Object(Map::new()));
            group.as_object_mut().expect("a group is an object").insert(setting.to_owned(), field.value(self));
        }
        Value::Object(all)
    }

    /// Returns this configuration with the settings of a JSON object in the form of [`RingConfig::to_json`] changed;
    /// settings that the object leaves out are kept, and so is the version.
    pub fn with_json(&self, json: &Value) -> Result<RingConfig, ConfigError> {
        let groups = json.as_object().ok_or_else(|| wrong("the body", "it must be an object of JSON"))?;
        let mut settings = Vec::new();
        for (group, value) in groups {
            match value {
                Value::Object(group_settings) => {
                    settings.extend(group_settings.iter().map(|(name, value)| (format!("{group}.{name}"), value)));
                }
                _ if group == "version" => {}
                value => settings.push((group.clone(), value)),
            }
        }
        let texts: Vec<(&str, String)> = settings
            .iter()
            .map(|(name, value)| Ok((name.as_str(), text_of(name, value)?)))
            .collect::<Result<_, _>>()?;
        self.with(texts.iter().map(|(name, text)| (*name, text.as_str())))
    }

    /// Returns the version that such an object names as the one from which it was made.
    pub fn base_version(json: &Value) -> Result<Option<u64>, ConfigError> {
        let Some(version) = json.get("version") else { return Ok(None) };
        version.as_u64().map(Some).ok_or_else(|| wrong("version", format!("{version} is no version: 0, 1, 2 ...")))
    }
}

fn text_of(name: &str, value: &Value) -> Result<String, ConfigError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(wrong(name, format!("{other} is neither a number nor a text"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_shown_as_json_is_accepted_as_json() {
        let config = RingConfig::default().with([("cache.capacity", "3M"), ("pool.max_miss_rate", "0.25")]).unwrap();
        assert_eq!(config.to_json()["pool"]["max_miss_rate"], json!(0.25));
        assert_eq!(config.to_json()["cache"]["capacity"], json!("3M"));
        assert_eq!(RingConfig::default().with_json(&config.to_json()), Ok(config));
    }

    #[test]
    fn one_wrong_setting_refuses_the_whole_object() {
        let config = RingConfig::default();
        let refused = |body: Value| config.with_json(&body).unwrap_err().to_string();
        assert!(refused(json!({"cache": {"policy": "random", "capacity": 0}})).starts_with("cache.capacity"));
        assert!(refused(json!({"pool": {"expand_ratio": null}})).starts_with("pool.expand_ratio: null"));
        assert!(refused(json!({"pool": {"expand_ratio": -1}})).starts_with("pool.expand_ratio"));
        assert!(refused(json!({"pool": {"shape": "round"}})).starts_with("pool.shape: no such setting"));
        assert!(refused(json!({"colour": 1})).starts_with("colour: no such setting"));
        assert!(refused(json!([])).contains("object"));
        RingConfig::base_version(&json!({"version": -5})).unwrap_err();
    }
}
