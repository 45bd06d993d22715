//! Keeping three holders of every chunk.
//!
//! Pure: the decisions (`plan`), in what two holders differ (`descent`), how fast copies may go (`rate`), who brings
//! what (`claims`), what is left to do (`progress`). Around them: the owner's way of a write (`write`), what all copying
//! shares (`traffic`), making two holders equal (`equal`), and the background work that does it and drops what is surplus
//! (`repair`).

pub mod claims;
pub mod descent;
mod equal;
pub mod peer;
pub mod plan;
pub mod progress;
pub mod rate;
pub mod repair;
#[cfg(test)]
mod tests;
pub mod traffic;
pub mod write;
