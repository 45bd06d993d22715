//! Opening and closing. `open` queries the namespace unless this mount's leases cover what it remembers of the file, so
//! it sees all data of mounts that closed the file before; `flush` (at each close) commits, `fsync` also waits for the
//! holders' disks, and the last `release` drops the inode.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chordfs_log::{error_limited, warn_limited};
use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Answer, Attr, EntryName, Extent, FileKind, Ino, MAX_LISTED_EXTENTS, Query},
};
use parking_lot::Mutex;

use super::{Caller, CreationMode, FileSystem, NewEntry, open_table::CloseOutcome, unexpected};
use crate::transfer::{CommitReason, FileData};

/// How long `open` waits for the kernel to drop outdated attributes.
const NOTICE_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    pub handle: u64,
    /// The kernel's pages of this file are up to date.
    pub keep_cache: bool,
}

/// The data and attributes of an open inode.
pub(super) struct OpenFile {
    pub data: Arc<FileData>,
    /// The latest attributes received from the namespace.
    attr: Mutex<Attr>,
    /// The number of writes accepted.
    pub(super) writes: AtomicU64,
    /// How many of the writes the last commit covered.
    committed_writes: AtomicU64,
    /// How many of the writes are covered by commits that no program waits for.
    pub(super) late_writes: AtomicU64,
    /// Another mount has changed the contents since the namespace was last queried.
    outdated: AtomicBool,
}

impl FileSystem {
    pub async fn open(&self, ino: Ino, can_write: bool) -> Result<OpenReply, FsError> {
        let known = self.open_known(ino);
        let is_known = known.is_some();
        let opening = match known {
            Some(opening) => opening,
            None => self.open_file(ino).await?,
        };
        let file = opening.file();
        let attr = file.attr.lock().clone();
        self.read_folder_ahead(&attr, can_write, is_known);
        let change = attr.change;
        let handle = self.handles.open(can_write, file.data.error_cursor());
        opening.keep_open();
        Ok(OpenReply { handle, keep_cache: self.pages.opened(ino, change) })
    }

    /// Creates and opens a file. If another mount created it since the kernel's lookup, the result is ESTALE: the
    /// kernel then repeats the lookup, since it has to check permissions and truncate.
    pub async fn create(
        &self,
        parent: Ino,
        name: &EntryName,
        mode: CreationMode,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(Attr, u64), FsError> {
        let new = NewEntry { kind: FileKind::File, mode, rdev: 0, target: Vec::new(), exclusive };
        let created = self.create_new(parent, name, new, caller).await;
        // One of them may be the file that is open now.
        for ino in self.creations.take_releases().into_iter().filter(|ino| !self.opens.hold(*ino)) {
            self.release_at_namespace(ino);
        }
        created
    }

    async fn create_new(
        &self,
        parent: Ino,
        name: &EntryName,
        new: NewEntry,
        caller: Caller,
    ) -> Result<(Attr, u64), FsError> {
        let creation = self.creations.begin();
        let (attr, created) = self.make(parent, name, new, caller).await?;
        if !created {
            return Err(FsError::Stale { ino: attr.ino });
        }
        let opening = Opening::acquire(self, attr.ino);
        if let Some(receipt) = creation.event_about(attr.ino) {
            self.hold_at_namespace(vec![attr.ino], Some(receipt));
        }
        self.attach(&attr, Vec::new(), false, opening.changes);
        if creation.may_have_changed(attr.ino) {
            opening.file().invalidate();
        }
        self.pages.opened(attr.ino, attr.change);
        let handle = self.handles.open(true, opening.file().data.error_cursor());
        opening.keep_open();
        Ok((attr, handle))
    }

    /// Returns true if `flush` has nothing to do: the handle only reads, or nothing was written through this mount
    /// since the last commit.
    pub fn try_flush(&self, ino: Ino, handle: u64) -> bool {
        let handle = self.handles.get(handle);
        let is_committed = |file: Arc<OpenFile>| {
            let is_settled = file.is_being_committed() || !file.has_uncommitted_writes();
            is_settled && !file.data.has_unreported_error(&handle.errors)
        };
        !handle.can_write || self.opens.get(ino).is_none_or(is_committed)
    }

    pub async fn flush(&self, ino: Ino, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.get(handle);
        self.commit_for(ino, CommitReason::Close(&handle.errors)).await
    }

    pub async fn fsync(&self, ino: Ino, handle: u64) -> Result<(), FsError> {
        let handle = self.handles.get(handle);
        self.commit_for(ino, CommitReason::Fsync(&handle.errors)).await?;
        self.sync().await
    }

    /// Returns when all changes of names and attributes that were answered are on the voters' disks.
    pub async fn sync(&self) -> Result<(), FsError> {
        self.namespace.sync().await
    }

    /// Commits and closes a handle. No program waits for the reply, so an error is logged here.
    pub async fn release(&self, ino: Ino, handle: u64) {
        if !self.try_flush(ino, handle)
            && let Err(failure) = self.flush(ino, handle).await
        {
            error_limited!(ino = ino.0, op = "release", "data written to a file may be lost: {failure}");
        }
        self.close(ino, handle);
    }

    /// Closes the handle if nothing is left to commit; returns whether it did.
    pub fn try_release(&self, ino: Ino, handle: u64) -> bool {
        let clean = self.try_flush(ino, handle);
        if clean {
            self.close(ino, handle);
        }
        clean
    }

    fn close(&self, ino: Ino, handle: u64) {
        self.handles.close(handle);
        self.release_inode(ino);
    }

    /// Opens a file whose attributes and extents are known and current. One that is open already, or has bytes that are
    /// not committed, has a state of its own.
    fn open_known(&self, ino: Ino) -> Option<Opening<'_>> {
        // Counted first, so that an event which comes meanwhile finds it open.
        let opening = Opening::acquire(self, ino);
        // A commit in the background forgets the former state before its data counts as committed, so this comes first.
        if self.live_data(ino).is_some() {
            return None;
        }
        let (attr, extents) = self.cache.opened(ino).filter(|(attr, _)| attr.nlink > 0)?;
        self.attach(&attr, extents, false, opening.changes);
        Some(opening)
    }

