//! Runs in which all programs work on one file most of the time: one mount empties it and follows what others write.
//! An answer to a truncation that comes late must not hide what was written since, which takes all three at once.

use crate::{mount::Mount, random::Random};

/// Out of a hundred names that a program of such a run uses, those that are the one file.
pub(crate) const PERCENT: u64 = 90;
const RUNS_PERCENT: u64 = 35;

/// Whether the run of this seed is such a run.
pub(crate) fn is_on(seed: u64) -> bool {
    Random::new(seed, 4).chance(RUNS_PERCENT)
}

/// What a program does most in a run in which all work on one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rivalry {
    Empties,
    Follows,
    Writes,
}

impl Rivalry {
    /// One mount empties the file and follows it; the others write it.
    pub(crate) fn of(mount: &Mount, stream: u64) -> Option<Self> {
        is_on(mount.world.seed).then_some(match (mount.number, stream % 2) {
            (0, 0) => Self::Empties,
            (0, _) => Self::Follows,
            _ => Self::Writes,
        })
    }
}
