//! `storage-node scrub`: a pass on a running node, waited for, and what came of it.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chordfs_types::admin::ScrubStatus;
use serde::Deserialize;
use tokio::time::sleep;

use crate::ask;

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A pass that reads nothing for this long has got stuck.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long damaged chunks are waited for, after the pass.
const MENDING: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Begun {
    pass: u64,
}

/// Errors: also when a damaged chunk was found that nobody has sound; the text says so.
pub async fn scrub(node: SocketAddr) -> anyhow::Result<String> {
    let begun: Begun =
        serde_json::from_str(&ask::post(node, "scrub").await?).context("the node's answer is not JSON")?;
    let done = wait_for_pass(node, begun.pass).await?;
    let status = wait_for_mending(node, done).await?;
    let text = describe(node, &status);
    match status.waiting {
        0 => Ok(text),
        _ => bail!("damage is left\n{text}"),
    }
}

async fn status(node: SocketAddr) -> anyhow::Result<ScrubStatus> {
    serde_json::from_str(&ask::get(node, "scrub").await?).context("the node's scrub report cannot be read")
}

async fn wait_for_pass(node: SocketAddr, pass: u64) -> anyhow::Result<ScrubStatus> {
    let mut moved = (Instant::now(), 0);
    loop {
        let status = status(node).await?;
        if status.asked_done >= pass {
            return Ok(status);
        }
        if status.pass.bytes != moved.1 {
            moved = (Instant::now(), status.pass.bytes);
        }
        if moved.0.elapsed() > PATIENCE {
            bail!("{node} has read nothing for {PATIENCE:?}; its log says why. It goes on trying");
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn wait_for_mending(node: SocketAddr, mut now: ScrubStatus) -> anyhow::Result<ScrubStatus> {
    let end = Instant::now() + MENDING;
    while now.waiting > now.lost && Instant::now() < end {
        sleep(LOOK_EVERY).await;
        now = status(node).await?;
    }
    Ok(now)
}

fn describe(node: SocketAddr, status: &ScrubStatus) -> String {
    let pass = status.last.clone().unwrap_or_default();
    let mut out = String::new();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}").expect("a string takes text");
    line("node", node.to_string());
    line("read", format!("{} chunks, {} MiB", pass.chunks, pass.bytes >> 20));
    line("damaged", format!("{} in this pass, {} since the node was started", pass.damaged, status.damaged));
    line("replaced", format!("{}, {} needed no more", status.mended, status.needless));
    line("waiting", format!("{}, {} of them on no node", status.waiting, status.lost));
    line(
        "orphans",
        match &status.orphans_kept {
            Some(why) => format!("kept: {why}"),
            None => format!("{} runs given up", status.orphans),
        },
    );
    out
}
