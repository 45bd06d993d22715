//! What the pool asks of its nodes, over their planes of administration.

use std::{net::SocketAddr, time::Duration};

use chordfs_net::http_pool::HttpPool;
use chordfs_types::{
    admin::{DrainStatus, NodeState, NodeStatus},
    ring_id::{NodeRef, RingId},
};
use hyper::{HeaderMap, Method};
use serde::de::DeserializeOwned;

const DEADLINE: Duration = Duration::from_secs(3);

/// A node as it answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub serving: bool,
    pub filling: bool,
    pub used_percent: f64,
}

pub async fn look(pool: &HttpPool, node: SocketAddr) -> Result<Look, String> {
    let status: NodeStatus = ask(pool, node, Method::GET, "/status").await?;
    let (free, capacity) = (status.store.free_bytes as f64, status.store.capacity_bytes.max(1) as f64);
    Ok(Look {
        serving: status.state == NodeState::Serving,
        filling: status.repair.incoming.chunks_left > 0,
        used_percent: (100.0 * (1.0 - free / capacity)).clamp(0.0, 100.0),
    })
}

/// The error says why it cannot be drained.
pub async fn begin_drain(pool: &HttpPool, node: SocketAddr, allow_fewer_copies: bool) -> Result<(), String> {
    let path = format!("/drain?allow_fewer_copies={allow_fewer_copies}");
    ask::<Option<DrainStatus>>(pool, node, Method::POST, &path).await.map(drop)
}

pub async fn drain_status(pool: &HttpPool, node: SocketAddr) -> Result<Option<DrainStatus>, String> {
    ask(pool, node, Method::GET, "/drain").await
}

async fn ask<T: DeserializeOwned>(pool: &HttpPool, node: SocketAddr, method: Method, path: &str) -> Result<T, String> {
    let address = NodeRef { ip: node.ip(), port: node.port(), id: RingId(0) }.admin_address();
    let answer = pool.request(address, method, path, HeaderMap::new(), Vec::new(), DEADLINE).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status.is_success() {
        true => serde_json::from_slice(&answer.body).map_err(|error| format!("{path} of {address}: {error}")),
        false => Err(answer.text()),
    }
}
