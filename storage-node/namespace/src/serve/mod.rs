//! Serving mounts and other members: requests, Raft messages, and the leader's leases, garbage collection
//! and placement of logged chunks.
//!
//! | file | what |
//! |---|---|
//! | `requests.rs` | requests of mounts |
//! | `access.rs` | which role may send which request |
//! | `confinement.rs` | keeping callers apart: sessions have owners, and some callers see one folder only |
//! | `raft_api.rs` | Raft messages of other members |
//! | `leases.rs` | suspending and closing sessions that are silent |
//! | `lease_expiry.rs` | ending what silent mounts may remember |
//! | `lease_waits.rs` | how long requests wait for other mounts |
//! | `pauses.rs` | noticing that this process did not run for a while |
//! | `deletions.rs` | deleting chunks on all nodes, without waiting for those that fail |
//! | `garbage.rs` | deleting orphaned files and dead versions |
//! | `placement.rs`, `placement_plan.rs` | storing chunks whose data is in the log on their holders; which ones next |
//! | `root_owner.rs` | the owner of a new namespace's root directory |

mod access;
mod confinement;
mod deletions;
pub(crate) mod garbage;
pub(crate) mod lease_expiry;
pub(crate) mod lease_waits;
pub(crate) mod leases;
mod pauses;
pub(crate) mod placement;
pub(crate) mod placement_plan;
pub(crate) mod raft_api;
pub(crate) mod requests;
pub(crate) mod root_owner;
