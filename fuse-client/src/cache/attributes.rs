//! Attributes by inode. An entry is either fresh or touched: touched means that a change by this mount in that
//! directory set its times to values that only the namespace knows. The caller decides whether a reply may be stored.

use std::num::NonZeroUsize;

use chordfs_types::namespace::{Attr, Ino, Time};
use lru::LruCache;

pub struct Attributes {
    entries: LruCache<Ino, CachedAttr>,
}

struct CachedAttr {
    attr: Attr,
    fresh: bool,
    /// Where the inode was seen last.
    parent: Option<Ino>,
}

impl Attributes {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: LruCache::new(capacity) }
    }

    /// The attributes, unless they were touched.
    pub fn fresh(&mut self, ino: Ino) -> Option<Attr> {
        self.entries.get(&ino).filter(|entry| entry.fresh).map(|entry| entry.attr.clone())
    }

    /// The attributes, touched or not.
    pub fn any(&mut self, ino: Ino) -> Option<Attr> {
        self.entries.get(&ino).map(|entry| entry.attr.clone())
    }

    pub fn contains(&self, ino: Ino) -> bool {
        self.entries.contains(&ino)
    }

    pub fn put(&mut self, attr: Attr) {
        let parent = self.parent_hint(attr.ino);
        self.entries.put(attr.ino, CachedAttr { attr, fresh: true, parent });
    }

    /// Stores `attr` unless a later state is cached: replies to two changes may arrive in either order.
    pub fn put_newer(&mut self, attr: Attr) {
        let cached = self.entries.peek(&attr.ino).map(|entry| entry.attr.change);
        if cached.is_none_or(|cached| cached <= attr.change) {
            self.put(attr);
        }
    }

    /// Updates a directory after a change by this mount, as the namespace does: its times become `at`, and its link
    /// count changes by `links`. Saves a query after each creation and removal, when the kernel requests attributes.
    pub fn touch_at(&mut self, ino: Ino, at: Time, links: i32) {
        if let Some(CachedAttr { attr, .. }) = self.entries.peek_mut(&ino) {
            (attr.mtime, attr.ctime) = (attr.mtime.max(at), attr.ctime.max(at));
            attr.nlink = attr.nlink.saturating_add_signed(links);
        }
    }

    /// Notes when inodes were read last.
    pub fn touch_read(&mut self, atimes: &[(Ino, Time)]) {
        for (ino, atime) in atimes {
            if let Some(CachedAttr { attr, .. }) = self.entries.peek_mut(ino) {
                attr.atime = attr.atime.max(*atime);
            }
        }
    }

    pub fn parent_hint(&self, ino: Ino) -> Option<Ino> {
        self.entries.peek(&ino)?.parent
    }

    pub fn hint_parent(&mut self, ino: Ino, parent: Ino) {
        if let Some(entry) = self.entries.peek_mut(&ino) {
            entry.parent = Some(parent);
        }
    }

    /// Marks the attributes as touched.
    pub fn touch(&mut self, ino: Ino) {
        if let Some(entry) = self.entries.peek_mut(&ino) {
            entry.fresh = false;
        }
    }

    pub fn remove(&mut self, ino: Ino) {
        self.entries.pop(&ino);
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
