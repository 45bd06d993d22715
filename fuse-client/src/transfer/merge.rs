//! Merging: the written part of a chunk is merged with its base, the newest version of the chunk, and the whole chunk
//! is stored under a new version. The base may change until the commit, so each merge is remembered with its base, and
//! repeated if another mount has replaced that base.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chordfs_types::{chunk::ChunkId, chunk_api::Durability, fs_error::FsError};
use futures_util::{StreamExt, stream};
use parking_lot::MutexGuard;

use super::{
    FileData,
    progress::CommitStep,
    read::MAX_REPLANS,
    state::{Base, FileState, Merged},
};

/// A partly written chunk to merge with `base`.
struct ToMerge {
    index: u32,
    base: Base,
    /// Whether bytes of the base are part of the merged chunk.
    needs_base: bool,
}

impl FileData {
    /// Stores the partly written chunks merged with their present bases, except those in `merged` whose base has not
    /// changed. If no holder has a base, it may have been replaced and purged meanwhile, so the extents are re-fetched;
    /// if it is still the base, the error is returned.
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
        let batches = split_into_batches(todo, run).into_iter().map(|batch| self.merge_batch(batch, durability));
        let parallel = self.transfer.settings.max_uploads.max(1);
        let batches: Vec<Result<Vec<(u32, Merged)>, FsError>> =
            stream::iter(batches).buffer_unordered(parallel).collect().await;
        let mut failure = Ok(());
        for batch in batches {
            match batch {
                Ok(batch) => batch.into_iter().for_each(|(index, new)| self.note_merged(merged, index, new)),
                Err(error) => failure = Err(error),
            }
        }
        failure
    }

    fn note_merged(&self, merged: &mut BTreeMap<u32, Merged>, index: u32, new: Merged) {
        if let Some(old) = merged.insert(index, new) {
            self.state.lock().discard([Merged::extent((&index, &old))]);
        }
    }

    async fn plan_merges(&self, merged: &BTreeMap<u32, Merged>) -> Result<Vec<ToMerge>, FsError> {
        let indexes = {
            let state = self.state.lock();
            state.sealed_chunks()
        };
        self.progress.note(CommitStep::Extents);
        let state = self.with_known_bases(&indexes).await?;
        let plan = |index| ToMerge { index, base: state.base(index), needs_base: state.needs_base(index) };
        let is_merged = |todo: &ToMerge| merged.get(&todo.index).is_some_and(|merged| merged.base == todo.base);
        Ok(indexes.into_iter().map(plan).filter(|todo| !is_merged(todo)).collect())
    }

    /// Locks the state once the bases of all these chunks are known. A reader may re-fetch the extents at any moment,
    /// and a chunk whose version is not known yet must not be taken for a hole.
    pub(super) async fn with_known_bases(&self, indexes: &[u32]) -> Result<MutexGuard<'_, FileState>, FsError> {
        for _ in 0..MAX_REPLANS {
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
        self.progress.note(CommitStep::Base);
        let bases = self.fetch_chunks(needed.collect()).await?;
        self.progress.note(CommitStep::Upload);
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
        let version =
            self.store_for_commit(&file, &chunks, if replaces { Durability::Disk } else { durability }).await?;
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

fn split_into_batches<T>(mut items: Vec<T>, max_len: usize) -> Vec<Vec<T>> {
    let mut batches = Vec::with_capacity(items.len() / max_len + 1);
    while items.len() > max_len {
        let rest = items.split_off(max_len);
        batches.push(std::mem::replace(&mut items, rest));
    }
    batches.push(items);
    batches.retain(|batch| !batch.is_empty());
    batches
}
