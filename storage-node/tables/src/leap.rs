//! Leaping over numbers that may be taken: for a namespace that goes on from a state that lacks what it did last.
//!
//! When a majority is gone for good, an operator lets one voter go on alone (`recover`), and that one may lag. What the
//! others agreed on without it is lost, but not without a trace: mounts and nodes still have what they were told. So
//! every number that leaves the namespace and must mean one thing only begins anew far beyond any that the others can
//! have given out:
//!
//! | number | what would happen if it was given out twice |
//! |---|---|
//! | version | nodes keep chunks of the lost writes: other contents under the same version and index, and a stored chunk never changes, so they would never be replaced, and a reader would get either |
//! | inode | a mount has attributes, pages and open files under it, and would take a new file for the one that is lost |
//! | session | two mounts would be one: each gets the replies that the other was given, and keeps a dead one's lease |
//! | log index | it is an inode's change counter, and equal ones mean that a mount's pages are still right |
//!
//! The last is not in these tables; whoever saves them moves it (`namespace/recover.rs`). Ids of the dead list never
//! leave the leader, and are forgotten with it. An operation's number within a session is the mount's own, and it only
//! grows: to a survivor that has not seen the last ones the next is new all the same, and one that is sent again because
//! its answer was lost is applied, as it should be, because what it did before is lost. Nor does a mount need to be told:
//! its connection broke, and who connects again forgets what it knew of names and attributes.
//!
//! How far: 64 bits are plenty. Versions leap by 2^48 and more, which a flood of sessions at 40 million versions a second
//! takes 80 days to give out, so 2^15 leaps fit; the others leap by 2^40 and more, 34 years of a thousand a second, and
//! stay below the 2^53 that programs with floating-point numbers can tell apart. The random part is for the operator who
//! recovers twice, from two folders that know nothing of each other: then too one does not begin where the other did.
//!
//! A mount may still commit versions that the lost majority gave it: they are its own, and nobody gets them again. But
//! what was given out before the leap is not given up as garbage for a month, whatever these tables say of it: a session
//! has its versions long before it commits with them, so the lost writes have mostly versions that the survivor knows. If
//! the wrong folder was chosen, what a better one knows of is still stored when somebody notices.

use chordfs_types::{chunk::Version, namespace::Time};
use serde::{Deserialize, Deserializer, Serialize};

use super::Tables;

const VERSION_LEAP: u64 = 1 << 48;
const OTHER_LEAP: u64 = 1 << 40;
/// For how long what was given out before is left alone.
pub(super) const SPARED_FOR_SECS: i64 = 30 * 24 * 3600;

/// By how much each kind of number moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leap {
    pub versions: u64,
    /// Inodes, sessions, and places in the log.
    pub others: u64,
}

impl Leap {
    /// At least as far as is safe, and up to twice as far, as `random` says.
    pub fn new(random: u64) -> Self {
        Self { versions: VERSION_LEAP + random % VERSION_LEAP, others: OTHER_LEAP + random % OTHER_LEAP }
    }
}

/// Versions `first..next`, with which a lost majority may have written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Skipped {
    first: u64,
    next: u64,
    since: Time,
}

impl Tables {
    /// False, and nothing changes, if there are not enough numbers left.
    #[must_use]
    pub fn leap(&mut self, leap: Leap, now: Time) -> bool {
        let first = self.next.version;
        let moved = |number: u64, by: u64| number.checked_add(by);
        let (Some(version), Some(ino), Some(session)) =
            (moved(first, leap.versions), moved(self.next.ino, leap.others), moved(self.next.session, leap.others))
        else {
            return false;
        };
        (self.next.version, self.next.ino, self.next.session) = (version, ino, session);
        self.skipped.push(Skipped { first: 0, next: version, since: now });
        true
    }

    /// Whether it may be of a file that this namespace has forgotten.
    pub(super) fn is_skipped(&self, version: Version) -> bool {
        self.skipped.iter().any(|skipped| (skipped.first..skipped.next).contains(&version.0))
    }

    pub(super) fn spare_no_longer(&mut self, logged: Time) {
        self.skipped.retain(|skipped| skipped.since.secs >= logged.secs.saturating_sub(SPARED_FOR_SECS));
    }
}

/// The last field of the tables. Snapshots of format 3 end before it, when nothing was ever leapt over; their checksum
/// says that they are whole.
pub(super) fn if_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Skipped>, D::Error> {
    Ok(Vec::deserialize(deserializer).unwrap_or_default())
}
