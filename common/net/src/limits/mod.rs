//! Limits on what all peers together may make a process hold: bytes that are arriving or being worked on,
//! connections, and lines of the log.

mod byte_budget;
mod connection_table;
mod connections;
mod log_limiter;

pub use byte_budget::{ByteBudget, ByteClass, ByteReservation};
pub use connection_table::{ConnectionLimits, ConnectionRefusal};
pub use connections::{ConnectionLimiter, ConnectionPlace, RequestMark};
pub use log_limiter::{LogLimiter, LogPermit};
