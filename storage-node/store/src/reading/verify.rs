//! Verifies copies for `check`: every record is read and compared with its checksum, and damaged ones are left in
//! place.
//!
//! Reads and the scrub drop damaged records, so that repair puts sound copies; a check leaves that to them.

use chordfs_types::chunk::{ChunkId, ChunkRef};

use super::spans::{ReadItem, ReadSpan, is_sound, read_spans};
use crate::{error::StoreError, index::IndexEntry, records::RecordTable};

/// The state of a chunk's copy on a node; the number is its encoding on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    Absent = 0,
    Sound = 1,
    Damaged = 2,
}

/// Returns the state of each of `wanted`, in their order.
pub(crate) fn verify(table: &RecordTable, wanted: &[ChunkRef]) -> Result<Vec<CopyState>, StoreError> {
    let mut copies = vec![CopyState::Absent; wanted.len()];
    let items = wanted.iter().enumerate().filter_map(|(asked, chunk)| {
        let (key, id) = (chunk.key(), chunk.id);
        Some(ReadItem::whole(IndexEntry { key, id, location: table.index.get(key, id)? }, asked))
    });
    let items: Vec<ReadItem> = items.collect();
    // An item that is not shown below could not be read at all. It is dropped, as by any read, and then counts as
    // absent.
    items.iter().for_each(|item| copies[item.asked] = CopyState::Damaged);
    read_spans(table, items, |span| {
        for item in span.items {
            copies[item.asked] = look(span, item, wanted[item.asked].id);
        }
    })?;
    // A chunk may have been deleted while it was read, so the index decides.
    for (chunk, copy) in wanted.iter().zip(&mut copies) {
        if *copy == CopyState::Damaged && table.index.get(chunk.key(), chunk.id).is_none() {
            *copy = CopyState::Absent;
        }
    }
    Ok(copies)
}

/// The first read may have met a partial write in the page cache; a second one shows the contents of the disk.
fn look(span: &ReadSpan<'_>, item: &ReadItem, id: ChunkId) -> CopyState {
    debug_assert_eq!(item.entry.id, id, "an item belongs to the wanted chunk");
    if is_sound(&item.entry, &span.bytes_of(item)) {
        return CopyState::Sound;
    }
    let again = span.read_again(item, item.entry.location.bytes as usize);
    if again.is_ok_and(|record| is_sound(&item.entry, &record)) { CopyState::Sound } else { CopyState::Damaged }
}
