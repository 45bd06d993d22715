//! What `storage-node` asks of a running node, and what it does with the folder of a stopped one.

pub mod ask;
pub mod check;
pub mod drain;
mod interrupt;
pub mod recover;
pub mod scrub;
mod table;
