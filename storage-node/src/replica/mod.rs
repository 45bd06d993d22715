//! Keeping three holders of every chunk: the decisions (`plan`, pure), the owner's way of a write (`write`), and the
//! background work that makes neighbours equal, fetches what is missing and drops what is surplus (`repair`).

pub mod peer;
pub mod plan;
pub mod repair;
pub mod write;
