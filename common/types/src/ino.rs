//! Inode numbers, which operations, records and errors name.

use serde::{Deserialize, Serialize};

/// An inode number. The root directory is 1, and a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory, which exists from the beginning and is never removed.
    pub const ROOT: Ino = Ino(1);
}
