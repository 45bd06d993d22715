//! The system from its users' view: real nodes, real mounts, real programs. One module for each promise or kind of
//! user.

mod api;
mod bad_input;
mod browser;
mod churn;
mod config;
mod drain;
mod experiment;
mod faults;
mod foreign;
mod fresh_names;
mod linearizability;
mod local_user;
mod memory;
mod operator;
mod pool;
mod pool_size;
mod posix;
mod programs;
mod scripts;
mod scrub;
mod seeds;
mod short_experiments;
mod status;
mod two_mounts;
mod unlogged;
