//! The tables under Raft (`state_machine.rs`), and the sessions that are notified of their changes (`session_feed.rs`).

pub mod session_feed;
pub mod state_machine;
