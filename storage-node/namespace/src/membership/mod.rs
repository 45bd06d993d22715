//! Which nodes vote, and when this node gives up its vote.
//!
//! | file | what |
//! |---|---|
//! | `voters.rs` | the decision (pure): one change of the voters at a time |
//! | `voter_manager.rs` | the leader's task that carries the decisions out |
//! | `resignation.rs` | giving up the lead and the vote |
//! | `removal.rs` | detecting that the others have removed this node |
//! | `guard.rs` | detecting another namespace in the same ring |
//! | `missing.rs` | the report that the ring has no namespace |
//! | `voter_watch.rs` | the report that voters, or a majority of them, do not answer |
//! | `full_disk.rs` | giving up the lead and the vote while the disk is full |

pub(crate) mod full_disk;
pub(crate) mod guard;
pub(crate) mod missing;
pub(crate) mod removal;
pub(crate) mod resignation;
pub(crate) mod voter_manager;
pub(crate) mod voter_watch;
mod voters;
