//! `storage-node drain`: asks a node to leave and watches it go.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, bail};
use common::ring_id::{NodeRef, RingId};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A node may be too busy to answer for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// Returns when the node has left the ring and its process has ended. `node`: its ring address.
pub async fn drain(node: SocketAddr, allow_fewer_copies: bool) -> anyhow::Result<()> {
    let address = NodeRef { ip: node.ip(), port: node.port(), id: RingId(0) }.admin_address();
    let url = format!("http://{address}/drain");
    let client = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build()?;
    let asked = client.post(format!("{url}?allow_fewer_copies={allow_fewer_copies}")).send().await;
    let answer = asked.with_context(|| format!("no node answers at {node} (asked {url})"))?;
    if !answer.status().is_success() {
        bail!("{node} cannot be drained: {}", answer.text().await.unwrap_or_default().trim());
    }
    watch(&client, &url, node).await
}

async fn watch(client: &reqwest::Client, url: &str, node: SocketAddr) -> anyhow::Result<()> {
    let mut progress = Progress::default();
    let mut heard = Instant::now();
    let mut left = false;
    loop {
        match look(client, url).await {
            Ok(status) => {
                heard = Instant::now();
                left = status["phase"] == "left";
                if status["phase"] == "refused" {
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

async fn look(client: &reqwest::Client, url: &str) -> reqwest::Result<Value> {
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
            "handing over: {} copies, {} MiB left; {} copies, {} MiB sent",
            number("chunks_left"),
            number("bytes_left").div_ceil(1 << 20),
            number("chunks_sent"),
            number("bytes_sent").div_ceil(1 << 20),
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
}
