//! Small files travel together: puts that no program waits for are collected for some milliseconds, and those that come
//! while others are on their way are sent as one. So many small files cost each node one request. A large put is its
//! own request.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{LocalChunks, NewChunk},
    clients::ChunkTransport,
    tasks,
};
use chordfs_types::{
    chunk::{ChunkRef, FileName},
    chunk_api::Durability,
    fs_error::FsError,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot};

use crate::urgency::Urgency;

/// A put with more bytes is not grouped.
const MAX_GROUPED_BYTES: usize = 64 << 10;
/// The most bytes and chunks of one request.
const MAX_GROUP_BYTES: usize = 1 << 20;
const MAX_GROUP_CHUNKS: usize = 256;
/// So many puts are not held back for more.
const ENOUGH_PUTS: usize = 64;
/// How many requests of one durability are on their way at a time.
const MAX_REQUESTS: usize = 2;

/// Sends puts to the nodes, small ones together.
pub struct GroupedPuts {
    nodes: Arc<dyn ChunkTransport>,
    runtime: Handle,
    urgency: Arc<Urgency>,
    in_memory: Arc<Mutex<PutGroups>>,
    on_disk: Arc<Mutex<PutGroups>>,
}

#[derive(Default)]
struct PutGroups {
    waiting: VecDeque<WaitingPut>,
    requests: usize,
}

struct WaitingPut {
    chunks: Vec<NewChunk>,
    done: oneshot::Sender<Result<(), FsError>>,
}

impl GroupedPuts {
    pub fn new(nodes: Arc<dyn ChunkTransport>, runtime: Handle, urgency: Arc<Urgency>) -> Self {
        Self { nodes, runtime, urgency, in_memory: Arc::default(), on_disk: Arc::default() }
    }

    fn group(&self, chunks: Vec<NewChunk>, durability: Durability) -> oneshot::Receiver<Result<(), FsError>> {
        let groups = if durability.is_disk() { &self.on_disk } else { &self.in_memory };
        let (done, stored) = oneshot::channel();
        let mut locked = groups.lock();
        locked.waiting.push_back(WaitingPut { chunks, done });
        if locked.has_enough() {
            self.urgency.note_enough();
        }
        if locked.requests < MAX_REQUESTS {
            locked.requests += 1;
            drop(locked);
            let sender = GroupSender { nodes: self.nodes.clone(), groups: groups.clone(), durability };
            tasks::spawn_on(&self.runtime, sender.send_groups(self.urgency.clone()));
        }
        stored
    }
}

/// One of the requests that are on their way at a time.
struct GroupSender {
    nodes: Arc<dyn ChunkTransport>,
    groups: Arc<Mutex<PutGroups>>,
    durability: Durability,
}

impl GroupSender {
    /// Sends what waits until nothing does.
    async fn send_groups(self, urgency: Arc<Urgency>) {
        loop {
            urgency.linger(|| self.groups.lock().has_enough()).await;
            let Some(group) = self.groups.lock().take() else { return };
            let (chunks, done): (Vec<_>, Vec<_>) = group.into_iter().map(|put| (put.chunks, put.done)).unzip();
            let stored = self.nodes.put(chunks.into_iter().flatten().collect(), self.durability).await;
            for done in done {
                // Without a receiver, the upload was given up.
                let _ = done.send(stored.clone());
            }
        }
    }
}

impl PutGroups {
    /// Whether what waits fills a good part of a request.
    fn has_enough(&self) -> bool {
        self.waiting.len() >= ENOUGH_PUTS
    }

    /// Takes the puts of the next request. If nothing waits, the caller's request counts no longer.
    fn take(&mut self) -> Option<Vec<WaitingPut>> {
        let (mut group, mut bytes, mut chunks) = (Vec::new(), 0, 0);
        while let Some(put) = self.waiting.front() {
            bytes += put.chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>();
            chunks += put.chunks.len();
            if !group.is_empty() && (bytes > MAX_GROUP_BYTES || chunks > MAX_GROUP_CHUNKS) {
                break;
            }
            group.extend(self.waiting.pop_front());
        }
        if group.is_empty() {
            self.requests -= 1;
            return None;
        }
        Some(group)
    }
}

