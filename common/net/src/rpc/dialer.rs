//! How a connection to a node is made: by a [`Connector`] in a program, over anything that carries bytes in a
//! simulation.

use std::{fmt::Debug, io, net::SocketAddr};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::configure_socket;
use crate::transport::Connector;

/// The two halves of a connection.
pub struct DialedStream {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

pub trait Dialer: Debug + Send + Sync {
    /// Connects without a deadline; the caller sets one.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<DialedStream>>;
}

impl Dialer for Connector {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<DialedStream>> {
        Box::pin(async move {
            let connection = Connector::connect(self, address).await?;
            configure_socket(connection.socket())?;
            let (read, write) = connection.into_halves();
            Ok(DialedStream { read, write })
        })
    }
}
