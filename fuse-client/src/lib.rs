//! The mount: the kernel's requests on one side, the ring and the namespace on the other.

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
pub mod source;
pub mod transfer;
