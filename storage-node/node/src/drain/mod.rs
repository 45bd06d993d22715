//! Leaving the ring while still serving: every chunk gets its full set of holders elsewhere, the vote on the namespace is
//! given up, the neighbours are told, and the process ends.
//!
//! | file | what |
//! |---|---|
//! | `control.rs` | whether one is under way, and who may call it off until when |
//! | `handle.rs`, `in_turn.rs` | beginning it, at once or when it is this node's turn; calling it off |
//! | `task.rs`, `leaving.rs` | carrying it out, step by step; the moment of leaving, after which there is no way back |
//! | `hand_over.rs` | bringing chunks to their future holders |
//! | `pace.rs`, `patience.rs` | how fast that may go, and how long it may not get on |
//! | `announce.rs`, `http.rs` | telling the other nodes; the operator's calls |
//! | `signals.rs` | SIGTERM as the word to drain |
//!
//! What a drain decides is in the crate `chordfs-replication`; what writers, repair and the ring's calls have to know of it is
//! `replica::departure`.

mod announce;
mod control;
mod hand_over;
mod handle;
mod http;
mod in_turn;
mod leaving;
mod pace;
mod patience;
mod signals;
mod task;

pub use self::{
    control::CallOffError,
    handle::{Drain, DrainOptions, DrainSettings},
    http::routes,
    in_turn::Turn,
    signals::told_to_stop,
};
