//! Uploads of whole files: the stream is cut into chunks and stored, and the file gets its name only when it is
//! complete.
//!
//! The file is written without a name, batch by batch: one version, one put and one commit each, while the next batch
//! is received. [`WholeUpload::publish`] then gives it its name in one step, and so replaces an earlier file of that
//! name. A sender that disconnects, or a ring that fails, leaves nothing behind: dropping the upload releases the
//! unnamed file, and the namespace deletes it.

use chordfs_log::warn_limited;
use chordfs_net::clients::NamespaceClient;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chordfs_net::chunk_client::NewChunk;
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkId, FileName},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Change, Commit, EntryName, Extent, FileKind, Ino},
};
use tokio::task::JoinSet;

use super::{FileService, entry_attr};

/// Bytes that are put and committed at once. One upload uses [`MAX_IN_FLIGHT`] + 1 times this much memory.
const BATCH_BYTES: usize = 4 << 20;
const MAX_IN_FLIGHT: usize = 2;

/// An upload under way.
pub struct WholeUpload {
    service: FileService,
    name: EntryName,
    attr: Attr,
    unnamed: UnnamedFile,
    /// What it replaces may have been synced, and is deleted: then its own bytes are on disk first.
    durability: Durability,
    filling: BytesMut,
    /// Chunks handed to `in_flight` so far.
    sent_chunks: u32,
    in_flight: JoinSet<Result<(), FsError>>,
}

impl FileService {
    /// Begins the upload of a file to `name` in the root directory.
    ///
    /// Errors: `IsDirectory` if a directory has that name; this is checked again when the file is published.
    pub async fn begin_upload(&self, name: EntryName) -> Result<WholeUpload, FsError> {
        let replaced = self.lookup(&name).await?;
        if replaced.as_ref().is_some_and(|attr| attr.kind == FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        let file = FileName::new(Bytes::from(name.clone())).map_err(FsError::Name)?;
        let make = Change::MakeUnnamed { file, node: self.new_node_like(replaced.as_ref()) };
        let (attr, _) = entry_attr(self.namespace.apply(make).await?)?;
        let unnamed = UnnamedFile { namespace: self.namespace.clone(), ino: Some(attr.ino) };
        let durability = if replaced.is_some() { Durability::Disk } else { self.defaults.durability };
        let (filling, in_flight) = (BytesMut::new(), JoinSet::new());
        Ok(WholeUpload { service: self.clone(), name, attr, unnamed, durability, filling, sent_chunks: 0, in_flight })
    }
}

impl FileService {
    /// The file of this name, if this node is reading it.
    async fn read_under(&self, name: &EntryName) -> Option<Ino> {
        if self.read.is_empty() {
            return None;
        }
        let attr = self.lookup(name).await.ok().flatten()?;
        self.read.contains(attr.ino).then_some(attr.ino)
    }
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

    /// Gives the completed file its name, and atomically replaces an earlier entry unless that is a directory.
    pub async fn publish(mut self) -> Result<(), FsError> {
        self.complete().await?;
        let (ino, name) = (self.attr.ino, self.name.clone());
        let replaced = self.service.read_under(&name).await;
        self.service.namespace.apply(Change::Publish { ino, parent: Ino::ROOT, name }).await?;
        self.unnamed.ino = None;
        // The feed does not report this session's own changes.
        self.service.read.hold_some(&*self.service.namespace, replaced).await;
        Ok(())
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
    service.chunks.put(chunks, durability).await?;
    let commit = Commit { extents: vec![extent], size_at_least: size, ..Commit::default() };
    service.namespace.apply(Change::Commit { ino: attr.ino, commit }).await.map(drop)
}

fn finished(batch: Result<Result<(), FsError>, tokio::task::JoinError>) -> Result<(), FsError> {
    batch.unwrap_or_else(|error| Err(FsError::Internal { detail: format!("storing a batch: {error}") }))
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
