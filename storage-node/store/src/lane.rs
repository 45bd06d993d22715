//! A lane: one segment being filled, and the lock under which it is.
//!
//! A store has several, so that puts do not queue behind one lock. Under a lane's lock a put's records are written with
//! one call and entered in the index; syncing and sealing happen after the lock is released. A write that fails is cut
//! off again, so a segment in use ends with its last whole record.

use std::{
    fs::File,
    io::{self, IoSlice},
    sync::Arc,
};

use nix::sys::uio::pwritev;

use super::{Shared, StoreError, relief::Account, segment::Segment};

/// The kernel takes no more slices in one call (IOV_MAX).
const MAX_SLICES: usize = 1024;

#[derive(Default)]
pub struct Lane {
    filling: Option<Filling>,
}

/// The segment that a lane fills.
struct Filling {
    segment: Arc<Segment>,
    file: Arc<File>,
    end: u64,
}

/// A segment that a lane is done with: to be sealed once the lane's lock is released.
#[must_use]
pub struct Full(Filling);

/// Where an append went.
pub struct Appended {
    pub segment: Arc<Segment>,
    pub start: u64,
    pub end: u64,
    /// Sealing may take a while: do it without the lane's lock.
    pub full: Option<Full>,
}

impl Lane {
    /// Writes `slices`, in all `bytes`, one after the other into a segment with a number above `above`.
    ///
    /// On an error nothing was added. The caller tells [`Segment::note`] what that was and then enters it in the index, both
    /// before it lets go of the lock.
    pub fn append(
        &mut self,
        shared: &Shared,
        above: u32,
        slices: &mut [IoSlice<'_>],
        bytes: u64,
    ) -> Result<Appended, StoreError> {
        let full = self.make_room(shared, above, bytes);
        let result = self.write(shared, slices, bytes);
        match result {
            Ok((segment, start)) => Ok(Appended { segment, start, end: start + bytes, full }),
            Err(error) => {
                if let Some(full) = full {
                    full.seal(shared);
                }
                Err(error)
            }
        }
    }

    /// Gives up a segment that is not full, if `worth` says so: only a sealed one can be rewritten or removed.
    pub fn take_if(&mut self, worth: impl FnOnce(&Account) -> bool) -> Option<Full> {
        self.filling.take_if(|filling| worth(&filling.segment.account())).map(Full)
    }

    fn make_room(&mut self, shared: &Shared, above: u32, bytes: u64) -> Option<Full> {
        self.filling
            .take_if(|filling| {
                let fits = filling.end + bytes <= shared.options.segment_bytes;
                filling.end > 0 && !fits || filling.segment.number <= above || filling.segment.has_failed()
            })
            .map(Full)
    }

    fn write(
        &mut self,
        shared: &Shared,
        slices: &mut [IoSlice<'_>],
        bytes: u64,
    ) -> Result<(Arc<Segment>, u64), StoreError> {
        let filling = match &mut self.filling {
            Some(filling) => filling,
            empty => empty.insert(Filling::begin(shared)?),
        };
        let start = filling.end;
        if let Err(source) = write_all_at(&filling.file, slices, start) {
            let error = StoreError::io("write to segment", filling.segment.path(), source);
            self.cut_back();
            return Err(error);
        }
        filling.end = start + bytes;
        filling.segment.set_written(filling.end);
        Ok((filling.segment.clone(), start))
    }

    /// Undoes half a write. Where even that fails the segment is left alone; the next open cuts it.
    fn cut_back(&mut self) {
        let Some(filling) = &self.filling else { return };
        if let Err(error) = filling.file.set_len(filling.end) {
            tracing::error!(path = %filling.segment.path().display(), %error, "half a write could not be undone");
            filling.segment.set_sealed();
            self.filling = None;
        }
    }
}

impl Filling {
    fn begin(shared: &Shared) -> Result<Self, StoreError> {
        let segment = shared.segments.create()?;
        let file = segment.file().map_err(|source| StoreError::io("open segment", segment.path(), source))?.0;
        Ok(Self { segment, file, end: 0 })
    }
}

impl Full {
    /// Brings the segment to the disk and writes its hint. Without either it is read as a whole at the next open.
    pub fn seal(self, shared: &Shared) {
        let Filling { segment, end, .. } = self.0;
        let written = segment.wait_durable(end).and_then(|()| segment.write_hint(end));
        if let Err(error) = written {
            tracing::warn!(%error, "segment sealed without a hint");
        }
        segment.set_sealed();
        segment.close(); // from now on it is opened by those who read it, and counted
        shared.segments.drop_if_dead(&segment);
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
    use crate::{DataFolder, Store, StoreOptions};

    /// A file in memory that is not allowed to grow stands for the disk that is full in the middle of a write.
    fn file_of_at_most(bytes: u64) -> File {
        let file = File::from(memfd_create(c"segment", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(bytes).unwrap();
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        file
    }

    #[test]
    fn half_a_write_is_cut_off_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&DataFolder::open(dir.path()).unwrap(), StoreOptions::default()).unwrap();
        let segment = store.shared.segments.create().unwrap();
        let file = Arc::new(file_of_at_most(100_000));
        let filling = Filling { segment: segment.clone(), file: file.clone(), end: 0 };
        let mut lane = Lane { filling: Some(filling) };
        let bytes = vec![7; 50_000];
        let mut append = |count: usize| {
            let mut slices = vec![IoSlice::new(&bytes); count];
            lane.append(&store.shared, 0, &mut slices, 50_000 * count as u64).map(|appended| appended.start)
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
