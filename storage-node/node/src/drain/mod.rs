//! Leaving the ring while still serving: every chunk gets its full set of holders elsewhere, the node gives up its vote
//! on the namespace, announces its departure to its neighbours, and ends the process.
//!
//! | file | what |
//! |---|---|
//! | `context.rs` | the parts of the node that a drain works on |
//! | `control.rs` | whether a drain is running, and until when it can be cancelled |
//! | `handle.rs`, `exclusive.rs` | beginning it, at once or one node after the other; cancelling it |
//! | `task.rs`, `leaving.rs` | carrying it out, step by step; the moment of leaving, after which there is no way back |
//! | `hand_over.rs` | copying chunks to their future holders |
//! | `pace.rs`, `stall_timeout.rs` | its rate limit, and how long it may make no progress |
//! | `announce.rs`, `http.rs` | announcing it to the other nodes; the operator's calls |
//! | `signals.rs` | SIGTERM as a drain request |
//!
//! The decisions of a drain are in the crate `chordfs-replication`. Writers, repair and the ring's calls read its state
//! in `replica::departure`.

mod announce;
mod context;
mod control;
mod exclusive;
mod hand_over;
mod handle;
mod http;
mod leaving;
mod pace;
mod signals;
mod stall_timeout;
mod task;

pub use self::{
    context::DrainContext,
    control::CancelDrainError,
    exclusive::ExclusiveStart,
    handle::{Drain, DrainOptions, DrainSettings},
    http::{peer_routes, routes},
    signals::shutdown_requested,
};