    /// Opens an inode, for the kernel or for internal use. Dropping the returned opening closes it.
    pub(super) async fn open_file(&self, ino: Ino) -> Result<Opening<'_>, FsError> {
        let opening = Opening::acquire(self, ino);
        let stamp = self.cache.stamp();
        let (attr, extents, more) = self.query_open(ino).await.map_err(|error| self.stale_if_gone(ino, error))?;
        if attr.nlink == 0 && self.opens.get(ino).is_none() {
            return Err(self.stale_if_gone(ino, FsError::Stale { ino }));
        }
        let known = self.cache.attr_maybe_touched(ino).map(|known| known.change);
        if !more && extents.len() <= MAX_LISTED_EXTENTS {
            self.cache.store_opened(stamp, &attr, extents.clone());
        } else {
            self.cache.store_attr(stamp, &attr);
        }
        self.attach(&attr, extents, more, opening.changes);
        if known != Some(attr.change) {
            self.invalidate_kernel_attr(ino).await;
        }
        Ok(opening)
    }

    pub(super) fn open_data(&self, ino: Ino) -> Result<Arc<OpenFile>, FsError> {
        self.opens.get(ino).ok_or_else(|| FsError::Internal { detail: format!("inode {} is not open", ino.0) })
    }

    /// Queries an open file again, after another mount has changed it.
    pub(super) async fn refresh_open_file(&self, ino: Ino, file: &OpenFile) -> Result<(), FsError> {
        file.outdated.store(false, Ordering::Release);
        let reply = self.query_open(ino).await;
        let (attr, extents, more) = reply.inspect_err(|_| file.outdated.store(true, Ordering::Release))?;
        file.data.refresh(&attr, extents, more);
        file.update_attr(&attr);
        Ok(())
    }

    async fn query_open(&self, ino: Ino) -> Result<(Attr, Vec<Extent>, bool), FsError> {
        match self.namespace.query(Query::Open { ino }).await? {
            Answer::Open { attr, extents, more } => Ok((attr, extents, more)),
            other => Err(unexpected("opening a file", &other)),
        }
    }

    /// Attaches the answer to an opening that was requested when `changes` had been reported. A change reported since
    /// then found no data to invalidate, and the answer may be older than it.
    fn attach(&self, attr: &Attr, extents: Vec<Extent>, more: bool, changes: u64) {
        let mut answer = Some(extents);
        let (file, first) = self.opens.attach(attr.ino, || {
            OpenFile::new(self.transfer.open_file(attr, answer.take().unwrap_or_default(), more), attr)
        });
        if let (false, Some(extents)) = (first, answer) {
            file.data.refresh(attr, extents, more);
            file.update_attr(attr);
        }
        if self.opens.changes(attr.ino) != changes {
            file.invalidate();
        }
    }

    /// Invalidates the attributes that the kernel has cached; otherwise it would use an old size until they expire.
    pub(super) async fn invalidate_kernel_attr(&self, ino: Ino) {
        if tokio::time::timeout(NOTICE_DEADLINE, self.notices.attr_and_wait(ino)).await.is_err() {
            warn_limited!(ino = ino.0, "the kernel did not process a notice within {NOTICE_DEADLINE:?}");
        }
    }

    /// Commits for an operation that belongs to no handle.
    pub(super) async fn commit(&self, ino: Ino, durability: Durability) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        self.finish_commit(ino, &file, file.data.commit(durability)).await
    }

    async fn commit_for(&self, ino: Ino, reason: CommitReason<'_>) -> Result<(), FsError> {
        let file = self.open_data(ino)?;
        self.finish_commit(ino, &file, file.data.commit_for(reason)).await
    }

    /// Awaits a commit and records its result.
    pub(super) async fn finish_commit(
        &self,
        ino: Ino,
        file: &OpenFile,
        commit: impl Future<Output = Result<Option<Attr>, FsError>>,
    ) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let writes = file.writes.load(Ordering::Acquire);
        let committed = commit.await;
        file.committed_writes.fetch_max(writes, Ordering::AcqRel);
        match committed.inspect_err(|_| self.cache.forget_attr(ino))? {
            Some(attr) => self.record_change(stamp, &attr),
            // A background commit may have stored the writes; the cached attributes are then older than it.
            None if writes > 0 => self.cache.forget_attr(ino),
            None => {}
        }
        Ok(())
    }

    pub(super) fn release_inode(&self, ino: Ino) {
        let CloseOutcome::Last { held } = self.opens.release(ino) else { return };
        // If it is being created as well, the answer to that is older than what was written meanwhile.
        self.creations.note_change(ino);
        if held && !self.creations.put_off_release(ino) {
            self.release_at_namespace(ino);
        }
    }
}

