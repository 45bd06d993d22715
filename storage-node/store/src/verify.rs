//! Looking at copies for `check`: every record is read against its checksum, and what is damaged stays where it is.
//!
//! Reads and the scrub condemn what is damaged, so that repair puts a sound copy; whoever only looks leaves that to them.

use chordfs_types::chunk::{ChunkId, ChunkRef};

use super::{
    Shared, StoreError,
    index::Entry,
    read::{Item, Span, is_sound, read_spans},
};

/// What a node has of a chunk; the number is how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    Absent = 0,
    Sound = 1,
    Damaged = 2,
}

/// For each of `wanted`, in their order.
pub fn verify(shared: &Shared, wanted: &[ChunkRef]) -> Result<Vec<Copy>, StoreError> {
    let mut copies = vec![Copy::Absent; wanted.len()];
    let items = wanted.iter().enumerate().filter_map(|(asked, chunk)| {
        let (key, id) = (chunk.key(), chunk.id);
        Some(Item::whole(Entry { key, id, place: shared.index.get(key, id)? }, asked))
    });
    let items: Vec<Item> = items.collect();
    // What is not shown below could not be read at all; that is condemned as by any read, and counts as absent then.
    items.iter().for_each(|item| copies[item.asked] = Copy::Damaged);
    read_spans(shared, items, |span| {
        for item in span.items {
            copies[item.asked] = look(span, item, wanted[item.asked].id);
        }
    })?;
    // Deleted, or moved by compaction, while it was read: the index knows better.
    for (chunk, copy) in wanted.iter().zip(&mut copies) {
        if *copy == Copy::Damaged && shared.index.get(chunk.key(), chunk.id).is_none() {
            *copy = Copy::Absent;
        }
    }
    Ok(copies)
}

/// A first look may have met a write half done in the page cache; the second is the disk's word.
fn look(span: &Span<'_>, item: &Item, id: ChunkId) -> Copy {
    debug_assert_eq!(item.entry.id, id, "an item stands for the chunk that was asked for");
    if is_sound(&item.entry, &span.bytes_of(item)) {
        return Copy::Sound;
    }
    let again = span.read_again(item, item.entry.place.bytes as usize);
    if again.is_ok_and(|record| is_sound(&item.entry, &record)) { Copy::Sound } else { Copy::Damaged }
}
