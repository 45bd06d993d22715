//! What a hosting platform adds to a node.

use std::sync::Arc;

use chordfs_net::http_pool::HttpPool;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;

/// Hooks for the platform that a node runs on, such as the cloud its machine belongs to.
pub trait HostEnvironment: Send + Sync + 'static {
    /// Additional routes for the administration port.
    fn routes(&self) -> axum::Router;
    /// A field of `/healthz`: its name and its value.
    fn health(&self) -> (&'static str, serde_json::Value);
    /// Called once the node has taken its place in the ring.
    fn placed(&self);
    /// Runs beside the node from its start, and connects to nodes as this one does. It ends after `stop`, and the
    /// process waits for it.
    fn attend(self: Arc<Self>, drain: Drain, pool: Arc<HttpPool>, stop: CancellationToken) -> BoxFuture<'static, ()>;
}
