//! A namespace of one directory and its files, and a store for chunks, in memory, for the tests of `fs`. It does as
//! much of each operation as these tests need; tests can hold answers back and make calls fail.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use chordfs_net::{
    chunk_client::{LocalChunks, NewChunk},
    clients::{ChunkTransport, NamespaceClient},
    session::{EventAcknowledgement, SessionEvent},
};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, Commit, DirEntry, EntryName, Extent, FeedEvent, FileKind, Ino, OpenedEntry, PAGE_ITEMS,
        Query, Reply, Time,
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::{FileSystem, SpaceTotals};
use crate::{
    notify::Notices,
    samples_test::attr,
    transfer::{Transfer, TransferSettings},
};

#[derive(Default)]
struct Tree {
    inodes: BTreeMap<Ino, Attr>,
    names: BTreeMap<EntryName, Ino>,
    chunks: BTreeMap<(Ino, u32), Version>,
}

pub(super) struct FakeNamespace {
    tree: Mutex<Tree>,
    stored: Mutex<HashMap<ChunkId, Bytes>>,
    versions: AtomicU64,
    feed: mpsc::UnboundedSender<SessionEvent>,
    epoch: AtomicU64,
    /// All changes received, applied or not.
    pub changes: Mutex<Vec<Change>>,
    /// So many of the next changes are applied and get no answer.
    pub lost_replies: AtomicU64,
    pub queries: AtomicU64,
    /// Requests for chunks.
    pub gets: AtomicU64,
    /// Each answer to `Open`, `OpenEntries` or `Make` needs a permit. The answer is made before it waits for the
    /// permit.
    pub open_gate: Semaphore,
    pub puts_fail: AtomicBool,
    pub free_bytes: AtomicU64,
}

/// A mount of a [`FakeNamespace`].
pub(super) struct TestMount {
    pub fs: Arc<FileSystem>,
    pub namespace: Arc<FakeNamespace>,
}

impl TestMount {
    /// Commits by age never come by themselves.
    pub(super) fn new() -> Self {
        Self::with_flush_age(Duration::from_secs(3600))
    }

    pub(super) fn with_flush_age(flush_age: Duration) -> Self {
        let (feed, events) = mpsc::unbounded_channel();
        let namespace = Arc::new(FakeNamespace {
            tree: Mutex::default(),
            stored: Mutex::default(),
            versions: AtomicU64::new(1),
            feed,
            epoch: AtomicU64::new(0),
            changes: Mutex::default(),
            lost_replies: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            open_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            puts_fail: AtomicBool::new(false),
            free_bytes: AtomicU64::new(1 << 30),
        });
        namespace.tree.lock().inodes.insert(Ino::ROOT, Attr { kind: FileKind::Directory, ..attr(Ino::ROOT.0, 1) });
        let settings = TransferSettings { flush_age, log_bytes: 0, ..TransferSettings::default() };
        let runtime = tokio::runtime::Handle::current();
        let transfer = Transfer::with_clients(namespace.clone(), namespace.clone(), runtime, settings);
        // Without a receiver no notice is waited for.
        let (notices, _) = Notices::new();
        let (epoch, space) = (namespace.clone(), namespace.clone());
        let space = move || {
            let free_bytes = space.free_bytes.load(SeqCst);
            let reported: BoxFuture<'static, _> =
                Box::pin(async move { Some(SpaceTotals { total_bytes: 1 << 30, free_bytes }) });
            reported
        };
        let fs = FileSystem::with_namespace(
            namespace.clone(),
            move || epoch.epoch.load(SeqCst),
            transfer,
            notices,
            Arc::new(space),
        );
        tokio::spawn(fs.clone().follow_feed(events));
        Self { fs, namespace }
    }
}

impl FakeNamespace {
    /// Adds an empty file, or a directory, as another mount would.
    pub(super) fn add(&self, name: &EntryName, kind: FileKind) -> Ino {
        let mut tree = self.tree.lock();
        let ino = Ino(tree.inodes.len() as u64 + 100);
        tree.inodes.insert(ino, Attr { kind, size: 0, ..attr(ino.0, 1) });
        tree.names.insert(name.clone(), ino);
        ino
    }

