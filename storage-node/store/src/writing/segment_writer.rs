//! A segment writer: one segment being filled, used under a lock.
//!
//! A store has several, so that puts do not queue behind one lock. Under a writer's lock a put's records are written
//! with one call and entered in the index; syncing and sealing happen after the lock is released. A failed write is cut
//! off again, so a segment in use ends with its last whole record.

use chordfs_log::{error_limited, warn_limited};
use std::{
    fs::File,
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use nix::sys::uio::pwritev;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    error::StoreError,
    segment::{Segment, SegmentUsage, set::SegmentSet},
};

/// The most slices that the kernel accepts in one call (IOV_MAX).
const MAX_SLICES: usize = 1024;

/// The writers that puts share.
pub(crate) struct SegmentWriters {
    writers: Box<[Mutex<SegmentWriter>]>,
    next: AtomicUsize,
}

#[derive(Default)]
pub(crate) struct SegmentWriter {
    open: Option<OpenSegment>,
}

/// The segment that a writer fills.
struct OpenSegment {
    segment: Arc<Segment>,
    file: Arc<File>,
    end: u64,
}

/// A segment that a writer is done with: to be sealed once the writer's lock is released.
#[must_use]
pub(crate) struct FilledSegment(OpenSegment);

/// Where an append went.
pub(crate) struct Appended {
    pub segment: Arc<Segment>,
    pub start: u64,
    pub end: u64,
    /// Sealing may take a while: do it without the writer's lock.
    pub full: Option<FilledSegment>,
}

