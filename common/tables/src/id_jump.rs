//! Skipping numbers that may be in use, for a namespace that continues from a state that lacks its last operations.
//!
//! When a majority is lost for good, an operator lets one voter continue alone (`recover`), and that voter may lag. The
//! operations that the others agreed on without it are lost, but mounts and nodes still have their results. So every
//! number that leaves the namespace and must be unique restarts far beyond any that the others can have allocated:
//!
//! | number | effect of allocating it twice |
//! |---|---|
//! | version | nodes store chunks of the lost writes: other contents under the same version and index. A stored chunk never changes, so they would stay, and a reader would get either |
//! | inode | a mount has attributes, pages and open files under it, and would mistake a new file for the lost one |
//! | session | two mounts would share it: each would get the other's replies and renew the other's lease |
//! | log index | it is an inode's change counter, and an equal counter means that a mount's pages are still valid |
//!
//! The log index is not in these tables; the recovery moves it (`recover.rs` of `chordfs-namespace`). The change
//! counters of all inodes jump with it: a mount may know a lost state of a file, and takes no answer that is older. Ids
//! of the dead list never leave the leader. The mount chooses an operation's number within its session, and the numbers
//! only grow: a survivor that lacks the last ones still takes the next one for new. It also applies an operation that
//! is sent again because its answer was lost, as it should, because the first application is lost. A mount needs no
//! notice of the recovery: its connection broke, and after reconnecting it drops its cached names and attributes.
//!
//! 64 bits are enough. Versions jump by at least 2^48, which sessions that allocate 40 million versions a second use up
//! in 80 days, so 2^15 jumps fit. The others jump by at least 2^40, 34 years of a thousand a second, and stay below
//! 2^53, the limit of programs with floating-point numbers. The random part is for an operator who recovers twice, from
//! two folders that know nothing of each other: the two then continue from different numbers.
//!
//! A mount may still commit versions that the lost majority allocated for it: they are its own, and no other session
//! gets them. But chunks with versions from before the jump are not collected as orphans for a month, even if no file
//! has them: a session has its versions long before it commits with them, so most lost writes have versions that the
//! survivor knows. So if the operator notices later that another folder was the better choice, its chunks are still
//! stored.

use std::sync::Arc;

use chordfs_types::{
    chunk::Version,
    namespace::{Ino, Time},
};
use serde::{Deserialize, Serialize};

use super::Tables;

const VERSION_JUMP: u64 = 1 << 48;
const OTHER_JUMP: u64 = 1 << 40;
/// How long chunks with versions from before a jump are not collected.
pub(super) const SPARED_FOR_SECS: i64 = 30 * 24 * 3600;

/// How far each kind of number jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdJump {
    pub versions: u64,
    /// Inodes, sessions, and log indexes.
    pub others: u64,
}

impl IdJump {
    /// Creates a jump of at least the safe distance, and up to twice that, depending on `random`.
    pub fn new(random: u64) -> Self {
        Self { versions: VERSION_JUMP + random % VERSION_JUMP, others: OTHER_JUMP + random % OTHER_JUMP }
    }
}

/// Versions `first..next`, which lost operations may have used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SkippedRange {
    first: u64,
    next: u64,
    since: Time,
}

impl Tables {
    /// Makes all counters jump. Returns false, and changes nothing, if there are not enough numbers left.
    #[must_use]
    pub fn jump_ids(&mut self, jump: IdJump, now: Time) -> bool {
        let first = self.next.version;
        let jumped = |number: u64, by: u64| number.checked_add(by);
        let (Some(version), Some(ino), Some(session)) =
            (jumped(first, jump.versions), jumped(self.next.ino, jump.others), jumped(self.next.session, jump.others))
        else {
            return false;
        };
        if self.inodes.values().any(|inode| jumped(inode.attr.change, jump.others).is_none()) {
            return false;
        }
        (self.next.version, self.next.ino, self.next.session) = (version, ino, session);
        self.advance_changes(jump.others);
        self.skipped.push(SkippedRange { first: 0, next: version, since: now });
        true
    }

    /// Makes every inode newer than any state of it that a mount may have. A root that was never changed stays so.
    fn advance_changes(&mut self, by: u64) {
        let changed: Vec<Ino> = self.inodes.iter().filter(|(_, it)| it.attr.change > 0).map(|(ino, _)| *ino).collect();
        for ino in changed {
            Arc::make_mut(self.inodes.get_mut(&ino).expect("it was just listed")).attr.change += by;
        }
    }

    /// When the counters have jumped last, by the clock of the node that was recovered.
    pub fn jumped_at(&self) -> Option<Time> {
        self.skipped.last().map(|skipped| skipped.since)
    }

    /// Returns whether the version may belong to a file that this namespace has lost.
    pub(super) fn is_skipped(&self, version: Version) -> bool {
        self.skipped.iter().any(|skipped| (skipped.first..skipped.next).contains(&version.0))
    }

    pub(super) fn expire_skipped(&mut self, logged: Time) {
        self.skipped.retain(|skipped| skipped.since.secs >= logged.secs.saturating_sub(SPARED_FOR_SECS));
    }
}
