//! The commit under way: the bytes that were dirty when it began, the operations that it sends, and the return of
//! uncommitted data when it ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, ChunkWrite, Commit, Extent, MAX_COMMIT_RUNS, SetAttr, Time},
};

use super::{Base, FileState, SentTo, UnansweredCommit, change_time};
use crate::transfer::{
    dirty::DirtyBytes,
    extents::{ExtentMap, KnownExtents},
};

pub(super) struct CommitUnderWay {
    pub(super) sealed: DirtyBytes,
    /// When the newest byte of the commit was written.
    mtime: Option<Time>,
    /// The attributes that go with the commit; see `FileState::set`.
    set: SetAttr,
    /// The size of the chunks that the commit stores.
    chunk_bytes: u32,
    /// Whether the commit has data, and not attributes alone.
    carries_data: bool,
    /// Whether whole chunks of `sealed` may still be uploaded. Afterwards the rest of `sealed` is merged with its
    /// bases, and must stay.
    pub(super) uploads_whole_chunks: bool,
    /// The commit waits for uploads below this number, and for those taken from `sealed`.
    pub(super) first_later_upload: u64,
    /// The durability of uploads taken from `sealed`.
    pub(super) durability: Durability,
    /// The bytes that were not stored, because the commit brings them along.
    logged_bytes: usize,
}

/// A partly written chunk that was merged with `base` and stored.
#[derive(Clone, Copy)]
pub(crate) struct Merged {
    pub base: Base,
    pub version: Version,
}

impl Merged {
    pub(crate) fn extent((index, merged): (&u32, &Self)) -> Extent {
        Extent { first: *index, count: 1, version: merged.version }
    }
}

impl CommitUnderWay {
    pub(super) fn bytes(&self) -> &DirtyBytes {
        &self.sealed
    }

    pub(super) fn attributes(&self) -> &SetAttr {
        &self.set
    }

    /// See [`change_time`].
    pub(super) fn change_time(&self) -> Option<Time> {
        change_time(self.mtime, &self.set)
    }

    pub(super) fn has_attributes(&self) -> bool {
        !self.set.is_empty()
    }

    pub(super) fn mtime(&self) -> Option<Time> {
        self.mtime
    }

    /// Empties the commit after everything was committed; the commit lock is still held.
    fn clear(&mut self) {
        (self.sealed, self.set, self.mtime) = (DirtyBytes::default(), SetAttr::default(), None);
    }
}

