//! The caches of a mount: attributes, names, absent names, chunks, and the state of each file that the kernel's pages
//! hold. All of them are bounded and evict the least recently used entry first.
//!
//! Cached attributes and names may be used while this mount's leases last and it has handled every event: the namespace
//! answers no change before the mounts that remember what was before have dropped it. A reply to a query that was sent
//! before a change must not be stored after it, since that would bring the old state back. So the caller takes a
//! [`Stamp`] before the query, and the reply is stored only if neither the feed nor this mount's changes have advanced
//! since. Fetching is left to `fs`.

pub mod attributes;
pub mod chunks;
pub mod contents;
pub mod dentries;
mod kernel_names;
mod own_changes;
pub mod pages;
mod xattrs;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chordfs_types::namespace::{Attr, EntryName, Extent, Ino, InodeFlags, Time, Xattrs};
use parking_lot::Mutex;

use self::{
    attributes::Attributes, contents::Contents, dentries::Dentries, own_changes::OwnChanges, xattrs::KnownXattrs,
};
pub use self::{dentries::Dentry, kernel_names::KernelNames, own_changes::OwnChange, pages::KernelPages};

/// How many inodes are known to be in use.
const MAX_USED: usize = 131_072;

/// The position of the change feed and of this mount's changes at the time of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    feed: u64,
    own: u64,
}

/// The effect of a change by this mount on the directory in which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryUpdate {
    /// The time of the change, now the directory's mtime and ctime.
    pub at: Time,
    /// The difference in the directory's link count, which includes its subdirectories.
    pub links: i32,
}

/// The cache of attributes and names. All methods are short and take one lock; while holding it they call nothing but
/// `feed_epoch`.
pub struct MetaCache {
    inner: Mutex<MetaTables>,
    /// The number of completed changes by this mount.
    own: AtomicU64,
    feed_epoch: Arc<dyn Fn() -> u64 + Send + Sync>,
    is_usable: Arc<dyn Fn() -> bool + Send + Sync>,
}

struct MetaTables {
    attributes: Attributes,
    contents: Contents,
    xattrs: KnownXattrs,
    dentries: Dentries,
    changing: OwnChanges,
    /// Directories and files of which something was answered from here since the last event about them.
    used: HashSet<Ino>,
}

impl MetaCache {
    /// `feed_epoch` returns the position of the change feed, and `is_usable` whether anything may be answered from
    /// memory: see `Session::feed_epoch` and `Session::memory_usable_for`.
    pub fn new(
        capacity: NonZeroUsize,
        feed_epoch: impl Fn() -> u64 + Send + Sync + 'static,
        is_usable: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let (attributes, dentries) = (Attributes::new(capacity), Dentries::new(capacity));
        let inner = MetaTables {
            attributes,
            contents: Contents::default(),
            xattrs: KnownXattrs::default(),
            dentries,
            changing: OwnChanges::default(),
            used: HashSet::new(),
        };
        let (feed_epoch, is_usable) = (Arc::new(feed_epoch), Arc::new(is_usable));
        Self { inner: Mutex::new(inner), own: AtomicU64::new(0), feed_epoch, is_usable }
    }

    /// Returns the current position. To be called before a query or change is sent.
    pub fn stamp(&self) -> Stamp {
        Stamp { feed: (self.feed_epoch)(), own: self.own.load(Ordering::Acquire) }
    }

