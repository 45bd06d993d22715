//! Power cuts and failing disks for tests.
//!
//! [`Recording`] records every change that the process makes below one folder: creating, writing, resizing, syncing,
//! renaming and removing files, and syncing folders. It needs no help from the recorded program, because functions of
//! this crate take the place of the C library's system calls (`system_calls`). It can also let single operations fail.
//!
//! A recording yields a [`Disk`] for each moment of the run: which bytes and names had been synced, and which only
//! written. [`Disk::power_cut`] then leaves any part of the latter, sector by sector and name by name, in any order
//! that POSIX allows: a sync of a file covers its bytes but not its name, a sync of a folder covers the names in it.
//! [`Disk::materialize`] writes the result into a folder, where the program is started again.

mod disk;
mod random;
mod recording;
mod system_calls;

pub use self::{disk::Disk, random::Random, recording::Recording};
