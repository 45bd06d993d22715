//! `storage-node status`: the whole ring as a table, or with `--one` the status of one node. The exit code is the
//! verdict: 0 for OK, 1 for WARN, 2 for ERROR or if the node does not answer.

use std::{
    fmt::{Display, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use chordfs_types::{
    admin::{
        DrainPhase, DrainStatus, Health, HealthFacts, HealthLevel, INSECURE, NodeStatus, RingStatus, TransferProgress,
    },
    ring_id::{NodeAddress, NodeRef},
};

use crate::{
    mounts::mounts,
    node_arg::admin_client_with,
    output::{complain, runtime, write_out},
    table::table,
    units::{mib, mib_rounded_up, mib_tenths},
};

/// A node gathers the status of the ring within three seconds, however many nodes are dead.
const DEADLINE: Duration = Duration::from_secs(5);
/// The exit code if no status could be had.
const NO_STATUS: u8 = 2;

/// Prints the status of the whole ring, as this node sees it, or with `one` that of the node alone.
pub fn run(node: NodeAddress, json: bool, one: bool) -> ExitCode {
    let shown = || -> anyhow::Result<u8> {
        let (text, level) =
            runtime(None)?.block_on(async { if one { one_node(node, json).await } else { ring(node, json).await } })?;
        write_out(&text)?;
        Ok(level.exit_code())
    };
    ExitCode::from(shown().unwrap_or_else(|error| {
        complain(&format!("storage-node: {error:#}"));
        NO_STATUS
    }))
}

async fn ring(node: NodeAddress, json: bool) -> anyhow::Result<(String, HealthLevel)> {
    let client = admin_client_with(node, DEADLINE).await?;
    // Both at once: either may take some seconds when nodes are dead.
    let (text, sessions) = tokio::join!(client.ring_json(node), client.sessions(node));
    let text = text?;
    let status: RingStatus = serde_json::from_str(&text).with_context(|| format!("the answer of {node}"))?;
    let level = status.health.level;
    Ok((if json { text + "\n" } else { table(&status, &mounts(&sessions)) }, level))
}

async fn one_node(node: NodeAddress, json: bool) -> anyhow::Result<(String, HealthLevel)> {
    let text = admin_client_with(node, DEADLINE).await?.status_json(node).await?;
    let status: NodeStatus = serde_json::from_str(&text).with_context(|| format!("the answer of {node}"))?;
    let health = Health::judge(&HealthFacts::of_node(node.ring(), &status));
    let text = if json { text + "\n" } else { describe(node, &status, &health).context("cannot write the status")? };
    Ok((text, health.level))
}

/// The labels must not change: scripts look for them at the beginnings of lines.
fn describe(node: NodeAddress, status: &NodeStatus, health: &Health) -> Result<String, std::fmt::Error> {
    let NodeStatus { neighbours, store, namespace, repair, drain, cache, .. } = status;
    let (mut position, mut predecessor, mut successors) = (None, None, Vec::new());
    if let Some(neighbours) = neighbours {
        position = Some(neighbours.node.id);
        predecessor = neighbours.predecessor.as_ref().map(member);
        successors = neighbours.successors.iter().map(member).collect();
    }
    let mut out = String::new();
    let mut line = |label: &str, value: String| writeln!(out, "{label:<12} {value}");
    line("node", format!("{node}, {}", status.state))?;
    line("position", or_none(position))?;
    line("predecessor", or_none(predecessor))?;
    line("successors", list(&successors))?;
    line("chunks", format!("{}, {}", store.chunks, mib(store.data_bytes)))?;
    line("free", mib(store.free_bytes))?;
    line("cache", cache.text())?;
    line("filling", remaining(&repair.incoming))?;
    line("repairing", remaining(&repair.outgoing))?;
    if let Some(drain) = drain.as_ref().filter(|drain| drain.phase == DrainPhase::Copying) {
        line("draining", remaining(&flow_of(drain)))?;
    }
    line("leader", or_none(namespace.leader))?;
    line("voters", list(&namespace.voters))?;
    if status.insecure {
        line("security", INSECURE.to_owned())?;
    }
    line("health", health.level.to_string())?;
    health.reasons.iter().try_for_each(|reason| writeln!(out, "  {reason}"))?;
    Ok(out)
}

fn member(node: &NodeRef) -> String {
    format!("{} at {}:{}", node.id, node.ip, node.port)
}

fn or_none(value: Option<impl Display>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn flow_of(drain: &DrainStatus) -> TransferProgress {
    TransferProgress {
        chunks_left: drain.chunks_left,
        bytes_left: drain.bytes_left,
        bytes_per_second: drain.bytes_per_second,
        seconds_left: drain.seconds_left,
        chunks_moved: drain.chunks_sent,
        bytes_moved: drain.bytes_sent,
    }
}

/// The copies that remain to be made: `1200 chunks, 4 MiB left, 64.0 MiB/s, 3 s`.
fn remaining(flow: &TransferProgress) -> String {
    if flow.chunks_left == 0 {
        return "nothing left".to_owned();
    }
    if flow.bytes_per_second == 0 {
        return format!(
            "{} chunks, {} left, of which nothing moves at the moment",
            flow.chunks_left,
            mib_rounded_up(flow.bytes_left)
        );
    }
    let end = flow.seconds_left.map_or("no estimate yet".to_owned(), |seconds| format!("{seconds} s"));
    let (left, rate) = (mib_rounded_up(flow.bytes_left), mib_tenths(flow.bytes_per_second));
    format!("{} chunks, {left} left, {rate} MiB/s, {end}", flow.chunks_left)
}

#[cfg(test)]
mod tests {
    use chordfs_types::admin::{CacheStatus, NamespaceStatus, NodeState, RepairStatus, StoreStatus, Work};

    use super::*;

    #[test]
    fn every_label_has_its_line() {
        let node = NodeAddress(([10, 0, 0, 2], 5057).into());
        let incoming = TransferProgress {
            chunks_left: 1200,
            bytes_left: (4 << 20) - 1,
            bytes_per_second: 64 << 20,
            ..TransferProgress::default()
        };
        let status = NodeStatus {
            state: NodeState::Serving,
            neighbours: None,
            store: StoreStatus { chunks: 5, data_bytes: (2 << 20) - 1, ..StoreStatus::default() },
            namespace: NamespaceStatus { voters: vec![node.ring(), node.files()], ..NamespaceStatus::default() },
            work: Work::default(),
            repair: RepairStatus { incoming, ..RepairStatus::default() },
            drain: None,
            cache: CacheStatus {
                hits: 3,
                misses: 1,
                items: 7,
                bytes: 3 << 20,
                capacity_bytes: 8 << 20,
                ..CacheStatus::default()
            },
            zone: None,
            requests: 0,
            insecure: true,
        };
        let expected = "node         10.0.0.2:5057, serving\n\
                        position     none\n\
                        predecessor  none\n\
                        successors   none\n\
                        chunks       5, 1 MiB\n\
                        free         0 MiB\n\
                        cache        7 chunks, 3.00 MiB of 8.00 MiB, lru; 75.0% of 4 reads\n\
                        filling      1200 chunks, 4 MiB left, 64.0 MiB/s, no estimate yet\n\
                        repairing    nothing left\n\
                        leader       none\n\
                        voters       10.0.0.2:5057, 10.0.0.2:5058\n\
                        security     none: whoever reaches the ports of a node may read, change and delete everything \
                        (--insecure)\n\
                        health       OK\n";
        assert_eq!(describe(node, &status, &Health::default()).unwrap(), expected);
        let stuck = TransferProgress { bytes_per_second: 0, ..incoming };
        assert_eq!(remaining(&stuck), "1200 chunks, 4 MiB left, of which nothing moves at the moment");
    }
}
