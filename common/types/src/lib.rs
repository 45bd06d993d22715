//! The plain values that mounts, nodes and operators exchange: the circle, chunks and their records, the namespace's
//! operations, and what a node reports about itself.
//!
//! Nothing here waits or opens a socket, so the pure crates can use it, and none of it needs a runtime. Only
//! [`namespace::Time::now`] reads a clock, and the pure crates may not call it.
#![warn(missing_docs)]

pub mod admin;
pub mod byte_size;
pub mod chunk;
pub mod chunk_api;
pub mod compare_api;
pub mod disk_space;
pub mod duration;
pub mod fs_error;
pub mod identity;
pub mod ino;
pub mod namespace;
pub mod operator;
pub mod placement;
pub mod rate_limit;
pub mod ring_config;
pub mod ring_id;
pub mod route_table;