    /// Removes a name, and a directory also as an inode, as another mount would.
    pub(super) fn remove(&self, name: &EntryName) {
        let mut tree = self.tree.lock();
        let ino = tree.names.remove(name).expect("the name exists");
        let attr = tree.inodes.get_mut(&ino).expect("the inode exists");
        attr.nlink = 0;
        if attr.kind == FileKind::Directory {
            tree.inodes.remove(&ino);
        }
    }

    /// Replaces the contents of a file by one chunk, as another mount would.
    pub(super) fn overwrite(&self, ino: Ino, bytes: &[u8]) {
        let version = Version(self.versions.fetch_add(1, SeqCst));
        self.stored.lock().insert(ChunkId { version, index: 1 }, Bytes::copy_from_slice(bytes));
        let mut tree = self.tree.lock();
        tree.chunks.insert((ino, 1), version);
        let attr = tree.inodes.get_mut(&ino).expect("the inode exists");
        attr.size = bytes.len() as u64;
        attr.change += 3;
    }

    pub(super) fn ino(&self, name: &EntryName) -> Ino {
        self.tree.lock().names[name]
    }

    pub(super) fn attr(&self, ino: Ino) -> Attr {
        self.tree.lock().inodes[&ino].clone()
    }

    /// Delivers feed events: the epoch rises at once, and the mount handles them when it is scheduled.
    pub(super) fn send_feed(&self, event: SessionEvent) {
        self.epoch.fetch_add(1, SeqCst);
        self.feed.send(event).expect("the mount follows the feed");
    }

    pub(super) fn tell(&self, event: FeedEvent) {
        self.send_feed(SessionEvent::Feed(vec![event], EventAcknowledgement::none()));
    }

