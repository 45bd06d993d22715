//! Mounts, a leader that changes, and a network, in virtual time and from a seed. Programs read and write inodes that
//! are no more than the place of their last change in the log. What is checked is linearizability: an operation sees
//! every change that any operation had seen, or made, before it began.
//!
//! A mount is modelled with its kernel. The kernel answers names on its own, also while the mount's process is stopped;
//! and it forgets a name only when no change by this mount to the directory is under way, because both take one lock.

mod history;
mod leader;
mod mount;
mod tests;
mod world;

use std::time::Duration;

use chordfs_types::namespace::Ino;

/// In milliseconds of virtual time.
type Millis = u64;

const LEASE: Millis = 5_000;
const INODES: u64 = 4;
const MOUNTS: usize = 3;

/// A rule of the protocol that is left out, to see that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omission {
    /// An answer to a change does not wait for those who remember what was before.
    ChangesWait,
    /// An answer to a query does not wait for them.
    QueriesWait,
    /// A new leader does not wait for the sessions of the former one.
    Grace,
    /// A mount remembers an answer although a notice overtook it.
    Epochs,
    /// A mount uses what it remembers after its leases have run out.
    Expiry,
    /// A mount uses what it remembers of an inode while it changes it.
    OwnChanges,
    /// A mount acknowledges before its kernel has forgotten.
    KernelForgets,
    /// What a mount claims is not told to have changed.
    ClaimsAreChecked,
}

fn millis(time: Millis) -> Duration {
    Duration::from_millis(time)
}

/// Splitmix64: it needs no state but a counter, and gives the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..=high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn ino(&mut self) -> Ino {
        Ino(self.between(1, INODES))
    }
}
