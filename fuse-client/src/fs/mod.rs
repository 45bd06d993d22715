//! What POSIX says about each operation: one file per family. A method takes plain values and gives an answer or an
//! [`FsError`]; it knows neither the kernel's protocol nor a socket, so it can be driven by anything that has a
//! runtime.
//!
//! Methods called `try_…` or `cached_…` answer from memory, never wait, and return `None` when they cannot; their
//! `async` siblings ask the namespace or the nodes. Bytes of files are `transfer`'s business, what is remembered is
//! `cache`'s. Permissions are checked by the kernel (`default_permissions`), from the modes and owners given here.

mod data;
mod directory;
mod entries;
mod feed;
mod handle;
mod handles;
mod lookup;
mod open_table;
mod rename;
mod statfs;

use chordfs_net::clients::NamespaceClient;
use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64},
};

use chordfs_net::session::Session;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, Change, Ino, Query, Reply},
};
use tokio::sync::mpsc;

pub use self::{
    data::WriteAt,
    directory::ListedEntry,
    entries::{Caller, NewEntry},
    handle::OpenReply,
    rename::EntryLocation,
    statfs::{SpaceSource, SpaceTotals, Statistics},
};
use self::{directory::Directories, handle::OpenFile, handles::Handles, open_table::OpenTable};
use crate::{
    cache::{KernelPages, MetaCache, Stamp},
    notify::Notices,
    transfer::Transfer,
};

/// How many inodes and names are remembered by default: some 50 MB when full.
pub const DEFAULT_META_ENTRIES: NonZeroUsize = NonZeroUsize::new(131_072).expect("not zero");

pub struct FileSystem {
    namespace: Arc<dyn NamespaceClient>,
    transfer: Arc<Transfer>,
    cache: MetaCache,
    pages: KernelPages,
    opens: OpenTable<OpenFile>,
    handles: Handles,
    directories: Directories,
    notices: Notices,
    space: SpaceSource,
    /// Files whose last handle here was closed after they had lost their last name.
    releases: mpsc::UnboundedSender<Ino>,
    next_handle: AtomicU64,
}

impl FileSystem {
    /// Must be called on the runtime that shall carry its background work.
    pub fn new(session: Session, transfer: Arc<Transfer>, notices: Notices, space: SpaceSource) -> Arc<Self> {
        let epoch = session.clone();
        Self::over(Arc::new(session), move || epoch.feed_epoch(), transfer, notices, space)
    }

    /// Over any namespace. `feed_epoch`: see [`Session::feed_epoch`].
    pub fn over(
        namespace: Arc<dyn NamespaceClient>,
        feed_epoch: impl Fn() -> u64 + Send + Sync + 'static,
        transfer: Arc<Transfer>,
        notices: Notices,
        space: SpaceSource,
    ) -> Arc<Self> {
        let (releases, released) = mpsc::unbounded_channel();
        tokio::spawn(handle::send_releases(namespace.clone(), released));
        let fs = Arc::new(Self {
            cache: MetaCache::new(DEFAULT_META_ENTRIES, feed_epoch),
            pages: KernelPages::new(DEFAULT_META_ENTRIES),
            opens: OpenTable::default(),
            handles: Handles::default(),
            directories: Directories::default(),
            next_handle: AtomicU64::new(1),
            namespace,
            transfer,
            notices,
            space,
            releases,
        });
        let weak = Arc::downgrade(&fs);
        fs.transfer.on_data_loss(move |ino| weak.upgrade().into_iter().for_each(|fs| fs.forget_shown(ino)));
        fs
    }

    /// The kernel's pages, and what is remembered of the file, may show bytes that were given up.
    fn forget_shown(&self, ino: Ino) {
        self.pages.foreign(ino);
        self.cache.drop_attr(ino);
        self.notices.pages(ino);
    }

    /// Everything written so far is committed when this returns.
    pub async fn flush_all(&self) -> Result<(), FsError> {
        self.transfer.flush_all().await
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

    /// A file's attributes with what this mount has written but not committed laid over them.
    fn with_uncommitted(&self, mut attr: Attr) -> Attr {
        if let Some(file) = self.opens.get(attr.ino) {
            file.data.overlay(&mut attr);
        }
        attr
    }

    /// A change of our own, asked for at `stamp`, left the file like this.
    fn changed(&self, stamp: Stamp, attr: &Attr) {
        self.cache.changed_attr(stamp, attr);
        self.pages.advanced(attr.ino, attr.change, self.cache.is_undisturbed(stamp));
        if let Some(file) = self.opens.get(attr.ino) {
            file.remember(attr);
        }
    }

    /// A question about an inode by number finds nothing only when the inode is gone. ESTALE makes the kernel walk the
    /// path again, so the names that led here are forgotten first.
    fn gone(&self, ino: Ino, error: FsError) -> FsError {
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
    FsError::Internal { detail: format!("{step}: the namespace gave an answer of another kind: {answer:?}") }
}
