//! The commit under way: what was dirty when it began, the operations that it sends, and what becomes of its data when
//! it ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use chordfs_types::{
    chunk::Version,
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, ChunkWrite, Commit, Extent, SetAttr, Time},
};

use super::{Base, FileState, UnansweredCommit};
use crate::transfer::{dirty::DirtyBytes, extents::ExtentMap};

/// The most extents and single chunks that one operation names.
const COMMIT_ITEMS: usize = 4096;

pub(super) struct CommitUnderWay {
    pub(super) sealed: DirtyBytes,
    /// When the newest of its bytes was written.
    mtime: Option<Time>,
    /// The attributes that go with it; see `FileState::set`.
    set: SetAttr,
    /// The size of the chunks that it stores.
    chunk_bytes: u32,
    /// It has data, not attributes alone.
    carries_data: bool,
    /// Whole chunks of `sealed` may leave; afterwards all that is left in it is merged with its bases, and must stay.
    pub(super) uploads_whole_chunks: bool,
    /// It waits for uploads below this number, and for those taken from `sealed`.
    pub(super) first_later_upload: u64,
    /// Asked of uploads out of `sealed`.
    pub(super) durability: Durability,
    /// What of `stored` arrived since it began and is not its own.
    pub(super) newer: ExtentMap,
}

/// A partly written chunk that was merged with `base` and stored.
#[derive(Clone, Copy)]
pub(crate) struct Merged {
    pub base: Base,
    pub version: Version,
}

impl CommitUnderWay {
    pub(super) fn bytes(&self) -> &DirtyBytes {
        &self.sealed
    }

    pub(super) fn attributes(&self) -> &SetAttr {
        &self.set
    }

    pub(super) fn has_attributes(&self) -> bool {
        !self.set.is_empty()
    }

    pub(super) fn mtime(&self) -> Option<Time> {
        self.mtime
    }

    /// All of it is committed; only the lock is still held.
    fn clear(&mut self) {
        (self.sealed, self.set, self.mtime) = (DirtyBytes::default(), SetAttr::default(), None);
    }
}

impl FileState {
    pub(crate) fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Begins a commit: what is dirty now is what it must store. A second try takes over what the first one has left.
    pub(crate) fn begin_commit(&mut self, durability: Durability) {
        let carries_data = self.has_data();
        let (older, older_mtime, older_set) = match self.commit.take() {
            Some(commit) => (commit.sealed, commit.mtime, commit.set),
            None => Default::default(),
        };
        let mut sealed = std::mem::take(&mut self.dirty);
        sealed.merge_under(older, self.attr.chunk_bytes);
        self.commit = Some(CommitUnderWay {
            sealed,
            mtime: self.mtime.take().or(older_mtime),
            set: std::mem::take(&mut self.set).over(older_set),
            chunk_bytes: self.attr.chunk_bytes,
            carries_data,
            uploads_whole_chunks: true,
            first_later_upload: self.next_upload,
            durability,
            newer: ExtentMap::default(),
        });
        (self.failure, self.scan_at) = (None, 0);
    }

    /// Ends a commit; what it has not committed is dirty again.
    pub(crate) fn end_commit(&mut self) {
        self.scan_at = 0;
        let Some(commit) = self.commit.take() else { return };
        self.dirty.merge_under(commit.sealed, self.attr.chunk_bytes);
        self.put_back_deferred(commit.set);
        self.mtime = self.mtime.or(commit.mtime);
    }

    /// All uploads have ended: from now on what is left of `sealed` is merged.
    pub(crate) fn end_uploads(&mut self) {
        if let Some(commit) = &mut self.commit {
            commit.uploads_whole_chunks = false;
        }
    }

    /// Counts a commit that failed, and returns how many have failed in a row.
    pub(crate) fn note_failed_commit(&mut self) -> u32 {
        self.failed_commits += 1;
        self.failed_commits
    }

