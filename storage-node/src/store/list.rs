//! The contents of an arc, page by page, in the order in which the records lie.
//!
//! The order makes pages stable: a record only ever moves to a later place, so a token (the place to go on from) never
//! runs past one that has not been listed. The index says which chunks, their records the NAMEs. Only the front of a
//! record is believed here without its checksum: the key in the index is the MD5 of NAME and index, which says as much.

use bytes::Bytes;
use common::{
    chunk::{ChunkRef, FileName, RECORD_HEADER_BYTES, RecordHeader, chunk_key},
    chunk_api::{ChunkList, ListedChunk},
    ring_id::RingArc,
};

use super::{
    Shared, StoreError,
    index::Entry,
    read::{Item, Span, belongs, name_of, read_spans, second_look},
};

/// Most names end within this much of a record.
const FRONT_BYTES: u32 = 256;

pub fn list(shared: &Shared, arc: RingArc, token: u64, limit: usize) -> Result<ChunkList, StoreError> {
    let (entries, next) = page(shared, arc, token, limit.max(1));
    Ok(ChunkList { chunks: chunks_at(shared, entries)?, next })
}

/// The chunks of these entries by name, but for those that are gone or damaged. In no order.
pub fn chunks_at(shared: &Shared, entries: Vec<Entry>) -> Result<Vec<ListedChunk>, StoreError> {
    let item = |entry: Entry| Item { entry, take: entry.place.bytes.min(FRONT_BYTES), asked: 0 };
    let mut chunks = Vec::with_capacity(entries.len());
    read_spans(shared, entries.into_iter().map(item).collect(), |span| {
        chunks.extend(span.items.iter().filter_map(|item| listed(shared, span, item)));
    })?;
    Ok(chunks)
}

/// The first `limit` chunks of `arc` from `token` on by position, and the position of the one after them.
pub fn page(shared: &Shared, arc: RingArc, token: u64, limit: usize) -> (Vec<Entry>, Option<u64>) {
    let position = |entry: &Entry| entry.place.position();
    let mut entries: Vec<Entry> = Vec::new();
    shared.index.each_in(arc, |entry| {
        if position(&entry) >= token {
            entries.push(entry);
            if entries.len() > limit.saturating_mul(2).saturating_add(1) {
                entries.select_nth_unstable_by_key(limit, position);
                entries.truncate(limit + 1);
            }
        }
    });
    entries.sort_unstable_by_key(position);
    let next = entries.get(limit).map(position);
    entries.truncate(limit);
    (entries, next)
}

fn listed(shared: &Shared, span: &Span<'_>, item: &Item) -> Option<ListedChunk> {
    front(&item.entry, &span.bytes_of(item))
        .or_else(|| front(&item.entry, &span.read_again(item, long_front(item)).ok()?))
        .or_else(|| front(&item.entry, &second_look(shared, span, item)?))
}

/// As much of a record as the longest name takes.
fn long_front(item: &Item) -> usize {
    (RECORD_HEADER_BYTES + common::chunk::MAX_FILE_NAME_BYTES).min(item.entry.place.bytes as usize)
}

fn front(entry: &Entry, bytes: &Bytes) -> Option<ListedChunk> {
    let header = RecordHeader::parse(bytes).ok().filter(|header| belongs(entry, header))?;
    // Copied, or each name would keep all that was read with it in memory.
    let file = FileName::new(name_of(bytes)?.to_vec()).ok()?;
    let sound = chunk_key(&file, header.id.index) == entry.key;
    sound.then(|| ListedChunk { chunk: ChunkRef { file, id: header.id }, data_bytes: header.data_bytes })
}
