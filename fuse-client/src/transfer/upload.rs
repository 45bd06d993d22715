//! Uploads: runs of whole chunks that are sent to their holders, each under a version of its own, several at a time.

use std::sync::Arc;

use bytes::Bytes;
use chordfs_log::warn_limited;
use chordfs_net::{chunk_client::NewChunk, clients::ChunkTransport, operation, tasks};
use chordfs_types::{
    chunk::{ChunkId, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
};
use parking_lot::MutexGuard;
use tokio::sync::SemaphorePermit;

use super::{
    FileData, MAX_SENDING_KIB,
    extents::to_extents,
    state::{FileState, UploadOrder},
};

impl FileData {
    /// Starts the uploads that may start now: all whole chunks of a commit under way, else runs of at least
    /// `min_bytes`.
    pub(super) fn start_uploads(self: &Arc<Self>, state: &mut MutexGuard<'_, FileState>, min_bytes: u64) {
        let settings = &self.transfer.settings;
        while state.upload_count() < settings.max_uploads {
            let Some(order) = state.take_upload(min_bytes, settings.flush_run_bytes) else { return };
            tasks::spawn_on(&self.transfer.runtime, self.clone().run_upload(order));
        }
    }

    /// Starts an upload or a commit, because the ceiling is reached and this file holds the most memory.
    pub(super) fn flush_for_space(self: &Arc<Self>) {
        let mut state = self.state.lock();
        self.start_uploads(&mut state, 1);
        if state.upload_count() == 0 && !state.is_committing() {
            drop(state);
            tasks::spawn_on(&self.transfer.runtime, self.clone().commit_in_background());
        }
    }

    /// Takes the whole chunks of a small `fsync` here: they go into the log with the commit, so that nothing waits for
    /// the nodes, and a task for each run would cost more than the run.
    pub(super) async fn log_few_chunks(self: &Arc<Self>) {
        let settings = &self.transfer.settings;
        loop {
            let order = {
                let mut state = self.state.lock();
                let may_log = self.transfer.chunks.has_room() && state.has_few_bytes_to_log(settings.log_bytes);
                // Nothing that was written since the commit began.
                if may_log { state.take_upload(u64::MAX, settings.flush_run_bytes) } else { None }
            };
            let Some(order) = order else { return };
            self.clone().run_upload(order).await;
        }
    }

    async fn run_upload(self: Arc<Self>, order: UploadOrder) {
        let UploadOrder { number, file, chunks, durability } = order;
        // The wait to send counts as well: many uploads that fail in turn must not take a deadline each.
        let deadline = self.transfer.settings.deadline;
        let outcome =
            operation::run(deadline, deadline, || {}, self.store_for_commit(&file, &chunks, durability)).await;
        let mut state = self.state.lock();
        match outcome {
            Ok(version) => state.complete_upload(number, version),
            Err(error) => {
                let (ino, chunks) = (self.ino.0, chunks.len());
                warn_limited!(ino, chunks, %error, "written data could not be stored yet");
                state.fail_upload(number, error);
            }
        }
        self.start_uploads(&mut state, self.transfer.settings.flush_run_bytes);
        self.account_memory(&state, 0);
        drop(state);
        self.upload_ended.send_modify(|count| *count += 1);
    }

    async fn wait_to_send(&self, chunks: &[(u32, Bytes)]) -> Result<SemaphorePermit<'_>, FsError> {
        let kib = chunks.iter().map(|(_, data)| data.len()).sum::<usize>().div_ceil(1024).min(MAX_SENDING_KIB);
        let Some(permit) = operation::within(self.transfer.sending.acquire_many(kib as u32)).await else {
            return Err(FsError::NoReplica { detail: "other uploads have not ended in time".into() });
        };
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// Like [`Self::store`], for chunks that a commit will name. If a program waits in `fsync` for few bytes, they are
    /// stored with that commit instead (`logged_chunks`).
    pub(super) async fn store_for_commit(
        &self,
        file: &FileName,
        chunks: &[(u32, Bytes)],
        durability: Durability,
    ) -> Result<Version, FsError> {
        let (bytes, most) = (chunks.iter().map(|(_, data)| data.len()).sum(), self.transfer.settings.log_bytes);
        let may_log = durability.is_disk() && self.transfer.chunks.has_room();
        if !(may_log && self.state.lock().log_with_commit(bytes, most)) {
            return self.store(file, chunks, durability).await;
        }
        let version = self.transfer.namespace.next_version().await?;
        let with_ids = chunks.iter().map(|(index, data)| (ChunkId { version, index: *index }, data.clone()));
        self.transfer.chunks.keep(with_ids);
        self.keep_in_cache(version, chunks);
        Ok(version)
    }

    /// Stores chunks (ascending, at most a run) under one fresh version and keeps them in the cache.
    pub(super) async fn store(
        &self,
        file: &FileName,
        chunks: &[(u32, Bytes)],
        durability: Durability,
    ) -> Result<Version, FsError> {
        let _sending = self.wait_to_send(chunks).await?;
        let version = self.transfer.namespace.next_version().await?;
        let id = |index: u32| ChunkId { version, index };
        let batch = chunks.iter();
        let batch = batch.map(|(index, data)| NewChunk { file: file.clone(), id: id(*index), data: data.clone() });
        if let Err(error) = self.transfer.chunks.put(batch.collect(), durability).await {
            // Some nodes may have stored some of them.
            self.state.lock().discard(to_extents(chunks.iter().map(|(index, _)| (*index, version))).iter());
            return Err(error);
        }
        operation::note_progress();
        self.keep_in_cache(version, chunks);
        Ok(version)
    }

    fn keep_in_cache(&self, version: Version, chunks: &[(u32, Bytes)]) {
        for (index, data) in chunks {
            self.transfer.cache.insert(ChunkId { version, index: *index }, data.clone());
        }
    }
}
