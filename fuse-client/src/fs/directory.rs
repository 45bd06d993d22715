//! Reading directories. A directory handle keeps the pages of the listing that it has read, so that an offset from the
//! kernel denotes the same entry for as long as the directory is open. Reading from offset 0 starts a new listing.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, DirEntry, FileKind, Ino, Query},
};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::{FileSystem, unexpected};
use crate::cache::Stamp;

/// The number of offsets before the entries: `.` and `..`.
const DOTS: u64 = 2;

/// One entry of a directory listing.
pub struct ListedEntry<'a> {
    pub ino: Ino,
    pub kind: FileKind,
    pub name: &'a [u8],
    /// The offset at which the listing continues after this entry.
    pub next: u64,
    /// `None` for `.` and `..`.
    pub attr: Option<Attr>,
    /// The attributes are known to be current, so the kernel may cache them.
    pub fresh: bool,
}

#[derive(Default)]
pub(super) struct Directories {
    open: RwLock<HashMap<u64, Arc<Directory>>>,
}

struct Directory {
    ino: Ino,
    listing: Mutex<Listing>,
}

#[derive(Default)]
struct Listing {
    /// Set when the first page has been read.
    parent: Option<Ino>,
    entries: Vec<DirEntry>,
    complete: bool,
    /// Taken before the last page was queried.
    stamp: Option<Stamp>,
}

impl FileSystem {
    /// Opens a directory; returns a handle for [`Self::list`].
    pub fn open_directory(&self, ino: Ino) -> u64 {
        self.removed.remember(self.cache.attr_maybe_touched(ino));
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.directories.open.write().insert(handle, Arc::new(Directory { ino, listing: Mutex::default() }));
        handle
    }

    pub fn close_directory(&self, handle: u64) {
        self.directories.open.write().remove(&handle);
    }

    /// Passes the entries from `offset` on to `take`, until it returns false (that entry was not taken) or a page ends.
    pub async fn list(
        &self,
        handle: u64,
        offset: u64,
        mut take: impl FnMut(ListedEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let directory = self.directories.open.read().get(&handle).cloned();
        let Some(directory) = directory else {
            return Err(FsError::Internal { detail: format!("directory handle {handle} is not open") });
        };
        let mut listing = directory.listing.lock().await;
        if offset == 0 {
            *listing = Listing::default();
        }
        match self.load_up_to(directory.ino, &mut listing, offset).await {
            // A removed directory has no entries, not even the dots.
            Err(FsError::Stale { .. }) if self.removed.mark(directory.ino).is_some() => return Ok(()),
            other => other?,
        }
        for at in offset.. {
            let Some(entry) = self.listed(directory.ino, &listing, at) else { break };
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }

    /// Reads pages until the entry at `offset` is in the listing, or the directory ends.
    async fn load_up_to(&self, ino: Ino, listing: &mut Listing, offset: u64) -> Result<(), FsError> {
        while !listing.complete && (listing.parent.is_none() || listing.entries.len() as u64 + DOTS <= offset) {
            let stamp = self.cache.stamp();
            let after = listing.entries.last().map(|entry| entry.name.clone());
            let answer = self.namespace.query(Query::ReadDir { ino, after }).await;
            match answer.map_err(|error| self.stale_if_gone(ino, error))? {
                Answer::Entries { parent, entries, more } => {
                    self.cache_page(stamp, ino, &entries);
                    listing.add_page(stamp, parent, entries, more);
                }
                other => return Err(unexpected("reading a directory", &other)),
            }
        }
        Ok(())
    }

    fn cache_page(&self, stamp: Stamp, parent: Ino, entries: &[DirEntry]) {
        for entry in entries {
            self.cache.store_name(stamp, parent, &entry.name, Some(&entry.attr));
        }
    }

    fn listed<'a>(&self, ino: Ino, listing: &'a Listing, at: u64) -> Option<ListedEntry<'a>> {
        let dot =
            |ino, name| ListedEntry { ino, kind: FileKind::Directory, name, next: at + 1, attr: None, fresh: false };
        match at {
            0 => Some(dot(ino, b".")),
            1 => Some(dot(listing.parent.unwrap_or(ino), b"..")),
            _ => {
                let entry = listing.entries.get(usize::try_from(at - DOTS).ok()?)?;
                Some(self.listed_entry(entry, listing, at))
            }
        }
    }

    /// An entry with its attributes. A page read a while ago may be outdated: the attributes then come from the cache,
    /// or are marked as not fresh.
    fn listed_entry<'a>(&self, entry: &'a DirEntry, listing: &Listing, at: u64) -> ListedEntry<'a> {
        let cached = self.cached_attr(entry.attr.ino);
        let current = listing.stamp.is_some_and(|stamp| self.cache.is_current(stamp));
        let open = self.opens.is_open(entry.attr.ino);
        ListedEntry {
            ino: entry.attr.ino,
            kind: entry.attr.kind,
            name: entry.name.as_bytes(),
            next: at + 1,
            fresh: cached.is_some() || (current && !open),
            attr: Some(cached.unwrap_or_else(|| self.with_uncommitted(entry.attr.clone()))),
        }
    }
}

impl Listing {
    fn add_page(&mut self, stamp: Stamp, parent: Ino, entries: Vec<DirEntry>, more: bool) {
        self.parent = Some(parent);
        self.complete = !more || entries.is_empty();
        self.stamp = Some(stamp);
        self.entries.extend(entries);
    }
}
