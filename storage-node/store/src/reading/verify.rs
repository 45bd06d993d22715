//! Looking at copies for `check`: every record is read against its checksum, and what is damaged stays where it is.
//!
//! Reads and the scrub drop what is damaged, so that repair puts a sound copy; a mere check leaves that to them.

use chordfs_types::chunk::{ChunkId, ChunkRef};

use super::spans::{ReadItem, ReadSpan, is_sound, read_spans};
use crate::{error::StoreError, index::IndexEntry, records::RecordTable};

/// What a node has of a chunk; the number is how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    Absent = 0,
    Sound = 1,
    Damaged = 2,
}

/// For each of `wanted`, in their order.
pub(crate) fn verify(table: &RecordTable, wanted: &[ChunkRef]) -> Result<Vec<CopyState>, StoreError> {
    let mut copies = vec![CopyState::Absent; wanted.len()];
    let items = wanted.iter().enumerate().filter_map(|(asked, chunk)| {
        let (key, id) = (chunk.key(), chunk.id);
        Some(ReadItem::whole(IndexEntry { key, id, location: table.index.get(key, id)? }, asked))
    });
    let items: Vec<ReadItem> = items.collect();
    // What is not shown below could not be read at all; that is dropped as by any read, and counts as absent then.
    items.iter().for_each(|item| copies[item.asked] = CopyState::Damaged);
    read_spans(table, items, |span| {
        for item in span.items {
            copies[item.asked] = look(span, item, wanted[item.asked].id);
        }
    })?;
    // Deleted, or moved by compaction, while it was read: the index knows better.
    for (chunk, copy) in wanted.iter().zip(&mut copies) {
        if *copy == CopyState::Damaged && table.index.get(chunk.key(), chunk.id).is_none() {
            *copy = CopyState::Absent;
        }
    }
    Ok(copies)
}

/// A first look may have met a write half done in the page cache; the second shows what the disk has.
fn look(span: &ReadSpan<'_>, item: &ReadItem, id: ChunkId) -> CopyState {
    debug_assert_eq!(item.entry.id, id, "an item stands for the chunk that was asked for");
    if is_sound(&item.entry, &span.bytes_of(item)) {
        return CopyState::Sound;
    }
    let again = span.read_again(item, item.entry.location.bytes as usize);
    if again.is_ok_and(|record| is_sound(&item.entry, &record)) { CopyState::Sound } else { CopyState::Damaged }
}
