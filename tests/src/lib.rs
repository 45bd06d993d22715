//! The harness: real storage nodes, real mounts, real Python clients, and waiting for conditions with a
//! deadline. The assertions about features are in `tests/it`, not here.

pub mod cluster;
pub mod disk;
pub mod foreign;
pub mod hostile_network;
mod kept_logs;
pub mod lab;
pub mod load;
pub mod local_pool;
pub mod mount;
pub mod netns;
mod process;
pub mod programs;
pub mod raw_rpc;
pub mod tree;
pub mod wait;

pub use self::{
    cluster::{Cluster, Stored},
    foreign::ForeignNode,
    lab::Lab,
    load::Load,
    local_pool::LocalPool,
    mount::TempMount,
    programs::{Outcome, binary, browser, python, run},
    raw_rpc::RawRpc,
    wait::wait_for,
};
