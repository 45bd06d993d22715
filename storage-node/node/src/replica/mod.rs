//! Keeping three holders of every chunk.
//!
//! The decisions are the crate `chordfs-replication`. Around them: the owner's way of a write (`write`), what all
//! copying shares (`traffic`), making two holders equal (`equal`), the background work that does it and drops what is
//! surplus (`repair`), and whether this node or a neighbour drains (`departure`).

pub mod departure;
mod equal;
pub mod peer;
pub mod repair;
#[cfg(test)]
mod tests;
pub mod traffic;
pub mod write;
