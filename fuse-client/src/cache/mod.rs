//! What the mount remembers so as not to ask again: attributes, names, absent names, chunks, and which state of a file
//! the kernel's pages show. Everything here is bounded, and forgets the least recently used first.
//!
//! What is remembered about the namespace is true while the change feed is connected: another mount's change arrives as
//! an event, which drops what it touched. Two things can overtake an event. An answer asked for before a change and
//! stored after it would bring the old state back; so an answer is stored under the [`Stamp`] taken before asking, and
//! only if neither the feed nor a change of our own has moved since. Fetching is left to `fs`.

pub mod attributes;
pub mod chunks;
pub mod dentries;
pub mod pages;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chordfs_types::namespace::{Attr, EntryName, Ino, Time};
use parking_lot::Mutex;

use self::{attributes::Attributes, dentries::Dentries};
pub use self::{dentries::Dentry, pages::KernelPages};

/// How far the feed and our own changes had come when a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    feed: u64,
    own: u64,
}

/// What a change of our own did to the directory it was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The time of the change, now the directory's mtime and ctime.
    pub at: Time,
    /// Its links became more or fewer by this: subdirectories count.
    pub links: i32,
}

/// Attributes and names. All methods are short and take one lock; none calls out while holding it, but for the epoch.
pub struct MetaCache {
    inner: Mutex<MetaTables>,
    /// Changes of our own that were completed.
    own: AtomicU64,
    feed_epoch: Arc<dyn Fn() -> u64 + Send + Sync>,
}

struct MetaTables {
    attributes: Attributes,
    dentries: Dentries,
}

impl MetaCache {
    /// `feed_epoch`: see `Session::feed_epoch`.
    pub fn new(capacity: NonZeroUsize, feed_epoch: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let inner = MetaTables { attributes: Attributes::new(capacity), dentries: Dentries::new(capacity) };
        Self { inner: Mutex::new(inner), own: AtomicU64::new(0), feed_epoch: Arc::new(feed_epoch) }
    }

    /// Taken before a question is asked.
    pub fn stamp(&self) -> Stamp {
        Stamp { feed: (self.feed_epoch)(), own: self.own.load(Ordering::Acquire) }
    }

    /// Nothing has moved since.
    pub fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp() == stamp
    }

    /// No other mount's change has come since.
    pub fn is_undisturbed(&self, stamp: Stamp) -> bool {
        (self.feed_epoch)() == stamp.feed
    }

    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        self.inner.lock().attributes.fresh(ino)
    }

    /// Also when a change of our own has touched its times: good for what such a change leaves alone, mode and owner.
    pub fn attr_maybe_touched(&self, ino: Ino) -> Option<Attr> {
        self.inner.lock().attributes.any(ino)
    }

    pub fn name(&self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.inner.lock().dentries.get(parent, name)
    }

    /// An answer to a question asked at `stamp`.
    pub fn answer_attr(&self, stamp: Stamp, attr: &Attr) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.attributes.put(attr.clone());
        }
    }

    /// An answer to a question asked at `stamp`; `None` means there is no such name.
    pub fn answer_name(&self, stamp: Stamp, parent: Ino, name: &EntryName, attr: Option<&Attr>) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.put_name(parent, name, attr);
        }
    }

    /// A change of our own is done and left `attr`. Asked at `stamp`: if another mount's change came in between, the
    /// reply may be older than it, and the entry is dropped rather than stored.
    pub fn changed_attr(&self, stamp: Stamp, attr: &Attr) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        if self.is_undisturbed(stamp) {
            inner.attributes.put_newer(attr.clone());
        } else {
            inner.attributes.drop_one(attr.ino);
        }
    }

    /// A change of our own is done, after which `name` in `parent` is `attr`, or gone. `touched` is what it did to the
    /// directory, if that is known.
    pub fn changed_name(
        &self,
        stamp: Stamp,
        parent: Ino,
        name: &EntryName,
        attr: Option<&Attr>,
        touched: Option<Touched>,
    ) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        match touched {
            Some(Touched { at, links }) if self.is_undisturbed(stamp) => inner.attributes.touch_at(parent, at, links),
            _ => inner.attributes.touch(parent),
        }
        if self.is_undisturbed(stamp) {
            inner.put_name(parent, name, attr);
        } else {
            inner.dentries.drop_one(parent, name);
            attr.inspect(|attr| inner.attributes.drop_one(attr.ino));
        }
    }

    /// A rename of our own is done; with `exchange` each name now leads where the other did.
    pub fn renamed(&self, stamp: Stamp, from: (Ino, &EntryName), to: (Ino, &EntryName), exchange: bool) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        let moved = inner.take_name(from.0, from.1);
        let replaced = inner.take_name(to.0, to.1);
        // Two names of one inode: such a rename does nothing, and both stay.
        if !self.is_undisturbed(stamp) || (moved.is_some() && moved == replaced) {
            return;
        }
        if let Some(moved @ Dentry::Present(_)) = moved {
            inner.dentries.put(to.0, to.1.clone(), moved);
        }
        match replaced {
            Some(replaced @ Dentry::Present(_)) if exchange => inner.dentries.put(from.0, from.1.clone(), replaced),
            _ if exchange => {}
            _ => inner.dentries.put(from.0, from.1.clone(), Dentry::Absent),
        }
    }

    /// The attributes of `ino` are not what they were.
    pub fn drop_attr(&self, ino: Ino) {
        self.inner.lock().attributes.drop_one(ino);
    }

    pub fn drop_name(&self, parent: Ino, name: &EntryName) {
        let mut inner = self.inner.lock();
        inner.dentries.drop_one(parent, name);
        inner.attributes.drop_one(parent);
    }

    /// No name leads to `ino` any more, though some may be remembered.
    pub fn drop_names_of(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.dentries.drop_names_of(ino);
        inner.attributes.drop_one(ino);
    }

    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.attributes.clear();
        inner.dentries.clear();
    }
}

