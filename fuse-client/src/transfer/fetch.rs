//! Fetches chunks into the cache, in parallel batches. Concurrent requests for a chunk share one fetch.
//!
//! A batch runs as a task of its own, so a reader that is cancelled does not disturb the others that wait for it.

use chordfs_net::{clients::ChunkTransport, operation, tasks};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName, Version},
    fs_error::FsError,
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::cache::chunks::ChunkCache;

/// Nothing is read ahead while so many bytes are being fetched.
const MAX_FETCHING_BYTES: u64 = 24 << 20;
/// How long a reader waits for a batch that was fetched in advance.
const AHEAD_PATIENCE: Duration = Duration::from_secs(1);
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
    /// By index, and then by version.
    chunks: Vec<ChunkRef>,
    /// No reader has asked for it.
    is_ahead: bool,
    /// In the order of `chunks`.
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
        let refs = ids.iter().map(|&id| ChunkRef { file: file.clone(), id });
        self.launch(&mut under_way, refs.collect(), chunk_bytes, false);
        let requested = ids.iter().filter_map(|id| Some((*id, under_way.get(id)?.clone()))).collect();
        PendingFetch { fetcher: self.clone(), file: file.clone(), requested }
    }

    /// Starts fetching chunks of several files that nobody waits for yet, if there is room.
    pub(super) fn start_ahead(self: &Arc<Self>, mut chunks: Vec<ChunkRef>, chunk_bytes: u64) {
        chunks.retain(|chunk| !self.cache.contains(chunk.id));
        if !chunks.is_empty() && self.has_room(chunks.len(), chunk_bytes) {
            chunks.sort_by_key(|chunk| place(chunk.id));
            self.launch(&mut self.under_way.lock(), chunks, chunk_bytes, true);
        }
    }

    /// Fetches those chunks, sorted by [`place`], that are not being fetched.
    fn launch(
        self: &Arc<Self>,
        under_way: &mut HashMap<ChunkId, Arc<FetchBatch>>,
        mut chunks: Vec<ChunkRef>,
        chunk_bytes: u64,
        is_ahead: bool,
    ) {
        chunks.retain(|chunk| !under_way.contains_key(&chunk.id));
        for part in chunks.chunks(chunks_per_batch(chunks.len(), chunk_bytes)) {
            let (chunks, done) = (part.to_vec(), watch::Sender::new(false));
            let batch = Arc::new(FetchBatch { chunks, is_ahead, outcome: OnceLock::new(), done });
            under_way.extend(part.iter().map(|chunk| (chunk.id, batch.clone())));
            tasks::spawn_on(&self.runtime, self.clone().run(batch));
        }
    }

    async fn run(self: Arc<Self>, batch: Arc<FetchBatch>) {
        let _running = RunningBatch { fetcher: &self, batch: &batch };
        let requested = batch.chunks.len();
        let outcome = match self.chunks.get(batch.chunks.clone()).await {
            Ok(found) if found.len() != requested => {
                Err(FsError::Internal { detail: format!("requested {requested} chunks, got {}", found.len()) })
            }
            other => other,
        };
        for (chunk, data) in batch.chunks.iter().zip(outcome.iter().flatten()) {
            self.cache.insert(chunk.id, data.clone());
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
        self.batch.chunks.iter().for_each(|chunk| drop(under_way.remove(&chunk.id)));
        drop(under_way);
        self.batch.done.send_replace(true);
    }
}

/// The order of the chunks of a batch. Those of one file are in their order in it.
fn place(id: ChunkId) -> (u32, Version) {
    (id.index, id.version)
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
    /// A batch of other files, fetched in advance, may wait for a node that only they need.
    pub(super) async fn wait(self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        let is_ahead = self.requested.iter().any(|(_, batch)| batch.is_ahead);
        let patience = if is_ahead { AHEAD_PATIENCE } else { Duration::MAX };
        match timeout(patience, self.gather()).await {
            Err(_) => self.fetch_alone().await,
            Ok(Err(FsError::NoReplica { .. })) if self.has_unrequested_chunks() => self.fetch_alone().await,
            Ok(outcome) => outcome,
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
        self.requested.iter().any(|(_, batch)| !batch.chunks.iter().all(|chunk| ours(&chunk.id)))
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
        let at = self.chunks.binary_search_by_key(&place(id), |chunk| place(chunk.id));
        let at = at.expect("the batch was made for this chunk");
        match self.outcome.get() {
            Some(Ok(found)) => Ok(found[at].clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(FsError::Internal { detail: "a batch is done and has no outcome".into() }),
        }
    }
}
