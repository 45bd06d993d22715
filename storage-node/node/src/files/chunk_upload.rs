//! Uploads of single chunks by name, as the old scripts make them: `c.txt_chunk_3` is chunk 3 of `c.txt`.
//!
//! Chunk 1 restarts the file. Every other chunk is written into the existing file in a commit of its own, so chunks
//! that arrive at the same time are all kept. Chunks are placed by the NAME with which the file was created.

use bytes::Bytes;
use chordfs_net::chunk_client::NewChunk;
use chordfs_types::{
    chunk::{ChunkId, ChunkName, MAX_CHUNK_BYTES, SCRIPT_CHUNK_BYTES},
    fs_error::FsError,
    namespace::{Attr, Change, Commit, EntryName, Extent, FileKind, Ino},
};

use super::{FileService, entry_attr};

impl FileService {
    /// The chunk that an upload with this name means. `None` if a file with exactly this name exists.
    pub async fn as_chunk(&self, name: &EntryName) -> Result<Option<ChunkName>, FsError> {
        match ChunkName::parse(name.as_bytes()) {
            Some(chunk) if self.lookup(name).await?.is_none() => Ok(Some(chunk)),
            _ => Ok(None),
        }
    }

    /// Fails if a chunk of `len` bytes would be refused. Changes nothing.
    pub async fn check_chunk(&self, chunk: &ChunkName, len: usize) -> Result<(), FsError> {
        let file = file_entry(chunk)?;
        let existing = self.lookup(&file).await?;
        let chunk_bytes = match &existing {
            Some(attr) => regular(attr)?.chunk_bytes,
            None => SCRIPT_CHUNK_BYTES,
        };
        check_length(len, if chunk.index == 1 { MAX_CHUNK_BYTES } else { chunk_bytes })
    }

    /// Stores chunk I of a file in the root directory and commits it.
    ///
    /// Chunk 1 restarts the file with chunks of 4000 bytes, or of its own length if that is larger. A later chunk of a
    /// file that does not exist creates the file. Errors: `Invalid` if the chunk is longer than the file's chunks,
    /// `IsDirectory` or `Exists` if the name belongs to something other than a file.
    pub async fn upload_chunk(&self, chunk: &ChunkName, data: Bytes) -> Result<(), FsError> {
        if data.len() > SCRIPT_CHUNK_BYTES as usize {
            // Otherwise a file could be created for a chunk that is then refused.
            self.check_chunk(chunk, data.len()).await?;
        }
        let restart = (chunk.index == 1).then(|| SCRIPT_CHUNK_BYTES.max(data.len() as u32));
        let attr = self.make(chunk, restart.unwrap_or(SCRIPT_CHUNK_BYTES)).await?;
        let chunk_bytes = restart.unwrap_or(attr.chunk_bytes);
        check_length(data.len(), chunk_bytes)?;
        let size_at_least = u64::from(chunk.index - 1) * u64::from(chunk_bytes) + data.len() as u64;
        let extents = self.store(&attr, chunk.index, data).await?;
        let commit = Commit { restart, chunk_bytes: Some(chunk_bytes), extents, size_at_least, ..Commit::default() };
        match self.namespace.apply(Change::Commit { ino: attr.ino, commit }).await {
            // Meanwhile a chunk 1 restarted the file, or the file was deleted. The sender has to decide what to do.
            Err(FsError::Stale { .. }) => Err(FsError::Conflict { index: chunk.index }),
            outcome => outcome.map(drop),
        }
    }

    async fn make(&self, chunk: &ChunkName, chunk_bytes: u32) -> Result<Attr, FsError> {
        let name = file_entry(chunk)?;
        let make = Change::Make { parent: Ino::ROOT, name, node: self.new_node(chunk_bytes), exclusive: false };
        let (attr, _) = entry_attr(self.namespace.apply(make).await?)?;
        regular(&attr)?;
        Ok(attr)
    }

    /// Stores the data, if there is any, and returns its extent.
    async fn store(&self, attr: &Attr, index: u32, data: Bytes) -> Result<Vec<Extent>, FsError> {
        if data.is_empty() {
            return Ok(Vec::new());
        }
        let version = self.namespace.next_version().await?;
        let chunk = NewChunk { file: attr.file.clone(), id: ChunkId { version, index }, data };
        self.chunks.put(vec![chunk], self.defaults.durability).await?;
        Ok(vec![Extent { first: index, count: 1, version }])
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
