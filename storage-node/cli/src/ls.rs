//! `storage-node ls`: the chunks that a node keeps.

use chordfs_types::ring_id::NodeAddress;

use crate::node_arg::admin_client;

/// A line for each chunk, sorted by name.
pub async fn chunks(node: NodeAddress) -> anyhow::Result<String> {
    let text = admin_client(node).await?.chunks(node).await?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(lines.into_iter().flat_map(|line| [line, "\n"]).collect())
}
