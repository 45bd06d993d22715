//! MessagePack-RPC on a connection: values to bytes and back, a client and a server. The service defines the calls.
//!
//! Peers are not trusted: everything that a peer can make this process hold or wait for has a bound in [`RpcLimits`],
//! and a protocol violation closes that one connection. `skip` finds the end of a frame, `codec` decodes it, `wire`
//! reads and writes frames, `client` and `server` are the two ends.

use std::{net::SocketAddr, time::Duration};

pub use rmpv::Value;
use thiserror::Error;

mod client;
mod codec;
mod dialer;
mod server;
mod skip;
mod wire;

#[cfg(test)]
mod tests;

pub use client::RpcClient;
pub use dialer::{DialedStream, Dialer};
pub use server::{RpcPeer, RpcService, serve, serve_stream, serve_within};

#[derive(Clone, Debug, Error)]
pub enum RpcError {
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, kind: std::io::ErrorKind, reason: String },
    #[error("no answer from {address} within {deadline:?}")]
    Deadline { address: SocketAddr, deadline: Duration },
    #[error("{address} closed the connection")]
    Closed { address: SocketAddr },
    /// The peer answered with an error value.
    #[error("{address} refused: {error}")]
    Remote { address: SocketAddr, error: Value },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub method: String,
    pub params: Vec<Value>,
}

/// Bounds on the resources that one peer may occupy.
#[derive(Clone, Copy, Debug)]
pub struct RpcLimits {
    pub max_frame_bytes: usize,
    pub max_depth: usize,
    /// A connection is not read while this many of its requests are unanswered.
    pub max_calls_in_flight: usize,
    /// The connections of one identity, or of one address without any, are not read while so many of their requests are
    /// unanswered.
    pub max_calls_of_peer: u32,
    /// A connection beyond this number takes the place of an idle one, or is closed if there is none.
    pub max_connections: usize,
    /// Likewise for the connections of one address, which is neither this machine's own nor a neighbour's.
    pub max_per_address: usize,
    /// A connection without a request for this long is closed. Sessions send a request every few seconds; other clients
    /// connect again.
    pub idle_timeout: Duration,
    /// How long a frame may take to arrive once it has begun.
    pub frame_deadline: Duration,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 16 << 20,
            max_depth: 16,
            max_calls_in_flight: 256,
            max_calls_of_peer: 512,
            max_connections: 1024,
            max_per_address: 128,
            idle_timeout: Duration::from_secs(600),
            frame_deadline: Duration::from_secs(10),
        }
    }
}