impl ChunkTransport for GroupedPuts {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> BoxFuture<'_, Result<(), FsError>> {
        if chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>() > MAX_GROUPED_BYTES {
            return self.nodes.put(chunks, durability);
        }
        let stored = self.group(chunks, durability);
        Box::pin(async move {
            stored.await.unwrap_or_else(|_| Err(FsError::NoReplica { detail: "the mount is ending".to_owned() }))
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        self.nodes.get(chunks)
    }

    fn sync<'a>(&'a self, file: &'a FileName, local_copies: &'a dyn LocalChunks) -> BoxFuture<'a, Result<(), FsError>> {
        self.nodes.sync(file, local_copies)
    }

    fn share_unsynced(&self, from: &FileName, to: &FileName) {
        self.nodes.share_unsynced(from, to);
    }
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::{ChunkId, Version};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    /// Notes how many chunks each put has, and answers when it is allowed to.
    struct GatedNodes {
        puts: mpsc::UnboundedSender<usize>,
        gate: Semaphore,
    }

    impl ChunkTransport for GatedNodes {
        fn put(&self, chunks: Vec<NewChunk>, _durability: Durability) -> BoxFuture<'_, Result<(), FsError>> {
            self.puts.send(chunks.len()).expect("the test reads");
            Box::pin(async { self.gate.acquire().await.map(|permit| permit.forget()).map_err(|_| FsError::NoSpace) })
        }

        fn get(&self, _chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn sync<'a>(
            &'a self,
            _file: &'a FileName,
            _local_copies: &'a dyn LocalChunks,
        ) -> BoxFuture<'a, Result<(), FsError>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn chunk(version: u64, bytes: usize) -> Vec<NewChunk> {
        let file = FileName::new(Bytes::from(format!("file{version}"))).expect("a name");
        vec![NewChunk { file, id: ChunkId { version: Version(version), index: 1 }, data: Bytes::from(vec![1; bytes]) }]
    }

    #[tokio::test(start_paused = true)]
    async fn puts_that_come_while_others_are_on_their_way_are_sent_together() {
        let (puts, mut sent) = mpsc::unbounded_channel();
        let nodes = Arc::new(GatedNodes { puts, gate: Semaphore::new(0) });
        let grouped = GroupedPuts::new(nodes.clone(), Handle::current(), Arc::default());
        let mut small = Vec::new();
        for version in 0..MAX_REQUESTS as u64 {
            small.push(grouped.put(chunk(version, 4096), Durability::Memory));
            assert_eq!(sent.recv().await, Some(1), "a request is free");
        }
        small.extend((10..20).map(|version| grouped.put(chunk(version, 4096), Durability::Memory)));
        nodes.gate.add_permits(1);
        assert_eq!(sent.recv().await, Some(10));
        let large = grouped.put(chunk(99, MAX_GROUPED_BYTES + 1), Durability::Memory);
        assert_eq!(sent.recv().await, Some(1), "a large one is sent at once");
        nodes.gate.add_permits(10);
        for put in small.into_iter().chain([large]) {
            assert_eq!(put.await, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_of_a_group() {
        let (puts, _sent) = mpsc::unbounded_channel();
        let nodes = Arc::new(GatedNodes { puts, gate: Semaphore::new(0) });
        let grouped = GroupedPuts::new(nodes.clone(), Handle::current(), Arc::default());
        let both = [1, 2].map(|version| grouped.put(chunk(version, 10), Durability::Disk));
        nodes.gate.close();
        for put in both {
            assert_eq!(put.await, Err(FsError::NoSpace));
        }
    }
}
