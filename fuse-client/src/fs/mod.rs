//! POSIX semantics of each operation, one file per family. A method takes plain values and returns a result or an
//! [`FsError`]; it depends neither on the kernel's protocol nor on sockets, so it can be called from any runtime.
//!
//! Methods called `try_…` or `cached_…` reply from memory, never wait, and return `None` if they cannot; their `async`
//! counterparts query the namespace or the nodes. File contents are left to `transfer`, caching to `cache`. Permissions
//! are checked by the kernel (`default_permissions`), using the modes and owners returned here.

mod appends;
mod atimes;
mod close_later;
mod copies;
mod creations;
mod data;
mod directory;
mod entries;
mod feed;
mod folder_read_ahead;
mod handle;
mod handles;
mod holds;
mod holes;
mod kernel_memory;
mod listing;
mod locks;
mod lookup;
mod open_table;
mod removed;
mod rename;
mod statfs;
mod xattrs;

#[cfg(test)]
mod fake_namespace_test;
#[cfg(test)]
mod feed_test;
#[cfg(test)]
mod opening_test;

use chordfs_net::{clients::NamespaceClient, tasks};
use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64},
};

use chordfs_net::session::{EventAcknowledgement, Session};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, Change, ClientReport, Ino, Query, Reply},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::{
    atimes::Atimes,
    creations::Creations,
    directory::Directories,
    folder_read_ahead::{FolderFetch, FolderReadAhead},
    handle::OpenFile,
    handles::Handles,
    holds::HoldRequest,
    locks::Locks,
    open_table::OpenTable,
    removed::RemovedDirectories,
};
pub use self::{
    directory::ListedEntry,
    entries::{Caller, CreationMode, NewEntry},
    handle::OpenReply,
    holes::{FileRange, Sought},
    locks::IsInterrupted,
    rename::EntryLocation,
    statfs::{SpaceSource, SpaceTotals, Statistics},
};
use crate::{
    cache::{KernelNames, KernelPages, MetaCache, Stamp},
    notify::Notices,
    transfer::{FileData, Transfer},
};

/// How many inodes and names are cached by default: about 50 MB when full.
pub const DEFAULT_META_ENTRIES: NonZeroUsize = NonZeroUsize::new(131_072).expect("not zero");

pub struct FileSystem {
    namespace: Arc<dyn NamespaceClient>,
    transfer: Arc<Transfer>,
    cache: MetaCache,
    pages: KernelPages,
    kernel_names: KernelNames,
    opens: OpenTable<OpenFile>,
    handles: Handles,
    directories: Directories,
    removed: RemovedDirectories,
    locks: Locks,
    atimes: Atimes,
    notices: Notices,
    space: SpaceSource,
    holds: mpsc::UnboundedSender<HoldRequest>,
    folder_read_ahead: Mutex<FolderReadAhead>,
    folder_fetches: mpsc::UnboundedSender<FolderFetch>,
    creations: Creations,
    next_handle: AtomicU64,
}

impl FileSystem {
    /// Must be called on the runtime that is to run its background tasks.
    /// `namespace` is the session, or stands before it.
    pub fn new(
        session: Session,
        namespace: Arc<dyn NamespaceClient>,
        transfer: Arc<Transfer>,
        notices: Notices,
        space: SpaceSource,
    ) -> Arc<Self> {
        let epoch = session.clone();
        let fs = Self::with_namespace(namespace, move || epoch.feed_epoch(), transfer, notices, space);
        let weak = Arc::downgrade(&fs);
        session.report_nothing_open(move || weak.upgrade().is_some_and(|fs| fs.has_nothing_open()));
        let weak = Arc::downgrade(&fs);
        session.report_state(move || weak.upgrade().map_or_else(ClientReport::default, |fs| fs.report()));
        fs
    }

    /// Like [`Self::new`], with any namespace client. `feed_epoch`: see [`Session::feed_epoch`].
    pub fn with_namespace(
        namespace: Arc<dyn NamespaceClient>,
        feed_epoch: impl Fn() -> u64 + Send + Sync + 'static,
        transfer: Arc<Transfer>,
        notices: Notices,
        space: SpaceSource,
    ) -> Arc<Self> {
        let (holds, requests) = mpsc::unbounded_channel();
        let (folder_fetches, fetches) = mpsc::unbounded_channel();
        let usable = namespace.clone();
        let is_usable = move || !usable.memory_usable_for().is_zero();
        let fs = Arc::new(Self {
            cache: MetaCache::new(DEFAULT_META_ENTRIES, feed_epoch, is_usable),
            pages: KernelPages::new(DEFAULT_META_ENTRIES),
            kernel_names: KernelNames::default(),
            opens: OpenTable::default(),
            handles: Handles::default(),
            directories: Directories::default(),
            removed: RemovedDirectories::default(),
            locks: Locks::default(),
            atimes: Atimes::default(),
            next_handle: AtomicU64::new(1),
            namespace,
            transfer,
            notices,
            space,
            holds,
            folder_read_ahead: Mutex::default(),
            folder_fetches,
            creations: Creations::default(),
        });
        let weak = Arc::downgrade(&fs);
        fs.transfer.on_data_loss(move |ino| weak.upgrade().into_iter().for_each(|fs| fs.invalidate_contents(ino)));
        let weak = Arc::downgrade(&fs);
        fs.transfer
            .on_background_commit(move |ino| weak.upgrade().into_iter().for_each(|fs| fs.cache.forget_attr(ino)));
        tasks::spawn(holds::send_holds(Arc::downgrade(&fs), fs.namespace.clone(), requests));
        tasks::spawn(folder_read_ahead::fetch_folders(Arc::downgrade(&fs), fetches));
        fs
    }

