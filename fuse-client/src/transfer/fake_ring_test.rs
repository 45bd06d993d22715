//! A namespace with one file, and a store for chunks, in memory. Answers are delayed and reordered (from a seed), tests
//! can make calls fail or wait, and everything that a client must guarantee is asserted.

use chordfs_net::clients::{ChangeSlot, ChunkTransport, NamespaceClient};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use chordfs_net::chunk_client::{LocalChunks, NewChunk};
use chordfs_types::{
    chunk::{ChunkId, ChunkRef, FileName, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{
        Answer, Attr, Change, ChunkWrite, Commit, DiscardedRuns, Extent, FileKind, Ino, InodeFlags, LoggedChunk, Query,
        Reply, SetAttr, Time, Truncate,
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::{Transfer, TransferSettings, extents::ExtentMap, file::FileData};

pub(super) const INO: Ino = Ino(7);
/// The time of the namespace's clock.
const NOW: Time = Time { secs: 2_000_000_000, nanos: 0 };

pub(super) struct FakeRing {
    random: AtomicU64,
    /// An answer is delayed by up to this many turns of the scheduler.
    pub disorder: AtomicU64,
    file: Mutex<File>,
    pub chunks: Mutex<HashMap<ChunkId, StoredChunk>>,
    /// Data that the log keeps until a change after the next ones: then it is stored.
    pub logged: Mutex<HashMap<ChunkId, Bytes>>,
    /// The log takes no data.
    pub log_is_full: AtomicBool,
    /// What the log keeps is never stored.
    pub log_keeps: AtomicBool,
    pub puts: AtomicU64,
    pub put_chunks: AtomicU64,
    pub gets: AtomicU64,
    pub got_chunks: AtomicU64,
    pub syncs: AtomicU64,
    pub commits: AtomicU64,
    pub queries: AtomicU64,
    /// Failures of the next puts; the last one comes first.
    pub put_failures: Mutex<Vec<FsError>>,
    pub put_always_fails: Mutex<Option<FsError>>,
    /// Chunks that no node has. A sync fails if it needs one of them.
    pub lost: Mutex<Vec<ChunkId>>,
    /// Failures of the next syncs; the last one comes first.
    pub sync_failures: Mutex<Vec<FsError>>,
    /// Failures of the next changes; the last one comes first.
    pub change_failures: Mutex<Vec<(FsError, ChangeOutcome)>>,
    /// The next change is applied when this is notified.
    pub held_change: Mutex<Option<Arc<Notify>>>,
    /// The reply to the next change is sent when this is notified.
    pub held_reply: Mutex<Option<Arc<Notify>>>,
    /// Versions of which no chunk may become current, because it was collected as garbage.
    pub retired: Mutex<HashSet<Version>>,
    /// Refuses every commit with `Conflict`.
    pub always_conflicts: AtomicBool,
    /// The next get panics.
    pub get_panics: AtomicBool,
    /// Each put needs a permit.
    pub put_gate: Semaphore,
    /// Each get needs a permit.
    pub get_gate: Semaphore,
    /// Each answer to a query needs a permit. The answer is made before it waits for the permit.
    pub answer_gate: Semaphore,
    next_version: AtomicU64,
    /// A restarted file has smaller chunks.
    largest_chunk_bytes: u32,
    page: usize,
}

/// Whether a change that returns an error was applied all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeOutcome {
    Applied,
    NotApplied,
}

pub(super) struct StoredChunk {
    pub data: Bytes,
    pub durable: bool,
}

struct File {
    attr: Attr,
    extents: ExtentMap,
}

impl FakeRing {
    pub(super) fn new(chunk_bytes: u32, seed: u64) -> Arc<Self> {
        let attr = Attr {
            ino: INO,
            kind: FileKind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            chunk_bytes,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            change: 1,
            holes: 0,
            flags: InodeFlags::default(),
            file: FileName::new("some/file").unwrap(),
        };
        Arc::new(Self {
            random: AtomicU64::new(seed | 1),
            disorder: AtomicU64::new(0),
            file: Mutex::new(File { attr, extents: ExtentMap::default() }),
            chunks: Mutex::default(),
            logged: Mutex::default(),
            log_is_full: AtomicBool::new(false),
            log_keeps: AtomicBool::new(false),
            puts: AtomicU64::new(0),
            put_chunks: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            got_chunks: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            put_failures: Mutex::default(),
            put_always_fails: Mutex::default(),
            lost: Mutex::default(),
            sync_failures: Mutex::default(),
            change_failures: Mutex::default(),
            held_change: Mutex::default(),
            held_reply: Mutex::default(),
            retired: Mutex::default(),
            always_conflicts: AtomicBool::new(false),
            get_panics: AtomicBool::new(false),
            put_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            get_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            answer_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            next_version: AtomicU64::new(1),
            largest_chunk_bytes: chunk_bytes,
            page: 5,
        })
    }

    pub(super) fn mount(self: &Arc<Self>, settings: TransferSettings) -> Arc<Transfer> {
        Transfer::with_clients(self.clone(), self.clone(), Handle::current(), settings)
    }

    /// Like [`Self::mount`], with an order of changes: each that is answered before it is logged keeps a place in it.
    pub(super) fn mount_with_places(self: &Arc<Self>, settings: TransferSettings) -> (Arc<Transfer>, Arc<FakeOrder>) {
        let order = Arc::new_cyclic(|me| FakeOrder { ring: self.clone(), places: Mutex::default(), me: me.clone() });
        let transfer = Transfer::with_clients(order.clone(), self.clone(), Handle::current(), settings);
        (transfer, order)
    }

    /// Holds the reply to the next change back until the returned value is notified.
    pub(super) fn hold_reply(&self) -> Arc<Notify> {
        let held = Arc::new(Notify::new());
        *self.held_reply.lock() = Some(held.clone());
        held
    }

    pub(super) fn open(&self, transfer: &Arc<Transfer>) -> Arc<FileData> {
        let (attr, extents, more) = self.page();
        transfer.open_file(&attr, extents, more)
    }

    /// The present answer to `Open`.
    pub(super) fn page(&self) -> (Attr, Vec<Extent>, bool) {
        self.file.lock().page(1, self.page)
    }

    pub(super) fn attr(&self) -> Attr {
        self.file.lock().attr.clone()
    }

    /// Restarts the file, as the upload of its chunk 1 does.
    pub(super) fn restart(&self, chunk_bytes: u32, data: &[u8]) {
        let id = ChunkId { version: Version(self.next_version.fetch_add(1, SeqCst)), index: 1 };
        self.chunks.lock().insert(id, StoredChunk { data: Bytes::copy_from_slice(data), durable: true });
        let mut file = self.file.lock();
        assert!(chunk_bytes <= self.largest_chunk_bytes);
        file.extents = ExtentMap::default();
        file.extents.insert(Extent { first: 1, count: 1, version: id.version });
        (file.attr.size, file.attr.chunk_bytes) = (data.len() as u64, chunk_bytes);
        file.attr.change += 3;
    }

    /// The number of chunks that are stored and that the file does not have.
    pub(super) fn orphans(&self) -> usize {
        let current: HashSet<ChunkId> = self.file.lock().chunks().collect();
        self.chunks.lock().keys().filter(|id| !current.contains(id)).count()
    }

    fn discard(&self, files: Vec<DiscardedRuns>) -> Result<Reply, FsError> {
        let current: HashSet<ChunkId> = self.file.lock().chunks().collect();
        let mut chunks = self.chunks.lock();
        for run in files.iter().flat_map(|file| &file.runs) {
            let ids = run.range().map(|index| ChunkId { version: run.version, index: index as u32 });
            ids.filter(|id| !current.contains(id)).for_each(|id| drop(chunks.remove(&id)));
            self.retired.lock().insert(run.version);
        }
        Ok(Reply::Collected { runs: 0 })
    }

    /// Deletes everything that is stored and not committed, as the storage nodes do after an hour.
    pub(super) fn collect_uncommitted(&self) {
        let current: Vec<ChunkId> = self.file.lock().chunks().collect();
        let mut chunks = self.chunks.lock();
        let garbage = chunks.keys().filter(|id| !current.contains(id));
        self.retired.lock().extend(garbage.map(|id| id.version));
        chunks.retain(|id, _| current.contains(id));
    }

    pub(super) fn committed_durably(&self) -> bool {
        let chunks = self.chunks.lock();
        let logged = self.logged.lock();
        self.file.lock().chunks().all(|id| logged.contains_key(&id) || chunks[&id].durable)
    }

    pub(super) fn next_random(&self) -> u64 {
        let step = |mut x: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^ (x << 17)
        };
        self.random.fetch_update(SeqCst, SeqCst, |x| Some(step(x))).map(step).unwrap()
    }

    async fn delay(&self) {
        for _ in 0..self.next_random() % (self.disorder.load(SeqCst) + 1) {
            tokio::task::yield_now().await;
        }
    }

    /// Deletes the chunks that the file no longer references, as the nodes do after some time.
    fn purge(&self, before: Vec<ChunkId>) {
        let now: Vec<ChunkId> = self.file.lock().chunks().collect();
        let mut chunks = self.chunks.lock();
        let mut logged = self.logged.lock();
        for id in before.iter().filter(|id| !now.contains(id)) {
            chunks.remove(id);
            logged.remove(id);
        }
    }

    /// Refused as a whole or applied as a whole.
    fn commit_with_data(&self, commit: Commit, chunks: Vec<LoggedChunk>) -> Result<Reply, FsError> {
        if self.log_is_full.load(SeqCst) {
            return Err(FsError::LogFull);
        }
        let brought: Vec<ChunkId> = chunks.iter().map(|chunk| chunk.id).collect();
        self.logged.lock().extend(chunks.into_iter().map(|LoggedChunk { id, data }| (id, data)));
        let reply = self.commit(commit);
        if reply.is_err() {
            self.logged.lock().retain(|id, _| !brought.contains(id));
        }
        reply
    }

    /// Stores what the log keeps.
    fn place_logged(&self) {
        let logged = std::mem::take(&mut *self.logged.lock());
        let stored = logged.into_iter().map(|(id, data)| (id, StoredChunk { data, durable: true }));
        self.chunks.lock().extend(stored);
    }

    fn keep(&self, chunks: Vec<NewChunk>, durability: Durability) -> Result<(), FsError> {
        let failure = self.put_always_fails.lock().clone().or_else(|| self.put_failures.lock().pop());
        if let Some(failure) = failure {
            return Err(failure);
        }
        let (limit, durable) = (self.largest_chunk_bytes as usize, durability.is_disk());
        let mut stored = self.chunks.lock();
        for NewChunk { id, data, .. } in chunks {
            assert!(!data.is_empty() && data.len() <= limit);
            assert!(stored.insert(id, StoredChunk { data, durable }).is_none(), "{id:?} is stored twice");
        }
        Ok(())
    }

    fn commit(&self, commit: Commit) -> Result<Reply, FsError> {
        let mut file = self.file.lock();
        if commit.chunk_bytes.is_some_and(|made_for| made_for != file.attr.chunk_bytes) {
            return Err(FsError::Stale { ino: INO });
        }
        let size = u64::from(file.attr.chunk_bytes);
        for write in &commit.partial {
            file.check_base(write)?;
        }
        let is_refused = |version| self.retired.lock().contains(&version) || self.always_conflicts.load(SeqCst);
        let whole = commit.extents.iter().map(|extent| (extent.first, extent.version));
        let mut written = whole.chain(commit.partial.iter().map(|write| (write.index, write.version)));
        if let Some((index, _)) = written.find(|(_, version)| is_refused(*version)) {
            return Err(FsError::Conflict { index });
        }
        let mut named: BTreeMap<u32, Version> = BTreeMap::new();
        let single = |write: &ChunkWrite| Extent { first: write.index, count: 1, version: write.version };
        for extent in commit.extents.iter().copied().chain(commit.partial.iter().map(single)) {
            for index in extent.range().map(|index| index as u32) {
                assert!(named.insert(index, extent.version).is_none(), "chunk {index} is named twice");
                let id = ChunkId { version: extent.version, index };
                let stored = self.chunks.lock().get(&id).map(|stored| stored.data.clone());
                let data = stored.or_else(|| self.logged.lock().get(&id).cloned());
                let len = data.expect("a chunk is committed before it was stored").len() as u64;
                assert!(u64::from(index - 1) * size + len <= commit.size_at_least.max(file.attr.size));
            }
            file.extents.insert(extent);
        }
        assert!(commit.extents.windows(2).all(|pair| pair[0].end() <= u64::from(pair[1].first)), "not ascending");
        file.attr.size = file.attr.size.max(commit.size_at_least);
        file.attr.mtime = commit.mtime.unwrap_or(NOW);
        commit.set.apply_to(&mut file.attr);
        file.changed()
    }

    fn set_attr(&self, set: SetAttr) -> Result<Reply, FsError> {
        let mut file = self.file.lock();
        if let Some(Truncate { size, tail }) = set.truncate {
            let chunk_bytes = u64::from(file.attr.chunk_bytes);
            let (last, keep) = ((size / chunk_bytes) as u32 + 1, size % chunk_bytes);
            let cuts = keep > 0 && size < file.attr.size && file.extents.get(last).is_some();
            match tail {
                None if cuts => return Err(FsError::Invalid { reason: "the tail is missing".into() }),
                None => {}
                Some(tail) => {
                    assert_eq!(tail.index, last);
                    file.check_base(&tail)?;
                    let id = ChunkId { version: tail.version, index: last };
                    assert!(self.chunks.lock()[&id].data.len() as u64 <= keep, "the tail is not cut");
                    file.extents.insert(Extent { first: last, count: 1, version: tail.version });
                }
            }
            file.extents.remove(size.div_ceil(chunk_bytes) + 1..u64::from(u32::MAX) + 1);
            (file.attr.size, file.attr.mtime) = (size, NOW);
        }
        set.apply_to(&mut file.attr);
        file.changed()
    }
}

impl File {
    fn check_base(&self, write: &ChunkWrite) -> Result<(), FsError> {
        let fits = self.extents.get(write.index) == write.base;
        fits.then_some(()).ok_or(FsError::Conflict { index: write.index })
    }

    fn changed(&mut self) -> Result<Reply, FsError> {
        // `change` is an index in the log, where operations on other files lie between.
        self.attr.change += 3;
        Ok(Reply::Attr(self.attr.clone()))
    }

    fn chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let ids =
            |extent: Extent| extent.range().map(move |index| ChunkId { version: extent.version, index: index as u32 });
        self.extents.iter().flat_map(ids)
    }

    fn page(&self, from: u32, items: usize) -> (Attr, Vec<Extent>, bool) {
        let mut page: Vec<Extent> =
            self.extents.iter().filter(|extent| extent.end() > u64::from(from)).take(items + 1).collect();
        let more = page.len() > items;
        page.truncate(items);
        (self.attr.clone(), page, more)
    }
}

