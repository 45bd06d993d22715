//! A mount's client of the chunk plane, with the promises of `chordfs_net::chunk_client`: a put ends when two holders
//! have the chunks, a get when one has answered, a sync when what was put is on two disks; each by its deadline. A sync
//! that finds no copy of a chunk reports the loss, once.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{LocalChunks, NewChunk},
    clients::ChunkTransport,
};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName},
    chunk_api::Durability,
    fs_error::FsError,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Plane, QUORUM};
use crate::{network::Link, oracle::Oracle, world::World};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct SimChunks {
    world: Arc<World>,
    plane: Arc<Plane>,
    link: Arc<Link>,
    oracle: Arc<Oracle>,
    /// Put and perhaps on no disk yet.
    unsynced: Mutex<Vec<ChunkRef>>,
}

impl SimChunks {
    pub(crate) fn new(world: Arc<World>, plane: Arc<Plane>, link: Arc<Link>, oracle: Arc<Oracle>) -> Arc<Self> {
        Arc::new(Self { world, plane, link, oracle, unsynced: Mutex::default() })
    }

    /// Tries until `step` gives an answer, with a message there and back each time.
    async fn until_answered<T, F>(&self, what: &str, mut step: impl FnMut() -> F) -> Result<T, FsError>
    where
        F: Future<Output = Option<Result<T, FsError>>>,
    {
        let end = Instant::now() + DEADLINE;
        let failed = || FsError::NoReplica { detail: format!("{what}: no answer within {DEADLINE:?}") };
        loop {
            if !self.link.carry(end).await {
                return Err(failed());
            }
            let answer = timeout_at(end, step()).await.map_err(|_| failed())?;
            if !self.link.carry(end).await {
                return Err(failed());
            }
            if let Some(answer) = answer {
                return answer;
            }
            let pause = self.world.random(|random| random.between(200, 500));
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn put_all(&self, chunks: &[NewChunk], durability: Durability) -> Result<(), FsError> {
        let refs: Vec<ChunkRef> =
            chunks.iter().map(|chunk| ChunkRef { file: chunk.file.clone(), id: chunk.id }).collect();
        refs.iter().zip(chunks).for_each(|(chunk, new)| self.plane.remember(chunk, &new.data));
        let put = self.until_answered("put", || async {
            self.plane.work().await;
            if self.plane.state.lock().full {
                return Some(Err(FsError::NoSpace));
            }
            refs.iter().all(|chunk| self.put_one(chunk, durability)).then_some(Ok(()))
        });
        put.await?;
        if durability == Durability::Memory {
            self.unsynced.lock().extend(refs);
        }
        Ok(())
    }

    fn put_one(&self, chunk: &ChunkRef, durability: Durability) -> bool {
        let Some(later) = self.plane.store(chunk, durability) else { return false };
        let (plane, id) = (self.plane.clone(), chunk.id);
        tokio::spawn(async move {
            plane.work().await;
            plane.store_late(&later, id, durability);
        });
        true
    }

    async fn get_all(&self, chunks: &[ChunkRef]) -> Result<Vec<Bytes>, FsError> {
        self.until_answered("get", || async {
            self.plane.work_to_read().await;
            let found: Result<Vec<Bytes>, bool> = chunks.iter().map(|chunk| self.plane.fetch(chunk.id)).collect();
            match found {
                Ok(found) => Some(Ok(found)),
                Err(all_answered) => {
                    all_answered.then(|| Err(FsError::NoReplica { detail: "every node answered, none has it".into() }))
                }
            }
        })
        .await
    }

    async fn sync_file(&self, file: &FileName, kept: &dyn LocalChunks) -> Result<(), FsError> {
        let taken: Vec<ChunkRef> = self.unsynced.lock().iter().filter(|chunk| chunk.file == *file).cloned().collect();
        if taken.is_empty() {
            return Ok(());
        }
        let synced = self
            .until_answered("sync", || async {
                self.plane.work().await;
                let is_no_loss = |id| kept.is_superseded(id) && !self.plane.has_copy(id);
                let open = taken.iter().filter(|chunk| {
                    !self.plane.bring_to_disk(chunk, kept.copy(chunk.id).is_some()) && !is_no_loss(chunk.id)
                });
                (open.count() == 0).then_some(Ok(()))
            })
            .await;
        let is_done = |chunk: &ChunkRef| self.plane.is_settled_or_lost(chunk.id, kept.copy(chunk.id).is_some());
        let is_loss = || taken.iter().all(is_done);
        let synced = match synced {
            Err(FsError::NoReplica { detail }) if is_loss() => Err(FsError::Lost { detail }),
            synced => synced,
        };
        if matches!(synced, Ok(()) | Err(FsError::Lost { .. })) {
            self.unsynced.lock().retain(|chunk| !taken.contains(chunk));
        }
        synced
    }
}

impl Plane {
    pub(super) async fn work(&self) {
        let slowness = self.state.lock().slowness;
        let micros = self.world.random(|random| random.below(slowness * 1000 + 1));
        sleep(Duration::from_micros(micros)).await;
    }

    async fn work_to_read(&self) {
        let micros = self.world.random(|random| random.below(8000));
        sleep(Duration::from_micros(micros)).await;
    }

    /// The chunk's data from a node or from the log, or whether every node has answered that it lacks it.
    fn fetch(&self, id: ChunkId) -> Result<Bytes, bool> {
        let state = self.state.lock();
        let on_a_node = state.nodes.iter().any(|node| node.is_up() && node.copies.contains_key(&id));
        let found = on_a_node || state.logged.contains(&id);
        match state.known.get(&id) {
            Some(known) if found => Ok(known.data.clone()),
            _ => Err(state.nodes.iter().all(|node| node.is_up() || !node.is_member())),
        }
    }

    /// Syncs the nodes that are up. True if the chunk needs no more: it is on two disks, or deleted.
    fn bring_to_disk(&self, chunk: &ChunkRef, is_kept: bool) -> bool {
        let mut state = self.state.lock();
        state.nodes.iter_mut().for_each(|node| node.sync());
        let is_up = |node: &super::Node| node.is_up() && node.copies.contains_key(&chunk.id);
        let is_found = state.nodes.iter().any(is_up);
        if state.on_disks(chunk.id) < QUORUM && (is_kept || is_found) {
            for node in state.up_holders(&chunk.file, chunk.id.index) {
                state.store_at(node, chunk.id, true);
            }
        }
        state.on_disks(chunk.id) >= QUORUM || state.is_deleted(chunk.id)
    }

    /// Whether a sync can do no more for the chunk.
    fn is_settled_or_lost(&self, id: ChunkId, is_kept: bool) -> bool {
        let state = self.state.lock();
        state.on_disks(id) >= QUORUM || state.is_deleted(id) || !(is_kept || state.has_copy(id))
    }
}

impl ChunkTransport for SimChunks {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            let outcome = self.put_all(&chunks, durability).await;
            let named = chunks.first().map(|chunk| (&chunk.file, chunk.id.version));
            if let (Err(error), Some((file, version))) = (&outcome, named) {
                self.world.note(format!("mount {}: put of {file}@{} fails: {error}", self.link.mount, version.0));
                self.oracle.trouble(self.link.mount, Some(file));
            }
            outcome
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move {
            let outcome = self.get_all(&chunks).await;
            if let (Err(error), Some(first)) = (&outcome, chunks.first()) {
                self.world.note(format!("mount {}: get of {} fails: {error}", self.link.mount, first.file));
                self.oracle.trouble(self.link.mount, Some(&first.file));
            }
            outcome
        })
    }

    fn sync<'a>(&'a self, file: &'a FileName, kept: &'a dyn LocalChunks) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(async move {
            let outcome = self.sync_file(file, kept).await;
            if let Err(error) = &outcome {
                self.world.note(format!("mount {}: sync of {file} fails: {error}", self.link.mount));
                self.oracle.trouble(self.link.mount, Some(file));
                if matches!(error, FsError::Lost { .. }) {
                    self.oracle.loss(self.link.mount, file);
                }
            }
            outcome
        })
    }
}