    /// Gives up what the commit under way was to store, and nothing that was written since it began: that may be
    /// another program's, which would not be told. Attributes may still get through without the data that they were to
    /// go with; they are given up when they fail alone.
    pub(crate) fn give_up(&mut self) {
        let newer = match &mut self.commit {
            Some(commit) => {
                if !commit.carries_data {
                    commit.set = SetAttr::default();
                }
                (commit.sealed, commit.mtime) = (DirtyBytes::default(), commit.set.mtime);
                std::mem::take(&mut commit.newer)
            }
            None => ExtentMap::default(),
        };
        self.keep_only(newer);
        (self.failure, self.failed_commits) = (None, 0);
    }

    /// Leaves of `stored` only what of it is `newer`; part of that may be current already, and then is neither.
    fn keep_only(&mut self, newer: ExtentMap) {
        let (mut gone, older) = (newer.clone(), std::mem::replace(&mut self.stored, newer));
        older.iter().for_each(|extent| gone.remove_if_same(extent));
        gone.iter().for_each(|extent| self.stored.remove_if_same(extent));
    }

    /// The chunks that are left of `sealed`: partly written ones, once all uploads have ended.
    pub(crate) fn sealed_chunks(&self) -> Vec<u32> {
        self.sealed().chunks(self.attr.chunk_bytes)
    }

    /// Are bytes of the base needed to make a chunk of `sealed` whole? The size is no help: a page of extents may be
    /// newer than the attributes, and then the base holds bytes beyond the end as it is known.
    pub(crate) fn needs_base(&self, index: u32) -> bool {
        self.base(index) != Base::Hole && !self.sealed().covers(self.bytes_of(index))
    }

    /// The chunk of `sealed` merged with the bytes of its base.
    pub(crate) fn merge_over(&self, index: u32, base: &[u8]) -> Bytes {
        let range = self.bytes_of(index);
        let end = self.sealed().end_within(range.clone()).unwrap_or(range.start);
        let mut whole = Vec::with_capacity(base.len().max((end - range.start) as usize));
        whole.extend_from_slice(&base[..base.len().min(self.chunk_bytes() as usize)]);
        whole.resize(whole.len().max((end - range.start) as usize), 0);
        self.sealed().overlay(range.start, &mut whole);
        whole.into()
    }

    /// The operations to send, and what of `stored` was overwritten in part and is replaced by them. `Stale` if the
    /// file has started anew with chunks of another size since the commit began.
    pub(crate) fn draft_commit(&self, merged: &BTreeMap<u32, Merged>) -> Result<(Vec<Commit>, Vec<Extent>), FsError> {
        let Some(under_way) = &self.commit else { return Ok(Default::default()) };
        if under_way.carries_data && self.attr.chunk_bytes != under_way.chunk_bytes {
            return Err(FsError::Stale { ino: self.attr.ino });
        }
        let (mut whole, mut partial, mut replaced) = (self.stored.clone(), Vec::new(), Vec::new());
        for (&index, &Merged { base, version }) in merged {
            if let Base::Own(old) = base {
                whole.insert(Extent { first: index, count: 1, version });
                replaced.push(Extent { first: index, count: 1, version: old });
            } else {
                partial.push(ChunkWrite { index, version, base: base.version() });
            }
        }
        let end = (u64::from(whole.last_index()) * self.chunk_bytes()).max(under_way.sealed.end());
        let mut commits = portions(&whole, partial, self.chunk_bytes(), end);
        // Without a time the namespace would take its own, in place of one that a program has set since it wrote.
        let mtime = Some(under_way.mtime.unwrap_or(self.attr.mtime));
        let chunk_bytes = Some(self.attr.chunk_bytes);
        commits.iter_mut().for_each(|commit| (commit.mtime, commit.chunk_bytes) = (mtime, chunk_bytes));
        if commits.is_empty() && under_way.has_attributes() {
            // The data they were to go with was given up.
            commits.push(Commit { mtime, ..Commit::default() });
        }
        if let Some(last) = commits.last_mut() {
            last.set = under_way.set.clone();
        }
        Ok((commits, replaced))
    }

