//! MessagePack-RPC on a connection: values to bytes and back, a client and a server. What a call means is the
//! service's business.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

pub use rmpv::Value;
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, Error)]
pub enum RpcError {
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error("no answer from {address} within {deadline:?}")]
    Deadline { address: SocketAddr, deadline: Duration },
    #[error("{address} closed the connection")]
    Closed { address: SocketAddr },
    /// The peer answered with an error value.
    #[error("{address} refused: {error}")]
    Remote { address: SocketAddr, error: Value },
}

#[derive(Clone, Debug)]
pub struct Notification {
    pub method: String,
    pub params: Vec<Value>,
}

/// One multiplexed connection: any number of calls at a time. Cheap to clone.
#[derive(Clone)]
pub struct RpcClient {}

impl RpcClient {
    /// Notifications from the peer go to `notifications`, if given, in their order among the responses.
    pub async fn connect(
        _address: SocketAddr,
        _deadline: Duration,
        _notifications: Option<mpsc::Sender<Notification>>,
    ) -> Result<Self, RpcError> {
        unimplemented!()
    }

    pub async fn call(&self, _method: &str, _params: Vec<Value>, _deadline: Duration) -> Result<Value, RpcError> {
        unimplemented!()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        unimplemented!()
    }

    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }
}

/// The other end of a served connection, to send notifications to. Cheap to clone.
#[derive(Clone)]
pub struct RpcPeer {}

impl RpcPeer {
    pub fn address(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Unique among the connections of this process's life.
    pub fn connection_id(&self) -> u64 {
        unimplemented!()
    }

    /// Queues a notification; false when the connection is gone or its queue is full (then it is closed).
    pub fn notify(&self, _method: &str, _params: Vec<Value>) -> bool {
        unimplemented!()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        unimplemented!()
    }
}

pub trait RpcService: Send + Sync + 'static {
    /// The error value goes to the caller as it is; text by convention.
    fn call(
        &self,
        peer: &RpcPeer,
        method: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Value, Value>> + Send;
}

/// Bounds on what one peer may make us hold.
#[derive(Clone, Copy, Debug)]
pub struct RpcLimits {
    pub max_frame_bytes: usize,
    pub max_depth: usize,
    pub max_calls_in_flight: usize,
    pub max_connections: usize,
    /// How long a frame that has begun may take to arrive whole.
    pub frame_deadline: Duration,
}

/// Serves until `shutdown`.
pub async fn serve<S: RpcService>(
    _listener: TcpListener,
    _service: Arc<S>,
    _limits: RpcLimits,
    _shutdown: CancellationToken,
) {
    unimplemented!()
}
