//! Limits on what all peers together, and one of them, may make a process hold: bytes that are arriving or being worked
//! on, calls, and connections.

mod byte_budget;
mod connection_table;
mod connections;
mod peer_shares;

pub use byte_budget::{ByteBudget, ByteClass, ByteReservation};
pub use connection_table::{ConnectionLimits, ConnectionRefusal};
pub use connections::{ConnectionLimiter, ConnectionPlace, RequestMark};
pub use peer_shares::{PeerKey, PeerShare, PeerShares};
