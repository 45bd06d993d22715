//! The commands of `storage-node`, one file each: running a node, controlling a running one, recovering a stopped one.

pub mod autoscaler;
pub mod check;
pub mod config;
pub mod drain;
pub mod identities;
mod interrupt;
pub mod ls;
mod mounts;
pub mod node_arg;
pub mod output;
pub mod pool_size;
mod progress;
pub mod recover;
pub mod rejoin;
mod root_owner;
pub mod run;
pub mod scrub;
pub mod status;
mod table;
pub mod token;
mod units;
mod verdict;
