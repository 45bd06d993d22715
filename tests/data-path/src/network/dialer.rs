//! Connections from a mount to the nodes that may lead the namespace.

use std::{io, net::SocketAddr, sync::Arc};

use chordfs_net::rpc::{DialedStream, Dialer, RpcLimits, serve_stream};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Link, pipe::connection};
use crate::namespace::{Namespace, Voter, voter_at};

pub(crate) struct SimDialer {
    pub link: Arc<Link>,
    pub namespace: Arc<Namespace>,
}

impl std::fmt::Debug for SimDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the dialer of mount {}", self.link.mount)
    }
}

impl Dialer for SimDialer {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<DialedStream>> {
        Box::pin(async move {
            sleep(self.link.delay()).await;
            self.link.up().await;
            let Some(voter) = voter_at(address) else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let (ours, theirs) = connection(&self.link, &self.link.connections());
            let service = Arc::new(Voter { number: voter, link: self.link.clone(), namespace: self.namespace.clone() });
            tokio::spawn(serve_stream(theirs, address, service, RpcLimits::default(), CancellationToken::new()));
            sleep(self.link.delay()).await;
            Ok(ours)
        })
    }
}
