//! `storage-node status`: the whole ring as a table, or with `--one` the status of one node.

use std::fmt::{Display, Write};

use anyhow::Context;
use chordfs_types::{
    admin::{DrainPhase, DrainStatus, NodeStatus, TransferProgress},
    ring_id::{NodeAddress, NodeRef},
};

use crate::{
    node_arg::admin_client,
    table::table,
    units::{mib, mib_rounded_up, mib_tenths},
};

/// The status of the whole ring, as this node sees it.
pub async fn ring(node: NodeAddress, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(admin_client().ring_json(node).await? + "\n");
    }
    Ok(table(&admin_client().ring(node).await?))
}

/// The status of one node and its neighbours.
pub async fn one(node: NodeAddress, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(admin_client().status_json(node).await? + "\n");
    }
    let status = admin_client().status(node).await?;
    describe(node, &status).context("cannot write the status")
}

/// The labels must not change: scripts look for them at the beginnings of lines.
fn describe(node: NodeAddress, status: &NodeStatus) -> Result<String, std::fmt::Error> {
    let NodeStatus { neighbours, store, namespace, repair, drain, .. } = status;
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
    line("filling", remaining(&repair.incoming))?;
    line("repairing", remaining(&repair.outgoing))?;
    if let Some(drain) = drain.as_ref().filter(|drain| drain.phase == DrainPhase::Copying) {
        line("draining", remaining(&flow_of(drain)))?;
    }
    line("leader", or_none(namespace.leader))?;
    line("voters", list(&namespace.voters))?;
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
    let end = flow.seconds_left.map_or("no estimate yet".to_owned(), |seconds| format!("{seconds} s"));
    let (left, rate) = (mib_rounded_up(flow.bytes_left), mib_tenths(flow.bytes_per_second));
    format!("{} chunks, {left} left, {rate} MiB/s, {end}", flow.chunks_left)
}

#[cfg(test)]
mod tests {
    use chordfs_types::admin::{NamespaceStatus, NodeState, RepairStatus, StoreStatus, Work};

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
        };
        let expected = "node         10.0.0.2:5057, serving\n\
                        position     none\n\
                        predecessor  none\n\
                        successors   none\n\
                        chunks       5, 1 MiB\n\
                        free         0 MiB\n\
                        filling      1200 chunks, 4 MiB left, 64.0 MiB/s, no estimate yet\n\
                        repairing    nothing left\n\
                        leader       none\n\
                        voters       10.0.0.2:5057, 10.0.0.2:5058\n";
        assert_eq!(describe(node, &status).unwrap(), expected);
    }
}
