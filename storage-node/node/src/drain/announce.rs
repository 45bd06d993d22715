//! How nodes announce their drains to each other, on the administration port.
//!
//! ```text
//! POST /drain/peer   {"ip", "port", "draining"}            the sender drains (repeated every few seconds), or
//!                    answer {"draining", "free_bytes",     it serves again; the answer describes the receiver, and its
//!                            "disk", "bid"}                `bid` orders the nodes that wait, see `mutual_exclusion`
//! ```
//! A foreign node does not implement this call. It stores no chunks, so none can be handed over to it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_replication::drain::RemainingPeer;
use chordfs_types::{disk_space::Disk, ring_id::NodeRef};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{mutual_exclusion::Claim, replica::departure::DrainState};

const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Announcement {
    pub ip: IpAddr,
    pub port: u16,
    pub draining: bool,
}

impl Announcement {
    pub(super) fn ring_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    pub(super) fn state(&self) -> DrainState {
        if self.draining { DrainState::Draining } else { DrainState::Serving }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Acknowledgement {
    pub draining: bool,
    pub free_bytes: u64,
    #[serde(default)]
    pub disk: Option<Disk>,
    #[serde(default, rename = "bid")]
    pub claim: Claim,
}

/// Announces to all `members` but this node. Returns those that answer, in the order of the ring, and how many do not.
pub(super) async fn announce_to_all(
    pool: &Arc<HttpPool>,
    members: &[NodeRef],
    me: NodeRef,
    state: DrainState,
) -> (Vec<RemainingPeer>, usize) {
    let others: Vec<NodeRef> =
        members.iter().filter(|node| node.ring_address() != me.ring_address()).copied().collect();
    let answers = join_all(others.iter().map(|node| announce(pool, *node, me, state))).await;
    let peers: Vec<RemainingPeer> = answers.into_iter().flatten().collect();
    let unresponsive = others.len() - peers.len();
    (peers, unresponsive)
}

/// Returns `None` if the node does not answer, or if its answer is not that of a storage node.
async fn announce(pool: &Arc<HttpPool>, to: NodeRef, me: NodeRef, state: DrainState) -> Option<RemainingPeer> {
    let Acknowledgement { draining, free_bytes, disk, .. } = send(pool, to, me, state).await?;
    Some(RemainingPeer { node: to, draining, free_bytes, disk })
}

/// Requests another node's claim to drain, on behalf of a node that does not drain itself. Returns `None` as `announce`
/// does.
pub(super) async fn ask_claim(pool: &Arc<HttpPool>, to: NodeRef, me: NodeRef) -> Option<Claim> {
    let Acknowledgement { draining, claim, .. } = send(pool, to, me, DrainState::Serving).await?;
    Some(if draining { Claim::Held } else { claim })
}

async fn send(pool: &Arc<HttpPool>, to: NodeRef, me: NodeRef, state: DrainState) -> Option<Acknowledgement> {
    let announcement = Announcement { ip: me.ip, port: me.port, draining: state == DrainState::Draining };
    let acknowledgement = AdminClient::new(pool.clone(), DEADLINE).announce_drain(to.address(), &announcement).await;
    acknowledgement
        .inspect_err(|error| debug!(peer = %to, %error, "the node does not acknowledge the announcement of the drain"))
        .ok()
}
