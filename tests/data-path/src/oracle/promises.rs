//! What was promised when an operation of a program was answered.

use std::ops::Range;

use chordfs_types::{
    chunk::ChunkId,
    fs_error::FsError,
    namespace::{Ino, Query, Time},
};

use super::{
    CHUNK_CELLS, Oracle,
    file::{FsyncPromise, OwnValue, newest},
};
use crate::{
    namespace::Namespace,
    plane::{Plane, QUORUM},
};

/// A write or a truncation under way.
pub(crate) struct OwnWrite {
    mount: usize,
    ino: Ino,
    cells: Range<usize>,
    begun: u64,
}

impl OwnWrite {
    /// An access time by which a truncation is recognized in the log. It may arrive late, after others of the mount.
    pub(crate) fn mark(&self) -> Time {
        Time { secs: 1_000_000, nanos: self.begun as u32 }
    }
}

impl Oracle {
    /// A program of the mount begins to fill these cells with `value`.
    pub(crate) fn begin_write(&self, mount: usize, ino: Ino, cells: Range<usize>, value: u64) -> OwnWrite {
        let mut state = self.state.lock();
        let begun = state.next_moment();
        if let Some(file) = state.files.get_mut(&ino) {
            for cell in cells.clone() {
                file.own(mount).cells[cell].push(OwnValue {
                    value,
                    begun,
                    done: None,
                    committed: None,
                    settled: None,
                    is_doubtful: false,
                });
            }
        }
        OwnWrite { mount, ino, cells, begun }
    }

    /// It was answered; after an error its bytes may be there or not.
    pub(crate) fn end_write(&self, write: &OwnWrite, is_ok: bool) {
        let mut state = self.state.lock();
        let done = state.next_moment();
        let Some(file) = state.files.get_mut(&write.ino) else { return };
        for cell in write.cells.clone() {
            for own in file.own(write.mount).cells[cell].iter_mut().filter(|own| own.begun == write.begun) {
                own.done = Some(done);
                own.is_doubtful |= !is_ok;
            }
        }
    }

    pub(crate) fn moment(&self) -> u64 {
        self.state.lock().next_moment()
    }

    /// The mount has the answer to a commit of its own, which is at this place in the log. Others may be unanswered.
    pub(crate) fn commit_answered(&self, mount: usize, ino: Ino, index: u64) {
        let mut state = self.state.lock();
        let moment = state.next_moment();
        if let Some(file) = state.files.get_mut(&ino) {
            file.own(mount).settle(moment, |committed| committed == index);
        }
    }

    /// A close or an fsync that began at `begun` was answered with success: all that was written before is committed,
    /// and after an fsync it is on disks.
    pub(crate) fn flushed(
        &self,
        mount: usize,
        ino: Ino,
        begun: u64,
        is_fsync: bool,
        plane: &Plane,
        namespace: &Namespace,
    ) {
        if namespace.query(&Query::GetAttr { ino }).is_err() {
            return;
        }
        let mut state = self.state.lock();
        let moment = state.next_moment();
        let Some(file) = state.files.get_mut(&ino) else { return };
        file.own(mount).forget_trouble();
        file.own(mount).settle(moment, |_| true);
        let own = file.own(mount).cells.clone();
        for (cell, own) in own.iter().enumerate() {
            for value in newest(own, begun).filter(|value| !value.is_doubtful) {
                // If two writes overlap in time, either may be the later one.
                let is_replaced = own.iter().any(|other| other.begun != value.begun && !other.is_before(value));
                if value.committed.is_none() && !is_replaced {
                    let what = if is_fsync { "fsync" } else { "close" };
                    self.world.fail(format!(
                        "{what} of inode {} on mount {mount} succeeded, and {} in cell {cell} is not committed",
                        ino.0, value.value
                    ));
                }
                let is_current = file.cells[cell].current() == value.value && value.value != 0;
                if let Some(committed) = value.committed.filter(|_| is_fsync && is_current) {
                    let index = (cell / CHUNK_CELLS) as u32 + 1;
                    let id = file.chunks.get(&index).map(|version| ChunkId { version: *version, index });
                    let Some(id) = id else { continue };
                    if plane.is_lost(id) && file.own(mount).has_doubts() {
                        continue; // An earlier operation has reported the loss.
                    }
                    file.cells[cell].promises.push(FsyncPromise { mount, index: committed });
                    let disks = plane.on_disks(id);
                    if disks < QUORUM && !file.has_replaced_chunk {
                        self.world.fail(format!(
                            "fsync of inode {} on mount {mount} succeeded; chunk {index}@{} is on {disks} disks",
                            ino.0, id.version.0
                        ));
                    }
                }
            }
        }
    }

    /// A failed fsync gives up what it could not store.
    pub(crate) fn fsync_failed(&self, mount: usize, ino: Ino) {
        let mut state = self.state.lock();
        if let Some(file) = state.files.get_mut(&ino) {
            file.own(mount).doubt();
        }
    }

    /// An operation that began while nothing was wrong has failed. It may if its file is gone, has lost a chunk, or has
    /// a loss to report.
    pub(crate) fn check_error(&self, mount: usize, ino: Ino, what: &str, error: &FsError) {
        let mut state = self.state.lock();
        let is_excused = match state.files.get_mut(&ino) {
            Some(file) => file.had_losses || file.has_replaced_chunk || file.own(mount).has_doubts(),
            None => true,
        };
        let is_about_names = matches!(error, FsError::NoEntry | FsError::Exists | FsError::Stale { .. });
        if !is_excused && !is_about_names {
            self.world.fail(format!(
                "{what} of inode {} on mount {mount} began while nothing was wrong, and failed: {error}",
                ino.0
            ));
        }
    }

    /// Chunks of files that were lost with nodes that had not synced them.
    pub(crate) fn note_losses(&self, plane: &Plane) {
        let mut state = self.state.lock();
        for file in state.files.values_mut() {
            let lost = |(index, version): (&u32, &_)| plane.is_lost(ChunkId { version: *version, index: *index });
            let lost_chunks: Vec<u32> =
                file.chunks.iter().filter(|chunk| lost(*chunk)).map(|(index, _)| *index).collect();
            for index in lost_chunks {
                file.had_losses = true;
                let first = (index as usize - 1) * CHUNK_CELLS;
                if file.cells[first..first + CHUNK_CELLS].iter().any(|cell| !cell.promises.is_empty()) {
                    self.world.fail(format!("chunk {index} of inode {} was fsynced, and is lost", file.ino.0));
                }
            }
        }
    }
}
