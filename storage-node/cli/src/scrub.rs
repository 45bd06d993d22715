//! `storage-node scrub`: begins a pass on a running node, waits for it and for repairs, and reports the result.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::bail;
use chordfs_net::admin_client::AdminClient;
use chordfs_types::{admin::ScrubStatus, ring_id::NodeAddress};
use tokio::time::sleep;

use crate::{
    node_arg::OperatorArg,
    progress::{self, ProgressBar},
    units::mib,
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A pass that makes no progress for this long is stuck.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait after the pass for the repair of damaged chunks.
const REPAIR_DEADLINE: Duration = Duration::from_secs(60);

/// Scrubs the node and returns the report. Errors: also if damaged chunks remain, with the report as text.
pub async fn scrub(args: OperatorArg) -> anyhow::Result<String> {
    let (node, client) = (args.address(), args.client().await?);
    let bar = progress::of_bytes("scrub");
    let begun = client.begin_scrub(node).await?;
    let status = wait_for_pass(&client, node, begun.pass, &bar).await?;
    let status = wait_for_repairs(&client, node, status).await?;
    bar.finish_and_clear();
    let text = describe(node, &status);
    match status.waiting {
        0 => Ok(text),
        _ => bail!("some damaged chunks are not repaired\n{text}"),
    }
}

async fn wait_for_pass(
    client: &AdminClient,
    node: NodeAddress,
    pass: u64,
    bar: &ProgressBar,
) -> anyhow::Result<ScrubStatus> {
    let (mut last_progress, mut bytes_read) = (Instant::now(), 0);
    loop {
        let status = client.scrub(node).await?;
        if status.asked_done >= pass {
            return Ok(status);
        }
        bar.set_length(status.total_bytes);
        bar.set_position(status.pass.bytes);
        if status.pass.bytes != bytes_read {
            (last_progress, bytes_read) = (Instant::now(), status.pass.bytes);
        }
        if last_progress.elapsed() > STALL_TIMEOUT {
            let secs = STALL_TIMEOUT.as_secs();
            bail!("{node} has read nothing for {secs} s, and keeps trying; see its log for the reason");
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn wait_for_repairs(
    client: &AdminClient,
    node: NodeAddress,
    mut status: ScrubStatus,
) -> anyhow::Result<ScrubStatus> {
    let end = Instant::now() + REPAIR_DEADLINE;
    while status.waiting > status.unrecoverable && Instant::now() < end {
        sleep(POLL_INTERVAL).await;
        status = client.scrub(node).await?;
    }
    Ok(status)
}

fn describe(node: NodeAddress, status: &ScrubStatus) -> String {
    let pass = status.last.clone().unwrap_or_default();
    let mut out = String::new();
    let mut line = |label: &str, value: String| writeln!(out, "{label:<12} {value}").expect("a string takes text");
    line("node", node.to_string());
    line("read", format!("{} chunks, {}", pass.chunks, mib(pass.bytes)));
    line("damaged", format!("{} in this pass, {} since the node was started", pass.damaged, status.damaged));
    line("replaced", format!("{}, {} no longer needed", status.repaired, status.obsolete));
    line("waiting", format!("{}, {} of them without a sound copy on any node", status.waiting, status.unrecoverable));
    line(
        "orphans",
        match &status.orphans_kept {
            Some(reason) => format!("kept: {reason}"),
            None => format!("{} runs deleted", status.orphans),
        },
    );
    out
}
