//! `storage-node pool-size`: shows how many nodes the pool shall have, and why, or changes it by one.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use chordfs_net::admin_client::{AdminError, PoolRequest};
use chordfs_types::{
    admin::{PoolDecided, PoolDecisionLine, PoolNodes, PoolStatus, PoolTarget},
    ring_config::PoolMode,
};
use clap::{Args, ValueEnum};

use crate::{node_arg::OperatorArg, table::aligned};

/// How many decisions the table shows.
const SHOWN_DECISIONS: usize = 10;
const HEAD: [&str; 4] = ["TIME", "NODES", "BY", "REASON"];

#[derive(Args)]
pub struct PoolSizeArgs {
    /// What to do; without it, the size is shown
    #[arg(value_enum)]
    request: Option<PoolSizeRequest>,
    #[command(flatten)]
    node: OperatorArg,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolSizeRequest {
    /// One node more
    Grow,
    /// One node less: it drains
    Shrink,
    /// Give the choice back: each pool follows its own settings again, as at first
    Release,
}

impl From<PoolSizeRequest> for PoolRequest {
    fn from(request: PoolSizeRequest) -> Self {
        match request {
            PoolSizeRequest::Grow => Self::Grow,
            PoolSizeRequest::Shrink => Self::Shrink,
            PoolSizeRequest::Release => Self::Release,
        }
    }
}

/// Returns the text to print.
pub async fn run(args: PoolSizeArgs) -> anyhow::Result<String> {
    match args.request {
        Some(request) => resize(&args.node, request.into(), args.json).await,
        None => show(&args.node, args.json).await,
    }
}

async fn show(node: &OperatorArg, json: bool) -> anyhow::Result<String> {
    let text = node.client().await?.pool_json(node.address()).await?;
    let status: PoolStatus =
        serde_json::from_str(&text).with_context(|| format!("the answer of {}", node.address()))?;
    if json { Ok(text + "\n") } else { Ok(described(&status)) }
}

async fn resize(node: &OperatorArg, request: PoolRequest, json: bool) -> anyhow::Result<String> {
    let decided: PoolDecided = match node.client().await?.resize_pool(node.address(), request).await {
        Err(AdminError::Refused { text, .. }) => bail!("nothing was changed: {}", text.trim_end()),
        other => other?,
    };
    if json { Ok(serde_json::to_string(&decided)? + "\n") } else { Ok(decided.text + "\n") }
}

fn described(PoolStatus { target, nodes, decisions }: &PoolStatus) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<8} {value}").expect("a string takes text");
    line("mode", format!("{}, from {} to {} nodes", mode(target.mode), target.smallest, target.largest));
    line("wanted", wanted(target));
    line("nodes", counted(nodes));
    if decisions.is_empty() {
        return out;
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(decisions.iter().take(SHOWN_DECISIONS).map(row));
    out + "\n" + &aligned(&rows)
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Manual => "manual (operators choose the size)",
        PoolMode::Automatic => "automatic (storage-node autoscaler chooses the size)",
    }
}

fn wanted(target: &PoolTarget) -> String {
    match (target.wanted, target.nodes()) {
        (Some(wanted), Some(nodes)) if wanted != nodes => format!("{wanted}, and {nodes} within the limits of now"),
        (Some(wanted), _) => wanted.to_string(),
        (None, _) => "nobody has chosen: each pool follows its own settings".into(),
    }
}

fn counted(nodes: &PoolNodes) -> String {
    let parts = [
        (nodes.arriving, "arriving"),
        (nodes.filling, "of these being filled"),
        (nodes.draining, "draining"),
        (nodes.silent, "not answering"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let parts: Vec<String> = std::iter::once(format!("{} serving", nodes.serving)).chain(parts).collect();
    parts.join(", ")
}

fn row(decision: &PoolDecisionLine) -> [String; 4] {
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(decision.time).unwrap_or_default());
    let to = decision.to.map_or("own settings".to_owned(), |to| to.to_string());
    [
        humantime::format_rfc3339_seconds(time).to_string(),
        format!("{} -> {to}", decision.from),
        decision.by.to_string(),
        decision.reason.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use chordfs_types::namespace::PoolDecider;

    use super::*;

    fn target(wanted: Option<u32>) -> PoolTarget {
        PoolTarget {
            mode: PoolMode::Manual,
            smallest: 1,
            largest: 8,
            wanted,
            serial: 12,
            reason: None,
            seconds_since_decision: None,
        }
    }

    #[test]
    fn a_choice_its_reasons_and_the_nodes_are_shown() {
        let decision = |serial| PoolDecisionLine {
            serial,
            time: 1_600_000_000,
            from: 2,
            to: (serial > 1).then_some(3),
            by: PoolDecider::Operator,
            reason: "an operator asked for one more node".into(),
            miss_rate: None,
            fullest_disk: None,
        };
        let nodes = PoolNodes { serving: 2, arriving: 1, ..PoolNodes::default() };
        let decisions = (1..=12).rev().map(decision).collect();
        let shown = described(&PoolStatus { target: target(Some(3)), nodes, decisions });
        let wanted = "mode     manual (operators choose the size), from 1 to 8 nodes\n\
                      wanted   3\n\
                      nodes    2 serving, 1 arriving\n\n\
                      TIME                  NODES   BY        REASON\n\
                      2020-09-13T12:26:40Z  2 -> 3  operator  an operator asked for one more node\n";
        assert!(shown.starts_with(wanted), "{shown}");
        assert_eq!(shown.lines().count(), 3 + 1 + 1 + SHOWN_DECISIONS);
    }

    #[test]
    fn without_a_choice_there_is_no_table() {
        let status = PoolStatus { target: target(None), nodes: PoolNodes::default(), decisions: Vec::new() };
        assert!(described(&status).ends_with("follows its own settings\nnodes    0 serving\n"));
        let beyond = PoolTarget { largest: 4, ..target(Some(6)) };
        assert_eq!(wanted(&beyond), "6, and 4 within the limits of now");
    }
}
