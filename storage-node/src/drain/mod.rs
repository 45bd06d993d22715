//! Leaving the ring while still serving: every chunk gets its full set of holders elsewhere, the vote on the namespace is
//! given up, the neighbours are told, and the process ends.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | the decisions, pure: who stays, who holds what without this node, is there room, and when it cannot be |
//! | `departure.rs` | what the writer, the repair and the ring's calls have to know of it |
//! | `task.rs` | carrying it out, step by step |
//! | `hand_over.rs` | bringing chunks to their future holders |
//! | `announce.rs`, `http.rs` | telling the other nodes; the operator's calls |
//! | `command.rs` | `storage-node drain` |
//! | `signals.rs` | SIGTERM as the word to drain |

mod announce;
pub mod command;
mod departure;
mod hand_over;
mod http;
pub mod plan;
mod signals;
mod task;

pub use self::{
    departure::{Departure, DrainPhase, DrainStatus},
    http::routes,
    plan::DrainError,
    signals::told_to_stop,
    task::{Drain, DrainOptions, DrainSettings, Turn},
};