    /// Returns true if neither the feed nor this mount's changes have advanced since `stamp`.
    pub fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp() == stamp
    }

    /// Returns true if no change by another mount has arrived since `stamp`.
    pub fn is_undisturbed(&self, stamp: Stamp) -> bool {
        (self.feed_epoch)() == stamp.feed
    }

    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        let mut inner = self.inner.lock();
        let may_answer = (self.is_usable)() && !inner.changing.concern(ino);
        let attr = may_answer.then(|| inner.attributes.fresh(ino)).flatten();
        inner.note_use(ino, attr.is_some());
        attr
    }

    /// The attributes and all extents of a file, if both are known.
    pub fn opened(&self, ino: Ino) -> Option<(Attr, Vec<Extent>)> {
        let mut inner = self.inner.lock();
        if !(self.is_usable)() || inner.changing.concern(ino) {
            return None;
        }
        let attr = inner.attributes.fresh(ino)?;
        let extents = inner.contents.of(&attr)?;
        inner.note_use(ino, true);
        Some((attr, extents))
    }

    /// The flags of an inode. What this mount writes leaves them as they are.
    pub fn flags(&self, ino: Ino) -> Option<InodeFlags> {
        let mut inner = self.inner.lock();
        let may_answer = (self.is_usable)() && !inner.changing.concern(ino);
        let attr = may_answer.then(|| inner.attributes.any(ino)).flatten();
        inner.note_use(ino, attr.is_some());
        attr.map(|attr| attr.flags)
    }

    /// The extended attributes of an inode, if they are known.
    pub fn xattrs(&self, ino: Ino) -> Option<Arc<Xattrs>> {
        let mut inner = self.inner.lock();
        let may_answer = (self.is_usable)() && !inner.changing.concern(ino);
        let xattrs = may_answer.then(|| inner.xattrs.get(ino)).flatten();
        inner.note_use(ino, xattrs.is_some());
        xattrs
    }

    /// Stores the reply to a query sent at `stamp`, if it is still current.
    pub fn store_xattrs(&self, stamp: Stamp, ino: Ino, xattrs: Arc<Xattrs>) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.xattrs.put(ino, xattrs);
        }
    }

    /// The directory in which the inode was seen last, which may have changed since.
    pub fn parent_hint(&self, ino: Ino) -> Option<Ino> {
        self.inner.lock().attributes.parent_hint(ino)
    }

    /// Whether the attributes of the inode are known, and no change by this mount that concerns them is under way.
    pub fn remembers(&self, ino: Ino) -> bool {
        let inner = self.inner.lock();
        inner.attributes.contains(ino) && !inner.changing.concern(ino)
    }

    /// Whether it is known where the name leads, and no change by this mount that concerns it is under way.
    pub fn remembers_name(&self, parent: Ino, name: &EntryName) -> bool {
        let inner = self.inner.lock();
        inner.dentries.contains(parent, name) && !inner.changing.concern_name(parent, name)
    }

    /// The attributes even if a change by this mount has touched the times. Mode and owner are still valid then.
    pub fn attr_maybe_touched(&self, ino: Ino) -> Option<Attr> {
        self.inner.lock().attributes.any(ino)
    }

    pub fn name(&self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        let mut inner = self.inner.lock();
        let may_answer = (self.is_usable)() && !inner.changing.concern_name(parent, name);
        let dentry = may_answer.then(|| inner.dentries.get(parent, name)).flatten();
        inner.note_use(parent, dentry.is_some());
        dentry
    }

    /// Whether something about the inode was answered from here since the last call.
    pub fn take_use(&self, ino: Ino) -> bool {
        self.inner.lock().used.remove(&ino)
    }

    /// Notes when inodes were read last.
    pub fn touch_read(&self, atimes: &[(Ino, Time)]) {
        self.inner.lock().attributes.touch_read(atimes);
    }

    /// Stores the reply to a query sent at `stamp`, if it is still current.
    pub fn store_attr(&self, stamp: Stamp, attr: &Attr) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.attributes.put(attr.clone());
        }
    }

    /// Stores the attributes and all extents of a file, the reply to a query sent at `stamp`, if it is still current.
    pub fn store_opened(&self, stamp: Stamp, attr: &Attr, extents: Vec<Extent>) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.attributes.put(attr.clone());
            inner.contents.put(attr, extents);
        }
    }

    /// Stores the reply to a query sent at `stamp`, if it is still current; `None` means there is no such name.
    pub fn store_name(&self, stamp: Stamp, parent: Ino, name: &EntryName, attr: Option<&Attr>) {
        let mut inner = self.inner.lock();
        if self.is_current(stamp) {
            inner.put_name(parent, name, attr);
        }
    }

    /// Stores `attr`, the result of a change by this mount that was sent at `stamp`. If a change by another mount has
    /// arrived in between, `attr` may be older, so the entry is removed instead.
    pub fn changed_attr(&self, stamp: Stamp, attr: &Attr) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        inner.contents.remove(attr.ino);
        if attr.flags.has_xattrs {
            // A change of the mode changes the list, and no event tells of this mount's own changes.
            inner.xattrs.remove(attr.ino);
        }
        if self.is_undisturbed(stamp) {
            inner.attributes.put_newer(attr.clone());
        } else {
            inner.attributes.remove(attr.ino);
        }
    }

    /// Stores the result of a change by this mount that was sent at `stamp`: `name` in `parent` now leads to `attr`, or
    /// is absent. `update` is the effect on the directory, if known.
    pub fn changed_name(
        &self,
        stamp: Stamp,
        parent: Ino,
        name: &EntryName,
        attr: Option<&Attr>,
        update: Option<DirectoryUpdate>,
    ) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        match update {
            Some(DirectoryUpdate { at, links }) if self.is_undisturbed(stamp) => {
                inner.attributes.touch_at(parent, at, links)
            }
            _ => inner.attributes.touch(parent),
        }
        if self.is_undisturbed(stamp) {
            inner.put_name(parent, name, attr);
        } else {
            inner.dentries.remove(parent, name);
            attr.inspect(|attr| inner.attributes.remove(attr.ino));
        }
    }

    /// Stores the result of a rename by this mount that was sent at `stamp`; with `exchange` the names are swapped.
    pub fn renamed(&self, stamp: Stamp, from: (Ino, &EntryName), to: (Ino, &EntryName), exchange: bool) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        let moved = inner.take_name(from.0, from.1);
        let replaced = inner.take_name(to.0, to.1);
        // A rename between two names of one inode has no effect: both names remain.
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

    /// Removes the attributes of `ino`, which have changed.
    pub fn drop_attr(&self, ino: Ino) {
        self.inner.lock().forget(ino);
    }

    /// Removes the attributes of `ino` after a change by this mount whose result is not known here.
    pub fn forget_attr(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        self.own.fetch_add(1, Ordering::AcqRel);
        inner.forget(ino);
    }

    /// Removes a name and the attributes of its directory.
    pub fn drop_name(&self, parent: Ino, name: &EntryName) {
        let mut inner = self.inner.lock();
        inner.dentries.remove(parent, name);
        inner.attributes.remove(parent);
    }

    /// Removes all names in a directory, the absent ones too.
    pub fn drop_names_in(&self, parent: Ino) {
        self.inner.lock().dentries.drop_names_in(parent);
    }

    /// Removes `ino`, which no longer exists, and all names that lead to it.
    pub fn drop_names_of(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.dentries.drop_names_of(ino);
        inner.forget(ino);
    }

    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.attributes.clear();
        inner.contents.clear();
        inner.xattrs.clear();
        inner.dentries.clear();
        inner.used.clear();
    }
}

