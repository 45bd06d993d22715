//! The state of each file that the kernel's page cache holds, so that reading an unchanged file again needs no request:
//! `open` lets the kernel keep its pages if the file's change number equals the one recorded here.
//!
//! A change by this mount advances the number, because the kernel's pages contain those bytes. A change by another
//! mount removes it, and the next `open` makes the kernel drop its pages.

use std::num::NonZeroUsize;

use chordfs_types::namespace::Ino;
use lru::LruCache;
use parking_lot::Mutex;

pub struct KernelPages {
    /// The change number that the kernel's pages correspond to.
    versions: Mutex<LruCache<Ino, u64>>,
}

impl KernelPages {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { versions: Mutex::new(LruCache::new(capacity)) }
    }

    /// Records that the file is opened at `change`. Returns true if the kernel's pages hold that state and may stay.
    pub fn opened(&self, ino: Ino, change: u64) -> bool {
        self.versions.lock().put(ino, change) == Some(change)
    }

    /// Records that a change by this mount brought the file to `change`. If another mount may have changed it meanwhile
    /// (`undisturbed` is false), the state of the kernel's pages is unknown, and the number is removed.
    pub fn advanced(&self, ino: Ino, change: u64, undisturbed: bool) {
        let mut versions = self.versions.lock();
        if !undisturbed {
            versions.pop(&ino);
        } else if let Some(version) = versions.peek_mut(&ino) {
            *version = change.max(*version);
        }
    }

    /// Makes the next `open` drop the kernel's pages of this file.
    pub fn invalidate(&self, ino: Ino) {
        self.versions.lock().pop(&ino);
    }

    pub fn clear(&self) {
        self.versions.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(5);

    fn pages() -> KernelPages {
        KernelPages::new(NonZeroUsize::new(8).expect("eight"))
    }

    #[test]
    fn only_pages_of_an_unchanged_file_are_kept() {
        let pages = pages();
        assert!(!pages.opened(FILE, 1), "never seen before");
        assert!(pages.opened(FILE, 1));
        assert!(!pages.opened(FILE, 2), "changed meanwhile");
        assert!(pages.opened(FILE, 2));
    }

    #[test]
    fn a_change_by_this_mount_keeps_the_pages() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.advanced(FILE, 3, true);
        assert!(pages.opened(FILE, 3));
    }

    #[test]
    fn a_change_by_another_mount_drops_the_pages_even_if_this_mount_commits_afterwards() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.invalidate(FILE);
        pages.advanced(FILE, 3, true);
        assert!(!pages.opened(FILE, 3));
    }

    #[test]
    fn a_commit_during_which_the_feed_advanced_drops_the_pages() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.advanced(FILE, 3, false);
        assert!(!pages.opened(FILE, 3));
    }
}
