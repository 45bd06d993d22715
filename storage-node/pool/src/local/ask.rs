//! The pool's requests to its nodes, on their administration planes.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_identity::Role;
use chordfs_net::{
    admin_client::{AdminClient, AdminError, DrainRequest},
    http_pool::HttpPool,
    operator_token::authority_path,
    ring_access::RingAccess,
};
use chordfs_types::{
    admin::{NodeState, NodeStatus},
    ring_id::NodeAddress,
};
use tokio::time::timeout;
use tracing::debug;

const DEADLINE: Duration = Duration::from_secs(3);
/// Half of the life of a command's certificate.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 60);

pub(super) fn client() -> AdminClient {
    AdminClient::new(Arc::new(HttpPool::new()), DEADLINE)
}

/// How the pool connects to its nodes. In a ring with identities it obtains a certificate from a node, as commands do
/// on the machine of a node; the certificate of a command is short-lived, so another one is obtained in time.
pub(super) struct PoolClient {
    client: AdminClient,
    obtained: Option<Instant>,
}

impl PoolClient {
    pub(super) fn plain() -> Self {
        Self { client: client(), obtained: None }
    }

    pub(super) fn get(&self) -> &AdminClient {
        &self.client
    }

    /// To be called now and then. `data` is the folder of any node of the pool, and `nodes` are their addresses.
    pub(super) async fn renew(&mut self, data: &Path, nodes: &[NodeAddress]) {
        let is_fresh = self.obtained.is_some_and(|at| at.elapsed() < RENEW_AFTER);
        if is_fresh || !authority_path(data).exists() {
            return;
        }
        let nodes: Vec<SocketAddr> = nodes.iter().map(|node| node.ring()).collect();
        let access = timeout(DEADLINE, RingAccess::find(&nodes, Role::Operator, "storage-node pool")).await;
        match access {
            Ok(Ok(access)) if access.connector().is_encrypted() => {
                self.client = AdminClient::new(Arc::new(HttpPool::over(access.connector().clone())), DEADLINE);
                self.obtained = Some(Instant::now());
            }
            Ok(Err(error)) => debug!(%error, "the pool has no certificate of its ring yet"),
            Ok(Ok(_)) | Err(_) => debug!("the pool has no certificate of its ring yet"),
        }
    }
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
