//! Locks on files: those of flock(2), of fcntl(2), and of open file descriptions.

use serde::{Deserialize, Serialize};

use super::values::SessionId;

/// Whether others may hold a lock on the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// Others may hold shared locks.
    Shared,
    /// Others may hold none.
    Exclusive,
}

/// Locks of one space do not conflict with those of another, as in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockSpace {
    /// Locks of ranges by fcntl(2), for a process or an open file description.
    Ranges,
    /// Locks of whole files by flock(2).
    WholeFile,
    /// Appends under way: a mount that is not alone with a file locks it for each.
    Appends,
}

/// A range of bytes, for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRange {
    /// Chosen by the kernel of the mount: stands for a process or an open file description there.
    pub owner: u64,
    /// Locks of other spaces are not concerned.
    pub space: LockSpace,
    /// The first byte.
    pub first: u64,
    /// The last byte, at least `first`.
    pub last: u64,
}

/// A lock that a program holds or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLock {
    /// For whom, and on which bytes.
    pub range: LockRange,
    /// Replaces what the owner holds of the range.
    pub kind: LockKind,
    /// The process that asked for it, on its own machine.
    pub pid: u32,
}

/// A lock, and the session whose programs hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Owners of different sessions are different.
    pub session: SessionId,
    /// What is held.
    pub lock: FileLock,
}

/// The most locks of one session in one message.
pub const MAX_LOCKS: usize = 1024;
