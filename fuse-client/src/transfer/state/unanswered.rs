//! Commits that got no answer. Such a commit may have been applied, and another mount may then have replaced its
//! chunks, which are deleted from then on: sending the commit again would bring a deleted version back into the file.
//! So the file's present state is fetched before the next commit, and shows whether the commit was applied.
//!
//! A commit is applied wholly or not at all. A single chunk with the commit's version proves that it was applied, and a
//! chunk that still has its earlier version proves that it was not. If other mounts have written all its chunks since,
//! neither can be proven; their bytes are newer, and the commit's data is reported as an error.
//!
//! "Earlier" is the state to which the commit was sent. By the time of its refusal, a reader may have fetched a state
//! that includes the commit already.
//!
//! Partly written chunks are merged with their current base again, so they need no proof.

use std::ops::Range;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Commit, Extent},
};

use super::FileState;
use crate::transfer::extents::{ExtentMap, KnownExtents};

pub(super) struct UnansweredCommit {
    /// All chunks that the commit names.
    extents: ExtentMap,
    /// The extents that leave `stored` if the commit was applied.
    from_stored: Vec<Extent>,
    sent_to: SentTo,
    error: FsError,
}

/// The state to which a commit is sent, as far as it is known: its change counter, and the chunks of the commit.
pub(crate) struct SentTo {
    change: u64,
    /// The last chunk of the file.
    last_chunk: u64,
    known: KnownExtents,
}

#[derive(Debug, PartialEq)]
enum CommitOutcome {
    Applied,
    NotApplied,
    Unknown,
}

impl UnansweredCommit {
    /// `replaced`: the extents of `stored` that were overwritten in part.
    pub(super) fn new(commit: &Commit, replaced: &[Extent], sent_to: SentTo, error: FsError) -> Self {
        let mut extents = ExtentMap::default();
        commit.extents.iter().for_each(|extent| extents.insert(*extent));
        let replaced = replaced.iter().filter(|extent| extents.get(extent.first).is_some());
        let from_stored = commit.extents.iter().chain(replaced).copied().collect();
        for write in &commit.partial {
            extents.insert(Extent { first: write.index, count: 1, version: write.version });
        }
        Self { extents, from_stored, sent_to, error }
    }

    fn chunks(&self) -> Range<u64> {
        let first = self.extents.iter().next().map_or(1, |extent| u64::from(extent.first));
        first..u64::from(self.extents.last_index()) + 1
    }

    fn outcome(&self, attr: &Attr, known: &KnownExtents) -> CommitOutcome {
        if attr.change == self.sent_to.change {
            return CommitOutcome::NotApplied;
        }
        let mut outcome = CommitOutcome::Unknown;
        for extent in self.extents.iter() {
            for index in extent.range().map(|index| index as u32) {
                let now = known.map.get(index);
                if now == Some(extent.version) {
                    return CommitOutcome::Applied;
                }
                if self.was_known(index) && now == self.sent_to.known.map.get(index) {
                    outcome = CommitOutcome::NotApplied;
                }
            }
        }
        outcome
    }

    /// Whether the version of this chunk was known. All chunks beyond the end are holes.
    fn was_known(&self, index: u32) -> bool {
        let chunk = u64::from(index);
        chunk > self.sent_to.last_chunk || self.sent_to.known.first_unknown(chunk..chunk + 1).is_none()
    }
}

impl FileState {
    /// Remembers the state to which `commit` is about to be sent.
    pub(crate) fn sent_to(&self, commit: &Commit) -> SentTo {
        let partial = commit.partial.iter().map(|write| u64::from(write.index)..u64::from(write.index) + 1);
        SentTo {
            change: self.attr.change,
            last_chunk: self.attr.size.div_ceil(self.chunk_bytes()),
            known: self.known.part(commit.extents.iter().map(Extent::range).chain(partial)),
        }
    }

    /// The chunks of an unanswered commit; `None` also if nothing is left that could be committed twice.
    pub(crate) fn unanswered_chunks(&mut self) -> Option<Range<u64>> {
        if self.stored.is_empty() {
            self.unanswered = None;
        }
        self.unanswered.as_ref().map(UnansweredCommit::chunks)
    }

    /// Removes from `stored` the chunks that an unanswered commit has made current. The committed versions of its
    /// chunks must be known. Returns the commit's error, and adds it to `errors`, if it is unknown whether it was
    /// applied.
    pub(crate) fn resolve_unanswered(&mut self) -> Option<FsError> {
        let unanswered = self.unanswered.take()?;
        let outcome = unanswered.outcome(&self.attr, &self.known);
        if outcome == CommitOutcome::NotApplied {
            return None;
        }
        let before = self.stored.clone();
        unanswered.from_stored.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        self.discard(unanswered.from_stored.iter().copied());
        if outcome == CommitOutcome::Applied || self.stored == before {
            return None;
        }
        self.errors.add(unanswered.error.clone());
        Some(unanswered.error)
    }
}
