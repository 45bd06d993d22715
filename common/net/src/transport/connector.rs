//! Making a connection to a node.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use chordfs_identity::{Fingerprint, IdentityError, Tls, pinned_client};
use rustls::{ClientConfig, Error as TlsError, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    buffered_socket::BufferedSocket,
    connection::{Connection, ENCRYPTED_AT_ONCE},
};

const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Connector {
    /// For rings without identities.
    #[default]
    Plain,
    /// Accepts only nodes of the ring.
    Ring(Tls),
    /// For a newcomer: accepts only nodes of one ring, and shows no certificate.
    Pinned(Arc<ClientConfig>),
}

impl Connector {
    pub fn over(tls: &Tls) -> Self {
        Self::Ring(tls.clone())
    }

    /// For a newcomer without a certificate, which knows the ring by the fingerprint of its authority.
    pub fn pinned(authority: Fingerprint) -> Result<Self, IdentityError> {
        Ok(Self::Pinned(Arc::new(pinned_client(authority)?)))
    }

    /// Whether its connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Connects without a deadline; the caller sets one.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let config = match self {
            Self::Plain => return Ok(Connection::Plain(stream)),
            Self::Ring(tls) => tls.client(),
            Self::Pinned(config) => config.clone(),
        };
        // Sessions are resumed by this name, so each node has another: its verifier does not look at it.
        let name = format!("{}-{}", address.ip(), address.port()).replace([':', '.', '%'], "-");
        let name = ServerName::try_from(format!("n{name}")).map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(config).connect(name, BufferedSocket::new(stream)).await?;
        stream.get_mut().1.set_buffer_limit(Some(ENCRYPTED_AT_ONCE));
        Ok(Connection::Tls(Box::new(stream.into())))
    }
}

/// What a node that was not asked before answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProbe {
    /// It belongs to a ring with identities.
    Encrypted,
    /// It belongs to a ring without identities, or is no node of ours.
    Plain,
    Unreachable,
}

/// Finds out whether the node at `address` belongs to a ring with identities. It tries a handshake with a ring that
/// does not exist, and looks whether the answer is a certificate.
pub async fn probe_tls(address: SocketAddr) -> TlsProbe {
    let reachable = timeout(PROBE_DEADLINE, TcpStream::connect(address)).await;
    let (Ok(Ok(_)), Ok(stranger)) = (reachable, Connector::pinned(Fingerprint::of(b"no authority"))) else {
        return TlsProbe::Unreachable;
    };
    match timeout(PROBE_DEADLINE, stranger.connect(address)).await {
        Ok(Err(error)) => {
            let reason = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>());
            let has_certificate = matches!(reason, Some(TlsError::InvalidCertificate(_)));
            if has_certificate { TlsProbe::Encrypted } else { TlsProbe::Plain }
        }
        Ok(Ok(_)) => TlsProbe::Plain,
        // A node that is busy or stopped accepts connections, too.
        Err(_) => TlsProbe::Unreachable,
    }
}
