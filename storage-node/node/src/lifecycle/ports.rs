//! The node's three ports, in two steps: they are bound early, so that a conflict is found before anything starts, and
//! opened when the planes can answer.

use std::{io, net::SocketAddr};

use anyhow::{Context, Result};
use chordfs_types::ring_id::NodeAddress;
use tokio::net::{TcpListener, TcpSocket};

/// The length of the kernel's queue of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The bound ports of the three planes. Connections are refused until [`Port::listen`].
pub(super) struct Ports {
    pub ring: Port,
    pub files: Port,
    pub admin: Port,
}

impl Ports {
    pub(super) fn take(ring: SocketAddr) -> Result<Self> {
        let node = NodeAddress(ring);
        Ok(Self { ring: Port::take(node.ring())?, files: Port::take(node.files())?, admin: Port::take(node.admin())? })
    }
}

pub(super) struct Port {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Port {
    fn take(address: SocketAddr) -> Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let bound = socket.and_then(|socket| {
            // Connections of an earlier process may still be closing, and would block the port.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        });
        let socket = bound.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    ": this machine has no such address; if it is translated on the way to it, name the address to listen on with --listen"
                }
                _ => "",
            };
            anyhow::Error::new(error).context(format!("cannot listen on {address}{advice}"))
        })?;
        Ok(Self { address, socket })
    }

    pub(super) fn listen(self) -> Result<TcpListener> {
        self.socket.listen(BACKLOG).with_context(|| format!("cannot listen on {}", self.address))
    }
}
