//! Attributes by inode. An entry is fresh, or touched: a change of our own in that directory moved its times, and only
//! the namespace knows to what. Whether an answer may be stored at all is the caller's question.

use std::num::NonZeroUsize;

use chordfs_types::namespace::{Attr, Ino, Time};
use lru::LruCache;

pub struct Attributes {
    entries: LruCache<Ino, CachedAttr>,
}

struct CachedAttr {
    attr: Attr,
    fresh: bool,
}

impl Attributes {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: LruCache::new(capacity) }
    }

    pub fn fresh(&mut self, ino: Ino) -> Option<Attr> {
        self.entries.get(&ino).filter(|entry| entry.fresh).map(|entry| entry.attr.clone())
    }

    pub fn any(&mut self, ino: Ino) -> Option<Attr> {
        self.entries.get(&ino).map(|entry| entry.attr.clone())
    }

    pub fn put(&mut self, attr: Attr) {
        self.entries.put(attr.ino, CachedAttr { attr, fresh: true });
    }

    /// Unless a later state is known already: replies to two changes may arrive in either order.
    pub fn put_newer(&mut self, attr: Attr) {
        let known = self.entries.peek(&attr.ino).map(|entry| entry.attr.change);
        if known.is_none_or(|known| known <= attr.change) {
            self.put(attr);
        }
    }

    /// A change of our own in this directory, made at `at`: it set the directory's times to that, as the tables do, and
    /// changed its links by `links`. Saves asking for it after each creation and removal, for the kernel wants to know.
    pub fn touch_at(&mut self, ino: Ino, at: Time, links: i32) {
        if let Some(CachedAttr { attr, .. }) = self.entries.peek_mut(&ino) {
            (attr.mtime, attr.ctime) = (attr.mtime.max(at), attr.ctime.max(at));
            attr.nlink = attr.nlink.saturating_add_signed(links);
        }
    }

    pub fn touch(&mut self, ino: Ino) {
        if let Some(entry) = self.entries.peek_mut(&ino) {
            entry.fresh = false;
        }
    }

    pub fn drop_one(&mut self, ino: Ino) {
        self.entries.pop(&ino);
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
