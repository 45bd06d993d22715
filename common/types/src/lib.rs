//! What mounts, nodes and operators say to each other, as plain values: the circle, chunks and their records, the
//! namespace's operations, and what a node reports of itself.
//!
//! Nothing here waits, reads a clock or opens a socket, so the pure crates can stand on it, and none of it needs a runtime.

pub mod admin;
pub mod byte_size;
pub mod chunk;
pub mod chunk_api;
pub mod compare_api;
pub mod duration;
pub mod fs_error;
pub mod namespace;
pub mod placement;
pub mod rate_limit;
pub mod ring_id;
pub mod route_table;