impl FileState {
    pub(crate) fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Begins a commit by sealing the dirty bytes. A second attempt takes over what the first one has left.
    pub(crate) fn begin_commit(&mut self, durability: Durability) {
        self.merge_newer();
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
            logged_bytes: 0,
        });
        (self.failure, self.scan_at) = (None, 0);
    }

    /// Ends the commit; bytes and attributes that were not committed are dirty again.
    pub(crate) fn end_commit(&mut self) {
        self.scan_at = 0;
        self.merge_newer();
        let Some(commit) = self.commit.take() else { return };
        self.dirty.merge_under(commit.sealed, self.attr.chunk_bytes);
        self.put_back_deferred(commit.set);
        self.mtime = self.mtime.or(commit.mtime);
    }

    /// The next commit names what was stored since the last one began.
    pub(super) fn merge_newer(&mut self) {
        let newer = std::mem::take(&mut self.newer);
        newer.iter().for_each(|extent| self.discarded.insert_over(&mut self.stored, extent));
    }

    /// Notes that all uploads have ended. The rest of `sealed` is merged from now on.
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

    /// Notes that the data of the failed commit is kept for another attempt.
    pub(crate) fn await_repetition(&mut self) {
        self.awaits_repetition = true;
    }

    pub(crate) fn end_repetition(&mut self) {
        self.awaits_repetition = false;
    }

    /// Whether a commit has failed that is to be repeated.
    pub(crate) fn awaits_repetition(&self) -> bool {
        self.awaits_repetition && self.is_dirty()
    }

    /// Discards the data of the commit under way, but no data written since it began: that may belong to another
    /// program, which would not receive the error. Attributes may still be applied without the data that they were to
    /// go with; they are discarded when they fail alone.
    pub(crate) fn discard_commit(&mut self) {
        if let Some(commit) = &mut self.commit {
            if !commit.carries_data {
                commit.set = SetAttr::default();
            }
            (commit.sealed, commit.mtime) = (DirtyBytes::default(), commit.set.mtime);
        }
        self.discard_stored();
        (self.failure, self.failed_commits, self.awaits_repetition) = (None, 0, false);
    }

    /// The chunks left in `sealed`: only partly written ones, once all uploads have ended.
    pub(crate) fn sealed_chunks(&self) -> Vec<u32> {
        self.sealed().chunks(self.attr.chunk_bytes)
    }

    /// Whether bytes of the base are needed to make a chunk of `sealed` whole. The file size cannot decide this: a page
    /// of extents may be newer than the attributes, so the base may have bytes beyond the known end.
    pub(crate) fn needs_base(&self, index: u32) -> bool {
        self.base(index) != Base::Hole && !self.sealed().covers(self.bytes_of(index))
    }

    /// Returns a chunk of `sealed` merged with the bytes of its base.
    pub(crate) fn merge_over(&self, index: u32, base: &[u8]) -> Bytes {
        let range = self.bytes_of(index);
        let end = self.sealed().end_within(range.clone()).unwrap_or(range.start);
        let mut whole = Vec::with_capacity(base.len().max((end - range.start) as usize));
        whole.extend_from_slice(&base[..base.len().min(self.chunk_bytes() as usize)]);
        whole.resize(whole.len().max((end - range.start) as usize), 0);
        self.sealed().overlay(range.start, &mut whole);
        whole.into()
    }

    /// Whether the chunks of the commit must be on disk before it is sent: those that it replaces may have been
    /// fsynced, and are deleted soon.
    pub(crate) fn needs_sync(&self) -> bool {
        self.commit.as_ref().is_some_and(|commit| commit.durability.is_disk()) || self.replaces_committed()
    }

    /// Whether the commit under way is a small one for which a program waits until it is durable, and no upload is.
    pub(crate) fn has_few_bytes_to_log(&self, most: usize) -> bool {
        let is_small =
            |commit: &CommitUnderWay| commit.durability.is_disk() && commit.sealed.held_bytes() <= most as u64;
        self.uploads.is_empty() && self.commit.as_ref().is_some_and(is_small)
    }

    /// Whether chunks of so many bytes go into the log with the commit under way: a program waits until it is durable,
    /// and the commit has no more than `most` bytes in all. Counts the bytes if so.
    pub(crate) fn log_with_commit(&mut self, bytes: usize, most: usize) -> bool {
        let Some(commit) = self.commit.as_mut().filter(|commit| commit.durability.is_disk()) else { return false };
        let fits = commit.logged_bytes + bytes <= most;
        if fits {
            commit.logged_bytes += bytes;
        }
        fits
    }

    /// Returns the chunks of the commit that have the version of this one, if it is a whole chunk.
    pub(crate) fn stored_like(&self, index: u32) -> Vec<ChunkId> {
        let Some(version) = self.stored.get(index) else { return Vec::new() };
        let like = self.stored.iter().filter(|extent| extent.version == version);
        like.flat_map(|extent| extent.range()).map(|index| ChunkId { version, index: index as u32 }).collect()
    }

    /// Notes that these chunks, the whole of [`Self::stored_like`], were stored again under `version`.
    pub(crate) fn note_stored_again(&mut self, chunks: &[ChunkId], version: Version) {
        for chunk in chunks {
            if self.stored.get(chunk.index) == Some(chunk.version) {
                self.discarded.insert_over(&mut self.stored, Extent { first: chunk.index, count: 1, version });
            }
        }
    }

    /// Returns the operations to send, and the extents of `stored` that were overwritten in part and that these
    /// operations replace. `Stale` if the file was restarted with another chunk size since the commit began.
    pub(crate) fn draft_commit(&self, merged: &BTreeMap<u32, Merged>) -> Result<(Vec<Commit>, Vec<Extent>), FsError> {
        let end = self.sealed().end();
        self.draft(merged, end)
    }

    /// Returns operations for the whole chunks that are stored, without the bytes that are still in memory.
    pub(crate) fn draft_stored(&self) -> Result<Vec<Commit>, FsError> {
        let (mut commits, _) = self.draft(&BTreeMap::new(), 0)?;
        commits.iter_mut().for_each(|commit| commit.set = SetAttr::default());
        commits.retain(|commit| !commit.extents.is_empty());
        Ok(commits)
    }

    /// `end`: the end of the bytes that are not whole chunks.
    fn draft(&self, merged: &BTreeMap<u32, Merged>, end: u64) -> Result<(Vec<Commit>, Vec<Extent>), FsError> {
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
        let end = (u64::from(whole.last_index()) * self.chunk_bytes()).max(end);
        let mut commits = split_commit(&whole, partial, self.chunk_bytes(), end);
        // Without a time the namespace would use its clock, and replace a time that a program has set since the write.
        let mtime = Some(under_way.mtime.unwrap_or(self.attr.mtime));
        let chunk_bytes = Some(self.attr.chunk_bytes);
        commits.iter_mut().for_each(|commit| (commit.mtime, commit.chunk_bytes) = (mtime, chunk_bytes));
        if commits.is_empty() && under_way.has_attributes() {
            // The data that the attributes were to go with was discarded.
            commits.push(Commit { mtime, ..Commit::default() });
        }
        if let Some(last) = commits.last_mut() {
            last.set = under_way.set.clone();
            // Programs have seen this ctime since the write. An earlier one than before would hide the change.
            last.set.ctime = under_way.change_time().filter(|changed| *changed > self.attr.ctime);
        }
        Ok((commits, replaced))
    }

    /// Takes over `attr` after one operation of the commit was applied.
    pub(crate) fn adopt_commit(&mut self, commit: &Commit, attr: &Attr) {
        commit.extents.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        if attr.change < self.attr.change {
            // The reply is late: the known state is newer, and may have replaced these chunks.
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

    /// Notes that all operations of the commit were applied; `replaced` comes from [`Self::draft_commit`].
    pub(crate) fn note_committed(&mut self, replaced: &[Extent]) {
        replaced.iter().for_each(|extent| self.stored.remove_if_same(*extent));
        self.discard(replaced.iter().copied());
        if let Some(commit) = &mut self.commit {
            commit.clear();
        }
        self.failed_commits = 0;
    }

    /// Remembers a commit without an answer. The state is stale then, since the feed does not report a session's own
    /// changes.
    pub(crate) fn note_unanswered(&mut self, commit: &Commit, replaced: &[Extent], sent_to: SentTo, error: &FsError) {
        if error.is_unanswered() {
            self.stale = true;
            self.unanswered = Some(UnansweredCommit::new(commit, replaced, sent_to, error.clone()));
        }
    }

    /// The attributes that go with the commit under way.
    pub(crate) fn sealed_attributes(&self) -> SetAttr {
        self.commit.as_ref().map(|commit| commit.set.clone()).unwrap_or_default()
    }

    /// Takes over `attr` after a truncation to zero was applied.
    pub(crate) fn adopt_truncation_to_zero(&mut self, attr: &Attr) {
        if let Some(commit) = &mut self.commit {
            commit.clear();
        }
        self.discard_stored();
        self.unanswered = None;
        if attr.change < self.attr.change {
            // The reply is late: another mount may have written the file since.
            self.stale = true;
            return;
        }
        self.known = KnownExtents::all_holes();
        self.adopt(attr, 0);
    }

    /// Forgets the times of earlier writes, which a time set since then replaces.
    pub(crate) fn clear_write_times(&mut self) {
        self.mtime = None;
        if let Some(commit) = &mut self.commit {
            commit.mtime = None;
        }
    }
}

/// Splits a commit of very many pieces into several operations, so that none is too large to log.
fn split_commit(whole: &ExtentMap, partial: Vec<ChunkWrite>, chunk_bytes: u64, end: u64) -> Vec<Commit> {
    let extents: Vec<Extent> = whole.iter().collect();
    if extents.is_empty() && partial.is_empty() {
        return Vec::new();
    }
    if extents.len() + partial.len() <= MAX_COMMIT_RUNS {
        return vec![Commit { extents, partial, size_at_least: end, ..Commit::default() }];
    }
    let end_of_chunk = |index: u64| (index * chunk_bytes).min(end);
    let of_extents = extents.chunks(MAX_COMMIT_RUNS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| end_of_chunk(last.end() - 1)),
        extents: part.to_vec(),
        ..Commit::default()
    });
    let of_partial = partial.chunks(MAX_COMMIT_RUNS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| end_of_chunk(u64::from(last.index))),
        partial: part.to_vec(),
        ..Commit::default()
    });
    of_extents.chain(of_partial).collect()
}
