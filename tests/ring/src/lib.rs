//! The shipping code of `storage-node/ring` in networks larger than any machine here could hold: thousands of nodes on
//! a simulated clock, and every interleaving of a few.

pub mod conditions;
pub mod exhaustive;
pub mod foreign;
pub mod growth;
pub mod invariants;
pub mod lives;
pub mod lookups;
mod member;
pub mod mixed;
pub mod network;
pub mod queue;
pub mod random;
pub mod tables;
pub mod tally;