impl NamespaceClient for FakeRing {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            self.delay().await;
            self.commits.fetch_add(1, SeqCst);
            let held = self.held_change.lock().take();
            if let Some(held) = held {
                held.notified().await;
            }
            let failure = self.change_failures.lock().pop();
            if let Some((failure, ChangeOutcome::NotApplied)) = failure {
                return Err(failure);
            }
            let before: Vec<ChunkId> = self.file.lock().chunks().collect();
            if !self.log_keeps.load(SeqCst) && self.next_random().is_multiple_of(2) {
                self.place_logged();
            }
            let reply = match change {
                Change::Commit { ino: INO, commit } => self.commit(commit),
                Change::CommitWithData { ino: INO, commit, chunks } => self.commit_with_data(commit, chunks),
                Change::SetAttr { ino: INO, set } => self.set_attr(set),
                Change::Discard { files } => self.discard(files),
                other => panic!("unexpected {other:?}"),
            };
            self.purge(before);
            self.delay().await;
            let held = self.held_reply.lock().take();
            if let Some(held) = held {
                held.notified().await;
            }
            failure.map_or(reply, |(failure, _)| Err(failure))
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move {
            self.delay().await;
            self.queries.fetch_add(1, SeqCst);
            let from = if let Query::Extents { from, .. } = query { from } else { 1 };
            let (attr, extents, more) = self.file.lock().page(from, self.page);
            self.answer_gate.acquire().await.unwrap().forget();
            self.delay().await;
            Ok(match query {
                Query::Open { ino: INO } => Answer::Open { attr, extents, more },
                Query::Extents { ino: INO, .. } => Answer::Extents { extents, more },
                other => panic!("unexpected {other:?}"),
            })
        })
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move {
            self.delay().await;
            Ok(Version(self.next_version.fetch_add(1, SeqCst)))
        })
    }
}

