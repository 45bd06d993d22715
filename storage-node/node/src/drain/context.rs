//! The parts of a node that a drain works on. A drain sees nothing else of its node.

use std::sync::Arc;

use chordfs_namespace::Namespace;
use chordfs_net::http_pool::HttpPool;
use chordfs_store::Store;

use crate::{
    driver::RingHandle,
    node::stage::Stage,
    replica::{copy_traffic::CopyTraffic, departure::Departure, peer::Peers},
};

/// Cloning it is cheap.
#[derive(Clone)]
pub struct DrainContext {
    pub stage: Arc<Stage>,
    pub ring: RingHandle,
    pub store: Arc<Store>,
    pub peers: Peers,
    /// Carries the announcements to the other nodes.
    pub pool: Arc<HttpPool>,
    pub traffic: Arc<CopyTraffic>,
    pub departure: Arc<Departure>,
    pub namespace: Namespace,
}
