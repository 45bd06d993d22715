//! How a connection to a node is made: over TCP in a program, over anything that carries bytes in a simulation.

use std::{fmt::Debug, io, net::SocketAddr};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::wire::configure_socket;

/// The two halves of a connection.
pub struct DialedStream {
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

pub trait Dialer: Debug + Send + Sync {
    /// Connects without a deadline; the caller sets one.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<DialedStream>>;
}

#[derive(Clone, Copy, Debug)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<DialedStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            configure_socket(&stream)?;
            let (read, write) = stream.into_split();
            Ok(DialedStream { read: Box::new(read), write: Box::new(write) })
        })
    }
}
