//! Uploads of whole files: the stream is cut into chunks and stored, and the file gets its name only when it is
//! complete.
//!
//! The file is written without a name, batch by batch: one version, one put and one commit each, while the next batch
//! is received. [`WholeUpload::publish`] then gives it its name in one step, and so replaces an earlier file of that
//! name. A sender that disconnects, or a ring that fails, leaves nothing behind: dropping the upload releases the
//! unnamed file and discards the batches under way, and the namespace deletes both.

use chordfs_log::warn_limited;
use chordfs_net::clients::NamespaceClient;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chordfs_net::chunk_client::NewChunk;
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkId, FileName},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Change, Commit, DiscardedRuns, EntryName, Extent, FileKind, Ino, Reply, SetAttr},
};
use tokio::task::JoinSet;

use super::{FileService, entry_attr, place::split};

/// Bytes that are put and committed at once. One upload uses [`MAX_IN_FLIGHT`] + 1 times this much memory.
const BATCH_BYTES: usize = 4 << 20;
const MAX_IN_FLIGHT: usize = 2;

/// How often publishing is tried again after others have removed the folder meanwhile.
const PUBLISH_ATTEMPTS: u32 = 4;

/// What becomes of an entry that has the upload's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMode {
    /// It is replaced, unless it is a directory.
    Replace,
    /// The upload is refused with `Exists`.
    CreateOnly,
}

/// An upload under way.
pub struct WholeUpload {
    service: FileService,
    attr: Attr,
    unnamed: UnnamedFile,
    /// What it replaces may have been synced, and is deleted: then its own bytes are on disk first.
    durability: Durability,
    /// False until the attributes of the file that it replaces were looked up.
    is_placed: bool,
    filling: BytesMut,
    /// Chunks handed to `in_flight` so far.
    sent_chunks: u32,
    in_flight: JoinSet<Result<(), FsError>>,
}

impl FileService {
    /// Begins the upload of a file to `path`. The folders above it may be missing.
    ///
    /// Errors: `IsDirectory` if a directory has that name, `NotDirectory` if a file lies above it; both are checked
    /// again when the file is published.
    pub async fn begin_upload(&self, path: &[EntryName]) -> Result<WholeUpload, FsError> {
        let replaced = self.entry(path).await?;
        if replaced.as_ref().is_some_and(|attr| attr.kind == FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        let file = file_name(path)?;
        let durability = if replaced.is_some() { Durability::Disk } else { self.defaults.durability };
        self.begin(file, replaced.as_ref(), durability, true).await
    }

    /// Begins an upload whose path arrives after its bytes. `label` becomes the NAME of its chunks.
    pub async fn begin_unplaced_upload(&self, label: FileName) -> Result<WholeUpload, FsError> {
        self.begin(label, None, Durability::Disk, false).await
    }

    async fn begin(
        &self,
        file: FileName,
        replaced: Option<&Attr>,
        durability: Durability,
        is_placed: bool,
    ) -> Result<WholeUpload, FsError> {
        let make = Change::MakeUnnamed { file, node: self.new_node_like(replaced) };
        let (attr, _) = entry_attr(self.namespace.apply(make).await?)?;
        let unnamed = UnnamedFile { namespace: self.namespace.clone(), ino: Some(attr.ino) };
        let (service, filling, in_flight) = (self.clone(), BytesMut::new(), JoinSet::new());
        Ok(WholeUpload { service, attr, unnamed, durability, is_placed, filling, sent_chunks: 0, in_flight })
    }

    /// The file of this name, if this node is reading it.
    async fn read_under(&self, parent: Ino, name: &EntryName) -> Option<Ino> {
        if self.read.is_empty() {
            return None;
        }
        let attr = self.lookup(parent, name).await.ok().flatten()?;
        self.read.contains(attr.ino).then_some(attr.ino)
    }
}

/// The NAME of a file at `path`.
fn file_name(path: &[EntryName]) -> Result<FileName, FsError> {
    let joined = path.iter().map(EntryName::as_bytes).collect::<Vec<_>>().join(&b'/');
    FileName::new(joined).map_err(FsError::Name)
}

impl WholeUpload {
    /// Takes the next bytes, and waits while too many batches are under way. The error may belong to an earlier batch.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), FsError> {
        while !bytes.is_empty() {
            let room = BATCH_BYTES - self.filling.len();
            self.filling.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.filling.len() == BATCH_BYTES {
                self.send_batch().await?;
            }
        }
        Ok(())
    }

    /// Ends the stream of bytes: returns when all are stored and committed. The file still has no name.
    pub async fn complete(&mut self) -> Result<(), FsError> {
        if !self.filling.is_empty() {
            self.send_batch().await?;
        }
        while let Some(batch) = self.in_flight.join_next().await {
            finished(batch)?;
        }
        Ok(())
    }

    /// Gives the completed file its name, after the missing folders above it were made. An earlier entry is replaced in
    /// one step. Returns whether there was one.
    pub async fn publish(mut self, path: &[EntryName], mode: PublishMode) -> Result<bool, FsError> {
        self.complete().await?;
        let (name, _) = split(path)?;
        self.adopt_attributes(path).await?;
        for _ in 1..PUBLISH_ATTEMPTS {
            let parent = self.service.make_folder_of(path).await?;
            match self.name_in(parent, name, mode).await {
                // The folder was removed meanwhile.
                Err(FsError::NoEntry | FsError::Stale { .. }) => {}
                result => return result,
            }
        }
        let parent = self.service.make_folder_of(path).await?;
        self.name_in(parent, name, mode).await
    }

