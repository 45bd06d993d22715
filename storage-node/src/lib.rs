//! A storage node: a member of the ring that keeps chunks, serves them, and may vote on the namespace.

pub mod ask;
#[cfg(feature = "aws")]
pub mod aws;
pub mod check;
pub mod drain;
pub mod driver;
pub mod duration;
pub mod files;
pub mod http;
pub mod lifecycle;
pub mod namespace;
pub mod node;
pub mod pool;
pub mod recover;
pub mod replica;
pub mod ring;
pub mod scrub;
pub mod status;
pub mod store;
pub mod turn;
