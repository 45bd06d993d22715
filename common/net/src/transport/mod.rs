//! How processes of a ring connect: over TLS 1.3 between owners of its certificates, or plainly.
//!
//! | file | its idea |
//! |---|---|
//! | `connection` | one connection, encrypted or not |
//! | `buffered_socket` | what is below TLS, read in large pieces |
//! | `connector` | making a connection to a node |
//! | `acceptor` | taking one: the first byte tells TLS from the plain protocols, so both share a port |
//! | `caller` | who is at the other end, for the check of each call |
//!
//! What an unknown caller may do is not decided here.

mod acceptor;
mod buffered_socket;
mod caller;
mod connection;
mod connector;
#[cfg(test)]
mod tests;

pub use self::{
    acceptor::{Acceptor, PlainNetworks},
    caller::RemoteCaller,
    connection::Connection,
    connector::{Connector, TlsProbe, probe_tls},
};
