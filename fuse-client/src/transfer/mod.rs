//! The mount's data path: write-back, read-ahead, uploads in batches.
//!
//! A [`Transfer`] serves one mount, a [`FileData`] one open inode of it. A write is copied into the inode's dirty bytes
//! and acknowledged; whole chunks are uploaded in runs while the program continues to write; a commit on close, on
//! fsync, and every few seconds makes the stored chunks current. A read takes its bytes from these layers (see
//! `state`), from the chunk cache, or in batches from the holders. Sequential readers get read-ahead.
//!
//! `fs` has POSIX semantics, attributes and handles; `chordfs_net::chunk_client` knows which nodes hold a chunk.

mod ceiling;
mod commit;
mod commit_later;
mod dirty;
mod discards;
mod error_seq;
mod extents;
mod fetch;
mod file;
mod grouped_puts;
mod logged_chunks;
mod loss;
mod merge;
mod progress;
mod read;
mod read_ahead;
pub mod read_buffer;
mod set_attr;
mod state;
mod upload;

#[cfg(test)]
mod commit_later_test;
#[cfg(test)]
mod discard_test;
#[cfg(test)]
mod failure_test;
#[cfg(test)]
mod fake_ring_test;
#[cfg(test)]
mod logged_chunks_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod transfer_test;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use chordfs_net::{
    chunk_client::NoLocalChunks,
    clients::{ChunkTransport, NamespaceClient},
    tasks,
};
use chordfs_types::{
    chunk::{ChunkRef, FileName},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Extent, Ino},
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore, time::Instant};

use self::{ceiling::Ceiling, discards::Discards, fetch::Fetcher, logged_chunks::LoggingTransport};
pub use self::{commit::CommitReason, error_seq::ErrorCursor, file::FileData, grouped_puts::GroupedPuts};
use crate::{cache::chunks::ChunkCache, urgency::Urgency};

/// Files committed in parallel before unmounting.
const PARALLEL_COMMITS: usize = 16;
/// Chunks that are sent at a time, over all files, in KiB: more than the uploads of one file.
const MAX_SENDING_KIB: usize = 24 << 10;

#[derive(Clone, Debug)]
pub struct TransferSettings {
    /// Capacity of the chunk cache.
    pub cache_bytes: u64,
    /// Most bytes that are written and not yet stored, over all files. Writers wait at this ceiling.
    pub dirty_bytes: u64,
    /// Size of one upload.
    pub flush_run_bytes: u64,
    /// Concurrent uploads of one file.
    pub max_uploads: usize,
    /// How far to read ahead of a sequential reader.
    pub read_ahead_bytes: u64,
    /// The largest commit whose data goes into the log with it when a program waits in `fsync`; see `logged_chunks`.
    pub log_bytes: usize,
    /// How long a written byte may stay uncommitted while the file stays open.
    pub flush_age: Duration,
    /// Bounds each wait whose callee has no deadline of its own.
    pub deadline: Duration,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            dirty_bytes: 64 << 20,
            flush_run_bytes: 4 << 20,
            max_uploads: 4,
            read_ahead_bytes: 8 << 20,
            log_bytes: 64 << 10,
            flush_age: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
        }
    }
}

/// One for each mount.
pub struct Transfer {
    namespace: Arc<dyn NamespaceClient>,
    chunks: Arc<LoggingTransport>,
    runtime: Handle,
    settings: TransferSettings,
    cache: Arc<ChunkCache>,
    fetcher: Arc<Fetcher>,
    ceiling: Ceiling,
    /// A permit for each KiB that is being sent. A request is a copy of its chunks.
    sending: Semaphore,
    files: Mutex<HashMap<Ino, Weak<FileData>>>,
    /// Files with uncommitted data or attributes. They stay alive here after their last handle is closed.
    dirty: Mutex<HashMap<Ino, Arc<FileData>>>,
    discards: Discards,
    urgency: Arc<Urgency>,
    /// When a commit has failed last.
    trouble: Mutex<Option<Instant>>,
    on_data_loss: OnceLock<OnFile>,
    on_background_commit: OnceLock<OnFile>,
}

/// Called with a file to which something happened that no operation of a program returns.
type OnFile = Box<dyn Fn(Ino) + Send + Sync>;

impl Transfer {
    pub fn with_clients(
        namespace: Arc<dyn NamespaceClient>,
        chunks: Arc<dyn ChunkTransport>,
        runtime: Handle,
        settings: TransferSettings,
    ) -> Arc<Self> {
        Self::start(namespace, chunks, runtime, settings, Arc::default())
    }

    /// Like [`Self::with_clients`]; notes in `urgency` when a program waits for a commit.
    pub fn start(
        namespace: Arc<dyn NamespaceClient>,
        chunks: Arc<dyn ChunkTransport>,
        runtime: Handle,
        settings: TransferSettings,
        urgency: Arc<Urgency>,
    ) -> Arc<Self> {
        let cache = Arc::new(ChunkCache::new(settings.cache_bytes as usize));
        let chunks = Arc::new(LoggingTransport::new(chunks));
        let transfer = Arc::new(Self {
            fetcher: Fetcher::new(chunks.clone(), cache.clone(), runtime.clone()),
            namespace,
            chunks,
            ceiling: Ceiling::new(settings.dirty_bytes),
            sending: Semaphore::new(MAX_SENDING_KIB),
            files: Mutex::default(),
            dirty: Mutex::default(),
            discards: Discards::default(),
            trouble: Mutex::default(),
            urgency,
            on_data_loss: OnceLock::new(),
            on_background_commit: OnceLock::new(),
            cache,
            settings,
            runtime,
        });
        tasks::spawn_on(&transfer.runtime, commit_aged(Arc::downgrade(&transfer), transfer.settings.flush_age));
        transfer
    }

