//! What the command line asks of a running node, over its plane of administration.

use std::{fmt::Write, future::Future, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use chordfs_types::{
    admin::RingStatus,
    ring_id::{NodeRef, RingId},
};
use serde_json::Value;

use crate::table::table;

const DEADLINE: Duration = Duration::from_secs(30);

/// Text for standard output.
pub trait Asked: Future<Output = anyhow::Result<String>> {}
impl<F: Future<Output = anyhow::Result<String>>> Asked for F {}

/// The chunks that a node keeps, a line each, sorted by name.
pub async fn chunks(node: SocketAddr) -> anyhow::Result<String> {
    let text = get(node, "chunks").await?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.into_iter().flat_map(|line| [line, "\n"]).collect())
}

/// The whole ring, as the node sees it.
pub async fn ring(node: SocketAddr, json: bool) -> anyhow::Result<String> {
    let text = get(node, "ring").await?;
    if json {
        return Ok(text + "\n");
    }
    let status: RingStatus = serde_json::from_str(&text).context("what the node says of the ring does not read")?;
    Ok(table(&status))
}

/// What one node knows of itself.
pub async fn status(node: SocketAddr, json: bool) -> anyhow::Result<String> {
    let text = get(node, "status").await?;
    if json {
        return Ok(text + "\n");
    }
    let status = serde_json::from_str(&text).context("the node's status is not JSON")?;
    Ok(describe(node, &status))
}

pub(crate) async fn get(node: SocketAddr, what: &str) -> anyhow::Result<String> {
    request(node, reqwest::Method::GET, what).await
}

pub(crate) async fn post(node: SocketAddr, what: &str) -> anyhow::Result<String> {
    request(node, reqwest::Method::POST, what).await
}

async fn request(node: SocketAddr, method: reqwest::Method, what: &str) -> anyhow::Result<String> {
    let address = NodeRef { ip: node.ip(), port: node.port(), id: RingId(0) }.admin_address();
    let url = format!("http://{address}/{what}");
    let client = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build()?;
    let answer = client.request(method, &url).send().await;
    let answer = answer.with_context(|| format!("no node answers at {node} (asked {url})"))?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| format!("the answer of {url} broke off"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {}", text.trim());
    }
    Ok(text)
}

/// The status for people.
fn describe(node: SocketAddr, status: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}").expect("a string takes text");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let member = |value: &Value| format!("{} at {}:{}", value["id"], text(&value["ip"]), value["port"]);
    let list = |value: &Value, one: &dyn Fn(&Value) -> String| {
        let items: Vec<_> = value.as_array().into_iter().flatten().map(one).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let (ring, store, namespace) = (&status["neighbours"], &status["store"], &status["namespace"]);
    line("node", format!("{node}, {}", text(&status["state"])));
    line("position", ring["node"]["id"].to_string());
    let predecessor = &ring["predecessor"];
    line("predecessor", if predecessor.is_null() { "none".into() } else { member(predecessor) });
    line("successors", list(&ring["successors"], &member));
    line("chunks", format!("{}, {} MiB", store["chunks"], store["data_bytes"].as_u64().unwrap_or(0) >> 20));
    line("free", format!("{} MiB", store["free_bytes"].as_u64().unwrap_or(0) >> 20));
    for (name, flow) in [("filling", &status["repair"]["incoming"]), ("repairing", &status["repair"]["outgoing"])] {
        line(name, describe_flow(flow));
    }
    if status["drain"]["phase"] == "copying" {
        line("draining", describe_flow(&status["drain"]));
    }
    line("leader", if namespace["leader"].is_null() { "none".into() } else { text(&namespace["leader"]) });
    line("voters", list(&namespace["voters"], &text));
    out
}

/// What is still to be copied: `1200 chunks, 4 MiB left, 64 MiB/s, 3 s`.
fn describe_flow(flow: &Value) -> String {
    let number = |field: &str| flow[field].as_u64().unwrap_or(0);
    if number("chunks_left") == 0 {
        return "nothing left".to_owned();
    }
    let rate = number("bytes_per_second") as f64 / f64::from(1 << 20);
    let end = flow["seconds_left"].as_u64().map_or("no estimate yet".to_owned(), |seconds| format!("{seconds} s"));
    let mib = number("bytes_left").div_ceil(1 << 20);
    format!("{} chunks, {mib} MiB left, {rate:.1} MiB/s, {end}", number("chunks_left"))
}
