//! The configuration of a node.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use chordfs_namespace::RootOwner;
use chordfs_net::limits::ByteBudget;
use chordfs_store::StoreOptions;
use chordfs_types::rate_limit::RateLimit;

use crate::{identity::SecurityConfig, scrub};

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub data: PathBuf,
    /// The node's ring address; the other planes use the next two ports.
    pub address: SocketAddr,
    /// The address to listen on, if `address` is not this machine's own but translated on the way to it.
    pub listen: Option<IpAddr>,
    pub join: Vec<SocketAddr>,
    pub id: Option<u32>,
    /// The failure domain of this node: an availability zone, a rack.
    pub zone: Option<String>,
    /// Founds a namespace although it joins a ring; for rings that no storage node founded.
    pub found_namespace: bool,
    /// Gets the root directory if this node founds a namespace.
    pub root_owner: RootOwner,
    pub store: StoreOptions,
    /// The identity of the node, and the connections that it takes without one.
    pub security: SecurityConfig,
    /// The names, besides addresses and private names, by which browsers and programs may call this node.
    pub host_names: Vec<String>,
    /// The most bytes that the node holds of what is arriving from mounts, other nodes and programs.
    pub peer_memory_bytes: usize,
    pub allow_kill: bool,
    /// The first SIGTERM drains the node instead of stopping it.
    pub drain_on_term: bool,
    /// The deadline of one request between nodes.
    pub peer_deadline: Duration,
    /// The deadline of one query to the ring.
    pub look_up_deadline: Duration,
    /// The deadline of an operation for a script or a browser.
    pub operation_deadline: Duration,
    /// How long to keep asking the members named in `join`.
    pub join_deadline: Duration,
    pub repair_period: Duration,
    /// How long a lost neighbour is expected back before another node is filled in its place.
    pub restart_grace: Duration,
    /// The rate limit of repair and filling.
    pub repair_rate: RateLimit,
    pub compact_period: Duration,
    pub scrub: scrub::ScrubSettings,
    /// The length of a minute in the node's history; others than 60 s are for tests.
    pub history_period: Duration,
}

impl NodeConfig {
    pub fn new(data: PathBuf, address: SocketAddr) -> Self {
        Self {
            data,
            address,
            listen: None,
            join: Vec::new(),
            id: None,
            zone: None,
            found_namespace: false,
            root_owner: RootOwner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() },
            store: StoreOptions::default(),
            security: SecurityConfig::default(),
            host_names: Vec::new(),
            peer_memory_bytes: ByteBudget::DEFAULT_BYTES,
            allow_kill: false,
            drain_on_term: false,
            peer_deadline: Duration::from_secs(10),
            look_up_deadline: Duration::from_secs(2),
            operation_deadline: Duration::from_secs(30),
            join_deadline: Duration::from_secs(60),
            repair_period: Duration::from_secs(8),
            restart_grace: Duration::from_secs(60),
            repair_rate: RateLimit::default(),
            compact_period: Duration::from_secs(2),
            scrub: scrub::ScrubSettings::default(),
            history_period: Duration::from_secs(60),
        }
    }

    pub(super) fn listens_at(&self) -> SocketAddr {
        SocketAddr::new(self.listen.unwrap_or(self.address.ip()), self.address.port())
    }
}
