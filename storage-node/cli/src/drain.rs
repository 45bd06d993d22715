//! `storage-node drain`: asks a node to leave and watches it, or cancels its drain.
//!
//! The drain runs on the node, and continues when the command ends. So Ctrl-C prints this, and how to cancel the drain.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use chordfs_net::admin_client::{AdminClient, AdminError, DrainRequest};
use chordfs_types::{
    admin::{DrainPhase, DrainStatus},
    rate_limit::RateLimit,
    ring_id::NodeAddress,
};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::interrupt::report_on_interrupt;
use crate::{
    node_arg::OperatorArg,
    output::{runtime, write_out},
    progress::{self, ProgressBar},
    units::{mib_rounded_up, mib_tenths},
};

const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// How long a busy node may fail to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// While chunks are sent, a line is printed at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct DrainArgs {
    #[command(flatten)]
    node: OperatorArg,
    /// Drain even if fewer than three nodes stay: each chunk is then kept by as many as there are
    #[arg(long)]
    allow_fewer_copies: bool,
    /// Bytes a second that this drain may send, as in 64M, 1G; 0 or none: no limit. Also changes the limit of a drain
    /// under way [default: shares the limit of the node's --repair-rate]
    #[arg(long, value_name = "RATE")]
    rate: Option<RateLimit>,
    /// Cancel the drain under way, so that the node serves as before. Possible until the node announces that it leaves
    #[arg(long, conflicts_with_all = ["allow_fewer_copies", "rate"])]
    cancel: bool,
}

/// Runs without a runtime: see [`report_on_interrupt`].
pub fn run(args: DrainArgs) -> anyhow::Result<()> {
    let (node, client) = (args.node.address(), runtime(None)?.block_on(args.node.client())?);
    if args.cancel {
        return write_out(&runtime(None)?.block_on(cancel(&client, node))?);
    }
    let farewell = format!(
        "no longer watched: the drain of {node} continues. `storage-node status --node {node}` shows it, \
         `storage-node drain --cancel --node {node}` cancels it"
    );
    report_on_interrupt(farewell).context("cannot wait for Ctrl-C")?;
    let request = DrainRequest { allow_fewer_copies: args.allow_fewer_copies, rate: args.rate };
    runtime(None)?.block_on(drain(&client, node, request))
}

/// Returns when the node has left the ring and its process has ended.
async fn drain(client: &AdminClient, node: NodeAddress, request: DrainRequest) -> anyhow::Result<()> {
    match client.begin_drain(node, request).await {
        Ok(_) => watch(client, node).await,
        Err(AdminError::Refused { text, .. }) => bail!("{node} cannot be drained: {text}"),
        Err(error) => Err(error.into()),
    }
}

/// Returns the text to print once the node serves as before.
async fn cancel(client: &AdminClient, node: NodeAddress) -> anyhow::Result<String> {
    match client.cancel_drain(node).await {
        Ok(_) => Ok(format!("the drain of {node} was cancelled; it continues to serve\n")),
        Err(AdminError::Refused { text, .. }) => bail!("the drain of {node} was not cancelled: {text}"),
        Err(error) => Err(error.into()),
    }
}

async fn watch(client: &AdminClient, node: NodeAddress) -> anyhow::Result<()> {
    let mut display = DrainDisplay::new();
    let mut last_answer = Instant::now();
    let mut last_phase = None;
    loop {
        match client.drain(node).await {
            Ok(status) => {
                last_answer = Instant::now();
                if let Some(status) = status {
                    last_phase = Some(status.phase);
                    if matches!(status.phase, DrainPhase::Refused | DrainPhase::Cancelled) {
                        let reason = status.reason.as_deref().unwrap_or("no reason given");
                        bail!("{node} is not drained and continues to serve: {reason}");
                    }
                    display.show(&status);
                }
            }
            Err(error) if error.is_connect() => match last_phase {
                Some(DrainPhase::Left) => break,
                // A process that ends in this phase may have left the ring since the last answer.
                Some(DrainPhase::Leaving) => bail!(
                    "{node} ended before it reported that it had left; check with `status` of another node whether it \
                     did"
                ),
                _ => bail!("{node} ended before it was drained: {error}"),
            },
            Err(error) if last_answer.elapsed() > ANSWER_DEADLINE => {
                return Err(error).with_context(|| format!("{node} no longer reports the progress of its drain"));
            }
            Err(_) => {}
        }
        sleep(POLL_INTERVAL).await;
    }
    display.finish(format!("{node} has left the ring; its process has ended"));
    Ok(())
}

