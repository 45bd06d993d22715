//! Limits on what all peers together may make a process hold: bytes that are arriving or being worked on, and
//! connections.

mod byte_budget;
mod connection_table;
mod connections;

pub use byte_budget::{ByteBudget, ByteClass, ByteReservation};
pub use connection_table::{ConnectionLimits, ConnectionRefusal};
pub use connections::{ConnectionLimiter, ConnectionPlace, RequestMark};
