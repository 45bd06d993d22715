//! Which records the store has: the segments they lie in, the index that points at them, and what was taken out.
//!
//! | file | its idea |
//! |---|---|
//! | `removal` | deleted chunks, copies no longer wanted here, damaged records: taken out in one way |
//! | `damage` | the damaged records that wait for a sound copy |
//! | `tombstones` | what was deleted lately |

pub(crate) mod damage;
pub(crate) mod removal;
pub(crate) mod tombstones;

use parking_lot::RwLock;

use self::{damage::DamageLog, tombstones::Tombstones};
use crate::{error::StoreError, index::Index, segment::set::SegmentSet};

pub(crate) struct RecordTable {
    pub index: Index,
    pub segments: SegmentSet,
    pub damage: DamageLog,
    pub tombstones: Tombstones,
    /// Compaction holds it for writing while it moves a piece, and what removes chunks for reading: so a chunk is never
    /// deleted between its being copied and the index pointing at the copy.
    pub removal_gate: RwLock<()>,
}

impl RecordTable {
    pub(crate) fn new(segments: SegmentSet) -> Self {
        Self {
            index: Index::default(),
            segments,
            damage: DamageLog::default(),
            tombstones: Tombstones::default(),
            removal_gate: RwLock::new(()),
        }
    }

    /// When this returns, all that was put or deleted before it was called is on the disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let mut new_names = false;
        for segment in self.segments.all() {
            match segment.sync() {
                Ok(new) => new_names |= new,
                // A segment that was removed meanwhile has nothing left to sync, nor has a wholly dead one.
                Err(_) if segment.live_chunks() == 0 || self.segments.get(segment.number).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        if new_names { self.segments.sync_folder() } else { Ok(()) }
    }
}
