//! Leaving the ring while still serving: every chunk gets its full set of holders elsewhere, the vote on the namespace is
//! given up, the neighbours are told, and the process ends.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | the decisions, pure: who stays, who holds what without this node, is there room, and when it cannot be |
//! | `departure.rs` | what the writer, the repair and the ring's calls have to know of it |
//! | `control.rs` | whether one is under way, and who may call it off until when |
//! | `handle.rs`, `in_turn.rs` | beginning it, at once or when it is this node's turn; calling it off |
//! | `task.rs`, `leaving.rs` | carrying it out, step by step; the moment of leaving, after which there is no way back |
//! | `hand_over.rs` | bringing chunks to their future holders |
//! | `pace.rs`, `patience.rs` | how fast that may go, and how long it may not get on |
//! | `progress.rs` | how far it is, how fast, and when it will be done |
//! | `announce.rs`, `http.rs` | telling the other nodes; the operator's calls |
//! | `command.rs`, `interrupt.rs` | `storage-node drain`, and what Ctrl-C does there |
//! | `signals.rs` | SIGTERM as the word to drain |

mod announce;
pub mod command;
mod control;
mod departure;
mod hand_over;
mod handle;
mod http;
mod in_turn;
mod interrupt;
mod leaving;
mod pace;
mod patience;
pub mod plan;
mod progress;
mod signals;
mod task;

pub use self::{
    control::CallOffError,
    departure::Departure,
    handle::{Drain, DrainOptions, DrainSettings},
    http::routes,
    in_turn::Turn,
    plan::DrainError,
    progress::{DrainPhase, DrainStatus},
    signals::told_to_stop,
};
