//! Fetches chunks into the cache: in batches, side by side, and each chunk once however many ask for it at a time.
//!
//! A batch runs as a task of its own, so a reader that goes away takes nothing from the others who wait for it.

use chordfs_net::clients::ChunkTransport;
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

/// What one get asks for, more or less: a half less, or a half more.
const BATCH_BYTES: u64 = 2 << 20;

pub(super) struct Fetcher {
    chunks: Arc<dyn ChunkTransport>,
    cache: Arc<ChunkCache>,
    runtime: Handle,
    under_way: Mutex<HashMap<ChunkId, Arc<FetchBatch>>>,
}

/// Chunks that have been asked for.
pub(super) struct PendingFetch {
    fetcher: Arc<Fetcher>,
    file: FileName,
    wanted: Vec<(ChunkId, Arc<FetchBatch>)>,
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

    /// Asks for the chunks `ids` (ascending) of `file`, but for those that are on their way already.
    pub(super) fn start(self: &Arc<Self>, file: &FileName, ids: &[ChunkId], chunk_bytes: u64) -> PendingFetch {
        let mut under_way = self.under_way.lock();
        let fresh: Vec<ChunkId> = ids.iter().copied().filter(|id| !under_way.contains_key(id)).collect();
        for part in fresh.chunks(even_part(fresh.len(), chunk_bytes)) {
            let batch =
                Arc::new(FetchBatch { ids: part.to_vec(), outcome: OnceLock::new(), done: watch::Sender::new(false) });
            under_way.extend(part.iter().map(|id| (*id, batch.clone())));
            self.runtime.spawn(self.clone().run(file.clone(), batch));
        }
        let wanted = ids.iter().filter_map(|id| Some((*id, under_way.get(id)?.clone()))).collect();
        PendingFetch { fetcher: self.clone(), file: file.clone(), wanted }
    }

    async fn run(self: Arc<Self>, file: FileName, batch: Arc<FetchBatch>) {
        let refs = batch.ids.iter().map(|&id| ChunkRef { file: file.clone(), id }).collect();
        let outcome = match self.chunks.get(refs).await {
            Ok(found) if found.len() != batch.ids.len() => Err(FsError::Internal {
                detail: format!("{} chunks were asked for, {} came", batch.ids.len(), found.len()),
            }),
            other => other,
        };
        for (id, data) in batch.ids.iter().zip(outcome.iter().flatten()) {
            self.cache.insert(*id, data.clone());
        }
        let _ = batch.outcome.set(outcome);
        let mut under_way = self.under_way.lock();
        batch.ids.iter().for_each(|id| drop(under_way.remove(id)));
        drop(under_way);
        batch.done.send_replace(true);
    }
}

/// Chunks in each batch, so that all are about equal and none is a small rest.
fn even_part(chunks: usize, chunk_bytes: u64) -> usize {
    let bytes = chunks as u64 * chunk_bytes;
    let batches = ((bytes + BATCH_BYTES / 2) / BATCH_BYTES).max(1) as usize;
    chunks.div_ceil(batches).max(1)
}

impl PendingFetch {
    /// Waits for all of them. A batch that was put together for somebody else fails for a chunk that only they wanted,
    /// perhaps one that is gone for good reason; so what is wanted here is then asked for by itself.
    pub(super) async fn wait(self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        match self.gather().await {
            Err(FsError::NoReplica { .. }) if self.shares() => self.fetch_alone().await,
            outcome => outcome,
        }
    }

    async fn gather(&self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        let mut found = Vec::with_capacity(self.wanted.len());
        for (id, batch) in &self.wanted {
            found.push((*id, batch.get(*id).await?));
        }
        Ok(found)
    }

    /// Does a batch have chunks that are not wanted here?
    fn shares(&self) -> bool {
        let ours = |id: &ChunkId| self.wanted.iter().any(|(wanted, _)| wanted == id);
        self.wanted.iter().any(|(_, batch)| !batch.ids.iter().all(ours))
    }

    async fn fetch_alone(&self) -> Result<Vec<(ChunkId, Bytes)>, FsError> {
        let ids: Vec<ChunkId> = self.wanted.iter().map(|(id, _)| *id).collect();
        let refs = ids.iter().map(|&id| ChunkRef { file: self.file.clone(), id }).collect();
        let found: Vec<(ChunkId, Bytes)> = ids.into_iter().zip(self.fetcher.chunks.get(refs).await?).collect();
        found.iter().for_each(|(id, data)| self.fetcher.cache.insert(*id, data.clone()));
        Ok(found)
    }
}

impl FetchBatch {
    async fn get(&self, id: ChunkId) -> Result<Bytes, FsError> {
        if self.outcome.get().is_none() {
            // The sender lives in `self`, so this ends with the task's fate.
            let _ = self.done.subscribe().wait_for(|done| *done).await;
        }
        let at = self.ids.binary_search_by_key(&id.index, |id| id.index).expect("the batch was made for this chunk");
        match self.outcome.get() {
            Some(Ok(found)) => Ok(found[at].clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(FsError::Internal { detail: "a batch ended without an outcome".into() }),
        }
    }
}
