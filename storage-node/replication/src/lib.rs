//! The decisions about copies, as pure code: which nodes hold and send which chunks, in which chunks two holders
//! differ, how fast chunks may be copied, and which nodes take over the chunks of a node that leaves.
//!
//! | file | what |
//! |---|---|
//! | `plan` | which nodes have to hold which chunks |
//! | `arc_comparison` | in which chunks two holders differ, found by sums over ever smaller arcs |
//! | `incoming_claims` | which peer sends which chunk here, so that no two send the same one |
//! | `rate` | how fast chunks may be copied: a token bucket |
//! | `repair_progress` | how much repair has left to copy, how fast it is, and when it will be done |
//! | `restart_grace` | that a node which is away for less than a minute is not replaced |
//! | `drain`, `drain_progress` | which nodes take over the chunks of a node that leaves; how far the drain has got |
#![deny(clippy::disallowed_methods)]

pub mod arc_comparison;
pub mod drain;
pub mod drain_progress;
pub mod incoming_claims;
pub mod plan;
pub mod rate;
pub mod repair_progress;
pub mod restart_grace;
