//! The ring of `storage-node/src/ring/`, the very code that ships, in networks that no machine here could hold:
//! thousands of nodes on a clock of their own, and every interleaving of a few.

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
