//! The mount's data path against the namespace and the chunk nodes, in virtual time, from a seed.
//!
//! Some mounts, two programs in each, work on the same few files while links fail, mounts sleep, leaders change, nodes
//! crash and disks fill up. A reference model follows every answered operation and every entry of the namespace's log
//! (`oracle`), and the first promise that is broken ends the run with its seed and its last events.
//!
//! | part | real | modelled |
//! |---|---|---|
//! | mount | `fs`, `transfer`, `cache` of `fuse-client` | the kernel: programs call `fs` directly, no page cache |
//! | session | `chordfs_net::session` and `rpc`, bytes on the wire included | TCP: delays, outages and cuts (`network`) |
//! | namespace | `chordfs_tables`: every operation and query | one log; a leader that changes; leases, feed, garbage (`namespace`) |
//! | chunk nodes | keys, holders | client, copies in page caches and on disks, repair (`plane`) |
//!
//! Time is tokio's paused clock, which `os` shows to everything that asks for the time; random numbers come from the
//! seed, those that hash tables are made with included. So a run of one seed is always the same run.

pub mod faults;
mod mount;
mod namespace;
mod network;
mod operation;
mod oracle;
mod os;
mod plane;
mod program;
mod random;
mod rivalry;
pub mod run;
mod sleep;
mod weather;
mod world;
