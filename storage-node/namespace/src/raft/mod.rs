//! This node's Raft and what it knows of the other members.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | the running Raft: its term, its lease, its failure, proposals |
//! | `network.rs` | messages to other members |
//! | `leader.rs` | where the leader is |
//! | `dead_leader.rs` | replacing a leader whose process has ended without waiting for its lease |

pub(crate) mod dead_leader;
pub(crate) mod handle;
pub(crate) mod leader;
pub(crate) mod network;
