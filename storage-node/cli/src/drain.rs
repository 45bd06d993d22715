//! `storage-node drain`: asks a node to leave and watches it go, or asks it to stay.
//!
//! The drain is the node's own: it goes on when nobody watches any more. So Ctrl-C says that, and how it is cancelled.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, bail};
use chordfs_types::{
    rate_limit::RateLimit,
    ring_id::{NodeRef, RingId},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::interrupt::say_on_interrupt;

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A node may be too busy to answer for this long.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct DrainRequest {
    pub allow_fewer_copies: bool,
    /// `None`: what the node was started with.
    pub rate: Option<RateLimit>,
}

/// Before the runtime and its threads are there; see [`drain`]. `node`: its ring address.
pub fn prepare(node: SocketAddr) -> anyhow::Result<()> {
    let last_words = format!(
        "no longer watched: the drain of {node} goes on. `storage-node status --node {node}` shows it, \
         `storage-node drain --cancel --node {node}` calls it off"
    );
    say_on_interrupt(last_words).context("wait for Ctrl-C")
}

/// Returns when the node has left the ring and its process has ended. `node`: its ring address.
pub async fn drain(node: SocketAddr, request: DrainRequest) -> anyhow::Result<()> {
    let (client, url) = (client()?, url(node));
    let mut asked = client.post(&url).query(&[("allow_fewer_copies", request.allow_fewer_copies)]);
    if let Some(rate) = request.rate {
        asked = asked.query(&[("rate", rate.to_string())]);
    }
    let answer = answer_to(asked, node).await?;
    if !answer.status().is_success() {
        bail!("{node} cannot be drained: {}", answer.text().await.unwrap_or_default().trim());
    }
    watch(&client, &url, node).await
}

/// Returns, with what there is to say, when the node serves as before. `node`: its ring address.
pub async fn cancel(node: SocketAddr) -> anyhow::Result<String> {
    let answer = answer_to(client()?.delete(url(node)), node).await?;
    if !answer.status().is_success() {
        bail!("the drain of {node} was not cancelled: {}", answer.text().await.unwrap_or_default().trim());
    }
    Ok(format!("the drain of {node} was cancelled; it goes on serving\n"))
}

fn client() -> reqwest::Result<Client> {
    Client::builder().timeout(DEADLINE).no_proxy().build()
}

fn url(node: SocketAddr) -> String {
    let address = NodeRef { ip: node.ip(), port: node.port(), id: RingId(0) }.admin_address();
    format!("http://{address}/drain")
}

async fn answer_to(request: RequestBuilder, node: SocketAddr) -> anyhow::Result<Response> {
    request.send().await.with_context(|| format!("no node answers at {node} (asked {})", url(node)))
}

async fn watch(client: &Client, url: &str, node: SocketAddr) -> anyhow::Result<()> {
    let mut progress = Progress::default();
    let mut heard = Instant::now();
    let mut left = false;
    loop {
        match look(client, url).await {
            Ok(status) => {
                heard = Instant::now();
                left = status["phase"] == "left";
                if status["phase"] == "refused" || status["phase"] == "cancelled" {
                    bail!("{node} is not drained and goes on serving: {}", status["reason"].as_str().unwrap_or("?"));
                }
                progress.show(&status);
            }
            Err(error) if left && error.is_connect() => break,
            // One that went while it was about to leave may have done so after the last look.
            Err(error) if error.is_connect() && progress.last.starts_with("the last writes") => {
                bail!(
                    "{node} ended just before it said that it had left: see with `status` of another node whether it did"
                )
            }
            Err(error) if error.is_connect() => bail!("{node} went away before it was drained: {error}"),
            Err(error) if heard.elapsed() > SILENCE => {
                return Err(error).with_context(|| format!("{node} does not say how its drain gets on"));
            }
            Err(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
    progress.print(format!("{node} has left the ring; its process has ended"));
    Ok(())
}

async fn look(client: &Client, url: &str) -> reqwest::Result<Value> {
    client.get(url).send().await?.error_for_status()?.json().await
}

/// A line for each change of phase, and at most one a second while chunks are on their way.
#[derive(Default)]
struct Progress {
    last: String,
    printed: Option<Instant>,
    phase: Value,
}

impl Progress {
    fn show(&mut self, status: &Value) {
        let often = self.printed.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        if self.phase != status["phase"] || !often {
            self.phase = status["phase"].clone();
            self.print(describe(status));
        }
    }

    fn print(&mut self, line: String) {
        if line == self.last {
            return;
        }
        let mut out = std::io::stdout();
        // Nobody reads any more: the drain goes on all the same.
        let _ = writeln!(out, "{line}");
        if !out.is_terminal() {
            let _ = out.flush();
        }
        (self.last, self.printed) = (line, Some(Instant::now()));
    }
}

fn describe(status: &Value) -> String {
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    match status["phase"].as_str().unwrap_or("unknown") {
        "copying" => format!(
            "handing over: {} copies, {} MiB left; {} copies, {} MiB sent{}",
            number("chunks_left"),
            number("bytes_left").div_ceil(1 << 20),
            number("chunks_sent"),
            number("bytes_sent").div_ceil(1 << 20),
            speed(status),
        ),
        "voting" => "giving up its vote on the namespace".into(),
        "leaving" => "the last writes are handed over".into(),
        "left" => format!(
            "out of the ring; {} copies, {} MiB were sent in all",
            number("chunks_sent"),
            number("bytes_sent").div_ceil(1 << 20)
        ),
        other => format!("drain: {other}"),
    }
}

/// Nothing where it is not known: before something has moved, and from an older node.
fn speed(status: &Value) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rate = status["bytes_per_second"].as_u64().filter(|rate| *rate > 0).map(mib);
    let limit = status["limit"].as_u64().map_or(String::new(), |limit| format!(" of at most {:.1}", mib(limit)));
    let left = status["seconds_left"].as_u64().map_or(String::new(), |seconds| format!(", about {seconds} s"));
    rate.map_or(String::new(), |rate| format!("; {rate:.1}{limit} MiB/s{left}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_is_told_in_whole_mib() {
        let status =
            json!({"phase": "copying", "chunks_left": 3, "bytes_left": 1, "chunks_sent": 5, "bytes_sent": 2 << 20});
        assert_eq!(describe(&status), "handing over: 3 copies, 1 MiB left; 5 copies, 2 MiB sent");
    }

    #[test]
    fn speed_limit_and_end_are_told_once_they_are_known() {
        let mut status = json!({"phase": "copying", "bytes_per_second": 3 << 19, "limit": 2 << 20, "seconds_left": 12});
        assert_eq!(speed(&status), "; 1.5 of at most 2.0 MiB/s, about 12 s");
        status["limit"] = Value::Null;
        status["seconds_left"] = Value::Null;
        assert_eq!(speed(&status), "; 1.5 MiB/s");
    }
}
