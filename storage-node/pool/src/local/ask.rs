//! The pool's requests to its nodes, on their administration planes.

use std::{sync::Arc, time::Duration};

use chordfs_net::{
    admin_client::{AdminClient, AdminError, DrainRequest},
    http_pool::HttpPool,
};
use chordfs_types::{
    admin::{NodeState, NodeStatus},
    ring_id::NodeAddress,
};

const DEADLINE: Duration = Duration::from_secs(3);

pub(super) fn client() -> AdminClient {
    AdminClient::new(Arc::new(HttpPool::new()), DEADLINE)
}

/// What the policy needs to know of a node that answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NodeUsage {
    pub serving: bool,
    pub filling: bool,
    pub used_percent: f64,
}

impl From<NodeStatus> for NodeUsage {
    fn from(status: NodeStatus) -> Self {
        let (free, capacity) = (status.store.free_bytes as f64, status.store.capacity_bytes.max(1) as f64);
        Self {
            serving: status.state == NodeState::Serving,
            filling: status.repair.incoming.chunks_left > 0,
            used_percent: (100.0 * (1.0 - free / capacity)).clamp(0.0, 100.0),
        }
    }
}

pub(super) async fn usage(client: &AdminClient, node: NodeAddress) -> Result<NodeUsage, AdminError> {
    client.status(node).await.map(NodeUsage::from)
}

/// Begins a drain. The error is the reason why the node cannot be drained.
pub(super) async fn begin_drain(
    client: &AdminClient,
    node: NodeAddress,
    allow_fewer_copies: bool,
) -> Result<(), String> {
    let request = DrainRequest { allow_fewer_copies, rate: None };
    client.begin_drain(node, request).await.map(drop).map_err(|error| match error {
        AdminError::Refused { text, .. } => text,
        other => other.to_string(),
    })
}
