//! The namespace's files on this node: the Raft log, the snapshot, and the namespace's id.
//!
//! | file | what |
//! |---|---|
//! | `log_store.rs` | the log as Raft uses it, with its entries in memory |
//! | `writer_queue.rs` | the order of what Raft has written, and the thread that executes it |
//! | `log_writer.rs`, `log_file.rs` | writing the log's files, and their format |
//! | `snapshot.rs` | the snapshot file |
//! | `small_file.rs`, `namespace_id.rs` | small values that are replaced whole, among them the namespace's id |
//! | `set_aside.rs` | putting the whole folder aside, so that the node joins anew |
//! | `damage_cut.rs` | whether a recovery that cuts damage off the log is under way |
//! | `disk_space.rs` | whether the disk is full |

mod damage_cut;
pub(crate) mod disk_space;
pub(crate) mod log_file;
pub(crate) mod log_store;
mod log_writer;
pub(crate) mod namespace_id;
pub(crate) mod set_aside;
mod small_file;
pub(crate) mod snapshot;
mod writer_queue;
