//! Merging: a chunk that was written in part is laid over its base, the newest version of the chunk, and stored as a
//! whole under a new version. The base may change until the commit, so what was merged is remembered with its base, and
//! merged again where another mount has replaced that.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chordfs_types::{chunk::ChunkId, chunk_api::Durability, fs_error::FsError};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::MutexGuard;

use super::{
    FileData,
    read::PLANS,
    state::{Base, FileState, Merged},
};

/// A partly written chunk to merge with `base`, whose bytes are needed or not.
struct ToMerge {
    index: u32,
    base: Base,
    needs_base: bool,
}

impl FileData {
    /// Stores the partly written chunks merged with their present bases, except those in `merged` whose base is still
    /// the same. A base that no holder has may have been replaced and purged meanwhile; if it is still the base, the
    /// error stands.
    pub(super) async fn merge_partials(
        self: &Arc<Self>,
        durability: Durability,
        merged: &mut BTreeMap<u32, Merged>,
    ) -> Result<(), FsError> {
        let mut todo = self.plan_merges(merged).await?;
        loop {
            let bases: Vec<(u32, Base)> = todo.iter().map(|todo| (todo.index, todo.base)).collect();
            let Err(error) = self.merge_all(todo, durability, merged).await else { return Ok(()) };
            if !matches!(error, FsError::NoReplica { .. }) {
                return Err(error);
            }
            self.refetch().await?;
            todo = self.plan_merges(merged).await?;
            if todo.iter().map(|todo| (todo.index, todo.base)).eq(bases) {
                return Err(error);
            }
        }
    }

    async fn merge_all(
        self: &Arc<Self>,
        todo: Vec<ToMerge>,
        durability: Durability,
        merged: &mut BTreeMap<u32, Merged>,
    ) -> Result<(), FsError> {
        let run = (self.transfer.settings.flush_run_bytes / self.state.lock().chunk_bytes()).max(1) as usize;
        let batches = in_batches(todo, run).into_iter().map(|batch| self.merge_batch(batch, durability));
        let side_by_side = self.transfer.settings.max_uploads.max(1);
        let done: Vec<Vec<(u32, Merged)>> = stream::iter(batches).buffer_unordered(side_by_side).try_collect().await?;
        merged.extend(done.into_iter().flatten());
        Ok(())
    }

    async fn plan_merges(&self, merged: &BTreeMap<u32, Merged>) -> Result<Vec<ToMerge>, FsError> {
        let indexes = {
            let state = self.state.lock();
            state.sealed_chunks()
        };
        let state = self.with_known_bases(&indexes).await?;
        let plan = |index| ToMerge { index, base: state.base(index), needs_base: state.needs_base(index) };
        let stands = |todo: &ToMerge| merged.get(&todo.index).is_some_and(|merged| merged.base == todo.base);
        Ok(indexes.into_iter().map(plan).filter(|todo| !stands(todo)).collect())
    }

    /// The state in which the bases of all these chunks are known: a reader may fetch the extents again at any moment,
    /// and what is not known yet is no hole.
    pub(super) async fn with_known_bases(&self, indexes: &[u32]) -> Result<MutexGuard<'_, FileState>, FsError> {
        for _ in 0..PLANS {
            for &index in indexes {
                let is_stored = self.state.lock().is_stored(index);
                if !is_stored {
                    self.load_extents(u64::from(index)..u64::from(index) + 1).await?;
                }
            }
            let state = self.state.lock();
            if indexes.iter().all(|index| state.is_base_known(*index)) {
                return Ok(state);
            }
        }
        Err(self.changed_too_fast())
    }

    async fn merge_batch(
        self: &Arc<Self>,
        batch: Vec<ToMerge>,
        durability: Durability,
    ) -> Result<Vec<(u32, Merged)>, FsError> {
        let needed = batch.iter().filter(|todo| todo.needs_base);
        let needed = needed.filter_map(|todo| Some(ChunkId { version: todo.base.version()?, index: todo.index }));
        let bases = self.fetch_chunks(needed.collect()).await?;
        let (file, chunks) = {
            let state = self.state.lock();
            let base = |todo: &ToMerge| {
                let id = ChunkId { version: todo.base.version()?, index: todo.index };
                bases.get(&id).filter(|_| todo.needs_base)
            };
            let merge =
                |todo: &ToMerge| (todo.index, state.merge_over(todo.index, base(todo).map_or(&[][..], |data| data)));
            (state.attr().file.clone(), batch.iter().map(merge).collect::<Vec<(u32, Bytes)>>())
        };
        let replaces = batch.iter().any(|todo| matches!(todo.base, Base::Committed(_)));
        let version = self.store(&file, &chunks, if replaces { Durability::Disk } else { durability }).await?;
        Ok(batch.iter().map(|todo| (todo.index, Merged { base: todo.base, version })).collect())
    }

    /// Gets these chunks from the cache or their holders.
    pub(super) async fn fetch_chunks(&self, ids: Vec<ChunkId>) -> Result<HashMap<ChunkId, Bytes>, FsError> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            match self.transfer.cache.get(id) {
                Some(data) => drop(found.insert(id, data)),
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            let (file, size) = {
                let state = self.state.lock();
                (state.attr().file.clone(), state.chunk_bytes())
            };
            found.extend(self.transfer.fetcher.start(&file, &missing, size).wait().await?);
        }
        Ok(found)
    }
}

fn in_batches<T>(mut items: Vec<T>, most: usize) -> Vec<Vec<T>> {
    let mut batches = Vec::with_capacity(items.len() / most + 1);
    while items.len() > most {
        let rest = items.split_off(most);
        batches.push(std::mem::replace(&mut items, rest));
    }
    batches.push(items);
    batches.retain(|batch| !batch.is_empty());
    batches
}
