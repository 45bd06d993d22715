//! A namespace and a chunk store in memory, as plain as they can be, with switches for what goes wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use common::{
    chunk::{ChunkRef, FileName, Version},
    chunk_client::NewChunk,
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, Commit, DirEntry, EntryName, Extent, FileKind, Ino, NewNode, Query, Reply, Time,
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{Chunks, Namespace};

/// Entries or extents per answer: small, so that paging happens.
pub const PAGE: usize = 5;

#[derive(Default)]
pub struct FakeNamespace {
    tables: Mutex<Fake>,
}

#[derive(Default)]
struct Fake {
    inodes: HashMap<Ino, Inode>,
    entries: BTreeMap<(Ino, EntryName), Ino>,
    held: HashSet<Ino>,
    next_ino: u64,
    next_version: u64,
    clock: u64,
    failure: Option<FsError>,
}

struct Inode {
    attr: Attr,
    target: Bytes,
    extents: BTreeMap<u32, Version>,
}

impl FakeNamespace {
    /// Every call fails with this from now on.
    pub fn fail(&self, failure: Option<FsError>) {
        self.tables.lock().failure = failure;
    }

    /// Inodes that have neither a name nor a holder are gone.
    pub fn inode_count(&self) -> usize {
        let tables = self.tables.lock();
        let named: HashSet<Ino> = tables.entries.values().copied().collect();
        tables.inodes.keys().filter(|ino| named.contains(ino) || tables.held.contains(ino)).count()
    }

    pub fn attr(&self, name: &str) -> Option<Attr> {
        let tables = self.tables.lock();
        let ino = tables.entries.get(&(Ino::ROOT, EntryName::new(name.to_owned()).unwrap()))?;
        Some(tables.inodes[ino].attr.clone())
    }

    pub fn rename(&self, from: &str, to: &str) {
        let mut tables = self.tables.lock();
        let key = |name: &str| (Ino::ROOT, EntryName::new(name.to_owned()).unwrap());
        let ino = tables.entries.remove(&key(from)).unwrap();
        tables.entries.insert(key(to), ino);
    }

    pub fn make(&self, parent: Ino, name: &str, kind: FileKind, target: &str) -> Ino {
        let node = node(kind, Bytes::from(target.to_owned()));
        self.tables.lock().make(parent, EntryName::new(name.to_owned()).unwrap(), node).unwrap().0.ino
    }

    pub fn grow(&self, ino: Ino, size: u64) {
        self.tables.lock().inodes.get_mut(&ino).unwrap().attr.size = size;
    }
}

fn node(kind: FileKind, target: Bytes) -> NewNode {
    NewNode { kind, mode: 0o644, uid: 1, gid: 1, rdev: 0, chunk_bytes: 4096, target }
}

impl Namespace for FakeNamespace {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            let mut tables = self.tables.lock();
            tables.clock += 1;
            tables.failure.clone().map_or(Ok(()), Err)?;
            tables.apply(change)
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move {
            let tables = self.tables.lock();
            tables.failure.clone().map_or(Ok(()), Err)?;
            tables.query(query)
        })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move {
            let mut tables = self.tables.lock();
            tables.next_version += 1;
            Ok(Version(tables.next_version))
        })
    }
}

impl Fake {
    fn apply(&mut self, change: Change) -> Result<Reply, FsError> {
        match change {
            Change::Make { parent, name, node, .. } => {
                let (attr, created) = self.make(parent, name, node)?;
                Ok(Reply::Entry { attr, created })
            }
            Change::MakeUnnamed { file, node } => {
                let attr = self.insert(file, node);
                self.held.insert(attr.ino);
                Ok(Reply::Entry { attr, created: true })
            }
            Change::Publish { ino, parent, name } => self.publish(ino, parent, name),
            Change::Commit { ino, commit } => self.commit(ino, commit),
            Change::Release { inos } => {
                self.held.retain(|ino| !inos.contains(ino));
                Ok(Reply::Done)
            }
            other => panic!("not expected of the file service: {other:?}"),
        }
    }