impl MetaTables {
    fn note_use(&mut self, ino: Ino, is_answered: bool) {
        if is_answered && self.used.insert(ino) && self.used.len() > MAX_USED {
            // Only an event would have removed them. Inodes that count as unused are asked about again, no more.
            self.used.clear();
        }
    }

    fn put_name(&mut self, parent: Ino, name: &EntryName, attr: Option<&Attr>) {
        self.dentries.put(parent, name.clone(), attr.map_or(Dentry::Absent, |attr| Dentry::Present(attr.ino)));
        if let Some(attr) = attr {
            self.attributes.put_newer(attr.clone());
            self.attributes.hint_parent(attr.ino, parent);
        }
    }

    fn forget(&mut self, ino: Ino) {
        self.attributes.remove(ino);
        self.contents.remove(ino);
        self.xattrs.remove(ino);
    }

    /// Removes a name and the attributes of its inode, and marks those of its directory as touched.
    fn take_name(&mut self, parent: Ino, name: &EntryName) -> Option<Dentry> {
        self.attributes.touch(parent);
        let removed = self.dentries.remove(parent, name);
        if let Some(Dentry::Present(ino)) = removed {
            self.attributes.remove(ino);
        }
        removed
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
        (MetaCache::new(capacity, move || shared.load(Ordering::SeqCst), || true), epoch)
    }

