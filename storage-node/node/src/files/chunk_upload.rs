//! Uploads of single chunks by name, as the old scripts make them: `c.txt_chunk_3` is chunk 3 of `c.txt`.
//!
//! The chunks of a file may arrive in any order and from several senders. Chunk 1 restarts a file that has a chunk 1
//! already; in every other case a chunk is written into the existing file in a commit of its own, so no chunk that was
//! acknowledged is dropped. To replace a file by chunks in another order than from 1, delete it first.
//! Chunks are placed by the NAME with which the file was created.
//!
//! A chunk that replaces another is on disk before the commit: the replaced one may have been synced, and is deleted.

use bytes::Bytes;
use chordfs_net::chunk_client::NewChunk;
use chordfs_types::{
    chunk::{ChunkId, ChunkName, MAX_CHUNK_BYTES, SCRIPT_CHUNK_BYTES, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, Change, ChunkWrite, Commit, EntryName, Extent, FileKind, Ino, Query},
};

use super::{FileService, entry_attr, unexpected};

/// How far beyond the end of a file an uploaded chunk may lie, in chunks: some 4 GB of those of the scripts. Programs
/// that copy the file would read the hole as zeros, which for the largest number takes days.
const MAX_HOLE_CHUNKS: u64 = 1 << 20;
/// How often an upload is tried again after another sender has changed the same chunk meanwhile.
const ATTEMPTS: u32 = 4;

/// What the upload of a chunk does to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkPlan {
    /// Drops all contents, and sets this chunk size.
    Restart { chunk_bytes: u32 },
    /// Replaces the chunk that is there.
    Replace,
    /// Fills a hole. Refused if another sender has filled it meanwhile.
    Fill,
}

impl FileService {
    /// The chunk that an upload with this name means. `None` if a file with exactly this name exists.
    pub async fn as_chunk(&self, name: &EntryName) -> Result<Option<ChunkName>, FsError> {
        match ChunkName::parse(name.as_bytes()) {
            Some(chunk) if self.lookup(Ino::ROOT, name).await?.is_none() => Ok(Some(chunk)),
            _ => Ok(None),
        }
    }

    /// Fails if a chunk of `len` bytes would be refused. Changes nothing.
    pub async fn check_chunk(&self, chunk: &ChunkName, len: usize) -> Result<(), FsError> {
        let file = file_entry(chunk)?;
        let existing = self.lookup(Ino::ROOT, &file).await?;
        let (size, chunk_bytes) = match &existing {
            Some(attr) => (attr.size, regular(attr)?.chunk_bytes),
            None => (0, SCRIPT_CHUNK_BYTES),
        };
        check_hole(chunk.index, size, chunk_bytes)?;
        check_length(len, if chunk.index == 1 { MAX_CHUNK_BYTES } else { chunk_bytes })
    }

    /// Stores chunk I of a file in the root directory and commits it.
    ///
    /// The first chunk of a file that does not exist creates the file, with chunks of 4000 bytes, or if it is chunk 1
    /// and longer, of its own length. Chunk 1 of a file that has one restarts the file with such chunks.
    /// Errors: `Invalid` if the chunk is longer than the file's chunks or lies far beyond the file's end, `IsDirectory`
    /// or `Exists` if the name belongs to something other than a file.
    pub async fn upload_chunk(&self, chunk: &ChunkName, data: Bytes) -> Result<(), FsError> {
        if data.len() > SCRIPT_CHUNK_BYTES as usize || u64::from(chunk.index) > MAX_HOLE_CHUNKS {
            // Otherwise a file could be created for a chunk that is then refused.
            self.check_chunk(chunk, data.len()).await?;
        }
        for _ in 0..ATTEMPTS {
            if self.store_chunk(chunk, data.clone()).await? {
                return Ok(());
            }
        }
        Err(FsError::Conflict { index: chunk.index })
    }

