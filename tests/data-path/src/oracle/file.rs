//! One file in the model: its committed contents at every index of the log, and what each mount has written to it.

use std::collections::BTreeMap;

use chordfs_types::{
    chunk::{ChunkId, FileName, Version},
    namespace::Ino,
};

use super::{CHUNK_CELLS, FILE_CELLS};
use crate::plane::Plane;

/// After this many failed requests a mount may have given up what it had not committed: it tries three times.
const TROUBLE_THAT_COSTS: u32 = 3;

pub(super) struct FileModel {
    pub ino: Ino,
    pub name: FileName,
    pub cells: Vec<Cell>,
    /// The versions of its chunks, by their index from 1.
    pub chunks: BTreeMap<u32, Version>,
    /// A chunk of it was lost with the nodes that had it, and a mount may report that at any later time.
    pub had_losses: bool,
    /// A chunk that was replaced before is current again, which a knob allows; its copies may be deleted.
    pub has_replaced_chunk: bool,
    /// A truncation has removed chunks of it.
    pub(super) was_cut: bool,
    own: BTreeMap<usize, OwnCells>,
}

#[derive(Clone)]
pub(super) struct Cell {
    /// Place in the log, and the value from then on.
    history: Vec<(u64, u64)>,
    /// Fsyncs that have promised it.
    pub promises: Vec<FsyncPromise>,
}

/// What a cell held at this place in the log was brought to disk by this mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct FsyncPromise {
    pub mount: usize,
    pub index: u64,
}

/// A mount's own writes to a file.
pub(super) struct OwnCells {
    pub cells: Vec<Vec<OwnValue>>,
    trouble: u32,
    /// A loss may have to be reported.
    was_doubted: bool,
}

/// One cell of one write, or of a truncation, which writes zeros.
#[derive(Clone, Debug)]
pub(super) struct OwnValue {
    pub value: u64,
    pub begun: u64,
    pub done: Option<u64>,
    /// Where in the log it was committed.
    pub committed: Option<u64>,
    /// When the mount got the answer to that commit.
    pub settled: Option<u64>,
    /// It may have been given up, or never taken.
    pub is_doubtful: bool,
}

impl FileModel {
    pub(super) fn new(ino: Ino, name: FileName, index: u64) -> Self {
        let cell = Cell { history: vec![(index, 0)], promises: Vec::new() };
        Self {
            ino,
            name,
            cells: vec![cell; FILE_CELLS],
            chunks: BTreeMap::new(),
            had_losses: false,
            has_replaced_chunk: false,
            was_cut: false,
            own: BTreeMap::new(),
        }
    }

    pub(super) fn own(&mut self, mount: usize) -> &mut OwnCells {
        self.own.entry(mount).or_insert_with(OwnCells::new)
    }

    /// Whether a chunk that it has now is lost.
    pub(super) fn is_damaged(&self, plane: &Plane) -> bool {
        self.chunks.iter().any(|(index, version)| plane.is_lost(ChunkId { version: *version, index: *index }))
    }

    pub(super) fn describe(&self) -> String {
        let values: Vec<String> = self.cells.iter().map(|cell| cell.current().to_string()).collect();
        let chunks = values.chunks(CHUNK_CELLS).map(|chunk| chunk.join(" ")).collect::<Vec<_>>().join(" | ");
        format!("inode {} ({}): {chunks}; chunks {:?}", self.ino.0, self.name, self.chunks)
    }
}

impl Cell {
    pub(super) fn current(&self) -> u64 {
        self.history.last().map_or(0, |(_, value)| *value)
    }

    pub(super) fn set(&mut self, index: u64, value: u64) {
        self.history.push((index, value));
    }

    /// The value at `index` and all later ones.
    pub(super) fn since(&self, index: u64) -> impl Iterator<Item = u64> + '_ {
        let first = self.history.iter().rposition(|(at, _)| *at <= index).unwrap_or(0);
        self.history[first..].iter().map(|(_, value)| *value)
    }
}

impl OwnCells {
    fn new() -> Self {
        Self { cells: vec![Vec::new(); FILE_CELLS], trouble: 0, was_doubted: false }
    }

    pub(super) fn note_trouble(&mut self) {
        self.trouble += 1;
        if self.trouble >= TROUBLE_THAT_COSTS {
            self.doubt();
        }
    }

    /// It may be one failure more.
    pub(super) fn note_conflict(&mut self) {
        if self.trouble + 1 >= TROUBLE_THAT_COSTS {
            self.doubt();
        }
    }

    pub(super) fn forget_trouble(&mut self) {
        self.trouble = 0;
    }

    /// Whatever is not committed may have been given up.
    pub(super) fn doubt(&mut self) {
        self.was_doubted = true;
        for own in self.cells.iter_mut().flatten().filter(|own| own.committed.is_none()) {
            own.is_doubtful = true;
        }
    }

    pub(super) fn has_doubts(&self) -> bool {
        self.was_doubted || self.cells.iter().flatten().any(|own| own.is_doubtful)
    }

    /// The mount knows that what was committed at these places in the log is.
    pub(super) fn settle(&mut self, moment: u64, is_answered: impl Fn(u64) -> bool) {
        for own in self.cells.iter_mut().flatten().filter(|own| own.committed.is_some_and(&is_answered)) {
            own.settled.get_or_insert(moment);
        }
    }
}

impl OwnValue {
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.done.is_some_and(|done| done < other.begun)
    }

    pub(super) fn was_settled_by(&self, moment: u64) -> bool {
        self.settled.is_some_and(|settled| settled <= moment)
    }

    pub(super) fn was_done_by(&self, moment: u64) -> bool {
        self.done.is_some_and(|done| done <= moment)
    }
}

/// The newest of a mount's own values of one cell that were written before `moment`: those that no later one among them
/// replaces. More than one if they were written at the same time.
pub(super) fn newest(own: &[OwnValue], moment: u64) -> impl Iterator<Item = &OwnValue> {
    let done = move |value: &&OwnValue| value.was_done_by(moment);
    own.iter().filter(done).filter(move |value| !own.iter().filter(done).any(|later| value.is_before(later)))
}