    #[test]
    fn a_reply_is_stored_while_nothing_changes() {
        let (cache, _) = cache();
        let stamp = cache.stamp();
        cache.store_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.store_name(stamp, Ino::ROOT, &name("b"), None);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Present(Ino(5))));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Absent));
        assert_eq!(cache.attr(Ino(5)), Some(attr(5, 1)));
        assert_eq!(cache.name(Ino::ROOT, &name("c")), None);
    }

    #[test]
    fn a_reply_that_the_feed_overtook_is_not_stored() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.store_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.store_attr(stamp, &attr(6, 1));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.attr(Ino(5)), None);
        assert_eq!(cache.attr(Ino(6)), None);
    }

    #[test]
    fn a_reply_that_a_change_by_this_mount_overtook_is_not_stored() {
        let (cache, _) = cache();
        let queried = cache.stamp();
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), None, None);
        cache.store_name(queried, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Absent));
    }

    #[test]
    fn the_result_of_a_change_is_dropped_when_another_mount_changed_something_meanwhile() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        cache.store_attr(stamp, &attr(5, 1));
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.changed_attr(stamp, &attr(5, 2));
        assert_eq!(cache.attr(Ino(5)), None);
    }

    #[test]
    fn a_late_result_does_not_replace_a_newer_one() {
        let (cache, _) = cache();
        let stamp = cache.stamp();
        cache.changed_attr(stamp, &attr(5, 9));
        cache.changed_attr(stamp, &attr(5, 8));
        assert_eq!(cache.attr(Ino(5)), Some(attr(5, 9)));
    }

    #[test]
    fn a_change_in_a_directory_touches_its_attributes_but_not_its_mode() {
        let (cache, _) = cache();
        cache.store_attr(cache.stamp(), &attr(1, 1));
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)), None);
        assert_eq!(cache.attr(Ino::ROOT), None);
        assert_eq!(cache.attr_maybe_touched(Ino::ROOT), Some(attr(1, 1)));
        cache.drop_attr(Ino::ROOT);
        assert_eq!(cache.attr_maybe_touched(Ino::ROOT), None);
    }

    #[test]
    fn the_directory_is_updated_unless_another_mount_changed_something_meanwhile() {
        let (cache, epoch) = cache();
        let update = DirectoryUpdate { at: Time { secs: 9, nanos: 0 }, links: 1 };
        cache.store_attr(cache.stamp(), &attr(1, 1));
        cache.changed_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)), Some(update));
        let root = cache.attr(Ino::ROOT).expect("still fresh");
        assert_eq!((root.mtime.secs, root.ctime.secs, root.nlink), (9, 9, 2));
        let stamp = cache.stamp();
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.changed_name(stamp, Ino::ROOT, &name("b"), Some(&attr(6, 1)), Some(update));
        assert_eq!(cache.attr(Ino::ROOT), None);
    }

    #[test]
    fn the_names_of_a_deleted_inode_are_removed() {
        let (cache, _) = cache();
        cache.store_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.store_name(cache.stamp(), Ino::ROOT, &name("b"), Some(&attr(6, 1)));
        cache.drop_names_of(Ino(5));
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(6))));
    }

    #[test]
    fn a_rename_moves_cached_names() {
        let (cache, _) = cache();
        cache.store_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.store_name(cache.stamp(), Ino::ROOT, &name("b"), Some(&attr(6, 1)));
        cache.renamed(cache.stamp(), (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), true);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Present(Ino(6))));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(5))));
        assert_eq!(cache.attr(Ino(5)), None, "its ctime changed");
        cache.renamed(cache.stamp(), (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), false);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), Some(Dentry::Absent));
        assert_eq!(cache.name(Ino::ROOT, &name("b")), Some(Dentry::Present(Ino(6))));
    }

    #[test]
    fn a_rename_during_a_change_by_another_mount_removes_both_names() {
        let (cache, epoch) = cache();
        let stamp = cache.stamp();
        cache.store_name(stamp, Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        epoch.fetch_add(1, Ordering::SeqCst);
        cache.renamed(stamp, (Ino::ROOT, &name("a")), (Ino::ROOT, &name("b")), false);
        assert_eq!(cache.name(Ino::ROOT, &name("a")), None);
        assert_eq!(cache.name(Ino::ROOT, &name("b")), None);
    }

    #[test]
    fn nothing_is_answered_while_the_memory_may_not_be_used() {
        let usable = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let shared = usable.clone();
        let cache = MetaCache::new(NonZeroUsize::MIN, || 0, move || shared.load(Ordering::SeqCst));
        cache.store_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        usable.store(false, Ordering::SeqCst);
        assert_eq!((cache.name(Ino::ROOT, &name("a")), cache.attr(Ino(5))), (None, None));
        usable.store(true, Ordering::SeqCst);
        assert!(cache.name(Ino::ROOT, &name("a")).is_some() && cache.attr(Ino(5)).is_some());
    }

    #[test]
    fn what_a_change_under_way_concerns_is_not_answered() {
        let (cache, _) = cache();
        cache.store_name(cache.stamp(), Ino::ROOT, &name("a"), Some(&attr(5, 1)));
        cache.store_name(cache.stamp(), Ino::ROOT, &name("b"), None);
        let first = cache.begin_own_change(vec![(Ino::ROOT, name("a"))], vec![Ino(5)]);
        let second = cache.begin_own_change(vec![(Ino::ROOT, name("a"))], vec![]);
        drop(first);
        assert!(cache.attr(Ino(5)).is_some() && cache.name(Ino::ROOT, &name("a")).is_none());
        assert!(cache.name(Ino::ROOT, &name("b")).is_some());
        drop(second);
        assert!(cache.remembers_name(Ino::ROOT, &name("a")));
    }

    #[test]
    fn the_cache_is_bounded() {
        let (cache, _) = cache();
        for ino in 10..30 {
            cache.store_name(cache.stamp(), Ino::ROOT, &name(&ino.to_string()), Some(&attr(ino, 1)));
        }
        assert_eq!(cache.name(Ino::ROOT, &name("10")), None);
        assert_eq!(cache.attr(Ino(10)), None);
        assert_eq!(cache.name(Ino::ROOT, &name("29")), Some(Dentry::Present(Ino(29))));
    }
}
