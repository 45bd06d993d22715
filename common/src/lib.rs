//! What mounts and storage nodes share: the circle, chunks and their records, the namespace's messages, and the clients
//! of the two protocols. See the README's map for the rooms around it.

pub mod boot_clock;
pub mod chunk;
pub mod chunk_api;
pub mod chunk_client;
pub mod compare_api;
pub mod fs_error;
#[cfg(feature = "aws")]
pub mod group;
pub mod http_pool;
pub mod namespace;
pub mod placement;
pub mod ring_id;
pub mod ring_wire;
pub mod router;
pub mod rpc;
pub mod session;
