//! A namespace and a chunk store in memory: the real tables without a log, and a map, with switches for failures.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{LocalChunks, NewChunk},
    clients::{ChunkTransport, NamespaceClient},
};
use chordfs_tables::Tables;
use chordfs_types::{
    chunk::{ChunkRef, ChunkRun, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, EntryName, FileKind, Ino, NamespaceOp, NewNode, OpId, Query, RenameMode, Reply,
        SessionId, Time, Truncate,
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{FileDefaults, FileService};

/// A service over this namespace and no chunks.
pub(crate) fn service(namespace: &Arc<FakeNamespace>) -> FileService {
    FileService::over(namespace.clone(), Arc::<FakeChunks>::default(), FileDefaults::default())
}

/// Entries or extents per answer: small, so that paging happens.
pub(crate) const PAGE: usize = 5;

pub(crate) struct FakeNamespace {
    log: Mutex<Log>,
    /// How long a query takes.
    delay: Mutex<Duration>,
}

struct Log {
    tables: Tables,
    session: SessionId,
    /// Used as log index, as sequence number, and as the seconds since a day in 2001.
    index: u64,
    failure: Option<FsError>,
    /// Applied before the next commit.
    overtaking: Option<Change>,
    /// Applied before the next file is opened.
    overtaking_open: Option<Change>,
}

impl Default for FakeNamespace {
    fn default() -> Self {
        let mut log = Log {
            tables: Tables::new(),
            session: SessionId(0),
            index: 0,
            failure: None,
            overtaking: None,
            overtaking_open: None,
        };
        match log.apply_as(None, Change::OpenSession { nonce: 1, client: "test".into(), holds_leases: false }) {
            Ok(Reply::Session { session, .. }) => log.session = session,
            other => panic!("{other:?}"),
        }
        Self { log: Mutex::new(log), delay: Mutex::default() }
    }
}

impl Log {
    fn apply(&mut self, change: Change) -> Result<Reply, FsError> {
        let origin = OpId { session: self.session, sequence: self.index, answered_below: self.index };
        self.apply_as(Some(origin), change)
    }

    fn apply_as(&mut self, origin: Option<OpId>, change: Change) -> Result<Reply, FsError> {
        self.index += 1;
        let now = Time { secs: 1_000_000_000 + self.index as i64, nanos: 0 };
        self.tables.apply(self.index, now, &NamespaceOp { origin, now, change }).reply
    }

    /// Deletes files that have neither a name nor a holder.
    fn purge(&mut self) {
        self.apply_as(None, Change::PurgeOrphans { before: u64::MAX, limit: u32::MAX }).unwrap();
    }
}

impl FakeNamespace {
    /// Makes every call fail with this error from now on.
    pub(crate) fn fail(&self, failure: Option<FsError>) {
        self.log.lock().failure = failure;
    }

    /// Makes every query take this long from now on.
    pub(crate) fn answer_after(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    /// Applies this change just before the next commit, like another session's.
    pub(crate) fn overtake(&self, change: Change) {
        self.log.lock().overtaking = Some(change);
    }

    /// Applies this change just before the next file is opened, when its path is resolved already.
    pub(crate) fn overtake_open(&self, change: Change) {
        self.log.lock().overtaking_open = Some(change);
    }

    /// Deletes files without name and holder, and the chunks on the dead list.
    pub(crate) fn delete_garbage(&self, chunks: &FakeChunks) {
        let mut log = self.log.lock();
        log.purge();
        match log.tables.query(&Query::Dead { before: u64::MAX, limit: u32::MAX }).unwrap() {
            Answer::Dead(dead) => dead.iter().for_each(|(_, run)| chunks.delete(run)),
            other => panic!("{other:?}"),
        }
    }

    /// The number of inodes that have a name or a holder, without the root.
    pub(crate) fn inode_count(&self) -> u64 {
        let mut log = self.log.lock();
        log.purge();
        match log.tables.query(&Query::StatFs).unwrap() {
            Answer::StatFs { inodes, .. } => inodes - 1,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn new_version(&self) -> Version {
        match self.log.lock().apply(Change::AllocateVersions { count: 1 }) {
            Ok(Reply::Versions(block)) => block.first,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attr(&self, name: &str) -> Option<Attr> {
        match self.log.lock().tables.query(&Query::Lookup { parent: Ino::ROOT, name: entry(name) }) {
            Ok(Answer::Attr(attr)) => Some(attr),
            _ => None,
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let (parent, new_parent) = (Ino::ROOT, Ino::ROOT);
        let (name, new_name, mode) = (entry(from), entry(to), RenameMode::Replace);
        let rename = Change::Rename { parent, name, new_parent, new_name, mode, hold: false };
        self.log.lock().apply(rename).unwrap();
    }

    pub(crate) fn make(&self, parent: Ino, name: &str, kind: FileKind, target: &str) -> Ino {
        let target = Bytes::from(target.to_owned());
        let node = NewNode { kind, mode: 0o640, uid: 1, gid: 1, rdev: 0, chunk_bytes: 4096, target };
        let make = Change::Make { parent, name: entry(name), node, exclusive: true };
        match self.log.lock().apply(make).unwrap() {
            Reply::Entry { attr, .. } => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn grow(&self, ino: Ino, size: u64) {
        let truncate = Some(Truncate { size, tail: None });
        let set = chordfs_types::namespace::SetAttr { truncate, ..Default::default() };
        self.log.lock().apply(Change::SetAttr { ino, set }).unwrap();
    }
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name.to_owned()).unwrap()
}

/// The first [`PAGE`] items.
fn short_page(answer: Answer) -> Answer {
    let cut = |len: usize, more: bool| more || len > PAGE;
    match answer {
        Answer::Open { attr, mut extents, more } => {
            let more = cut(extents.len(), more);
            extents.truncate(PAGE);
            Answer::Open { attr, extents, more }
        }
        Answer::Extents { mut extents, more } => {
            let more = cut(extents.len(), more);
            extents.truncate(PAGE);
            Answer::Extents { extents, more }
        }
        Answer::Entries { parent, mut entries, more } => {
            let more = cut(entries.len(), more);
            entries.truncate(PAGE);
            Answer::Entries { parent, entries, more }
        }
        other => other,
    }
}

impl NamespaceClient for FakeNamespace {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            let mut log = self.log.lock();
            log.failure.clone().map_or(Ok(()), Err)?;
            if matches!(change, Change::Commit { .. })
                && let Some(overtaking) = log.overtaking.take()
            {
                log.apply(overtaking).unwrap();
            }
            log.apply(change)
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move {
            let delay = *self.delay.lock();
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let mut log = self.log.lock();
            log.failure.clone().map_or(Ok(()), Err)?;
            if matches!(query, Query::Open { .. })
                && let Some(overtaking) = log.overtaking_open.take()
            {
                log.apply(overtaking).unwrap();
            }
            log.tables.query(&query).map(short_page)
        })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move {
            match NamespaceClient::apply(self, Change::AllocateVersions { count: 1 }).await? {
                Reply::Versions(block) => Ok(block.first),
                other => panic!("{other:?}"),
            }
        })
    }
}

#[derive(Default)]
pub(crate) struct FakeChunks {
    stored: Mutex<HashMap<ChunkRef, Bytes>>,
    failure: Mutex<Option<FsError>>,
    /// True if puts store and are not answered.
    silent: Mutex<bool>,
    /// The number of gets that still succeed.
    gets_left: Mutex<Option<usize>>,
    largest_batch: Mutex<usize>,
    /// The durability that the last put asked for.
    durability: Mutex<Durability>,
}

impl FakeChunks {
    pub(crate) fn fail(&self, failure: Option<FsError>) {
        *self.failure.lock() = failure;
    }

    /// From now on puts store everything and are never answered.
    pub(crate) fn stop_answering_puts(&self) {
        *self.silent.lock() = true;
    }

    /// Makes every get after the next `gets` fail.
    pub(crate) fn fail_after(&self, gets: usize) {
        *self.gets_left.lock() = Some(gets);
    }

    pub(crate) fn largest_batch_bytes(&self) -> usize {
        *self.largest_batch.lock()
    }

    pub(crate) fn last_durability(&self) -> Durability {
        *self.durability.lock()
    }

    pub(crate) fn count(&self) -> usize {
        self.stored.lock().len()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let stored = self.stored.lock();
        let mut names: Vec<_> = stored.keys().map(|chunk| format!("{}_chunk_{}", chunk.file, chunk.id.index)).collect();
        names.sort();
        names
    }

    fn delete(&self, run: &ChunkRun) {
        let is_of_run = |chunk: &ChunkRef| {
            let index = u64::from(chunk.id.index);
            let first = u64::from(run.first);
            chunk.id.version == run.version && (first..first + u64::from(run.count)).contains(&index)
        };
        self.stored.lock().retain(|chunk, _| !is_of_run(chunk));
    }

    fn check_get(&self) -> Result<(), FsError> {
        match &mut *self.gets_left.lock() {
            Some(0) => Err(FsError::NoReplica { detail: "all gone".into() }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl ChunkTransport for FakeChunks {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            *self.durability.lock() = durability;
            self.failure.lock().clone().map_or(Ok(()), Err)?;
            let bytes = chunks.iter().map(|chunk| chunk.data.len()).sum();
            {
                let mut largest = self.largest_batch.lock();
                *largest = largest.max(bytes);
            }
            let chunks = chunks.into_iter().map(|chunk| (ChunkRef { file: chunk.file, id: chunk.id }, chunk.data));
            self.stored.lock().extend(chunks);
            if *self.silent.lock() {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move {
            self.failure.lock().clone().map_or(Ok(()), Err)?;
            self.check_get()?;
            let stored = self.stored.lock();
            let missing = |chunk: &ChunkRef| FsError::NoReplica { detail: format!("{chunk:?}") };
            chunks.iter().map(|chunk| stored.get(chunk).cloned().ok_or_else(|| missing(chunk))).collect()
        })
    }

    fn sync<'a>(&'a self, _: &'a FileName, _: &'a dyn LocalChunks) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
