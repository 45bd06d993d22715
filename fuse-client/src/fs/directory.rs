//! Reading directories. An offset from the kernel denotes the same entry for as long as the directory is open; see
//! [`listing`](super::listing). Reading from offset 0 starts a new listing.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, DirEntry, EntryName, FileKind, Ino, Query},
};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::{
    FileSystem,
    listing::{Listing, PageBounds, Position},
    unexpected,
};
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
    listing: Mutex<OpenListing>,
}

#[derive(Default)]
struct OpenListing {
    /// Set when the first page has been read.
    parent: Option<Ino>,
    entries: Listing,
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
        if offset == 0 {
            self.note_read(directory.ino);
        }
        let mut listing = directory.listing.lock().await;
        if offset == 0 {
            *listing = OpenListing::default();
        }
        match self.load(directory.ino, &mut listing, offset).await {
            // A removed directory has no entries, not even the dots.
            Err(FsError::Stale { .. }) if self.removed.mark(directory.ino).is_some() => return Ok(()),
            other => other?,
        }
        for at in offset.. {
            let entry = match at.checked_sub(DOTS).map(|number| listing.entries.at(number)) {
                None => dot(directory.ino, &listing, at),
                Some(Position::Entry(entry, stamp)) => self.listed_entry(entry, stamp, at),
                Some(Position::Removed) => continue,
                Some(Position::Missing(_) | Position::End) => break,
            };
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }

    /// Reads pages until there is an entry at `offset` or behind it, or the directory ends.
    async fn load(&self, ino: Ino, listing: &mut OpenListing, offset: u64) -> Result<(), FsError> {
        let mut number = offset.saturating_sub(DOTS);
        loop {
            match listing.entries.at(number) {
                Position::Removed => number += 1,
                Position::Missing(bounds) => self.load_page(ino, listing, number, bounds).await?,
                Position::Entry(..) | Position::End => return Ok(()),
            }
        }
    }

    async fn load_page(
        &self,
        ino: Ino,
        listing: &mut OpenListing,
        number: u64,
        bounds: PageBounds,
    ) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let (parent, mut entries, mut more) = self.query_page(ino, bounds.after).await?;
        // Names created since may have pushed the last ones out of the page.
        while let (true, Some(upto), Some(last)) = (more, &bounds.last, entries.last())
            && last.name < *upto
        {
            let (_, next, more_after) = self.query_page(ino, Some(last.name.clone())).await?;
            more = more_after && !next.is_empty();
            entries.extend(next);
        }
        self.cache_page(stamp, ino, &entries);
        listing.parent = Some(parent);
        listing.entries.add_page(number, entries, more, stamp);
        Ok(())
    }

    async fn query_page(&self, ino: Ino, after: Option<EntryName>) -> Result<(Ino, Vec<DirEntry>, bool), FsError> {
        let answer = self.namespace.query(Query::ReadDir { ino, after }).await;
        match answer.map_err(|error| self.stale_if_gone(ino, error))? {
            Answer::Entries { parent, entries, more } => Ok((parent, entries, more)),
            other => Err(unexpected("reading a directory", &other)),
        }
    }

    fn cache_page(&self, stamp: Stamp, parent: Ino, entries: &[DirEntry]) {
        for entry in entries {
            self.cache.store_name(stamp, parent, &entry.name, Some(&entry.attr));
        }
    }

    /// An entry with its attributes. A page read a while ago may be outdated: the attributes then come from the cache,
    /// or are marked as not fresh.
    fn listed_entry<'a>(&self, entry: &'a DirEntry, stamp: Stamp, at: u64) -> ListedEntry<'a> {
        let cached = self.cached_attr(entry.attr.ino);
        let open = self.opens.is_open(entry.attr.ino);
        ListedEntry {
            ino: entry.attr.ino,
            kind: entry.attr.kind,
            name: entry.name.as_bytes(),
            next: at + 1,
            fresh: cached.is_some() || (self.cache.is_current(stamp) && !open),
            attr: Some(cached.unwrap_or_else(|| self.with_uncommitted(entry.attr.clone()))),
        }
    }
}

fn dot(ino: Ino, listing: &OpenListing, at: u64) -> ListedEntry<'static> {
    let (ino, name): (Ino, &[u8]) = if at == 0 { (ino, b".") } else { (listing.parent.unwrap_or(ino), b"..") };
    ListedEntry { ino, kind: FileKind::Directory, name, next: at + 1, attr: None, fresh: false }
}