impl MetaTables {
    fn put_name(&mut self, parent: Ino, name: &EntryName, attr: Option<&Attr>) {
        self.dentries.put(parent, name.clone(), attr.map_or(Dentry::Absent, |attr| Dentry::Present(attr.ino)));
        if let Some(attr) = attr {
            self.attributes.put_newer(attr.clone());
        }
    }

    /// Forgets a name, the times of its directory, and the attributes of what it leads to.
    fn take_name(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.attributes.touch(parent);
        let known = self.dentries.drop_one(parent, name);
        if let Some(Dentry::Present(ino)) = known {
            self.attributes.drop_one(ino);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::{attr, name};

    fn cache() -> (MetaCache, Arc<AtomicU64>) {
        let epoch = Arc::new(AtomicU64::new(7));
        let shared = epoch.clone();
        let capacity = NonZeroUsize::new(4).expect("four");
        (MetaCache::new(capacity, move || shared.load(Ordering::SeqCst)), epoch)
    }

    #[test]
    fn an_answer_is_kept_while_nothing_moves() {
        let (cache, _) = cache();
        let stamp = cache.stamp();
        cache.answer_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.answer_name(stamp, Ino::ROOT, &name("b"), None);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Present(Ino(5))));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Absent));
        assert_eq!(cache.attr(Ino(5)), Some(attr(5, 1)));
        assert_eq!(cache.name(Ino::ROOT, &name("c")), None);
    }

    #[test]
    fn an_answer_that_the_feed_overtook_is_not_kept() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.answer_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.answer_attr(stamp, &attr(6, 1));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.attr(Ino(5)), None);
        assert_eq!(cache.attr(Ino(6)), None);
    }

    #[test]
    fn an_answer_that_our_own_change_overtook_is_not_kept() {
        let (cache, _) = cache();
        let asked = cache.stamp();
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), None, None);
        cache.answer_name(asked, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Absent));
    }

    #[test]
    fn a_reply_to_our_change_is_dropped_when_another_mount_changed_something_meanwhile() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        cache.answer_attr(stamp, &attr(5, 1));
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.changed_attr(stamp, &attr(5, 2));
        assert_eq!(cache.attr(Ino(5)), None);
    }

    #[test]
    fn a_reply_that_comes_late_does_not_undo_a_later_one() {
        let (cache, _) = cache();
        let stamp = cache.stamp();
        cache.changed_attr(stamp, &attr(5, 9));
        cache.changed_attr(stamp, &attr(5, 8));
        assert_eq!(cache.attr(Ino(5)), Some(attr(5, 9)));
    }

    #[test]
    fn a_change_in_a_directory_touches_its_attributes_but_not_its_mode() {
        let (cache, _) = cache();
        cache.answer_attr(cache.stamp(), &attr(1, 1));
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)), None);
        assert_eq!(cache.attr(Ino::ROOT), None);
        assert_eq!(cache.attr_maybe_touched(Ino::ROOT), Some(attr(1, 1)));
        cache.drop_attr(Ino::ROOT);
        assert_eq!(cache.attr_maybe_touched(Ino::ROOT), None);
    }

    #[test]
    fn what_a_change_did_to_its_directory_is_known_unless_another_mount_came_in_between() {
        let (cache, epoch) = cache();
        let touched = Touched { at: Time { secs: 9, nanos: 0 }, links: 1 };
        cache.answer_attr(cache.stamp(), &attr(1, 1));
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)), Some(touched));
        let known = cache.attr(Ino::ROOT).expect("still fresh");
        assert_eq!((known.mtime.secs, known.ctime.secs, known.nlink), (9, 9, 2));
        let stamp = cache.stamp();
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.changed_name(stamp, Ino::ROOT, &name("b"), Some(&attr(6, 1)), Some(touched));
        assert_eq!(cache.attr(Ino::ROOT), None);
    }

    #[test]
    fn the_names_of_a_lost_inode_are_forgotten() {
        let (cache, _) = cache();
        cache.answer_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.answer_name(cache.stamp(), Ino::ROOT, &name("b"), Some(&attr(6, 1)));
        cache.drop_names_of(Ino(5));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(6))));
    }

    #[test]
    fn a_rename_moves_what_is_known() {
        let (cache, _) = cache();
        cache.answer_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.answer_name(cache.stamp(), Ino::ROOT, &name("b"), Some(&attr(6, 1)));
        cache.renamed(cache.stamp(), (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), true);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Present(Ino(6))));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(5))));
        assert_eq!(cache.attr(Ino(5)), None, "its ctime changed");
        cache.renamed(cache.stamp(), (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), false);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Absent));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(6))));
    }

    #[test]
    fn a_rename_that_another_mount_met_leaves_nothing_known() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        cache.answer_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.renamed(stamp, (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), false);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.name(Ino::ROOT, &name("b")), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let (cache, _) = cache();
        for ino in 10..30 {
            cache.answer_name(cache.stamp(), Ino::ROOT, &name(&ino.to_string()), Some(&attr(ino, 1)));
        }
        assert_eq!(cache.name(Ino::ROOT, &name("10")), None);
        assert_eq!(cache.attr(Ino(10)), None);
        assert_eq!(cache.name(Ino::ROOT, &name("29")), Some(Dentry::Present(Ino(29))));
    }
}
