//! Reads every record from the disk, bypassing the page cache, step by step, to find damage before the chunk is needed.

use chordfs_types::ring_id::{RingArc, RingId};

use crate::{
    error::StoreError,
    index::IndexEntry,
    reading::{
        catalog::{Catalog, EntryPage, PageLimit, page},
        spans::{ReadItem, dont_need, file_of, is_sound, read_spans, second_look},
    },
    records::RecordTable,
};

/// The result of one step of the scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub chunks: u64,
    pub bytes: u64,
    /// Records found damaged in this step.
    pub damaged: u64,
    /// The token to continue from; `None` when all records were read.
    pub next: Option<u64>,
}

pub(crate) fn scrub_step(
    table: &RecordTable,
    catalog: &Catalog,
    token: u64,
    bytes: u64,
) -> Result<Scrubbed, StoreError> {
    const STEP_CHUNKS: usize = 8192;
    let whole = RingArc::new(RingId(0), RingId(0));
    let EntryPage { entries, next, .. } = page(table, catalog, whole, token, PageLimit { chunks: STEP_CHUNKS, bytes });
    let mut done = Scrubbed { next, ..Scrubbed::default() };
    let before = table.damage.count();
    drop_from_cache(table, &entries)?;
    read_spans(table, entries.into_iter().map(|entry| ReadItem::whole(entry, 0)).collect(), |span| {
        for item in span.items {
            if !is_sound(&item.entry, &span.bytes_of(item)) {
                second_look(table, span, item);
            }
            done.chunks += 1;
            done.bytes += u64::from(item.take);
        }
        span.drop_from_cache();
    })?;
    done.damaged = table.damage.count() - before;
    Ok(done)
}

/// Drops these records from the page cache, so that the scrub checks the disk. The entries are sorted by location.
fn drop_from_cache(table: &RecordTable, entries: &[IndexEntry]) -> Result<(), StoreError> {
    for group in entries.chunk_by(|a, b| a.location.segment == b.location.segment) {
        if let Some(file) = file_of(table, &group[0])? {
            let start = u64::from(group[0].location.offset);
            dont_need(&file, start, group[group.len() - 1].location.end() - start);
        }
    }
    Ok(())
}
