//! Keeping three holders of every chunk.
//!
//! The crate `chordfs-replication` decides. Here are the write path at the owner (`write`), the state that all copying
//! shares (`copy_traffic`), reconciling two holders (`reconcile`), the background task that reconciles all holders and
//! drops surplus copies (`repair`), and the record of which nodes drain (`departure`).

pub mod copy_traffic;
pub mod departure;
pub mod peer;
mod reconcile;
pub mod repair;
#[cfg(test)]
mod tests;
pub mod write;
