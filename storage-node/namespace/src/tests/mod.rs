//! The namespace as a whole: real HTTP between nodes in one process, real files, a ring that is only pretended.

mod cluster;
mod harness;
mod log;
mod rivals;
