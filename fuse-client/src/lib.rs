//! The mount: the kernel's requests on one side, the ring and the namespace on the other.
//!
//! The rooms in their order; each imports only rooms above it in this table:
//!
//! | room | contents |
//! |---|---|
//! | `exit` | the failure of a mount: message and exit code |
//! | `root_map` | translation between inode numbers of the kernel and of the namespace |
//! | `source`, `config_file`, `options` | SOURCE, the configuration file, the command line: all become a `Config` |
//! | `resolving` | looking SOURCE up again while the ring does not answer |
//! | `daemon`, `mountpoint` | the background process; the mount point |
//! | `cache` | bounded caches of attributes, names and chunks |
//! | `urgency` | whether a program waits for what is sent |
//! | `write_back` | changes that are answered from memory and logged later, in order |
//! | `transfer` | the data path: write-back, read-ahead, commits |
//! | `notify` | cache invalidations sent to the kernel |
//! | `fs` | POSIX semantics, one file per family of operations |
//! | `local_users` | the users of this machine, as the ring sees them |
//! | `fuse` | one kernel request, one call into `fs`, one reply |
//! | `space_reports` | the free space that the nodes report |
//! | `mount` | one mount from start to end |
//!
//! `main` parses, checks and starts.

pub mod cache;
pub mod config_file;
pub mod daemon;
pub mod exit;
pub mod fs;
pub mod fuse;
mod local_users;
pub mod mount;
pub mod mountpoint;
pub mod notify;
pub mod options;
mod resolving;
pub mod root_map;
pub mod source;
pub mod space_reports;
pub mod transfer;
pub mod urgency;
pub mod write_back;

#[cfg(test)]
mod samples_test;
