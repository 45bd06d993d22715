//! Limits on what all peers together may make a process hold: bytes that are arriving or being worked on.

mod byte_budget;

pub use byte_budget::{ByteBudget, ByteClass, ByteReservation};
