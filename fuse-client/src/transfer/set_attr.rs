//! Changes of attributes of a file that may have uncommitted data: they hold the commit lock, as commits do.
//!
//! A truncation to zero discards uncommitted data. Any other truncation first commits it, then stores a shortened copy
//! of the chunk in which the new end lies, so that the bytes cut off cannot reappear when the file grows again. A new
//! mtime replaces the times of earlier writes, so that a later commit of their bytes does not bring those times back.

use std::{sync::Arc, time::Instant};

use chordfs_types::{
    chunk::{ChunkId, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Change, ChunkWrite, Extent, Reply, SetAttr, Truncate},
};

use super::{
    CommitReason, FileData,
    commit::{conflict_pauses, unexpected},
    progress::CommitStep,
};

impl FileData {
    /// Does what `Change::SetAttr` does. Only the size of `set.truncate` is used; its tail is made here.
    pub async fn set_attr(self: &Arc<Self>, set: SetAttr) -> Result<Attr, FsError> {
        let _waits = self.transfer.urgency.wait();
        let _guard = self.lock_commits().await;
        match set.truncate.as_ref().map(|truncate| truncate.size) {
            None => {
                // Sent before them, it could wait for the place of the contents, while it has the commit lock.
                self.commit_in_kept_place().await?;
                self.set_without_truncation(set).await
            }
            Some(size) if size > self.state.lock().max_bytes() => Err(FsError::FileTooLarge),
            Some(0) => {
                self.give_slots_up();
                self.truncate_to_zero(set).await
            }
            Some(size) => {
                self.begin_slot();
                self.commit_and_report(CommitReason::SetAttr(&self.own_cursor)).await?;
                // The truncation comes after the contents, and not in their place.
                self.end_slot(false);
                self.truncate_to(size, set).await
            }
        }
    }

    /// Sends the deferred attributes along: sent later, they would undo this change.
    async fn set_without_truncation(&self, set: SetAttr) -> Result<Attr, FsError> {
        let earlier = self.state.lock().take_deferred();
        // The ctime is this change's.
        let sent = self.send_set_attr(set.over(SetAttr { ctime: None, ..earlier.clone() })).await;
        let mut state = self.state.lock();
        match &sent {
            Ok(attr) => {
                let size = state.attr().size;
                state.adopt(attr, size);
            }
            // The deferred attributes were acknowledged before, so they must not fail with the new ones.
            Err(_) => state.put_back_deferred(earlier),
        }
        drop(state);
        sent
    }

    async fn truncate_to_zero(self: &Arc<Self>, set: SetAttr) -> Result<Attr, FsError> {
        {
            let mut state = self.state.lock();
            state.begin_commit(Durability::Memory);
            // The sealed bytes are not stored any more, but they can be read until the truncation is applied.
            state.end_uploads();
        }
        // An upload that failed is discarded with the rest.
        let _ = self.finish_uploads().await;
        // The truncation sets the mtime, so an earlier one no longer matters.
        let set = set.over(SetAttr { mtime: None, ctime: None, ..self.state.lock().sealed_attributes() });
        let sent = self.send_set_attr(SetAttr { truncate: Some(Truncate { size: 0, tail: None }), ..set }).await;
        if let Ok(attr) = &sent {
            self.state.lock().adopt_truncation_to_zero(attr);
        }
        sent
    }

    async fn truncate_to(&self, size: u64, set: SetAttr) -> Result<Attr, FsError> {
        let give_up_at = Instant::now() + self.transfer.settings.deadline;
        let mut pauses = conflict_pauses();
        let (mut refetched_for, mut refetched_end, mut last_attempt) = (None, false, false);
        loop {
            let tail = match self.store_tail(size).await {
                // The chunk may have been replaced and purged meanwhile. If it was not, the error is final.
                Err(FsError::NoReplica { .. }) if refetched_for != Some(self.tail_version(size)) => {
                    refetched_for = Some(self.tail_version(size));
                    self.refetch().await?;
                    continue;
                }
                outcome => outcome?,
            };
            let truncate = Truncate { size, tail };
            let sent = self.send_set_attr(SetAttr { truncate: Some(truncate), ..set.clone() }).await;
            if let (Err(_), Some(tail)) = (&sent, tail) {
                self.state.lock().discard([Extent { first: tail.index, count: 1, version: tail.version }]);
            }
            match sent {
                Err(FsError::Conflict { .. }) if !last_attempt => {
                    last_attempt = Instant::now() >= give_up_at;
                    tokio::time::sleep(pauses.pause()).await;
                    self.refetch().await?;
                }
                // The file is longer than known here, so a tail has to be stored.
                Err(FsError::Invalid { .. }) if tail.is_none() && !std::mem::replace(&mut refetched_end, true) => {
                    self.refetch().await?;
                }
                Err(error) => return Err(error),
                Ok(attr) => {
                    let tail = tail.map(|tail| Extent { first: tail.index, count: 1, version: tail.version });
                    self.state.lock().adopt_truncation(size, tail, &attr);
                    return Ok(attr);
                }
            }
        }
    }

    /// Stores a shortened copy of the chunk in which the new end lies; `None` if the chunk need not be shortened.
    async fn store_tail(&self, size: u64) -> Result<Option<ChunkWrite>, FsError> {
        let chunks = {
            let state = self.state.lock();
            state.chunks_of(size..size + 1)
        };
        let (index, keep, base, file) = {
            let state = self.with_known_bases(&[chunks.start as u32]).await?;
            let keep = size % state.chunk_bytes();
            let index = chunks.start as u32;
            match state.committed_version(index) {
                Some(base) if keep > 0 && size < state.attr().size => (index, keep, base, state.attr().file.clone()),
                _ => return Ok(None),
            }
        };
        let id = ChunkId { version: base, index };
        let data = self.fetch_chunks(vec![id]).await?.remove(&id).unwrap_or_default();
        let data = data.slice(..data.len().min(keep as usize));
        // On disk, as in a commit: the chunk that it replaces may have been fsynced.
        let version = self.store(&file, &[(index, data)], Durability::Disk).await?;
        Ok(Some(ChunkWrite { index, version, base: Some(base) }))
    }

    fn tail_version(&self, size: u64) -> Option<Version> {
        let state = self.state.lock();
        state.committed_version((size / state.chunk_bytes() + 1) as u32)
    }

    async fn send_set_attr(&self, set: SetAttr) -> Result<Attr, FsError> {
        let (times, sets_mtime) = {
            let state = self.state.lock();
            (state.write_times(), set.mtime.is_some())
        };
        let truncates = set.truncate.is_some();
        self.progress.note(CommitStep::Log);
        let attr = match self.transfer.namespace.apply(Change::SetAttr { ino: self.ino, set }).await {
            Ok(Reply::Attr(attr)) => attr,
            Ok(other) => return Err(unexpected("SetAttr", &other)),
            Err(error) => {
                if truncates && error.is_unanswered() {
                    self.state.lock().note_unanswered_truncation();
                }
                return Err(error);
            }
        };
        let mut state = self.state.lock();
        if sets_mtime && state.write_times() == times {
            state.clear_write_times();
        }
        Ok(attr)
    }
}