    /// Registers a callback for data loss, so that copies of the bytes in other caches can be dropped. Call it once.
    pub fn on_data_loss(&self, call: impl Fn(Ino) + Send + Sync + 'static) {
        // A mount has one file system, so the first callback stays.
        let _ = self.on_data_loss.set(Box::new(call));
    }

    /// Registers a callback for commits in the background, so that attributes cached elsewhere can be dropped. Call it
    /// once.
    pub fn on_background_commit(&self, call: impl Fn(Ino) + Send + Sync + 'static) {
        let _ = self.on_background_commit.set(Box::new(call));
    }

    /// The data of a file that has uncommitted bytes or attributes, whether it is open or was closed meanwhile.
    pub fn uncommitted_file(&self, ino: Ino) -> Option<Arc<FileData>> {
        self.dirty.lock().get(&ino).cloned()
    }

    /// Returns when what this mount has stored for the file is on the disks of its holders.
    pub async fn sync_stored(&self, file: &FileName) -> Result<(), FsError> {
        self.chunks.sync(file, &NoLocalChunks).await
    }

    /// Lets an fsync of the file `to` cover the chunks of `from` that it is about to share.
    pub fn share_unsynced(&self, from: &FileName, to: &FileName) {
        self.chunks.share_unsynced(from, to);
    }

    /// The bytes that are written and that no node has stored yet, over all files.
    pub fn unstored_bytes(&self) -> u64 {
        self.ceiling.held_bytes()
    }

    /// Fetches chunks of several files, `bytes` in all, into the cache without waiting. A failure is ignored: reading
    /// repeats the request.
    pub fn fetch_ahead(&self, chunks: Vec<ChunkRef>, bytes: u64) {
        let each = bytes.div_ceil(chunks.len().max(1) as u64);
        self.fetcher.start_ahead(chunks, each);
    }

    /// Handles a feed event about contents changed by another mount.
    pub fn invalidate(&self, ino: Ino) {
        let live = self.files.lock().get(&ino).and_then(Weak::upgrade);
        live.iter().for_each(|file| file.invalidate());
    }

    /// Handles an interruption of the feed: each file may have been changed.
    pub fn invalidate_all(&self) {
        let live: Vec<Arc<FileData>> = self.files.lock().values().filter_map(Weak::upgrade).collect();
        live.iter().for_each(|file| file.invalidate());
    }

    /// Returns the data of an inode, given the namespace's answer to `Open` (or to `Make`, without extents). All
    /// handles of the inode share it; if it exists already, it is refreshed.
    pub fn open_file(self: &Arc<Self>, attr: &Attr, extents: Vec<Extent>, more: bool) -> Arc<FileData> {
        let live = self.files.lock().get(&attr.ino).and_then(Weak::upgrade);
        if let Some(file) = live {
            file.refresh(attr, extents, more);
            return file;
        }
        let file = Arc::new(FileData::new(self.clone(), attr.clone(), &extents, more));
        let mut files = self.files.lock();
        if let Some(other) = files.get(&attr.ino).and_then(Weak::upgrade) {
            drop(files);
            other.refresh(attr, extents, more);
            return other;
        }
        files.insert(attr.ino, Arc::downgrade(&file));
        drop(files);
        file
    }

    /// Commits everything before unmounting, and returns the first error. Each file is tried; what a failed commit
    /// leaves (attributes, data written meanwhile) is tried in a second one.
    pub async fn flush_all(&self) -> Result<(), FsError> {
        let commit = |file: Arc<FileData>| async move {
            let committed = file.commit(Durability::Disk).await.map(drop);
            let rest = if file.is_dirty() { file.commit(Durability::Disk).await.map(drop) } else { Ok(()) };
            committed.and(rest)
        };
        let files = stream::iter(self.dirty_files()).map(commit);
        let outcomes: Vec<Result<(), FsError>> = files.buffer_unordered(PARALLEL_COMMITS).collect().await;
        self.discards.report(&*self.namespace).await;
        outcomes.into_iter().collect()
    }

    /// Bytes that are written and not yet stored.
    pub fn dirty_bytes(&self) -> u64 {
        self.ceiling.held_bytes()
    }

    fn dirty_files(&self) -> Vec<Arc<FileData>> {
        self.dirty.lock().values().cloned().collect()
    }

    async fn report_discards(self: Arc<Self>) {
        self.discards.report(&*self.namespace).await;
    }

    /// Makes room under the ceiling by flushing the file that holds the most memory, unless it is being flushed
    /// already.
    fn free_space(&self) {
        let held = |file: &Arc<FileData>| (file.held_bytes(), file.clone());
        let most = self.dirty_files().iter().map(held).max_by_key(|(bytes, _)| *bytes);
        if let Some((_, file)) = most {
            file.flush_for_space();
        }
    }
}

/// Commits files whose oldest uncommitted byte is older than `age`, and reports discarded chunks. Ends with the mount.
async fn commit_aged(transfer: Weak<Transfer>, age: Duration) {
    let mut tick = tokio::time::interval((age / 4).max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(transfer) = transfer.upgrade() else { return };
        for file in transfer.dirty_files() {
            file.report_slow_commit();
            if file.is_older_than(age) {
                tasks::spawn_on(&transfer.runtime, file.commit_in_background());
            }
        }
        if transfer.discards.are_due() {
            tasks::spawn_on(&transfer.runtime, transfer.clone().report_discards());
        }
    }
}
