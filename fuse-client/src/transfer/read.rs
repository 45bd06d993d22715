//! Reading: the layers of `state` on top of the chunk cache on top of the holders, and read-ahead.
//!
//! A read is planned under the file's lock, and copied once; the lock is released first if the range has no uncommitted
//! bytes. Chunks that the plan lacks are fetched, and then the read is planned again: versions may have changed.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use chordfs_net::tasks;
use chordfs_types::{
    chunk::ChunkId,
    fs_error::FsError,
    namespace::{Answer, Query},
};
use parking_lot::MutexGuard;

use super::{
    FileData, read_buffer,
    state::{ChunkContent, FileState},
};

/// How often a plan, or a queried state, may be outdated before the operation fails. Each time, a commit by this or
/// another mount has overtaken it.
pub(super) const MAX_REPLANS: usize = 64;

/// The bytes of each chunk of a range, in order.
struct Plan {
    range: Range<u64>,
    chunk_bytes: u64,
    /// `None` stands for zeros.
    parts: Vec<Option<Bytes>>,
}

impl FileData {
    /// Reads without waiting; `None` if chunks or extents must be fetched. A read across the end is short.
    pub fn try_read(self: &Arc<Self>, offset: u64, len: u32) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let range = readable(&state, offset, len);
        if state.is_stale() || state.first_unknown(state.chunks_of(range.clone())).is_some() {
            return None;
        }
        let plan = self.plan(&state, range.clone(), &HashMap::new()).ok()?;
        let ahead = self.note_access(&mut state, range);
        let bytes = assemble_with_dirty(plan, state);
        self.fetch_ahead(ahead);
        Some(bytes)
    }

    /// Reads up to `len` bytes. Holes, and the missing end of a chunk that is stored short, read as zeros. A read
    /// across the end is short.
    ///
    /// Errors: `NoReplica` if no holder of a chunk answers, even after the extents were re-fetched.
    pub async fn read(self: &Arc<Self>, offset: u64, len: u32) -> Result<Vec<u8>, FsError> {
        let mut fetched = HashMap::new();
        let mut noted = false;
        let mut lost: Option<Vec<ChunkId>> = None;
        for _ in 0..MAX_REPLANS {
            let requested = {
                let state = self.state.lock();
                state.chunks_of(offset..offset.saturating_add(u64::from(len)))
            };
            self.load_extents(requested).await?;
            let (pending, missing, ahead) = {
                let mut state = self.state.lock();
                let range = readable(&state, offset, len);
                if !range.is_empty() && state.first_unknown(state.chunks_of(range.clone())).is_some() {
                    // Another reader is re-fetching the extents. Chunks not known yet must not be taken for holes.
                    continue;
                }
                let ahead = if noted { 0..0 } else { self.note_access(&mut state, range.clone()) };
                noted = true;
                match self.plan(&state, range, &fetched) {
                    Ok(plan) => {
                        let bytes = assemble_with_dirty(plan, state);
                        self.fetch_ahead(ahead);
                        return Ok(bytes);
                    }
                    Err(missing) => {
                        let pending = self.transfer.fetcher.start(&state.attr().file, &missing, state.chunk_bytes());
                        (pending, missing, ahead)
                    }
                }
            };
            self.fetch_ahead(ahead);
            match pending.wait().await {
                Ok(found) => fetched.extend(found),
                // The version may have been replaced and purged since the extents were fetched. If not, it is lost.
                Err(FsError::NoReplica { .. }) if lost.as_ref() != Some(&missing) => {
                    self.refetch().await?;
                    lost = Some(missing);
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.changed_too_fast())
    }

    /// Fetches the newest state from the namespace. An answer older than this mount's last commit is not used: the
    /// reply to that commit did not include what other mounts had changed by then.
    pub(super) async fn refetch(&self) -> Result<(), FsError> {
        for _ in 0..MAX_REPLANS {
            let before = self.state.lock().invalidations();
            let (attr, extents, more) =
                match self.transfer.namespace.query_contents(Query::Open { ino: self.ino }).await? {
                    Answer::Open { attr, extents, more } => (attr, extents, more),
                    other => {
                        return Err(FsError::Internal {
                            detail: format!("the namespace answered Open with {other:?}"),
                        });
                    }
                };
            let mut state = self.state.lock();
            if state.refresh_from_query(&attr, &extents, more, before) {
                return Ok(());
            }
        }
        Err(self.changed_too_fast())
    }

    pub(super) fn changed_too_fast(&self) -> FsError {
        FsError::Internal { detail: format!("inode {} changed faster than it could be read", self.ino.0) }
    }

    /// Fetches the unknown extents of these chunks, as of this call or later.
    pub(super) async fn load_extents(&self, chunks: Range<u64>) -> Result<(), FsError> {
        if self.state.lock().is_stale() {
            self.refetch().await?;
        }
        loop {
            let (from, change) = {
                let state = self.state.lock();
                let Some(from) = state.first_unknown(chunks.clone()) else { return Ok(()) };
                (from, state.attr().change)
            };
            let (extents, more) =
                match self.transfer.namespace.query_contents(Query::Extents { ino: self.ino, from }).await? {
                    Answer::Extents { extents, more } => (extents, more),
                    other => {
                        return Err(FsError::Internal {
                            detail: format!("the namespace answered Extents with {other:?}"),
                        });
                    }
                };
            let mut state = self.state.lock();
            if state.attr().change != change {
                // A commit of this mount or a newer answer came in between. The page may be older than that.
                continue;
            }
            if !state.add_page(from, &extents, more) {
                let detail = format!("the namespace announced more extents of inode {}, and sent none", self.ino.0);
                return Err(FsError::Internal { detail });
            }
        }
    }

    /// Returns the parts of a readable range whose extents are known, or the chunks that have to be fetched first.
    fn plan(
        &self,
        state: &FileState,
        range: Range<u64>,
        fetched: &HashMap<ChunkId, Bytes>,
    ) -> Result<Plan, Vec<ChunkId>> {
        let chunks = if range.is_empty() { 0..0 } else { state.chunks_of(range.clone()) };
        let mut parts = Vec::with_capacity((chunks.end - chunks.start) as usize);
        let mut missing = Vec::new();
        for index in chunks {
            let index = index as u32;
            let bytes = state.bytes_of(index);
            match state.content(index, bytes.start.max(range.start)..bytes.end.min(range.end)) {
                ChunkContent::Zeros => parts.push(None),
                ChunkContent::InMemory(data) => parts.push(Some(data)),
                ChunkContent::Stored(id) => match fetched.get(&id).cloned().or_else(|| self.transfer.cache.get(id)) {
                    Some(data) => parts.push(Some(data)),
                    None => missing.push(id),
                },
            }
        }
        if missing.is_empty() { Ok(Plan { range, chunk_bytes: state.chunk_bytes(), parts }) } else { Err(missing) }
    }

    fn note_access(&self, state: &mut MutexGuard<'_, FileState>, range: Range<u64>) -> Range<u64> {
        let settings = &self.transfer.settings;
        if range.is_empty() {
            return range;
        }
        state.note_read(range, settings.read_ahead_bytes.min(settings.cache_bytes / 4))
    }

    /// Starts fetching a range into the cache, without waiting. A failure is ignored: a read of the range repeats it.
    fn fetch_ahead(self: &Arc<Self>, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let state = self.state.lock();
        let chunks = state.chunks_of(range);
        if state.first_unknown(chunks.clone()).is_none() {
            return self.fetch_known(&state, chunks);
        }
        let file = self.clone();
        tasks::spawn_on(&self.transfer.runtime, async move {
            match file.load_extents(chunks.clone()).await {
                Ok(()) => file.fetch_known(&file.state.lock(), chunks),
                Err(error) => tracing::debug!(ino = file.ino.0, %error, "cannot fetch extents for read-ahead"),
            }
        });
    }

    fn fetch_known(&self, state: &FileState, chunks: Range<u64>) {
        let mut ids = Vec::new();
        for index in chunks {
            let index = index as u32;
            if let ChunkContent::Stored(id) = state.content(index, state.bytes_of(index))
                && !self.transfer.cache.contains(id)
            {
                ids.push(id);
            }
        }
        let size = state.chunk_bytes();
        if !ids.is_empty() && self.transfer.fetcher.has_room(ids.len(), size) {
            self.transfer.fetcher.start(&state.attr().file, &ids, size);
        }
    }
}

/// The part of a read before the end of the file.
fn readable(state: &FileState, offset: u64, len: u32) -> Range<u64> {
    let end = offset.saturating_add(u64::from(len)).min(state.size());
    offset.min(end)..end
}

/// Copies the parts together and puts the dirty bytes over them. Releases the lock first if there are none.
fn assemble_with_dirty(plan: Plan, state: MutexGuard<'_, FileState>) -> Vec<u8> {
    let start = plan.range.start;
    if !state.touches(plan.range.clone()) {
        drop(state);
        return plan.assemble();
    }
    let mut bytes = plan.assemble();
    state.overlay(start, &mut bytes);
    bytes
}

impl Plan {
    fn assemble(self) -> Vec<u8> {
        let total = (self.range.end - self.range.start) as usize;
        let mut bytes = read_buffer::take(total);
        let mut skip = (self.range.start % self.chunk_bytes) as usize;
        for part in self.parts {
            let want = (self.chunk_bytes as usize - skip).min(total - bytes.len());
            let filled = bytes.len() + want;
            if let Some(data) = part {
                let to = data.len().min(skip + want);
                bytes.extend_from_slice(&data[skip.min(to)..to]);
            }
            bytes.resize(filled, 0);
            skip = 0;
        }
        bytes
    }
}
