//! The tables under Raft (`state_machine.rs`), and the sessions that are notified of their changes (`session_feed.rs`).

pub(crate) mod session_feed;
pub(crate) mod state_machine;
