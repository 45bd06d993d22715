//! Limits on what all peers together, and one of them, may make a process hold: bytes that are arriving or being worked
//! on, calls, and connections.
//!
//! | what is limited | for all peers | for one peer ([`PeerKey`]) |
//! |---|---|---|
//! | bytes that arrive, and bytes of large answers | [`ByteBudget`] | a part of it ([`ByteBudget::reserve_for`]) |
//! | calls on 5057 | `RpcLimits::max_calls_in_flight`, on each connection | `RpcLimits::max_calls_of_peer` |
//! | connections | [`ConnectionLimiter`] | the server's own [`PeerShares`] |

mod byte_budget;
mod connection_table;
mod connections;
mod peer_shares;

pub use byte_budget::{ByteBudget, ByteClass, ByteReservation};
pub use connection_table::{ConnectionLimits, ConnectionRefusal};
pub use connections::{ConnectionLimiter, ConnectionPlace, RequestMark};
pub use peer_shares::{PeerKey, PeerShare, PeerShares};
