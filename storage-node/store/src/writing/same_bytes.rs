//! Checks that a chunk which is sent again has the bytes that are stored under its id.
//!
//! A peer that reaches a node could otherwise store bytes under the ids that a writer is going to use, and the writer's
//! own put would be acknowledged and not stored. Only chunks that are here already cost a read: of their headers,
//! whose checksum covers name and data. That is usually served from the page cache.

use chordfs_types::chunk::{RECORD_HEADER_BYTES, RecordHeader};

use crate::{
    error::StoreError,
    index::{IndexEntry, RecordLocation},
    reading::spans::{ReadItem, is_sound, read_spans},
    records::RecordTable,
};

/// A chunk of a batch that is here already, with the location of its record here.
pub(super) type StoredAgain = (RecordHeader, RecordLocation);

/// Errors: `Conflict` names the first chunk whose stored bytes differ. A damaged record differs from nothing; repair
/// replaces it.
pub(super) fn check(table: &RecordTable, again: &[StoredAgain]) -> Result<(), StoreError> {
    let item = |(asked, (sent, location)): (usize, &StoredAgain)| {
        let entry = IndexEntry { key: sent.key, id: sent.id, location: *location };
        ReadItem { entry, take: RECORD_HEADER_BYTES as u32, asked }
    };
    let mut conflict = None;
    read_spans(table, again.iter().enumerate().map(item).collect(), |span| {
        for item in span.items {
            let sent = &again[item.asked].0;
            let stored = RecordHeader::parse(&span.bytes_of(item));
            if stored.is_ok_and(|stored| stored == *sent) {
                continue;
            }
            // Only a sound record is a conflict, and then the whole of it has to be read to know that it is sound.
            let record = span.read_again(item, item.entry.location.bytes as usize);
            if record.is_ok_and(|record| is_sound(&item.entry, &record)) {
                conflict.get_or_insert(sent.id);
            }
        }
    })?;
    match conflict {
        Some(id) => Err(StoreError::Conflict { version: id.version.0, index: id.index }),
        None => Ok(()),
    }
}
