//! One request to one node, and its response.

use std::{net::SocketAddr, time::Duration};

use chordfs_types::namespace::{DecodeError, Response, calls, decode};
use thiserror::Error;

use crate::rpc::{RpcClient, RpcError, Value};

#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("{address} answered with something other than a binary")]
    Shape { address: SocketAddr },
    #[error("cannot decode the answer of {address}: {error}")]
    Decode { address: SocketAddr, error: DecodeError },
}

/// Sends an encoded [`chordfs_types::namespace::Request`].
pub(super) async fn send_request(
    client: &RpcClient,
    request: &[u8],
    deadline: Duration,
) -> Result<Response, RequestError> {
    let address = client.address();
    match client.call(calls::NAMESPACE, vec![Value::Binary(request.to_vec())], deadline).await? {
        Value::Binary(bytes) => decode(&bytes).map_err(|error| RequestError::Decode { address, error }),
        _ => Err(RequestError::Shape { address }),
    }
}
