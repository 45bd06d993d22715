//! Commits whose answer never came. Such a commit may have been carried out, and then another mount may have replaced
//! its chunks, which are deleted from then on: sent again, it would bring a deleted version back into the file. So
//! before the next commit the namespace is asked what became of it.
//!
//! A commit is carried out wholly or not at all, so a single chunk that has its version is proof of it, and so is one
//! that still has the version from before of the contrary. Where all of them have been written by others there is no
//! telling; their bytes are the newer ones, and what was to be committed is reported as lost.
//!
//! Bytes of partly written chunks are laid over whatever is current anew, so they need no proof.

use std::ops::Range;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Commit, Extent},
};

use super::{
    FileData,
    extents::{ExtentMap, KnownExtents},
    state::FileState,
};

pub struct UnansweredCommit {
    /// All that it named.
    named: ExtentMap,
    /// What leaves `stored` if it was carried out.
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
    /// `replaced`: what of `stored` was laid over.
    pub fn new(commit: &Commit, replaced: &[Extent], state: &FileState, error: FsError) -> Self {
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
                if self.is_told(index) && now == self.known.map.get(index) {
                    fate = CommitFate::NotApplied;
                }
            }
        }
        fate
    }

    /// Was it known what this chunk was? Beyond the end all are holes.
    fn is_told(&self, index: u32) -> bool {
        let chunk = u64::from(index);
        let end = self.attr.size.div_ceil(u64::from(self.attr.chunk_bytes));
        chunk > end || self.known.first_unknown(chunk..chunk + 1).is_none()
    }
}

impl FileData {
    /// Finds out what became of a commit that was not answered; what of `stored` it has made current leaves.
    pub(super) async fn resolve_unanswered(&self) -> Result<(), FsError> {
        let Some(chunks) = self.unanswered_chunks() else { return Ok(()) };
        self.refetch().await?;
        loop {
            self.load_extents(chunks.clone()).await?;
            let mut state = self.state.lock();
            if state.first_unknown(chunks.clone()).is_some() {
                continue;
            }
            let Some(unanswered) = state.unanswered.take() else { return Ok(()) };
            let fate = unanswered.fate(&state.attr, &state.known);
            if fate == CommitFate::NotApplied {
                return Ok(());
            }
            let before = state.stored.clone();
            unanswered.settled.iter().for_each(|extent| state.stored.remove_if_same(*extent));
            if fate == CommitFate::Unknown && state.stored != before {
                let error = unanswered.error;
                tracing::error!(ino = self.ino.0, %error, "written data was overwritten by another mount, or never arrived");
                state.errors.add(error);
            }
            return Ok(());
        }
    }

    /// `None` also where nothing is left that could be committed twice.
    fn unanswered_chunks(&self) -> Option<Range<u64>> {
        let mut state = self.state.lock();
        if state.stored.is_empty() {
            state.unanswered = None;
        }
        state.unanswered.as_ref().map(UnansweredCommit::chunks)
    }
}
