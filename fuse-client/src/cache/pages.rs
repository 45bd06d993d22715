//! Which state of a file the kernel's page cache shows, so that a second reading of an unchanged file needs no request
//! at all: `open` may tell the kernel to keep its pages when the file's change number is the one remembered here.
//!
//! A change of our own moves the number along, for the kernel has seen those bytes. A foreign change removes it; then
//! the next `open` makes the kernel drop its pages.

use std::num::NonZeroUsize;

use chordfs_types::namespace::Ino;
use lru::LruCache;
use parking_lot::Mutex;

pub struct KernelPages {
    shown: Mutex<LruCache<Ino, u64>>,
}

impl KernelPages {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { shown: Mutex::new(LruCache::new(capacity)) }
    }

    /// The file is being opened at `change`. True: the kernel's pages show just that and may stay.
    pub fn opened(&self, ino: Ino, change: u64) -> bool {
        self.shown.lock().put(ino, change) == Some(change)
    }

    /// A change of our own brought the file to `change`. If another mount's change may have come in between
    /// (`undisturbed` is false), what the kernel shows is not known any more.
    pub fn advanced(&self, ino: Ino, change: u64, undisturbed: bool) {
        let mut shown = self.shown.lock();
        if !undisturbed {
            shown.pop(&ino);
        } else if let Some(known) = shown.peek_mut(&ino) {
            *known = change.max(*known);
        }
    }

    pub fn foreign(&self, ino: Ino) {
        self.shown.lock().pop(&ino);
    }

    pub fn clear(&self) {
        self.shown.lock().clear();
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
    fn pages_stay_for_an_unchanged_file_only() {
        let pages = pages();
        assert!(!pages.opened(FILE, 1), "never seen before");
        assert!(pages.opened(FILE, 1));
        assert!(!pages.opened(FILE, 2), "changed meanwhile");
        assert!(pages.opened(FILE, 2));
    }

    #[test]
    fn our_own_change_keeps_the_pages() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.advanced(FILE, 3, true);
        assert!(pages.opened(FILE, 3));
    }

    #[test]
    fn a_foreign_change_loses_them_even_if_we_commit_afterwards() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.foreign(FILE);
        pages.advanced(FILE, 3, true);
        assert!(!pages.opened(FILE, 3));
    }

    #[test]
    fn a_commit_during_which_the_feed_moved_loses_them() {
        let pages = pages();
        pages.opened(FILE, 1);
        pages.advanced(FILE, 3, false);
        assert!(!pages.opened(FILE, 3));
    }
}