impl SegmentWriters {
    /// `count` is at least one.
    pub(crate) fn new(count: usize) -> Self {
        Self { writers: (0..count).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// A writer for one append: a free one if there is any.
    pub(crate) fn any(&self) -> MutexGuard<'_, SegmentWriter> {
        let first = self.next.fetch_add(1, Relaxed);
        let writer = |at: usize| &self.writers[(first.wrapping_add(at)) % self.writers.len()];
        (0..self.writers.len()).find_map(|at| writer(at).try_lock()).unwrap_or_else(|| writer(0).lock())
    }

    /// Whether an append of `bytes` would find a free writer whose open segment has room, whichever it takes.
    pub(crate) fn have_room(&self, segments: &SegmentSet, bytes: u64) -> bool {
        let has_room = |open: &OpenSegment| !open.segment.has_failed() && open.end + bytes <= segments.segment_bytes;
        self.writers.iter().all(|writer| writer.try_lock().is_some_and(|it| it.open.as_ref().is_some_and(has_room)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mutex<SegmentWriter>> {
        self.writers.iter()
    }
}

impl SegmentWriter {
    /// Writes `slices`, in all `bytes`, one after the other into a segment with a number above `above`.
    ///
    /// After an error nothing was added. The caller passes the added entries to [`Segment::note`] and then enters them
    /// in the index, both before it releases the lock.
    pub(crate) fn append(
        &mut self,
        segments: &SegmentSet,
        above: u32,
        slices: &mut [IoSlice<'_>],
        bytes: u64,
    ) -> Result<Appended, StoreError> {
        let full = self.make_room(segments, above, bytes);
        let result = self.write(segments, slices, bytes);
        match result {
            Ok((segment, start)) => Ok(Appended { segment, start, end: start + bytes, full }),
            Err(error) => {
                if let Some(full) = full {
                    full.seal(segments);
                }
                Err(error)
            }
        }
    }

    /// Releases a segment that is not full if `worth` returns true, as only sealed segments can be rewritten or
    /// removed.
    pub(crate) fn take_if(&mut self, worth: impl FnOnce(&SegmentUsage) -> bool) -> Option<FilledSegment> {
        self.open.take_if(|open| worth(&open.segment.usage())).map(FilledSegment)
    }

    fn make_room(&mut self, segments: &SegmentSet, above: u32, bytes: u64) -> Option<FilledSegment> {
        self.open
            .take_if(|open| {
                let fits = open.end + bytes <= segments.segment_bytes;
                open.end > 0 && !fits || open.segment.number <= above || open.segment.has_failed()
            })
            .map(FilledSegment)
    }

    fn write(
        &mut self,
        segments: &SegmentSet,
        slices: &mut [IoSlice<'_>],
        bytes: u64,
    ) -> Result<(Arc<Segment>, u64), StoreError> {
        let open = match &mut self.open {
            Some(open) => open,
            empty => empty.insert(OpenSegment::begin(segments)?),
        };
        let start = open.end;
        if let Err(source) = write_all_at(&open.file, slices, start) {
            let error = StoreError::io("write to segment", open.segment.path(), source);
            self.cut_back();
            return Err(error);
        }
        open.end = start + bytes;
        open.segment.set_written(open.end);
        Ok((open.segment.clone(), start))
    }

    /// Cuts off a partial write. If that fails, no more records are written to the segment, and the next open cuts it.
    fn cut_back(&mut self) {
        let Some(open) = &self.open else { return };
        if let Err(error) = open.file.set_len(open.end) {
            error_limited!(path = %open.segment.path().display(), %error, "a partial write could not be cut off; the segment is sealed, and the next start cuts it");
            open.segment.set_sealed();
            self.open = None;
        }
    }
}

impl OpenSegment {
    fn begin(segments: &SegmentSet) -> Result<Self, StoreError> {
        let segment = segments.create()?;
        let file = segment.file().map_err(|source| StoreError::io("open segment", segment.path(), source))?.0;
        Ok(Self { segment, file, end: 0 })
    }
}

impl FilledSegment {
    /// Syncs the segment and writes its hint. If either fails, the whole segment is read at the next open.
    pub(crate) fn seal(self, segments: &SegmentSet) {
        let OpenSegment { segment, end, .. } = self.0;
        let written = segment.wait_durable(end).and_then(|()| segment.write_hint(end));
        if let Err(error) = written {
            warn_limited!(%error, "segment sealed without a hint");
        }
        segment.set_sealed();
        segment.close(); // from now on readers open it, and it counts as an open file
        segments.drop_if_dead(&segment);
    }
}

fn write_all_at(file: &File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !slices.is_empty() {
        let now = slices.len().min(MAX_SLICES);
        match pwritev(file, &slices[..now], offset as i64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::{
        fcntl::{FcntlArg, SealFlag, fcntl},
        sys::memfd::{MFdFlags, memfd_create},
    };

    use super::*;

    /// A memory file that must not grow stands for a disk that becomes full during a write.
    fn file_of_at_most(bytes: u64) -> File {
        let file = File::from(memfd_create(c"segment", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(bytes).unwrap();
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        file
    }

    #[test]
    fn a_partial_write_is_cut_off_again() {
        let dir = tempfile::tempdir().unwrap();
        let segments = SegmentSet::new(dir.path().to_owned(), 128 << 20, 256);
        let segment = segments.create().unwrap();
        let file = Arc::new(file_of_at_most(100_000));
        let open = OpenSegment { segment: segment.clone(), file: file.clone(), end: 0 };
        let mut writer = SegmentWriter { open: Some(open) };
        let bytes = vec![7; 50_000];
        let mut append = |count: usize| {
            let mut slices = vec![IoSlice::new(&bytes); count];
            writer.append(&segments, 0, &mut slices, 50_000 * count as u64).map(|appended| appended.start)
        };
        assert_eq!(append(1).unwrap(), 0);
        assert!(append(3).is_err());
        assert_eq!(file.metadata().unwrap().len(), 50_000, "what was written of the second is gone, the first stays");
        assert_eq!(segment.written_bytes(), 50_000);
    }

    #[test]
    fn more_slices_than_the_kernel_takes_at_once() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|at| at as u8).collect();
        let mut slices: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
        write_all_at(&file, &mut slices, 3).unwrap();
        let mut found = vec![0; 5000];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 3).unwrap();
        assert_eq!(found, bytes);
    }
}
