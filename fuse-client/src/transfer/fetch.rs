//! Fetches chunks into the cache, in parallel batches. Concurrent requests for a chunk share one fetch.
//!
//! A batch runs as a task of its own, so a reader that is cancelled does not disturb the others that wait for it.

use chordfs_net::{clients::ChunkTransport, operation, tasks};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName},
    fs_error::FsError,
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use crate::cache::chunks::ChunkCache;

/// Nothing is read ahead while so many bytes are being fetched.
const MAX_FETCHING_BYTES: u64 = 24 << 20;
/// Size of one get, give or take a half.
const BATCH_BYTES: u64 = 2 << 20;

pub(super) struct Fetcher {
    chunks: Arc<dyn ChunkTransport>,
    cache: Arc<ChunkCache>,
    runtime: Handle,
    under_way: Mutex<HashMap<ChunkId, Arc<FetchBatch>>>,
}

/// Requested chunks; [`PendingFetch::wait`] returns them.
pub(super) struct PendingFetch {
    fetcher: Arc<Fetcher>,
    file: FileName,
    requested: Vec<(ChunkId, Arc<FetchBatch>)>,
}

struct FetchBatch {
    ids: Vec<ChunkId>,
    /// In the order of `ids`.
    outcome: OnceLock<Result<Vec<Bytes>, FsError>>,
    done: watch::Sender<bool>,
}

impl Fetcher {
    pub(super) fn new(chunks: Arc<dyn ChunkTransport>, cache: Arc<ChunkCache>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { chunks, cache, runtime, under_way: Mutex::default() })
    }

    /// Whether chunks may be fetched ahead of their readers: what is on its way is in memory beside the cache.
    pub(super) fn has_room(&self, chunks: usize, chunk_bytes: u64) -> bool {
        (self.under_way.lock().len() + chunks) as u64 * chunk_bytes <= MAX_FETCHING_BYTES
    }

    /// Starts fetching the chunks `ids` (ascending) of `file`, except those that are being fetched already.
    pub(super) fn start(self: &Arc<Self>, file: &FileName, ids: &[ChunkId], chunk_bytes: u64) -> PendingFetch {
        let mut under_way = self.under_way.lock();
        let fresh: Vec<ChunkId> = ids.iter().copied().filter(|id| !under_way.contains_key(id)).collect();
        for part in fresh.chunks(chunks_per_batch(fresh.len(), chunk_bytes)) {
            let batch =
                Arc::new(FetchBatch { ids: part.to_vec(), outcome: OnceLock::new(), done: watch::Sender::new(false) });
            under_way.extend(part.iter().map(|id| (*id, batch.clone())));
            tasks::spawn_on(&self.runtime, self.clone().run(file.clone(), batch));
        }
        let requested = ids.iter().filter_map(|id| Some((*id, under_way.get(id)?.clone()))).collect();
        PendingFetch { fetcher: self.clone(), file: file.clone(), requested }
    }

    async fn run(self: Arc<Self>, file: FileName, batch: Arc<FetchBatch>) {
        let _running = RunningBatch { fetcher: &self, batch: &batch };
        let refs = batch.ids.iter().map(|&id| ChunkRef { file: file.clone(), id }).collect();
        let outcome = match self.chunks.get(refs).await {
            Ok(found) if found.len() != batch.ids.len() => {
                Err(FsError::Internal { detail: format!("requested {} chunks, got {}", batch.ids.len(), found.len()) })
            }
            other => other,
        };
        for (id, data) in batch.ids.iter().zip(outcome.iter().flatten()) {
            self.cache.insert(*id, data.clone());
        }
        let _ = batch.outcome.set(outcome);
    }
}

/// A batch whose task runs. Dropping it ends the batch, also when the task panics.
struct RunningBatch<'a> {
    fetcher: &'a Fetcher,
    batch: &'a FetchBatch,
}

impl Drop for RunningBatch<'_> {
    fn drop(&mut self) {
        let without_outcome = || Err(FsError::Internal { detail: "fetching chunks ended without an outcome".into() });
        self.batch.outcome.get_or_init(without_outcome);
        let mut under_way = self.fetcher.under_way.lock();
        self.batch.ids.iter().for_each(|id| drop(under_way.remove(id)));
        drop(under_way);
        self.batch.done.send_replace(true);
    }
}

/// Chunks per batch, so that all batches are about equal and none is a small rest.
fn chunks_per_batch(chunks: usize, chunk_bytes: u64) -> usize {
    let bytes = chunks as u64 * chunk_bytes;
    let batches = ((bytes + BATCH_BYTES / 2) / BATCH_BYTES).max(1) as usize;
    chunks.div_ceil(batches).max(1)
}

impl PendingFetch {
    /// Waits for all chunks. A batch that another reader started may fail because of a chunk that only that reader
    /// needs and that may have been deleted legitimately, so the chunks needed here are then fetched by themselves.
    pub(super) async fn wait(self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        match self.gather().await {
            Err(FsError::NoReplica { .. }) if self.has_unrequested_chunks() => self.fetch_alone().await,
            outcome => outcome,
        }
    }

    async fn gather(&self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        let mut found = Vec::with_capacity(self.requested.len());
        for (id, batch) in &self.requested {
            found.push((*id, batch.get(*id).await?));
        }
        Ok(found)
    }

    /// Whether a batch has chunks that were not requested here.
    fn has_unrequested_chunks(&self) -> bool {
        let ours = |id: &ChunkId| self.requested.iter().any(|(requested, _)| requested == id);
        self.requested.iter().any(|(_, batch)| !batch.ids.iter().all(ours))
    }

    async fn fetch_alone(&self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        let ids: Vec<ChunkId> = self.requested.iter().map(|(id, _)| *id).collect();
        let refs = ids.iter().map(|&id| ChunkRef { file: self.file.clone(), id }).collect();
        let found: Vec<(ChunkId, Bytes)> = ids.into_iter().zip(self.fetcher.chunks.get(refs).await?).collect();
        found.iter().for_each(|(id, data)| self.fetcher.cache.insert(*id, data.clone()));
        Ok(found)
    }
}

impl FetchBatch {
    async fn get(&self, id: ChunkId) -> Result<Bytes, FsError> {
        if self.outcome.get().is_none() {
            let mut done = self.done.subscribe();
            // Cannot fail: `self` holds the sender.
            let waited = operation::within(done.wait_for(|done| *done)).await.map(drop);
            waited.ok_or_else(|| FsError::NoReplica { detail: "no holder has sent the chunks in time".into() })?;
        }
        let at = self.ids.binary_search_by_key(&id.index, |id| id.index).expect("the batch was made for this chunk");
        match self.outcome.get() {
            Some(Ok(found)) => Ok(found[at].clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(FsError::Internal { detail: "a batch is done and has no outcome".into() }),
        }
    }
}
