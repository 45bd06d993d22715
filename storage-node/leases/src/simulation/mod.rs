//! Mounts, a leader that changes, and a network, in virtual time and from a seed. Programs read and change inodes that
//! are no more than their last change. What is checked is linearizability: an operation sees every change that any
//! operation had seen, or made, before it began. And no change is applied to an inode while another mount that still
//! has its leases has answered changes of it that are not logged.
//!
//! A mount is modelled with its kernel. The kernel answers names on its own, also while the mount's process is stopped;
//! and it forgets a changed name only when no change by this mount to the directory is under way, because both take one
//! lock. One inode is a directory with one name, which some changes follow to whatever inode it leads to then.

mod history;
mod leader;
mod mount;
mod tests;
mod world;

use std::time::Duration;

use chordfs_types::namespace::{Ino, SessionId};

/// In milliseconds of virtual time.
type Millis = u64;

const LEASE: Millis = 5_000;
const INODES: u64 = 4;
/// The name in it leads to one of the others.
const DIRECTORY: Ino = Ino(INODES);
/// How long the kernel keeps names.
const NAMES_KEPT: Millis = 1_000;
const MOUNTS: usize = 3;
/// Reads like a mount, and changes nothing; it remembers nothing, and its messages take no time.
const OUTSIDER: SessionId = SessionId(99);

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
    /// A leader forgets sole leases when their session attaches again.
    ClaimsAreKept,
    /// A leader gives leases back that had run out.
    LateClaimsAreRefused,
    /// A change is proposed while another mount may have unlogged ones.
    RecallsBeforeChanges,
    /// Between the recall and the change somebody else may get a sole lease.
    Intents,
    /// Changes that name the same entry are proposed at the same time.
    NamesAreOrdered,
    /// A mount acknowledges a recall before it has logged what it has answered.
    RecallsWaitForTheLog,
    /// A reader that remembers nothing asks nobody to log first.
    Wanted,
    /// A mount goes on answering from memory under leases that it has given back.
    ReturnedIsForgotten,
    /// A mount asks the leader before what it has answered about the same inodes is logged.
    Order,
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
