//! The mount: the kernel's requests on one side, the ring and the namespace on the other.
//!
//! The rooms in their order; each imports only rooms above it in this table:
//!
//! | room | what it has |
//! |---|---|
//! | `exit` | how the helper ends: message and exit code |
//! | `root_map` | inode numbers of the kernel and of the namespace |
//! | `source`, `config_file`, `options` | SOURCE, the configuration file, the command line: all become a `Config` |
//! | `daemon`, `mountpoint` | the process in the background; the folder that is mounted on |
//! | `cache` | attributes, names, chunks, under ceilings |
//! | `transfer` | the data path: write-back, read-ahead, commits |
//! | `notify` | notices to the kernel |
//! | `fs` | what POSIX says, one file a family of operations |
//! | `fuse` | one kernel request, one call into `fs`, one reply |
//! | `mount` | one mount from start to end |
//!
//! `main` parses, checks and starts.

pub mod cache;
pub mod config_file;
pub mod daemon;
pub mod exit;
pub mod fs;
pub mod fuse;
pub mod mount;
pub mod mountpoint;
pub mod notify;
pub mod options;
pub mod root_map;
pub mod source;
pub mod transfer;

#[cfg(test)]
mod samples_test;
