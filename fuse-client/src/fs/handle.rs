//! Opening and closing. `open` always asks the namespace, so what one mount has closed the next one to open sees;
//! `flush` (at each close) commits, `fsync` also waits for the holders' disks, and the last `release` lets go.

use chordfs_net::clients::NamespaceClient;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, Change, EntryName, Extent, FileKind, Ino, Query},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::{Caller, FileSystem, NewEntry, open_table::CloseOutcome, unexpected};
use crate::transfer::{CommitReason, FileData};

/// How long `open` waits for the kernel to drop outdated attributes.
const NOTICE_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    pub handle: u64,
    /// The kernel's pages of this file are up to date.
    pub keep_cache: bool,
}

/// What this mount knows of an inode while it is open.
pub(super) struct OpenFile {
    pub data: Arc<FileData>,
    /// As the namespace last told it.
    attr: Mutex<Attr>,
    /// Counts writes taken, and how many of them the last commit of ours covered.
    writes: AtomicU64,
    settled: AtomicU64,
    /// Another mount has changed the contents since the namespace was last asked.
    outdated: AtomicBool,
}

impl FileSystem {
    pub async fn open(&self, ino: Ino, can_write: bool) -> Result<OpenReply, FsError> {
        let opening = self.open_file(ino).await?;
        let file = opening.file();
        let change = file.attr.lock().change;
        let handle = self.handles.open(can_write, file.data.error_cursor());
        opening.stays_open();
        Ok(OpenReply { handle, keep_cache: self.pages.opened(ino, change) })
    }

    /// Makes and opens a file. If somebody else made it since the kernel looked, the kernel is sent back to look again
    /// (ESTALE), for it has to check permissions and to truncate.
    pub async fn create(
        &self,
        parent: Ino,
        name: &EntryName,
        mode: u16,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(Attr, u64), FsError> {
        let new = NewEntry { kind: FileKind::File, mode, rdev: 0, target: Vec::new(), exclusive };
        let (attr, created) = self.make(parent, name, new, caller).await?;
        if !created {
            return Err(FsError::Stale { ino: attr.ino });
        }
        let opening = Opening::enter(self, attr.ino);
        self.attach(&attr, Vec::new(), false);
        self.pages.opened(attr.ino, attr.change);
        let handle = self.handles.open(true, opening.file().data.error_cursor());
        opening.stays_open();
        Ok((attr, handle))
    }

    /// `flush` has nothing to do: the handle only reads, or nothing was written through this mount since the last
    /// commit.
    pub fn try_flush(&self, ino: Ino, handle: u64) -> bool {
        let handle = self.handles.get(handle);
        let is_settled =
            |file: Arc<OpenFile>| !file.has_unsettled_writes() && !file.data.has_unreported_error(&handle.errors);
        !handle.can_write || self.opens.get(ino).is_none_or(is_settled)
    }

    pub async fn flush(&self, ino: Ino, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.get(handle);
        self.commit_for(ino, CommitReason::Close(&handle.errors)).await
    }

    pub async fn fsync(&self, ino: Ino, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.get(handle);
        self.commit_for(ino, CommitReason::Fsync(&handle.errors)).await
    }

    /// One handle is gone. Nobody waits for the answer, so an error is logged here.
    pub async fn release(&self, ino: Ino, handle: u64) {
        if !self.try_flush(ino, handle)
            && let Err(failure) = self.flush(ino, handle).await
        {
            error!(ino = ino.0, op = "release", "data written to a file may be lost: {failure}");
        }
        self.close(ino, handle);
    }

    /// Releases at once where nothing is left to commit.
    pub fn try_release(&self, ino: Ino, handle: u64) -> bool {
        let clean = self.try_flush(ino, handle);
        if clean {
            self.close(ino, handle);
        }
        clean
    }

    fn close(&self, ino: Ino, handle: u64) {
        self.handles.close(handle);
        self.leave(ino);
    }

    /// Opens for the kernel or for ourselves; what is returned closes again when dropped.
    pub(super) async fn open_file(&self, ino: Ino) -> Result<Opening<'_>, FsError> {
        let opening = Opening::enter(self, ino);
        let stamp = self.cache.stamp();
        let (attr, extents, more) = self.query_open(ino).await.map_err(|error| self.gone(ino, error))?;
        if attr.nlink == 0 && self.opens.get(ino).is_none() {
            return Err(self.gone(ino, FsError::Stale { ino }));
        }
        let known = self.cache.attr_maybe_touched(ino).map(|known| known.change);
        self.attach(&attr, extents, more);
        self.cache.answer_attr(stamp, &attr);
        if known != Some(attr.change) {
            self.kernel_forgets_attr(ino).await;
        }
        Ok(opening)
    }

    pub(super) fn open_data(&self, ino: Ino) -> Result<Arc<OpenFile>, FsError> {
        self.opens.get(ino).ok_or_else(|| FsError::Internal { detail: format!("inode {} is not open", ino.0) })
    }