    /// Returns false if another sender has stored the same chunk meanwhile. Errors: `Conflict` if another sender has
    /// restarted or deleted the file.
    async fn store_chunk(&self, chunk: &ChunkName, data: Bytes) -> Result<bool, FsError> {
        let own_bytes = if chunk.index == 1 { SCRIPT_CHUNK_BYTES.max(data.len() as u32) } else { SCRIPT_CHUNK_BYTES };
        let (attr, created) = self.make(chunk, own_bytes).await?;
        let plan = if created { ChunkPlan::Fill } else { self.plan(&attr, chunk.index, own_bytes).await? };
        let chunk_bytes = match plan {
            ChunkPlan::Restart { chunk_bytes } => chunk_bytes,
            ChunkPlan::Replace | ChunkPlan::Fill => attr.chunk_bytes,
        };
        check_length(data.len(), chunk_bytes)?;
        check_hole(chunk.index, attr.size, chunk_bytes)?;
        let end = u64::from(chunk.index - 1) * u64::from(chunk_bytes) + data.len() as u64;
        let stored = self.put_chunk(&attr, chunk.index, data, plan).await?;
        let commit = Commit { size_at_least: end, ..commit(plan, chunk_bytes, chunk.index, stored) };
        match self.namespace.apply(Change::Commit { ino: attr.ino, commit }).await {
            // Meanwhile a chunk 1 restarted the file, or the file was deleted. The sender has to decide what to do.
            Err(FsError::Stale { .. }) => Err(FsError::Conflict { index: chunk.index }),
            Err(FsError::Conflict { .. }) if plan == ChunkPlan::Fill => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }

    async fn make(&self, chunk: &ChunkName, chunk_bytes: u32) -> Result<(Attr, bool), FsError> {
        let name = file_entry(chunk)?;
        let make = Change::Make { parent: Ino::ROOT, name, node: self.new_node(chunk_bytes), exclusive: false };
        let (attr, created) = entry_attr(self.namespace.apply(make).await?)?;
        regular(&attr)?;
        Ok((attr, created))
    }

    async fn plan(&self, attr: &Attr, index: u32, own_bytes: u32) -> Result<ChunkPlan, FsError> {
        let start = u64::from(index - 1) * u64::from(attr.chunk_bytes);
        if index != 1 && start >= attr.size {
            return Ok(ChunkPlan::Fill);
        }
        let from_here = match self.namespace.query(Query::Extents { ino: attr.ino, from: index }).await? {
            Answer::Extents { extents, .. } => extents,
            other => return Err(unexpected("Extents", &other)),
        };
        let is_there = from_here.first().is_some_and(|extent| extent.first <= index);
        Ok(match (is_there, index) {
            (true, 1) => ChunkPlan::Restart { chunk_bytes: own_bytes },
            // Without any chunk the file has nothing to lose, and may have chunks of another size.
            (false, 1) if from_here.is_empty() && own_bytes > attr.chunk_bytes => {
                ChunkPlan::Restart { chunk_bytes: own_bytes }
            }
            (true, _) => ChunkPlan::Replace,
            (false, _) => ChunkPlan::Fill,
        })
    }

    /// Stores the data, if there is any, and returns its version.
    async fn put_chunk(
        &self,
        attr: &Attr,
        index: u32,
        data: Bytes,
        plan: ChunkPlan,
    ) -> Result<Option<Version>, FsError> {
        if data.is_empty() {
            return Ok(None);
        }
        let durability = if plan == ChunkPlan::Fill { self.defaults.durability } else { Durability::Disk };
        let version = self.namespace.next_version().await?;
        let chunk = NewChunk { file: attr.file.clone(), id: ChunkId { version, index }, data };
        self.chunks.put(vec![chunk], durability).await?;
        Ok(Some(version))
    }
}

fn commit(plan: ChunkPlan, chunk_bytes: u32, index: u32, stored: Option<Version>) -> Commit {
    let whole = stored.map(|version| Extent { first: index, count: 1, version }).into_iter().collect();
    let into_hole = stored.map(|version| ChunkWrite { index, version, base: None }).into_iter().collect();
    let commit = Commit { chunk_bytes: Some(chunk_bytes), ..Commit::default() };
    match plan {
        ChunkPlan::Restart { .. } => Commit { restart: Some(chunk_bytes), extents: whole, ..commit },
        ChunkPlan::Replace => Commit { extents: whole, ..commit },
        ChunkPlan::Fill => Commit { partial: into_hole, ..commit },
    }
}

fn file_entry(chunk: &ChunkName) -> Result<EntryName, FsError> {
    EntryName::new(Bytes::copy_from_slice(chunk.file.as_bytes())).map_err(FsError::Name)
}

fn regular(attr: &Attr) -> Result<&Attr, FsError> {
    match attr.kind {
        FileKind::File => Ok(attr),
        FileKind::Directory => Err(FsError::IsDirectory),
        _ => Err(FsError::Exists),
    }
}

fn check_length(len: usize, limit: u32) -> Result<(), FsError> {
    if len <= limit as usize {
        return Ok(());
    }
    Err(FsError::Invalid { reason: format!("the chunk has {len} bytes, at most {limit} are allowed in this file") })
}

fn check_hole(index: u32, size: u64, chunk_bytes: u32) -> Result<(), FsError> {
    let there = size.div_ceil(u64::from(chunk_bytes.max(1)));
    let last = there + MAX_HOLE_CHUNKS;
    if u64::from(index) <= last {
        return Ok(());
    }
    let reason = format!(
        "chunk {index} would leave a hole: this file has {there} chunks now, and takes those up to number {last}"
    );
    Err(FsError::Invalid { reason })
}