    fn query(&self, query: Query) -> Result<Answer, FsError> {
        match query {
            Query::Lookup { parent, name } => Ok(Answer::Attr(self.lookup(parent, &name)?.attr.clone())),
            Query::GetAttr { ino: Ino::ROOT } => Ok(Answer::Attr(root())),
            Query::GetAttr { ino } => Ok(Answer::Attr(self.inode(ino)?.attr.clone())),
            Query::Resolve { path } => self.resolve(path),
            Query::ReadLink { ino } => Ok(Answer::Target(self.inode(ino)?.target.clone())),
            Query::Open { ino } => {
                let (extents, more) = self.extents(ino, 1)?;
                Ok(Answer::Open { attr: self.inode(ino)?.attr.clone(), extents, more })
            }
            Query::Extents { ino, from } => {
                let (extents, more) = self.extents(ino, from)?;
                Ok(Answer::Extents { extents, more })
            }
            Query::ReadDir { ino, after } => Ok(self.read_dir(ino, after)),
            other => panic!("not expected of the file service: {other:?}"),
        }
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, FsError> {
        self.inodes.get(&ino).ok_or(FsError::Stale { ino })
    }

    fn lookup(&self, parent: Ino, name: &EntryName) -> Result<&Inode, FsError> {
        if parent != Ino::ROOT && self.inode(parent)?.attr.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        self.inode(*self.entries.get(&(parent, name.clone())).ok_or(FsError::NoEntry)?)
    }

    fn resolve(&self, path: Vec<EntryName>) -> Result<Answer, FsError> {
        let mut attr = root();
        for name in path {
            attr = self.lookup(attr.ino, &name)?.attr.clone();
        }
        Ok(Answer::Attr(attr))
    }

    fn make(&mut self, parent: Ino, name: EntryName, node: NewNode) -> Result<(Attr, bool), FsError> {
        if let Ok(found) = self.lookup(parent, &name) {
            return Ok((found.attr.clone(), false));
        }
        let attr = self.insert(FileName::new(Bytes::from(name.clone())).unwrap(), node);
        self.entries.insert((parent, name), attr.ino);
        Ok((attr, true))
    }

    fn insert(&mut self, file: FileName, node: NewNode) -> Attr {
        self.next_ino += 1;
        let (uid, gid, chunk_bytes) = (node.uid, node.gid, node.chunk_bytes);
        let ino = Ino(1 + self.next_ino);
        let attr = Attr { ino, kind: node.kind, mode: node.mode, uid, gid, chunk_bytes, file, ..root() };
        self.inodes.insert(ino, Inode { attr: attr.clone(), target: node.target, extents: BTreeMap::new() });
        attr
    }

    fn publish(&mut self, ino: Ino, parent: Ino, name: EntryName) -> Result<Reply, FsError> {
        let replaced = self.lookup(parent, &name).ok().map(|inode| inode.attr.clone());
        if replaced.as_ref().is_some_and(|attr| attr.kind == FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        self.entries.insert((parent, name), ino);
        Ok(Reply::Removed { attr: replaced })
    }

    fn commit(&mut self, ino: Ino, commit: Commit) -> Result<Reply, FsError> {
        let clock = self.clock;
        let inode = self.inodes.get_mut(&ino).ok_or(FsError::Stale { ino })?;
        if let Some(chunk_bytes) = commit.restart {
            inode.extents.clear();
            (inode.attr.chunk_bytes, inode.attr.size) = (chunk_bytes, 0);
        }
        for extent in commit.extents {
            inode.extents.extend((extent.first..extent.first + extent.count).map(|index| (index, extent.version)));
        }
        inode.attr.size = inode.attr.size.max(commit.size_at_least);
        inode.attr.change += 1;
        inode.attr.mtime = Time { secs: 1_000_000_000 + clock as i64, nanos: 0 };
        Ok(Reply::Attr(inode.attr.clone()))
    }

    /// Runs of chunks with one version.
    fn extents(&self, ino: Ino, from: u32) -> Result<(Vec<Extent>, bool), FsError> {
        let mut extents: Vec<Extent> = Vec::new();
        for (&index, &version) in self.inode(ino)?.extents.range(from..) {
            match extents.last_mut() {
                Some(last) if last.version == version && last.first + last.count == index => last.count += 1,
                _ if extents.len() == PAGE => return Ok((extents, true)),
                _ => extents.push(Extent { first: index, count: 1, version }),
            }
        }
        Ok((extents, false))
    }

    fn read_dir(&self, ino: Ino, after: Option<EntryName>) -> Answer {
        let all = self.entries.iter().filter(|((parent, name), _)| *parent == ino && Some(name) > after.as_ref());
        let mut entries: Vec<DirEntry> = all
            .map(|((_, name), ino)| DirEntry { name: name.clone(), attr: self.inodes[ino].attr.clone() })
            .take(PAGE + 1)
            .collect();
        let more = entries.len() > PAGE;
        entries.truncate(PAGE);
        Answer::Entries { parent: Ino::ROOT, entries, more }
    }
}

fn root() -> Attr {
    Attr {
        ino: Ino::ROOT,
        kind: FileKind::Directory,
        mode: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        chunk_bytes: 4096,
        atime: Time::default(),
        mtime: Time { secs: 1_000_000_000, nanos: 0 },
        ctime: Time::default(),
        change: 1,
        file: FileName::new("/").unwrap(),
    }
}

#[derive(Default)]
pub struct FakeChunks {
    stored: Mutex<HashMap<ChunkRef, Bytes>>,
    failure: Mutex<Option<FsError>>,
    largest_batch: Mutex<usize>,
}

impl FakeChunks {
    pub fn fail(&self, failure: Option<FsError>) {
        *self.failure.lock() = failure;
    }

    pub fn largest_batch_bytes(&self) -> usize {
        *self.largest_batch.lock()
    }

    pub fn count(&self) -> usize {
        self.stored.lock().len()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.stored.lock().keys().map(|chunk| format!("{}_chunk_{}", chunk.file, chunk.id.index)).collect();
        names.sort();
        names
    }
}

impl Chunks for FakeChunks {
    fn put(&self, chunks: Vec<NewChunk>, _durable: bool) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            self.failure.lock().clone().map_or(Ok(()), Err)?;
            let bytes = chunks.iter().map(|chunk| chunk.data.len()).sum();
            let mut largest = self.largest_batch.lock();
            *largest = largest.max(bytes);
            let chunks = chunks.into_iter().map(|chunk| (ChunkRef { file: chunk.file, id: chunk.id }, chunk.data));
            self.stored.lock().extend(chunks);
            Ok(())
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move {
            self.failure.lock().clone().map_or(Ok(()), Err)?;
            let stored = self.stored.lock();
            let missing = |chunk: &ChunkRef| FsError::NoReplica { detail: format!("{chunk:?}") };
            chunks.iter().map(|chunk| stored.get(chunk).cloned().ok_or_else(|| missing(chunk))).collect()
        })
    }
}