    fn change(&self, change: &Change) -> Result<Reply, FsError> {
        let mut tree = self.tree.lock();
        match change {
            Change::Commit { ino, commit } => tree.commit(*ino, commit),
            Change::SetAttr { ino, set } => {
                if let Some(truncate) = &set.truncate {
                    assert_eq!(truncate.size, 0, "these tests truncate to zero only");
                    tree.chunks.retain(|(other, _), _| other != ino);
                }
                let attr = tree.inodes.get_mut(ino).ok_or(FsError::Stale { ino: *ino })?;
                attr.size = set.truncate.as_ref().map_or(attr.size, |truncate| truncate.size);
                set.apply_to(attr);
                attr.change += 3;
                Ok(Reply::Attr(attr.clone()))
            }
            Change::Unlink { name, .. } => {
                let ino = tree.names.remove(name).ok_or(FsError::NoEntry)?;
                let attr = tree.inodes.get_mut(&ino).expect("a named inode exists");
                attr.nlink = 0;
                Ok(Reply::Removed { attr: Some(attr.clone()) })
            }
            Change::Rmdir { name, .. } => {
                let ino = tree.names.remove(name).ok_or(FsError::NoEntry)?;
                tree.inodes.remove(&ino);
                Ok(Reply::Done)
            }
            Change::Make { parent, .. } if !tree.inodes.contains_key(parent) => Err(FsError::Stale { ino: *parent }),
            Change::Make { name, node, .. } => {
                let ino = Ino(tree.inodes.len() as u64 + 100);
                let attr = Attr { kind: node.kind, size: 0, ..attr(ino.0, 1) };
                tree.inodes.insert(ino, attr.clone());
                tree.names.insert(name.clone(), ino);
                Ok(Reply::Entry { attr, created: true })
            }
            Change::HoldOrphans { inos } => {
                let nameless = |ino: &Ino| tree.inodes.get(ino).is_some_and(|attr| attr.nlink == 0);
                Ok(Reply::Held { inos: inos.iter().copied().filter(nameless).collect() })
            }
            Change::Release { .. } => Ok(Reply::Done),
            Change::Discard { .. } => Ok(Reply::Collected { runs: 0 }),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn answer(&self, query: &Query) -> Result<Answer, FsError> {
        self.answer_in(&self.tree.lock(), query)
    }

    fn answer_in(&self, tree: &Tree, query: &Query) -> Result<Answer, FsError> {
        match query {
            Query::GetAttr { ino } => {
                tree.inodes.get(ino).cloned().map(Answer::Attr).ok_or(FsError::Stale { ino: *ino })
            }
            Query::Lookup { name, .. } => {
                let ino = tree.names.get(name).ok_or(FsError::NoEntry)?;
                Ok(Answer::Attr(tree.inodes[ino].clone()))
            }
            Query::Open { ino } => {
                let attr = tree.inodes.get(ino).cloned().ok_or(FsError::Stale { ino: *ino })?;
                let chunks = tree.chunks.range((*ino, 0)..=(*ino, u32::MAX));
                let extents = chunks.map(|((_, first), version)| Extent { first: *first, count: 1, version: *version });
                Ok(Answer::Open { attr, extents: extents.collect(), more: false })
            }
            Query::ReadDir { ino, after } => {
                if !tree.inodes.contains_key(ino) {
                    return Err(FsError::Stale { ino: *ino });
                }
                let rest = tree.names.iter().filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
                let entry =
                    |(name, ino): (&EntryName, &Ino)| DirEntry { name: name.clone(), attr: tree.inodes[ino].clone() };
                let entries: Vec<DirEntry> = rest.clone().take(PAGE_ITEMS as usize).map(entry).collect();
                Ok(Answer::Entries { parent: Ino::ROOT, more: rest.count() > entries.len(), entries })
            }
            Query::OpenEntries { ino, after, limit } => {
                let opened = |entry: DirEntry| {
                    let Ok(Answer::Open { extents, .. }) = self.answer_in(tree, &Query::Open { ino: entry.attr.ino })
                    else {
                        panic!("a listed file exists")
                    };
                    OpenedEntry { entry, extents: Some(extents) }
                };
                let listed = self.answer_in(tree, &Query::ReadDir { ino: *ino, after: after.clone() })?;
                let Answer::Entries { entries, more, .. } = listed else { panic!("{listed:?}") };
                let more = more || entries.len() > *limit as usize;
                Ok(Answer::OpenedEntries {
                    entries: entries.into_iter().take(*limit as usize).map(opened).collect(),
                    more,
                })
            }
            Query::StatFs => Ok(Answer::StatFs {
                inodes: tree.inodes.len() as u64,
                bytes: tree.inodes.values().map(|attr| attr.size).sum(),
            }),
            other => panic!("unexpected {other:?}"),
        }
    }
}

impl Tree {
    fn commit(&mut self, ino: Ino, commit: &Commit) -> Result<Reply, FsError> {
        let attr = self.inodes.get_mut(&ino).ok_or(FsError::Stale { ino })?;
        for extent in &commit.extents {
            self.chunks.extend(extent.range().map(|index| ((ino, index as u32), extent.version)));
        }
        self.chunks.extend(commit.partial.iter().map(|write| ((ino, write.index), write.version)));
        attr.size = attr.size.max(commit.size_at_least);
        (attr.mtime, attr.ctime) = (commit.mtime.unwrap_or(Time::now()), Time::now());
        commit.set.apply_to(attr);
        attr.change += 3;
        Ok(Reply::Attr(attr.clone()))
    }
}

impl NamespaceClient for FakeNamespace {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            let reply = self.change(&change);
            let is_make = matches!(change, Change::Make { .. });
            self.changes.lock().push(change);
            if is_make {
                self.open_gate.acquire().await.expect("never closed").forget();
            }
            let lost = self.lost_replies.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            if lost { Err(FsError::NoQuorum { detail: "no answer".into() }) } else { reply }
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move {
            self.queries.fetch_add(1, SeqCst);
            let answer = self.answer(&query);
            if matches!(query, Query::Open { .. } | Query::OpenEntries { .. }) {
                self.open_gate.acquire().await.expect("never closed").forget();
            }
            answer
        })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move { Ok(Version(self.versions.fetch_add(1, SeqCst))) })
    }
}

impl ChunkTransport for FakeNamespace {
    fn put(&self, chunks: Vec<NewChunk>, _: Durability) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            if self.puts_fail.load(SeqCst) {
                return Err(FsError::NoReplica { detail: "no node answers".into() });
            }
            self.stored.lock().extend(chunks.into_iter().map(|chunk| (chunk.id, chunk.data)));
            Ok(())
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move {
            self.gets.fetch_add(1, SeqCst);
            let stored = self.stored.lock();
            let found = chunks.iter().map(|chunk| stored.get(&chunk.id).cloned()).collect::<Option<Vec<Bytes>>>();
            found.ok_or_else(|| FsError::NoReplica { detail: "the chunk was deleted".into() })
        })
    }

    fn sync<'a>(&'a self, _: &'a FileName, _: &'a dyn LocalChunks) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(async { Ok(()) })
    }
}
