//! The tables under Raft (`state_machine.rs`), the sessions that are notified of their changes (`session_feed.rs`) and
//! what they may remember (`lease_book.rs`, `told.rs`), changes before they are applied (`change_intent.rs`), and when
//! which change was applied here (`applied_history.rs`).

pub(crate) mod applied_history;
pub(crate) mod change_intent;
pub(crate) mod lease_book;
pub(crate) mod session_feed;
pub(crate) mod state_machine;
mod told;