    /// One operation of the commit was applied and left the file at `attr`.
    pub(crate) fn adopt_commit(&mut self, commit: &Commit, attr: &Attr) {
        commit.extents.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        if attr.change < self.attr.change {
            // The reply is late: what is known is newer, and may have replaced these chunks.
            self.stale = true;
            return;
        }
        commit.extents.iter().for_each(|extent| self.known.set(*extent));
        for write in &commit.partial {
            self.known.set(Extent { first: write.index, count: 1, version: write.version });
        }
        let size = self.attr.size.max(commit.size_at_least);
        self.adopt(attr, size);
    }

    /// All operations of the commit were applied; `replaced` is as [`Self::draft_commit`] returned it.
    pub(crate) fn note_committed(&mut self, replaced: &[Extent]) {
        replaced.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        if let Some(commit) = &mut self.commit {
            commit.clear();
        }
        self.failed_commits = 0;
    }

    /// Without an answer the current state is not known, and the feed does not report a session's own changes.
    pub(crate) fn note_unanswered(&mut self, commit: &Commit, replaced: &[Extent], error: &FsError) {
        if matches!(error, FsError::NoQuorum { .. } | FsError::NoSession) {
            self.stale = true;
            self.unanswered = Some(UnansweredCommit::new(commit, replaced, self, error.clone()));
        }
    }

    /// Takes out the bytes of the commit under way, which truncation to nothing throws away.
    pub(crate) fn take_sealed_bytes(&mut self) -> DirtyBytes {
        self.commit.as_mut().map(|commit| std::mem::take(&mut commit.sealed)).unwrap_or_default()
    }

    /// Puts the bytes back after the truncation failed.
    pub(crate) fn put_back_sealed_bytes(&mut self, bytes: DirtyBytes) {
        match &mut self.commit {
            Some(commit) => commit.sealed.merge_under(bytes, self.attr.chunk_bytes),
            None => self.dirty.merge_under(bytes, self.attr.chunk_bytes),
        }
    }

    /// The attributes that go with the commit under way.
    pub(crate) fn sealed_attributes(&self) -> SetAttr {
        self.commit.as_ref().map(|commit| commit.set.clone()).unwrap_or_default()
    }

    /// A truncation to nothing was applied and left the file at `attr`.
    pub(crate) fn adopt_emptied(&mut self, attr: &Attr) {
        if let Some(commit) = &mut self.commit {
            commit.clear();
        }
        (self.stored, self.unanswered) = (ExtentMap::default(), None);
        self.known.replace(&[], false);
        self.adopt(attr, 0);
    }

    /// A time was set that replaces those of earlier writes.
    pub(crate) fn clear_write_times(&mut self) {
        self.mtime = None;
        if let Some(commit) = &mut self.commit {
            commit.mtime = None;
        }
    }
}

/// One operation as a rule; a commit of very many pieces is split, so that none is too large to log.
fn portions(whole: &ExtentMap, partial: Vec<ChunkWrite>, chunk_bytes: u64, end: u64) -> Vec<Commit> {
    let extents: Vec<Extent> = whole.iter().collect();
    if extents.is_empty() && partial.is_empty() {
        return Vec::new();
    }
    if extents.len() + partial.len() <= COMMIT_ITEMS {
        return vec![Commit { extents, partial, size_at_least: end, ..Commit::default() }];
    }
    let upto = |index: u32| (u64::from(index) * chunk_bytes).min(end);
    let of_extents = extents.chunks(COMMIT_ITEMS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| upto(last.first + (last.count - 1))),
        extents: part.to_vec(),
        ..Commit::default()
    });
    let of_partial = partial.chunks(COMMIT_ITEMS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| upto(last.index)),
        partial: part.to_vec(),
        ..Commit::default()
    });
    of_extents.chain(of_partial).collect()
}