    /// Another mount has changed the file since it was opened here.
    pub(super) async fn ask_again(&self, ino: Ino, file: &OpenFile) -> Result<(), FsError> {
        file.outdated.store(false, Ordering::Release);
        let asked = self.query_open(ino).await;
        let (attr, extents, more) = asked.inspect_err(|_| file.outdated.store(true, Ordering::Release))?;
        file.data.refresh(&attr, extents, more);
        file.remember(&attr);
        Ok(())
    }

    async fn query_open(&self, ino: Ino) -> Result<(Attr, Vec<Extent>, bool), FsError> {
        match self.namespace.query(Query::Open { ino }).await? {
            Answer::Open { attr, extents, more } => Ok((attr, extents, more)),
            other => Err(unexpected("opening a file", &other)),
        }
    }

    fn attach(&self, attr: &Attr, extents: Vec<Extent>, more: bool) {
        let mut answer = Some(extents);
        let (file, first) = self.opens.attach(attr.ino, || {
            OpenFile::new(self.transfer.open_file(attr, answer.take().unwrap_or_default(), more), attr)
        });
        if let (false, Some(extents)) = (first, answer) {
            file.data.refresh(attr, extents, more);
            file.remember(attr);
        }
    }

    /// Without this the kernel would go on with the size that it knows for as long as attributes are valid.
    async fn kernel_forgets_attr(&self, ino: Ino) {
        if tokio::time::timeout(NOTICE_DEADLINE, self.notices.attr_and_wait(ino)).await.is_err() {
            warn!(ino = ino.0, "the kernel did not take a notice within {NOTICE_DEADLINE:?}");
        }
    }

    /// For an operation that belongs to no handle.
    pub(super) async fn commit(&self, ino: Ino, durability: Durability) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        self.settle(ino, &file, file.data.commit(durability)).await
    }

    async fn commit_for(&self, ino: Ino, reason: CommitReason<'_>) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        self.settle(ino, &file, file.data.commit_for(reason)).await
    }

    async fn settle(
        &self,
        ino: Ino,
        file: &OpenFile,
        commit: impl Future<Output = Result<Option<Attr>, FsError>>,
    ) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let writes = file.writes.load(Ordering::Acquire);
        let committed = commit.await;
        file.settled.fetch_max(writes, Ordering::AcqRel);
        match committed? {
            Some(attr) => self.changed(stamp, &attr),
            // A commit in the background may have been the one; then what we remember is older than that.
            None if writes > 0 => self.cache.drop_attr(ino),
            None => {}
        }
        Ok(())
    }

    fn leave(&self, ino: Ino) {
        if self.opens.leave(ino) == (CloseOutcome::Last { held: true }) {
            self.release_at_namespace(ino);
        }
    }

    pub(super) fn release_at_namespace(&self, ino: Ino) {
        if self.releases.send(ino).is_err() {
            debug!(ino = ino.0, "not released: the mount is ending, and its session with it");
        }
    }
}

impl OpenFile {
    fn new(data: Arc<FileData>, attr: &Attr) -> Self {
        Self {
            data,
            attr: Mutex::new(attr.clone()),
            writes: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
        }
    }

    pub(super) fn remember(&self, attr: &Attr) {
        let mut known = self.attr.lock();
        if known.change <= attr.change {
            *known = attr.clone();
        }
    }

    /// Another mount has changed the contents.
    pub(super) fn invalidate(&self) {
        self.outdated.store(true, Ordering::Release);
        self.data.invalidate();
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    pub(super) fn note_write(&self) {
        self.writes.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn has_unsettled_writes(&self) -> bool {
        self.writes.load(Ordering::Acquire) > self.settled.load(Ordering::Acquire) || self.data.is_dirty()
    }

    /// False when bytes were committed in the background since our last commit: then only the namespace knows.
    pub(super) fn knows_its_attr(&self) -> bool {
        !self.has_unsettled_writes() || self.data.is_dirty()
    }

    /// As this mount sees it, uncommitted bytes included.
    pub(super) fn size(&self) -> u64 {
        let mut attr = self.attr.lock().clone();
        self.data.overlay(&mut attr);
        attr.size
    }
}

/// Counts as one opening until it is dropped, whatever happens in between.
pub(super) struct Opening<'a> {
    fs: &'a FileSystem,
    ino: Ino,
}

impl<'a> Opening<'a> {
    fn enter(fs: &'a FileSystem, ino: Ino) -> Self {
        fs.opens.enter(ino);
        Self { fs, ino }
    }

    pub(super) fn file(&self) -> Arc<OpenFile> {
        self.fs.opens.get(self.ino).expect("open_file attached it, and this opening keeps it")
    }

    /// From now on the kernel's `release` closes it.
    fn stays_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.fs.leave(self.ino);
    }
}

/// Tells the namespace which nameless files nobody here has open any more, many in one change.
pub(super) async fn send_releases(namespace: Arc<dyn NamespaceClient>, mut released: mpsc::UnboundedReceiver<Ino>) {
    const AT_ONCE: usize = 256;
    let mut inos = Vec::new();
    while released.recv_many(&mut inos, AT_ONCE).await > 0 {
        let change = Change::Release { inos: std::mem::take(&mut inos) };
        if let Err(failure) = namespace.apply(change).await {
            warn!("deleted files stay on the nodes until this mount ends: {failure}");
        }
    }
}
