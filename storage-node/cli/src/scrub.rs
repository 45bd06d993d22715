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
    node_arg::admin_client,
    progress::{self, ProgressBar},
    units::mib,
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A pass that reads nothing for this long is stuck.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long damaged chunks are waited for after the pass.
const REPAIR_DEADLINE: Duration = Duration::from_secs(60);

/// Errors: also when no node has a sound copy of a damaged chunk; the text names how many.
pub async fn scrub(node: NodeAddress) -> anyhow::Result<String> {
    let client = admin_client();
    let bar = progress::of_bytes("scrub");
    let begun = client.begin_scrub(node).await?;
    let status = wait_for_pass(&client, node, begun.pass, &bar).await?;
    let status = wait_for_repairs(&client, node, status).await?;
    bar.finish_and_clear();
    let text = describe(node, &status);
    match status.waiting {
        0 => Ok(text),
        _ => bail!("damage is left\n{text}"),
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
            bail!("{node} has read nothing for {STALL_TIMEOUT:?}; its log says why. It keeps trying");
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
