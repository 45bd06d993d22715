//! The contents of an arc, page by page, in the order in which the records lie.
//!
//! The chunks come from `catalog`, the NAMEs from their records. Only the front of a record is read, and it is trusted
//! without its checksum: the key in the index is the MD5 of NAME and index, which is as good a check.

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkRef, FileName, RECORD_HEADER_BYTES, RecordHeader, chunk_key},
    chunk_api::{ChunkList, ListedChunk},
    ring_id::RingArc,
};

use super::{
    catalog::{Catalog, PageLimit, page},
    spans::{ReadItem, ReadSpan, belongs, name_of, read_spans, second_look},
};
use crate::{error::StoreError, index::IndexEntry, records::RecordTable};

/// Most names end within this much of a record.
const FRONT_BYTES: u32 = 256;

pub(crate) fn list(
    table: &RecordTable,
    catalog: &Catalog,
    arc: RingArc,
    token: u64,
    limit: usize,
) -> Result<ChunkList, StoreError> {
    let page = page(table, catalog, arc, token, PageLimit { chunks: limit, bytes: u64::MAX });
    Ok(ChunkList { chunks: chunks_at(table, page.entries)?, next: page.next })
}

/// Returns the chunks of these entries by name, without those that are gone or damaged, in no order.
pub(crate) fn chunks_at(table: &RecordTable, entries: Vec<IndexEntry>) -> Result<Vec<ListedChunk>, StoreError> {
    let item = |entry: IndexEntry| ReadItem { entry, take: entry.location.bytes.min(FRONT_BYTES), asked: 0 };
    let mut chunks = Vec::with_capacity(entries.len());
    read_spans(table, entries.into_iter().map(item).collect(), |span| {
        chunks.extend(span.items.iter().filter_map(|item| listed(table, span, item)));
    })?;
    Ok(chunks)
}

fn listed(table: &RecordTable, span: &ReadSpan<'_>, item: &ReadItem) -> Option<ListedChunk> {
    front(&item.entry, &span.bytes_of(item))
        .or_else(|| front(&item.entry, &span.read_again(item, long_front(item)).ok()?))
        .or_else(|| front(&item.entry, &second_look(table, span, item)?))
}

/// Returns the length of the front of a record with the longest name.
fn long_front(item: &ReadItem) -> usize {
    (RECORD_HEADER_BYTES + chordfs_types::chunk::MAX_FILE_NAME_BYTES).min(item.entry.location.bytes as usize)
}

fn front(entry: &IndexEntry, bytes: &Bytes) -> Option<ListedChunk> {
    let header = RecordHeader::parse(bytes).ok().filter(|header| belongs(entry, header))?;
    // Copied, as otherwise each name would keep the whole span in memory.
    let file = FileName::new(name_of(bytes)?.to_vec()).ok()?;
    let sound = chunk_key(&file, header.id.index) == entry.key;
    sound.then(|| ListedChunk { chunk: ChunkRef { file, id: header.id }, data_bytes: header.data_bytes })
}
