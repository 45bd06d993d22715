//! This node's Raft and what it knows of the other members.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | the running Raft: its term, its lease, its failure, proposals |
//! | `network.rs` | messages to other members |
//! | `leader.rs` | where the leader is |
//! | `dead_leader.rs` | replacing a leader whose process has ended without waiting for its lease |

pub mod dead_leader;
pub mod handle;
pub mod leader;
pub mod network;