/// A bar on a terminal. Elsewhere a line for each change of phase, and at most one a second while chunks are sent.
struct DrainDisplay {
    bar: Option<ProgressBar>,
    last_line: String,
    printed_at: Option<Instant>,
    phase: Option<DrainPhase>,
}

impl DrainDisplay {
    fn new() -> Self {
        let on_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| progress::of_bytes("drain"));
        Self { bar, last_line: String::new(), printed_at: None, phase: None }
    }

    fn show(&mut self, status: &DrainStatus) {
        if let Some(bar) = &self.bar {
            bar.set_length(status.bytes_sent + status.bytes_left);
            bar.set_position(status.bytes_sent);
            bar.set_message(short_description(status));
            return;
        }
        let recently = self.printed_at.is_some_and(|at| at.elapsed() < LINE_INTERVAL);
        if self.phase != Some(status.phase) || !recently {
            self.phase = Some(status.phase);
            self.print(describe(status));
        }
    }

    fn finish(&mut self, line: String) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.print(line);
    }

    fn print(&mut self, line: String) {
        if line == self.last_line {
            return;
        }
        let mut out = std::io::stdout();
        // The error of a closed pipe is ignored: the drain is still watched.
        let _ = writeln!(out, "{line}");
        if !out.is_terminal() {
            let _ = out.flush();
        }
        (self.last_line, self.printed_at) = (line, Some(Instant::now()));
    }
}

fn describe(status: &DrainStatus) -> String {
    let DrainStatus { chunks_left, chunks_sent, .. } = status;
    let (left, sent) = (mib_rounded_up(status.bytes_left), mib_rounded_up(status.bytes_sent));
    match status.phase {
        DrainPhase::Copying => format!(
            "handing over: {chunks_left} copies, {left} left; {chunks_sent} copies, {sent} sent{}",
            speed(status).map_or(String::new(), |speed| format!("; {speed}"))
        ),
        DrainPhase::Voting => "giving up its vote on the namespace".into(),
        DrainPhase::Leaving => "the last writes are handed over".into(),
        DrainPhase::Left => format!("out of the ring; {chunks_sent} copies, {sent} were sent in all"),
        DrainPhase::Refused => "drain: refused".into(),
        DrainPhase::Cancelled => "drain: cancelled".into(),
    }
}

/// The text beside the bar: what the bar itself does not show.
fn short_description(status: &DrainStatus) -> String {
    match status.phase {
        DrainPhase::Copying => speed(status).unwrap_or_default(),
        _ => describe(status),
    }
}

/// The speed, its limit and the estimated end. `None` before the first chunk was sent.
fn speed(status: &DrainStatus) -> Option<String> {
    let rate = mib_tenths(Some(status.bytes_per_second).filter(|rate| *rate > 0)?);
    let limit = status.limit.map_or(String::new(), |limit| format!(" of at most {}", mib_tenths(limit)));
    let end = status.seconds_left.map_or(String::new(), |seconds| format!(", about {seconds} s"));
    Some(format!("{rate}{limit} MiB/s{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying() -> DrainStatus {
        DrainStatus {
            phase: DrainPhase::Copying,
            chunks_left: 3,
            bytes_left: 1,
            chunks_sent: 5,
            bytes_sent: 2 << 20,
            bytes_per_second: 0,
            seconds_left: None,
            limit: None,
            reason: None,
        }
    }

    #[test]
    fn remaining_copies_are_shown_in_whole_mib() {
        assert_eq!(describe(&copying()), "handing over: 3 copies, 1 MiB left; 5 copies, 2 MiB sent");
    }

    #[test]
    fn speed_limit_and_end_are_shown_once_they_are_known() {
        let moving =
            DrainStatus { bytes_per_second: 3 << 19, limit: Some(2 << 20), seconds_left: Some(12), ..copying() };
        assert_eq!(speed(&moving).unwrap(), "1.5 of at most 2.0 MiB/s, about 12 s");
        assert_eq!(speed(&DrainStatus { limit: None, seconds_left: None, ..moving }).unwrap(), "1.5 MiB/s");
        assert_eq!(speed(&copying()), None);
    }
}
