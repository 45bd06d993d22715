//! Whole files and single chunks for callers that have no mount: the old scripts, browsers, curl.
//!
//! [`FileService`] speaks the namespace's and the ring's language on one side and plain names and bytes on the other,
//! so that `http/` only translates. Every method works with bounded memory, whatever the size of the file, and nothing
//! is visible in the namespace before it is complete. POSIX rules and caching are the mount's business.

pub mod chunk_upload;
#[cfg(test)]
pub(crate) mod fakes;
pub mod path;
pub mod read;
pub mod whole_upload;

use chordfs_net::clients::{ChunkTransport, NamespaceClient};
use std::sync::Arc;

use bytes::Bytes;
use chordfs_net::{chunk_client::ChunkClient, session::Session};
use chordfs_types::{
    chunk::{CHUNK_BYTES, ChunkName},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, DirEntry, EntryName, FileKind, Ino, NewNode, Query, Reply},
};
pub use read::Opened;
pub use whole_upload::WholeUpload;

/// What files get that nobody said more about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDefaults {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, 0..=0o7777.
    pub mode: u16,
    /// Where the chunks of an answered upload are.
    pub durability: Durability,
}

impl Default for FileDefaults {
    /// The files belong to whoever runs the node.
    fn default() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            mode: 0o644,
            durability: Durability::Memory,
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct FileService {
    namespace: Arc<dyn NamespaceClient>,
    chunks: Arc<dyn ChunkTransport>,
    defaults: Arc<FileDefaults>,
}

/// What a path stands for.
#[derive(Debug)]
pub enum Found {
    File(Box<Opened>),
    Directory(Attr),
}

#[derive(Debug)]
pub struct ListingPage {
    /// In the order of their bytes.
    pub entries: Vec<DirEntry>,
    /// The name after which the next page begins; `None` on the last one.
    pub next: Option<EntryName>,
}

impl FileService {
    pub fn new(session: Session, chunks: Arc<ChunkClient>, defaults: FileDefaults) -> Self {
        Self::over(Arc::new(session), chunks, defaults)
    }

    /// Over any namespace and any store of chunks.
    pub fn over(namespace: Arc<dyn NamespaceClient>, chunks: Arc<dyn ChunkTransport>, defaults: FileDefaults) -> Self {
        Self { namespace, chunks, defaults: Arc::new(defaults) }
    }

    /// What stands at `path`. Where nothing does and the last component reads as `NAME_chunk_I`: that chunk of NAME.
    pub async fn open(&self, path: &[EntryName]) -> Result<Found, FsError> {
        match path::resolve(&*self.namespace, path).await {
            Ok(attr) if attr.kind == FileKind::Directory => Ok(Found::Directory(attr)),
            Ok(attr) => Ok(Found::File(Box::new(Opened::whole(self, attr.ino).await?))),
            Err(FsError::NoEntry) => Ok(Found::File(Box::new(self.open_chunk(path).await?))),
            Err(error) => Err(error),
        }
    }

    /// One page of a directory, of what follows the name `after`.
    pub async fn list(&self, directory: Ino, after: Option<EntryName>) -> Result<ListingPage, FsError> {
        match self.namespace.query(Query::ReadDir { ino: directory, after }).await? {
            Answer::Entries { entries, more, .. } => {
                let next = entries.last().filter(|_| more).map(|entry| entry.name.clone());
                Ok(ListingPage { entries, next })
            }
            other => Err(unexpected("ReadDir", &other)),
        }
    }

    /// Does the namespace answer?
    pub async fn check(&self) -> Result<(), FsError> {
        self.namespace.query(Query::GetAttr { ino: Ino::ROOT }).await.map(drop)
    }

    async fn open_chunk(&self, path: &[EntryName]) -> Result<Opened, FsError> {
        let (last, parents) = path.split_last().ok_or(FsError::NoEntry)?;
        let chunk = ChunkName::parse(last.as_bytes()).ok_or(FsError::NoEntry)?;
        let mut path = parents.to_vec();
        path.push(EntryName::new(Bytes::copy_from_slice(chunk.file.as_bytes())).map_err(|_| FsError::NoEntry)?);
        let attr = path::resolve(&*self.namespace, &path).await?;
        if attr.kind != FileKind::File {
            return Err(FsError::NoEntry);
        }
        Opened::chunk(self, attr.ino, chunk.index).await
    }

    /// What stands at a name of the root directory, no symlink followed.
    async fn lookup(&self, name: &EntryName) -> Result<Option<Attr>, FsError> {
        match self.namespace.query(Query::Lookup { parent: Ino::ROOT, name: name.clone() }).await {
            Ok(Answer::Attr(attr)) => Ok(Some(attr)),
            Ok(other) => Err(unexpected("Lookup", &other)),
            Err(FsError::NoEntry) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new_node(&self, chunk_bytes: u32) -> NewNode {
        NewNode {
            kind: FileKind::File,
            mode: self.defaults.mode,
            uid: self.defaults.uid,
            gid: self.defaults.gid,
            rdev: 0,
            chunk_bytes,
            target: Bytes::new(),
        }
    }

    /// As the file that is about to be replaced, where there is one.
    fn new_node_like(&self, replaced: Option<&Attr>) -> NewNode {
        let node = self.new_node(CHUNK_BYTES);
        match replaced {
            Some(old) if old.kind == FileKind::File => NewNode { mode: old.mode, uid: old.uid, gid: old.gid, ..node },
            _ => node,
        }
    }
}

fn entry_attr(reply: Reply) -> Result<(Attr, bool), FsError> {
    match reply {
        Reply::Entry { attr, created } => Ok((attr, created)),
        other => Err(unexpected("Make", &other)),
    }
}

fn unexpected(call: &str, answer: &dyn std::fmt::Debug) -> FsError {
    FsError::Internal { detail: format!("the namespace answered {call} with {answer:?}") }
}