impl OpenFile {
    fn new(data: Arc<FileData>, attr: &Attr) -> Self {
        Self {
            data,
            attr: Mutex::new(attr.clone()),
            writes: AtomicU64::new(0),
            committed_writes: AtomicU64::new(0),
            late_writes: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
        }
    }

    /// Stores `attr` unless a later state is known.
    pub(super) fn update_attr(&self, attr: &Attr) {
        let mut latest = self.attr.lock();
        if latest.change <= attr.change {
            *latest = attr.clone();
        }
    }

    pub(super) fn latest_attr(&self) -> Attr {
        self.attr.lock().clone()
    }

    /// Marks the contents as changed by another mount.
    pub(super) fn invalidate(&self) {
        self.outdated.store(true, Ordering::Release);
        self.data.invalidate();
    }

    pub(super) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    pub(super) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn has_uncommitted_writes(&self) -> bool {
        self.writes.load(Ordering::Acquire) > self.committed_writes.load(Ordering::Acquire) || self.data.is_dirty()
    }

    /// False if bytes were committed in the background since the last commit recorded here: then only the namespace
    /// knows the attributes.
    pub(super) fn knows_its_attr(&self) -> bool {
        !self.has_uncommitted_writes() || self.data.is_dirty()
    }

    /// The size as seen by this mount, including uncommitted bytes.
    pub(super) fn size(&self) -> u64 {
        let mut attr = self.attr.lock().clone();
        self.data.overlay(&mut attr);
        attr.size
    }
}

/// One opening of an inode, counted until it is dropped.
pub(super) struct Opening<'a> {
    fs: &'a FileSystem,
    ino: Ino,
    /// The changes by other mounts that had been reported when the inode was acquired.
    changes: u64,
}

impl<'a> Opening<'a> {
    fn acquire(fs: &'a FileSystem, ino: Ino) -> Self {
        let changes = fs.opens.acquire(ino);
        Self { fs, ino, changes }
    }

    pub(super) fn file(&self) -> Arc<OpenFile> {
        self.fs.opens.get(self.ino).expect("open_file attached it, and this opening keeps it")
    }

    /// Keeps the inode open until the kernel's `release`.
    fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.fs.release_inode(self.ino);
    }
}
