//! Whole files and single chunks for callers that have no mount: the old scripts, browsers, curl.
//!
//! [`FileService`] maps plain names and bytes to operations of the namespace and chunks on the ring, so that `http/`
//! only translates. Every method uses bounded memory, whatever the size of the file, and a file is not visible in the
//! namespace before it is complete. POSIX rules and caching are left to the mount.

pub mod chunk_upload;
pub mod delete_all;
#[cfg(test)]
pub(crate) mod fakes;
pub mod path;
mod place;
pub mod read;
mod reading;
mod rooted;
pub mod search;
#[cfg(test)]
pub(crate) mod tables_alone;
pub mod walk;
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
pub use delete_all::DeleteAll;
pub use read::ReadableFile;
pub use reading::FilesRead;
use rooted::RootedNamespace;
pub use search::{FoundPage, TreeEntry};
pub use walk::{TreeWalk, WalkBatch};
pub use whole_upload::{PublishMode, WholeUpload};

/// How often a path is resolved whose file is replaced each time before it is open.
const OPEN_ATTEMPTS: u32 = 8;

/// The attributes of new files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDefaults {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, 0..=0o7777.
    pub mode: u16,
    /// Where the chunks of an upload are stored before the upload is answered.
    pub durability: Durability,
}

impl Default for FileDefaults {
    /// The files belong to the user of the node's process.
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
    read: Arc<FilesRead>,
}

/// What a path leads to.
#[derive(Debug)]
pub enum PathTarget {
    File(Box<ReadableFile>),
    Directory(Attr),
}

#[derive(Debug)]
pub struct ListingPage {
    /// In the byte order of their names.
    pub entries: Vec<DirEntry>,
    /// The name after which the next page begins; `None` on the last one.
    pub next: Option<EntryName>,
}

impl FileService {
    pub fn new(session: Session, chunks: Arc<ChunkClient>, defaults: FileDefaults) -> Self {
        Self::over(Arc::new(session), chunks, defaults)
    }

    /// Uses any namespace and any store of chunks.
    pub fn over(namespace: Arc<dyn NamespaceClient>, chunks: Arc<dyn ChunkTransport>, defaults: FileDefaults) -> Self {
        Self { namespace, chunks, defaults: Arc::new(defaults), read: Arc::default() }
    }

    /// What callers see who are bound to `folder`: it is the root.
    pub fn below(&self, folder: Vec<EntryName>) -> Self {
        Self { namespace: Arc::new(RootedNamespace::new(self.namespace.clone(), folder)), ..self.clone() }
    }

    /// Shares the list of the files that are being read.
    pub fn reading(self, read: Arc<FilesRead>) -> Self {
        Self { read, ..self }
    }

    /// Opens what is at `path`, or if there is nothing and the last component is `NAME_chunk_I`, that chunk of NAME.
    pub async fn open(&self, path: &[EntryName]) -> Result<PathTarget, FsError> {
        for _ in 0..OPEN_ATTEMPTS {
            if let Some(target) = self.open_once(path).await? {
                return Ok(target);
            }
        }
        Err(FsError::NoEntry)
    }

    /// `None` if the file lost its last name after the path was resolved: if it was replaced, the path leads to another
    /// one by now.
    async fn open_once(&self, path: &[EntryName]) -> Result<Option<PathTarget>, FsError> {
        let opened = match path::resolve(&*self.namespace, path).await {
            Ok(attr) if attr.kind == FileKind::Directory => return Ok(Some(PathTarget::Directory(attr))),
            Ok(attr) => ReadableFile::whole(self, attr.ino).await,
            Err(FsError::NoEntry) => return Ok(Some(PathTarget::File(Box::new(self.open_chunk(path).await?)))),
            Err(error) => return Err(error),
        };
        match opened {
            Err(FsError::NoEntry | FsError::Stale { .. }) => Ok(None),
            file => Ok(Some(PathTarget::File(Box::new(file?)))),
        }
    }

    /// One page of a directory: the entries after the name `after`.
    pub async fn list(&self, directory: Ino, after: Option<EntryName>) -> Result<ListingPage, FsError> {
        match self.namespace.query(Query::ReadDir { ino: directory, after }).await? {
            Answer::Entries { entries, more, .. } => {
                let next = entries.last().filter(|_| more).map(|entry| entry.name.clone());
                Ok(ListingPage { entries, next })
            }
            other => Err(unexpected("ReadDir", &other)),
        }
    }

    /// Fails if the namespace does not answer.
    pub async fn check(&self) -> Result<(), FsError> {
        self.namespace.query(Query::GetAttr { ino: Ino::ROOT }).await.map(drop)
    }

    async fn open_chunk(&self, path: &[EntryName]) -> Result<ReadableFile, FsError> {
        let (last, parents) = path.split_last().ok_or(FsError::NoEntry)?;
        let chunk = ChunkName::parse(last.as_bytes()).ok_or(FsError::NoEntry)?;
        let mut path = parents.to_vec();
        path.push(EntryName::new(Bytes::copy_from_slice(chunk.file.as_bytes())).map_err(|_| FsError::NoEntry)?);
        let attr = path::resolve(&*self.namespace, &path).await?;
        if attr.kind != FileKind::File {
            return Err(FsError::NoEntry);
        }
        ReadableFile::chunk(self, attr.ino, chunk.index).await
    }

    /// The attributes at a name of a directory. Follows no symlink.
    async fn lookup(&self, parent: Ino, name: &EntryName) -> Result<Option<Attr>, FsError> {
        match self.namespace.query(Query::Lookup { parent, name: name.clone() }).await {
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

    /// A new file with owner and mode of the file that it will replace, if there is one.
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
