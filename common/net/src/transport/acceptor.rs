//! Taking a connection.
//!
//! The first byte of a TLS handshake is 22. A MessagePack-RPC message begins with an array, an HTTP request with a
//! letter. So programs that speak the plain protocols find them on the same ports, if the operator allows their
//! networks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use chordfs_identity::{Tls, peer_identity};
use rustls::ServerConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    buffered_socket::BufferedSocket,
    caller::RemoteCaller,
    connection::{Connection, ENCRYPTED_AT_ONCE},
};

const TLS_HANDSHAKE: u8 = 22;
/// How long a handshake may take once it has begun.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Cheap to clone. The default takes plain connections from anywhere and checks nobody.
#[derive(Clone, Default)]
pub struct Acceptor(Option<Arc<CheckedAcceptor>>);

struct CheckedAcceptor {
    tls: Arc<ServerConfig>,
    plain: PlainNetworks,
}

impl Acceptor {
    pub fn over(tls: &Tls, plain: PlainNetworks) -> Self {
        Self(Some(Arc::new(CheckedAcceptor { tls: tls.server(), plain })))
    }

    /// Waits for the first byte without a deadline: an idle connection is for the caller to end.
    pub async fn accept(&self, stream: TcpStream, address: IpAddr) -> io::Result<(Connection, RemoteCaller)> {
        let Some(checked) = &self.0 else { return Ok((Connection::Plain(stream), RemoteCaller::Unchecked)) };
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] != TLS_HANDSHAKE {
            // A program on this machine that connects to another of its addresses comes from that address.
            let is_own = stream.local_addr()?.ip() == address && checked.plain.contain(Ipv4Addr::LOCALHOST.into());
            if is_own || checked.plain.contain(address) {
                return Ok((Connection::Plain(stream), RemoteCaller::Plain));
            }
            let reason = "plain connections are not allowed from there; see `storage-node run --legacy`";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let handshake = TlsAcceptor::from(checked.tls.clone()).accept(BufferedSocket::new(stream));
        let mut stream = timeout(HANDSHAKE_DEADLINE, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.get_mut().1.set_buffer_limit(Some(ENCRYPTED_AT_ONCE));
        let owner = peer_identity(stream.get_ref().1);
        let owner = owner.map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
        let caller = owner.map_or(RemoteCaller::Unknown, |owner| RemoteCaller::Certified(Arc::new(owner)));
        Ok((Connection::Tls(Box::new(stream.into())), caller))
    }
}

/// Networks from which plain connections are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainNetworks(Vec<IpNetwork>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IpNetwork {
    /// IPv4 addresses are mapped into IPv6.
    address: u128,
    mask: u128,
}

impl PlainNetworks {
    /// This machine alone.
    pub fn loopback() -> Self {
        "127.0.0.0/8,::1".parse().expect("it is a list of networks")
    }

    /// Everybody.
    pub fn all() -> Self {
        "0.0.0.0/0,::/0".parse().expect("it is a list of networks")
    }

    /// Whether the address is in one of the networks.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = u128::from(mapped(address));
        self.0.iter().any(|network| address & network.mask == network.address)
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// A list as `127.0.0.0/8,10.1.2.3,fd00::/8`; `none` is the empty one.
impl FromStr for PlainNetworks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::default()),
            text => text.split(',').map(IpNetwork::from_str).collect::<Result<_, _>>().map(Self),
        }
    }
}

impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: write it as 10.0.0.0/8, fd00::/8, or one address");
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length: u32 = length.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if length > bits {
            return Err(wrong());
        }
        let mask = u128::MAX.checked_shl(bits - length).unwrap_or(0);
        let network = u128::from(mapped(address));
        if network & !mask != 0 {
            return Err(format!(
                "{text:?} names an address inside a network: its last {} bits are not 0",
                bits - length
            ));
        }
        Ok(Self { address: network, mask })
    }
}