impl ChunkTransport for FakeRing {
    fn put(&self, chunks: Vec<NewChunk>, durability: Durability) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            self.delay().await;
            self.put_gate.acquire().await.unwrap().forget();
            self.puts.fetch_add(1, SeqCst);
            self.put_chunks.fetch_add(chunks.len() as u64, SeqCst);
            self.keep(chunks, durability)?;
            self.delay().await;
            Ok(())
        })
    }

    fn get(&self, chunks: Vec<ChunkRef>) -> BoxFuture<'_, Result<Vec<Bytes>, FsError>> {
        Box::pin(async move {
            self.delay().await;
            assert!(!self.get_panics.swap(false, SeqCst), "a panic for the test");
            self.get_gate.acquire().await.unwrap().forget();
            self.gets.fetch_add(1, SeqCst);
            self.got_chunks.fetch_add(chunks.len() as u64, SeqCst);
            let found = {
                let (stored, logged) = (self.chunks.lock(), self.logged.lock());
                // The real client asks the log for what the nodes do not have.
                let data = |requested: &ChunkRef| {
                    let stored = stored.get(&requested.id).map(|stored| stored.data.clone());
                    stored.or_else(|| logged.get(&requested.id).cloned())
                };
                chunks.iter().map(data).collect::<Option<Vec<Bytes>>>()
            };
            self.delay().await;
            found.ok_or_else(|| FsError::NoReplica { detail: "the chunk was deleted".into() })
        })
    }

    /// Costs a request only if there is an unsynced chunk, like the real client.
    fn sync<'a>(&'a self, _: &'a FileName, local: &'a dyn LocalChunks) -> BoxFuture<'a, Result<(), FsError>> {
        Box::pin(async move {
            if self.chunks.lock().values().all(|stored| stored.durable) {
                return Ok(());
            }
            self.delay().await;
            self.syncs.fetch_add(1, SeqCst);
            if let Some(lost) = self.lost.lock().iter().find(|id| !local.is_superseded(**id)) {
                return Err(FsError::Lost { detail: format!("{lost:?}") });
            }
            if let Some(failure) = self.sync_failures.lock().pop() {
                return Err(failure);
            }
            self.chunks.lock().values_mut().for_each(|stored| stored.durable = true);
            Ok(())
        })
    }
}

