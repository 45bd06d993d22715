//! The namespace as a whole: real HTTP between nodes in one process, real files, a simulated ring.

mod cluster;
mod harness;
mod lists;
mod log;
mod power_cut;
mod recovery_power_cut;
mod rivals;
mod scale;
mod unlogged;