    /// Invalidates the kernel's pages and the cached attributes, which may contain bytes that were discarded.
    fn invalidate_contents(&self, ino: Ino) {
        self.pages.invalidate(ino);
        self.cache.forget_attr(ino);
        self.notices.pages(ino, EventAcknowledgement::none());
    }

    /// For operators.
    fn report(&self) -> ClientReport {
        let unlogged = self.namespace.unlogged();
        ClientReport {
            dirty_bytes: self.transfer.dirty_bytes(),
            open_files: self.opens.count() as u64,
            unlogged_changes: unlogged.count as u64,
            oldest_unlogged_millis: unlogged.oldest.as_millis() as u64,
        }
    }

    /// Whether this mount has no file open and opens none now.
    fn has_nothing_open(&self) -> bool {
        // A file that is being created is counted as open before its creation ends.
        self.creations.is_empty() && self.opens.is_empty()
    }

    /// Commits everything written so far.
    pub async fn flush_all(&self) -> Result<(), FsError> {
        self.log_atimes().await;
        let flushed = self.transfer.flush_all().await;
        flushed.and(self.sync().await)
    }

    async fn query_attr(&self, query: Query) -> Result<Attr, FsError> {
        match self.namespace.query(query).await? {
            Answer::Attr(attr) => Ok(attr),
            other => Err(unexpected("an attribute query", &other)),
        }
    }

    async fn change_entry(&self, change: Change) -> Result<(Attr, bool), FsError> {
        match self.namespace.apply(change).await? {
            Reply::Entry { attr, created } => Ok((attr, created)),
            other => Err(unexpected("making an entry", &other)),
        }
    }

    async fn change_attr(&self, change: Change) -> Result<Attr, FsError> {
        match self.namespace.apply(change).await? {
            Reply::Attr(attr) => Ok(attr),
            other => Err(unexpected("setting attributes", &other)),
        }
    }

    /// Adjusts a file's attributes for the bytes that this mount has written but not committed.
    fn with_uncommitted(&self, mut attr: Attr) -> Attr {
        if let Some(data) = self.live_data(attr.ino) {
            data.overlay(&mut attr);
        }
        self.atimes.overlay(&mut attr);
        attr
    }

    /// The data of a file that is open here, or that was closed and still has bytes which could not be committed.
    fn live_data(&self, ino: Ino) -> Option<Arc<FileData>> {
        let open = self.opens.get(ino).map(|file| file.data.clone());
        open.or_else(|| self.transfer.uncommitted_file(ino))
    }

    /// Marks the contents of a file as changed elsewhere, whether it is open, about to be opened, or closed with bytes
    /// that could not be committed.
    fn invalidate_data(&self, ino: Ino) {
        self.creations.note_change(ino);
        match self.opens.note_changed(ino) {
            Some(file) => file.invalidate(),
            None => self.transfer.invalidate(ino),
        }
    }

    /// Records `attr`, the result of a change by this mount that was sent at `stamp`.
    fn record_change(&self, stamp: Stamp, attr: &Attr) {
        self.cache.changed_attr(stamp, attr);
        self.pages.advanced(attr.ino, attr.change, self.cache.is_undisturbed(stamp));
        if let Some(file) = self.opens.get(attr.ino) {
            file.update_attr(attr);
        }
    }

    /// Converts the error of a query by inode number. The inode is not found only if it no longer exists. ESTALE makes
    /// the kernel resolve the path again, so the names that led to the inode are removed from the cache first.
    fn stale_if_gone(&self, ino: Ino, error: FsError) -> FsError {
        match error {
            FsError::NoEntry | FsError::Stale { .. } => {
                self.cache.drop_names_of(ino);
                FsError::Stale { ino }
            }
            other => other,
        }
    }
}

fn unexpected(step: &str, answer: &dyn std::fmt::Debug) -> FsError {
    FsError::Internal { detail: format!("{step}: unexpected reply from the namespace: {answer:?}") }
}
