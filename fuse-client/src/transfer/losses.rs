//! Written data of one inode that was given up, and who knows of it. As Linux keeps it for its own disks: losses are
//! counted, and each handle remembers up to which it was told. So everybody who writes a file hears of a loss at the next
//! `fsync`, whoever else has heard of it, and nobody hears of the same one twice.

use std::sync::atomic::{AtomicU64, Ordering};

use chordfs_types::fs_error::FsError;

#[derive(Default)]
pub struct Losses {
    count: u64,
    newest: Option<FsError>,
    /// Somebody was told of the newest.
    is_told: bool,
}

/// How many losses a handle, or whoever else commits, knows of.
#[derive(Debug, Default)]
pub struct Seen(AtomicU64);

impl Losses {
    pub fn add(&mut self, error: FsError) {
        self.count += 1;
        (self.newest, self.is_told) = (Some(error), false);
    }

    /// For a handle that is opened now: what nobody was told is its business, too.
    pub fn seen_from_now(&self) -> Seen {
        Seen(AtomicU64::new(self.count - u64::from(self.untold().is_some())))
    }

    pub fn untold(&self) -> Option<&FsError> {
        self.newest.as_ref().filter(|_| !self.is_told)
    }

    pub fn has_unseen(&self, seen: &Seen) -> bool {
        self.count > seen.0.load(Ordering::Acquire)
    }

    /// Why data was lost that `seen` has not heard of. It is told again until it has been told `for_good`.
    pub fn tell(&mut self, seen: &Seen, for_good: bool) -> Option<FsError> {
        if !self.has_unseen(seen) {
            return None;
        }
        if for_good {
            seen.0.store(self.count, Ordering::Release);
        }
        self.is_told = true;
        self.newest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_is_told_once_of_each_loss() {
        let mut losses = Losses::default();
        let (one, other) = (losses.seen_from_now(), losses.seen_from_now());
        assert_eq!(losses.tell(&one, true), None);
        losses.add(FsError::NoSpace);
        assert_eq!(losses.untold(), Some(&FsError::NoSpace));
        let late = losses.seen_from_now();
        assert_eq!(losses.tell(&one, false), Some(FsError::NoSpace), "a close may be that of a child");
        assert_eq!(losses.untold(), None);
        let later = losses.seen_from_now();
        assert_eq!(losses.tell(&later, true), None, "of before its time, and told");
        for handle in [&one, &other, &late] {
            assert_eq!(losses.tell(handle, true), Some(FsError::NoSpace));
            assert_eq!(losses.tell(handle, true), None);
        }
        losses.add(FsError::ReadOnly);
        assert_eq!(losses.tell(&other, true), Some(FsError::ReadOnly));
    }
}
