//! Commits whose answer never came. Such a commit may have been applied, and then another mount may have replaced its
//! chunks, which are deleted from then on: sent again, it would bring a deleted version back into the file. So before
//! the next commit the namespace is asked for the file's present state, and the commit's fate is concluded from it.
//!
//! A commit is applied wholly or not at all, so a single chunk that has its version proves that it was, and a chunk
//! that still has its earlier version proves that it was not. Where other mounts have written all of them, there is no
//! telling; their bytes are the newer ones, and what was to be committed is reported as an error.
//!
//! Bytes of partly written chunks are merged anew with their current base, so they need no proof.

use std::ops::Range;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Commit, Extent},
};

use super::FileState;
use crate::transfer::extents::{ExtentMap, KnownExtents};

pub(super) struct UnansweredCommit {
    /// All that it named.
    named: ExtentMap,
    /// What leaves `stored` if it was applied.
    settled: Vec<Extent>,
    /// The state that it was sent to, as far as it was known.
    attr: Attr,
    known: KnownExtents,
    error: FsError,
}

#[derive(Debug, PartialEq)]
enum CommitFate {
    Applied,
    NotApplied,
    Unknown,
}

impl UnansweredCommit {
    /// `replaced`: what of `stored` was overwritten in part.
    pub(super) fn new(commit: &Commit, replaced: &[Extent], state: &FileState, error: FsError) -> Self {
        let mut named = ExtentMap::default();
        commit.extents.iter().for_each(|extent| named.insert(*extent));
        let replaced = replaced.iter().filter(|extent| named.get(extent.first).is_some());
        let settled = commit.extents.iter().chain(replaced).copied().collect();
        for write in &commit.partial {
            named.insert(Extent { first: write.index, count: 1, version: write.version });
        }
        Self { named, settled, attr: state.attr.clone(), known: state.known.clone(), error }
    }

    fn chunks(&self) -> Range<u64> {
        let first = self.named.iter().next().map_or(1, |extent| u64::from(extent.first));
        first..u64::from(self.named.last_index()) + 1
    }

    fn fate(&self, attr: &Attr, known: &KnownExtents) -> CommitFate {
        if attr.change == self.attr.change {
            return CommitFate::NotApplied;
        }
        let mut fate = CommitFate::Unknown;
        for Extent { first, count, version } in self.named.iter() {
            for index in first..=first + (count - 1) {
                let now = known.map.get(index);
                if now == Some(version) {
                    return CommitFate::Applied;
                }
                if self.was_known(index) && now == self.known.map.get(index) {
                    fate = CommitFate::NotApplied;
                }
            }
        }
        fate
    }

    /// Whether the version of this chunk was known. Beyond the end all are holes.
    fn was_known(&self, index: u32) -> bool {
        let chunk = u64::from(index);
        let end = self.attr.size.div_ceil(u64::from(self.attr.chunk_bytes));
        chunk > end || self.known.first_unknown(chunk..chunk + 1).is_none()
    }
}

impl FileState {
    /// The chunks of an unanswered commit; `None` also where nothing is left that could be committed twice.
    pub(crate) fn unanswered_chunks(&mut self) -> Option<Range<u64>> {
        if self.stored.is_empty() {
            self.unanswered = None;
        }
        self.unanswered.as_ref().map(UnansweredCommit::chunks)
    }

    /// Removes from `stored` what an unanswered commit has made current. The committed versions of its chunks must be
    /// known. Returns the error of data whose fate cannot be concluded; `errors` has it, too.
    pub(crate) fn resolve_unanswered(&mut self) -> Option<FsError> {
        let unanswered = self.unanswered.take()?;
        let fate = unanswered.fate(&self.attr, &self.known);
        if fate == CommitFate::NotApplied {
            return None;
        }
        let before = self.stored.clone();
        unanswered.settled.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        if fate == CommitFate::Applied || self.stored == before {
            return None;
        }
        self.errors.add(unanswered.error.clone());
        Some(unanswered.error)
    }
}
