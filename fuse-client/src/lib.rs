//! The mount: the kernel's requests on one side, the ring and the namespace on the other.

pub mod cache;
pub mod fs;
pub mod fuse;
pub mod notify;
pub mod transfer;
