//! The records of the store: the segments in which they lie, the index that points at them, and the removed ones.
//!
//! | file | its idea |
//! |---|---|
//! | `removal` | removing deleted chunks, surplus copies and damaged records, all in one way |
//! | `damage` | the damaged records that wait for a sound copy |
//! | `tombstones` | the chunks that were deleted recently |

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
    /// Compaction holds it for writing while it moves a piece, removals hold it for reading. So no chunk is deleted
    /// after it was copied and before the index points at the copy.
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

    /// Returns when everything that was put or deleted before the call is on the disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.segments.wait_for_removals();
        for segment in self.segments.all() {
            match segment.sync() {
                Ok(true) => self.segments.note_name_change(),
                Ok(false) => {}
                // A segment that was removed meanwhile need not be synced.
                Err(_) if self.segments.get(segment.number).is_none() => {}
                Err(error) => return Err(error),
            }
        }
        self.segments.sync_names()
    }
}
