//! Reading directories. An open directory keeps what it has read of it, page by page, so that a place in the listing
//! (an offset the kernel hands back) means the same entry for as long as the directory is open; going back to the start
//! reads it anew.

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

/// `.` and `..` come before the entries.
const DOTS: u64 = 2;

/// One entry as it is handed out.
pub struct ListedEntry<'a> {
    pub ino: Ino,
    pub kind: FileKind,
    pub name: &'a [u8],
    /// The offset from which to go on after this one.
    pub next: u64,
    /// `None` for the dots.
    pub attr: Option<Attr>,
    /// The attributes are known to be current, so the kernel may keep them.
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
    /// Dentry once the first page is.
    parent: Option<Ino>,
    entries: Vec<DirEntry>,
    complete: bool,
    /// When the last page was asked for.
    stamp: Option<Stamp>,
}

impl FileSystem {
    /// A handle for [`Self::list`].
    pub fn open_directory(&self, ino: Ino) -> u64 {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.directories.open.write().insert(handle, Arc::new(Directory { ino, listing: Mutex::default() }));
        handle
    }

    pub fn close_directory(&self, handle: u64) {
        self.directories.open.write().remove(&handle);
    }

    /// Gives the entries from `offset` on to `take`, until it returns false (that entry was not taken) or a page ends.
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
        self.load_up_to(directory.ino, &mut listing, offset).await?;
        for at in offset.. {
            let Some(entry) = self.listed(directory.ino, &listing, at) else { break };
            if !take(entry) {
                break;
            }
        }
        Ok(())
    }

    /// After this the entry at `offset` is known, unless the directory ends before it.
    async fn load_up_to(&self, ino: Ino, listing: &mut Listing, offset: u64) -> Result<(), FsError> {
        while !listing.complete && (listing.parent.is_none() || listing.entries.len() as u64 + DOTS <= offset) {
            let stamp = self.cache.stamp();
            let after = listing.entries.last().map(|entry| entry.name.clone());
            let answer = self.namespace.query(Query::ReadDir { ino, after }).await;
            match answer.map_err(|error| self.gone(ino, error))? {
                Answer::Entries { parent, entries, more } => {
                    self.remember_page(stamp, ino, &entries);
                    listing.add_page(stamp, parent, entries, more);
                }
                other => return Err(unexpected("reading a directory", &other)),
            }
        }
        Ok(())
    }

    fn remember_page(&self, stamp: Stamp, parent: Ino, entries: &[DirEntry]) {
        for entry in entries {
            self.cache.answer_name(stamp, parent, &entry.name, Some(&entry.attr));
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

    /// A page read a while ago may be outdated by now: then the attributes come from memory, or are not to be kept.
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
