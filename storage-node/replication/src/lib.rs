//! Decisions about copies, pure: who holds what and brings what to whom, in what two holders differ, how fast copies
//! may go, and who keeps the chunks of a node that leaves.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what a holder has to repair, hand over or drop |
//! | `arc_comparison` | in what two holders differ, found by sums over ever smaller arcs |
//! | `claims` | who brings what, so that no two bring the same |
//! | `rate` | how fast copies may be made |
//! | `progress` | how much repair has left, how fast it is, and when it will be done |
//! | `drain`, `drain_progress` | who keeps the chunks of a node that leaves; how far it is |
#![deny(clippy::disallowed_methods)]

pub mod arc_comparison;
pub mod drain;
pub mod drain_progress;
pub mod incoming_claims;
pub mod plan;
pub mod rate;
pub mod repair_progress;