    async fn name_in(&mut self, parent: Ino, name: &EntryName, mode: PublishMode) -> Result<bool, FsError> {
        let (ino, name) = (self.attr.ino, name.clone());
        let namespace = &self.service.namespace;
        if mode == PublishMode::CreateOnly {
            // The hold on the unnamed file is released when `self` is dropped.
            return namespace.apply(Change::Link { ino, parent, name }).await.map(|_| false);
        }
        let replaced = self.service.read_under(parent, &name).await;
        let reply = namespace.apply(Change::Publish { ino, parent, name }).await?;
        self.unnamed.ino = None;
        // The feed does not report this session's own changes.
        self.service.read.hold_some(&**namespace, replaced).await;
        Ok(matches!(reply, Reply::Removed { attr: Some(_) }))
    }

    /// Takes over owner and mode of the file that an upload without a place will replace.
    async fn adopt_attributes(&mut self, path: &[EntryName]) -> Result<(), FsError> {
        if std::mem::replace(&mut self.is_placed, true) {
            return Ok(());
        }
        let Some(Attr { kind: FileKind::File, mode, uid, gid, .. }) = self.service.entry(path).await? else {
            return Ok(());
        };
        let set = SetAttr { mode: Some(mode), uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
        self.service.namespace.apply(Change::SetAttr { ino: self.attr.ino, set }).await.map(drop)
    }

    async fn send_batch(&mut self) -> Result<(), FsError> {
        while self.in_flight.len() >= MAX_IN_FLIGHT {
            match self.in_flight.join_next().await {
                Some(batch) => finished(batch)?,
                None => break,
            }
        }
        let data = std::mem::take(&mut self.filling).freeze();
        let count = data.len().div_ceil(CHUNK_BYTES as usize) as u32;
        let first = self.sent_chunks.checked_add(1).ok_or(FsError::FileTooLarge)?;
        self.sent_chunks = self.sent_chunks.checked_add(count).ok_or(FsError::FileTooLarge)?;
        self.in_flight.spawn(store_batch(self.service.clone(), self.attr.clone(), first, data, self.durability));
        Ok(())
    }
}

/// Puts one batch and makes it current.
async fn store_batch(
    service: FileService,
    attr: Attr,
    first: u32,
    data: Bytes,
    durability: Durability,
) -> Result<(), FsError> {
    let version = service.namespace.next_version().await?;
    let size = u64::from(first - 1) * u64::from(CHUNK_BYTES) + data.len() as u64;
    let mut chunks = Vec::with_capacity(data.len().div_ceil(CHUNK_BYTES as usize));
    for (index, at) in (first..).zip((0..data.len()).step_by(CHUNK_BYTES as usize)) {
        let data = data.slice(at..data.len().min(at + CHUNK_BYTES as usize));
        chunks.push(NewChunk { file: attr.file.clone(), id: ChunkId { version, index }, data });
    }
    let extent = Extent { first, count: chunks.len() as u32, version };
    let mut uncommitted = UncommittedRun::new(&service.namespace, &attr.file, extent);
    service.chunks.put(chunks, durability).await?;
    let commit = Commit { extents: vec![extent], size_at_least: size, ..Commit::default() };
    service.namespace.apply(Change::Commit { ino: attr.ino, commit }).await?;
    uncommitted.run = None;
    Ok(())
}

fn finished(batch: Result<Result<(), FsError>, tokio::task::JoinError>) -> Result<(), FsError> {
    batch.unwrap_or_else(|error| Err(FsError::Internal { detail: format!("storing a batch: {error}") }))
}

/// Chunks that are stored, or about to be, and that no file has yet. Dropped before their commit, they are deleted;
/// otherwise the nodes would keep them until they are found to be orphans.
struct UncommittedRun {
    namespace: Arc<dyn NamespaceClient>,
    /// `None` once the run is committed.
    run: Option<DiscardedRuns>,
}

impl UncommittedRun {
    fn new(namespace: &Arc<dyn NamespaceClient>, file: &FileName, extent: Extent) -> Self {
        let run = DiscardedRuns { file: file.clone(), runs: vec![extent] };
        Self { namespace: namespace.clone(), run: Some(run) }
    }
}

impl Drop for UncommittedRun {
    fn drop(&mut self) {
        if let (Some(run), Ok(runtime)) = (self.run.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(discard(self.namespace.clone(), run));
        }
    }
}

async fn discard(namespace: Arc<dyn NamespaceClient>, run: DiscardedRuns) {
    let file = run.file.clone();
    if let Err(error) = namespace.apply(Change::Discard { files: vec![run] }).await {
        warn_limited!(%file, %error, "cannot discard a part of an unfinished upload; it is deleted when it is an hour old");
    }
}

/// Releases an unnamed file when dropped, so that the namespace deletes it. `ino` is `None` once the file has its name.
struct UnnamedFile {
    namespace: Arc<dyn NamespaceClient>,
    ino: Option<Ino>,
}

impl Drop for UnnamedFile {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the end of its session releases the file.
        if let (Some(ino), Ok(runtime)) = (self.ino, tokio::runtime::Handle::try_current()) {
            runtime.spawn(release(self.namespace.clone(), ino));
        }
    }
}

pub(super) async fn release(namespace: Arc<dyn NamespaceClient>, ino: Ino) {
    if let Err(error) = namespace.apply(Change::Release { inos: vec![ino] }).await {
        warn_limited!(
            ino = ino.0, %error,
            "cannot release an unfinished upload; it is deleted when this node's session ends"
        );
    }
}
