//! Communication between mounts and nodes: MessagePack-RPC, pooled HTTP connections, routing from a key to its holders,
//! batches of chunks, and sessions with the namespace.

pub mod admin_client;
pub mod allocator;
pub mod backoff;
pub mod boot_clock;
mod buffer_pool;
pub mod chunk_client;
pub mod clients;
pub mod http_pool;
pub mod identity_client;
pub mod identity_store;
pub mod limits;
pub mod operation;
pub mod operator_token;
pub mod ring_access;
pub mod ring_wire;
pub mod router;
pub mod rpc;
pub mod session;
pub mod tasks;
pub mod transport;
