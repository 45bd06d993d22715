//! Write errors of one inode, kept as Linux does for local disks (`errseq_t`): errors are counted, and each handle has
//! a cursor up to which it has received them. So every writer of a file receives each error once at its next `fsync`,
//! no matter which other handles have received it.

use std::sync::atomic::{AtomicU64, Ordering};

use chordfs_types::fs_error::FsError;

#[derive(Default)]
pub(super) struct ErrorSeq {
    count: u64,
    newest: Option<FsError>,
    /// Whether the newest error has been reported to at least one handle.
    is_reported: bool,
}

/// Whether an error is reported to a handle once, or again at its next operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reporting {
    Once,
    Again,
}

/// How many errors of an [`ErrorSeq`] a handle has received.
#[derive(Debug, Default)]
pub struct ErrorCursor(AtomicU64);

impl ErrorSeq {
    pub(super) fn add(&mut self, error: FsError) {
        self.count += 1;
        (self.newest, self.is_reported) = (Some(error), false);
    }

    /// Returns the cursor of a handle that is opened now. An error that no handle has received yet is reported to this
    /// one, too.
    pub(super) fn new_cursor(&self) -> ErrorCursor {
        ErrorCursor(AtomicU64::new(self.count - u64::from(self.unreported().is_some())))
    }

    pub(super) fn unreported(&self) -> Option<&FsError> {
        self.newest.as_ref().filter(|_| !self.is_reported)
    }

    pub(super) fn has_unreported(&self, cursor: &ErrorCursor) -> bool {
        self.count > cursor.0.load(Ordering::Acquire)
    }

    /// Returns the newest error if `cursor` is behind it, and advances the cursor if it is reported only once.
    pub(super) fn report(&mut self, cursor: &ErrorCursor, reporting: Reporting) -> Option<FsError> {
        if !self.has_unreported(cursor) {
            return None;
        }
        if reporting == Reporting::Once {
            cursor.0.store(self.count, Ordering::Release);
        }
        self.is_reported = true;
        self.newest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Reporting::*, *};

    #[test]
    fn each_handle_receives_each_error_once() {
        let mut errors = ErrorSeq::default();
        let (one, other) = (errors.new_cursor(), errors.new_cursor());
        assert_eq!(errors.report(&one, Once), None);
        errors.add(FsError::NoSpace);
        assert_eq!(errors.unreported(), Some(&FsError::NoSpace));
        let late = errors.new_cursor();
        assert_eq!(errors.report(&one, Again), Some(FsError::NoSpace), "a close may be that of a child");
        assert_eq!(errors.unreported(), None);
        let later = errors.new_cursor();
        assert_eq!(errors.report(&later, Once), None, "the error is older than the handle, and was reported");
        for handle in [&one, &other, &late] {
            assert_eq!(errors.report(handle, Once), Some(FsError::NoSpace));
            assert_eq!(errors.report(handle, Once), None);
        }
        errors.add(FsError::ReadOnly);
        assert_eq!(errors.report(&other, Once), Some(FsError::ReadOnly));
    }
}
