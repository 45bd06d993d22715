//! The command-line option that names a node, and the client for the node's administration plane.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::ring_id::NodeAddress;
use clap::Args;

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Copy, Debug)]
pub struct NodeArg {
    /// A running node [IP:PORT of its ring plane, or IP for port 5057]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5057", value_parser = ring_address)]
    node: SocketAddr,
}

impl NodeArg {
    pub fn address(self) -> NodeAddress {
        NodeAddress(self.node)
    }
}

pub fn ring_address(text: &str) -> Result<SocketAddr, String> {
    let with_default = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 5057));
    text.parse().or_else(|_| with_default()).map_err(|_| format!("{text:?} is neither IP:PORT nor an IP"))
}

pub(crate) fn admin_client() -> AdminClient {
    admin_client_with(DEADLINE)
}

pub(crate) fn admin_client_with(deadline: Duration) -> AdminClient {
    AdminClient::new(Arc::new(HttpPool::with_unlimited_answers()), deadline)
}
