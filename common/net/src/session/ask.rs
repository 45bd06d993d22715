//! One question to one node and its answer; and the pauses between questions.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::namespace::{DecodeError, Response, calls, decode};
use rand::Rng;
use thiserror::Error;

use crate::rpc::{RpcClient, RpcError, Value};

#[derive(Debug, Error)]
pub enum AskError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("{address} answered something else than one binary")]
    Shape { address: SocketAddr },
    #[error("the answer of {address}: {error}")]
    Decode { address: SocketAddr, error: DecodeError },
}

/// Sends an encoded [`chordfs_types::namespace::Request`].
pub async fn ask(client: &RpcClient, request: &[u8], deadline: Duration) -> Result<Response, AskError> {
    let address = client.address();
    match client.call(calls::NAMESPACE, vec![Value::Binary(request.to_vec())], deadline).await? {
        Value::Binary(bytes) => decode(&bytes).map_err(|error| AskError::Decode { address, error }),
        _ => Err(AskError::Shape { address }),
    }
}

/// Pauses that double up to a bound, each shortened by chance so that many clients do not come back together.
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.most);
        pause
    }
}
