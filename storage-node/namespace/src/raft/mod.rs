//! This node's Raft and what it knows of the other members.
//!
//! | file | what |
//! |---|---|
//! | `handle.rs` | the running Raft: its term, its lease, its failure, proposals |
//! | `sleep_guard.rs` | a lease from before the machine slept is void |
//! | `network.rs` | messages to other members |
//! | `commit_merge.rs` | how far the log is committed travels with the next entries |
//! | `leader.rs` | where the leader is |
//! | `dead_leader.rs` | replacing a leader whose process has ended without waiting for its lease |

mod commit_merge;
pub(crate) mod dead_leader;
pub(crate) mod handle;
pub(crate) mod leader;
pub(crate) mod network;
mod sleep_guard;
