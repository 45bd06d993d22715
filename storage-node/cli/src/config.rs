//! `storage-node config`: shows the ring's configuration or changes settings of it, all of them or none.

use std::fmt::Write;

use anyhow::{Context, bail};
use chordfs_net::admin_client::AdminError;
use chordfs_types::ring_config::{CONFIG_FIELDS, RingConfig};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use crate::node_arg::{NodeArg, OperatorArg, admin_client};

#[derive(Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Show all settings with their values and meanings
    Show {
        #[command(flatten)]
        node: NodeArg,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change settings on all nodes: all of those given, or none if one is wrong. Nodes follow within seconds
    #[command(after_help = settings_help())]
    Set {
        #[command(flatten)]
        node: OperatorArg,
        /// As in cache.capacity=512M cache.policy=random
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Empty the caches of all nodes. No file is changed
    ClearCache(OperatorArg),
}

/// Returns the text to print.
pub async fn run(args: ConfigArgs) -> anyhow::Result<String> {
    match args.command {
        ConfigCommand::Show { node, json } => show(node, json).await,
        ConfigCommand::Set { node, settings } => set(node, &settings).await,
        ConfigCommand::ClearCache(node) => {
            explained(node.client().await?.clear_cache(node.address()).await)?;
            Ok("the nodes empty their caches within seconds\n".into())
        }
    }
}

async fn show(node: NodeArg, json: bool) -> anyhow::Result<String> {
    let config = explained(admin_client(node.address()).await?.config(node.address()).await)?;
    if json { Ok(serde_json::to_string_pretty(&config)? + "\n") } else { described(&config) }
}

async fn set(node: OperatorArg, settings: &[(String, String)]) -> anyhow::Result<String> {
    let body = to_json(settings);
    described(&explained(node.client().await?.set_config(node.address(), &body).await)?)
}

/// The reason alone, if the node gave one.
fn explained(answer: Result<Value, AdminError>) -> anyhow::Result<Value> {
    match answer {
        Err(AdminError::Refused { text, .. }) => bail!("nothing was changed: {}", text.trim_end()),
        other => Ok(other?),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Groups the settings as the node expects them; a name without a group stays as it is, for the node to refuse.
fn to_json(settings: &[(String, String)]) -> Value {
    let mut all = Map::new();
    for (name, value) in settings {
        let value = Value::String(value.clone());
        match name.split_once('.') {
            Some((group, setting)) => {
                let group = all.entry(group).or_insert_with(|| Value::Object(Map::new()));
                if let Some(group) = group.as_object_mut() {
                    group.insert(setting.to_owned(), value);
                }
            }
            None => _ = all.insert(name.clone(), value),
        }
    }
    Value::Object(all)
}

/// A line for each setting.
fn described(json: &Value) -> anyhow::Result<String> {
    let config = RingConfig::default().with_json(json).context("the node's configuration is of another release")?;
    let mut out = String::new();
    for field in &CONFIG_FIELDS {
        writeln!(out, "{:<19} {:<10} {}", field.name, field.text(&config), field.help)?;
    }
    Ok(out)
}

fn settings_help() -> String {
    let lines = CONFIG_FIELDS.iter().map(|field| format!("  {:<19} {}\n", field.name, field.help));
    format!("Settings:\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_grouped_for_the_node() {
        let given = ["cache.capacity=512M", "pool.mode = manual", "cache.policy=lru", "colour=red"];
        let settings: Vec<_> = given.into_iter().map(|text| setting(text).unwrap()).collect();
        let expected =
            json!({"cache": {"capacity": "512M", "policy": "lru"}, "pool": {"mode": "manual"}, "colour": "red"});
        assert_eq!(to_json(&settings), expected);
        setting("cache.capacity").unwrap_err();
    }

    #[test]
    fn every_setting_has_its_line() {
        let text = described(&RingConfig::default().to_json()).unwrap();
        assert!(text.contains("\ncache.capacity      default    Memory of each node"), "{text}");
        assert_eq!(text.lines().count(), CONFIG_FIELDS.len());
    }
}