/// The order of a mount's changes in front of a ring. It records in which place each change was made.
pub(super) struct FakeOrder {
    ring: Arc<FakeRing>,
    places: Mutex<FakePlaces>,
    me: Weak<Self>,
}

#[derive(Default)]
struct FakePlaces {
    next: u64,
    /// Those that are kept.
    open: HashSet<u64>,
    /// The places of the commits that were applied.
    applied: Vec<u64>,
}

impl FakeOrder {
    /// Takes a place, as a change does that comes now and is answered at once.
    pub(super) fn take_place(&self) -> u64 {
        let mut places = self.places.lock();
        places.next += 1;
        places.next
    }

    /// Whether the log can come to this place.
    pub(super) fn reaches(&self, place: u64) -> bool {
        self.places.lock().open.iter().all(|open| *open > place)
    }

    pub(super) fn applied(&self) -> Vec<u64> {
        self.places.lock().applied.clone()
    }
}

struct FakeSlot {
    order: Arc<FakeOrder>,
    place: u64,
}

impl ChangeSlot for FakeSlot {
    fn apply(&self, change: Change, is_last: bool) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            let reply = self.order.ring.apply(change).await?;
            let mut places = self.order.places.lock();
            places.applied.push(self.place);
            if is_last {
                places.open.remove(&self.place);
            }
            Ok(reply)
        })
    }
}

impl Drop for FakeSlot {
    fn drop(&mut self) {
        self.order.places.lock().open.remove(&self.place);
    }
}

impl NamespaceClient for FakeOrder {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        self.ring.apply(change)
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        self.ring.query(query)
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        self.ring.next_version()
    }

    fn reserve(&self, _file: Ino) -> Option<Box<dyn ChangeSlot>> {
        let place = self.take_place();
        self.places.lock().open.insert(place);
        Some(Box::new(FakeSlot { order: self.me.upgrade()?, place }))
    }
}
