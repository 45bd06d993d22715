//! The ring of `storage-node/src/ring/`, the very code that ships, in networks that no machine here could hold: thousands
//! of nodes on a clock of their own, and every interleaving of a few.
pub mod exhaustive;
pub mod invariants;
pub mod network;
pub mod tables;
