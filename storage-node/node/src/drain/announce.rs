//! What nodes tell each other of drains, on the plane of administration.
//!
//! ```text
//! POST /drain/peer   {"ip", "port", "draining"}            that node drains (it says so again every few seconds), or does
//!                    answer {"draining", "free_bytes",     no more; the answer is about the one that was told,
//!                            "bid"}                        `bid` orders those that wait to drain, see `mutual_exclusion`
//! ```
//! A foreign node answers with no such thing; it keeps no chunks, so it is nobody to hand them to.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use chordfs_net::http_pool::HttpPool;
use chordfs_replication::drain::Peer;
use chordfs_types::ring_id::NodeRef;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::mutual_exclusion::Claim;

const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    pub ip: IpAddr,
    pub port: u16,
    pub draining: bool,
}

impl Announcement {
    pub fn ring_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub draining: bool,
    pub free_bytes: u64,
    #[serde(default)]
    #[serde(rename = "bid")]
    pub claim: Claim,
}

/// Tells all `members` but this node; those that answer, in the order of the ring, and how many do not.
pub async fn announce_to_all(pool: &HttpPool, members: &[NodeRef], me: NodeRef, draining: bool) -> (Vec<Peer>, usize) {
    let others: Vec<NodeRef> =
        members.iter().filter(|node| node.ring_address() != me.ring_address()).copied().collect();
    let told = join_all(others.iter().map(|node| announce(pool, *node, me, draining))).await;
    let peers: Vec<Peer> = told.into_iter().flatten().collect();
    let silent = others.len() - peers.len();
    (peers, silent)
}

/// `None` if it does not answer, or not as one of ours does.
async fn announce(pool: &HttpPool, to: NodeRef, me: NodeRef, draining: bool) -> Option<Peer> {
    let Acknowledgement { draining, free_bytes, .. } = tell(pool, to, me, draining).await?;
    Some(Peer { node: to, draining, free_bytes })
}

/// What a node that does not drain itself hears of another one's wish to. `None` as above.
pub async fn ask_claim(pool: &HttpPool, to: NodeRef, me: NodeRef) -> Option<Claim> {
    let Acknowledgement { draining, claim, .. } = tell(pool, to, me, false).await?;
    Some(if draining { Claim::Held } else { claim })
}

async fn tell(pool: &HttpPool, to: NodeRef, me: NodeRef, draining: bool) -> Option<Acknowledgement> {
    let announcement = Announcement { ip: me.ip, port: me.port, draining };
    let body = Bytes::from(serde_json::to_vec(&announcement).expect("plain data always encodes"));
    let answer = pool.post(to.admin_address(), "/drain/peer", vec![body], DEADLINE).await;
    let heard = answer.map_err(|error| error.to_string()).and_then(|answer| match answer.status.is_success() {
        true => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
        false => Err(format!("{}: {}", answer.status, answer.text())),
    });
    match heard {
        Ok(heard) => Some(heard),
        Err(reason) => {
            debug!(peer = %to, reason, "does not hear of the drain");
            None
        }
    }
}
