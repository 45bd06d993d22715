//! Reads records back, sorted by location, adjacent ones with one call, and returns only sound ones.
//!
//! A record that is unsound in two reads is dropped as damaged: it leaves the index and counts as absent, so that
//! repair puts a sound copy. A segment may vanish during a read because compaction has moved its records; they are
//! looked up again.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use chordfs_types::chunk::{ChunkRef, RECORD_HEADER_BYTES, RecordHeader};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::{
    cache::RecordCache,
    error::StoreError,
    index::IndexEntry,
    records::{
        RecordTable,
        removal::{Fault, drop_damaged},
    },
    segment::scan::sound_record,
};

/// Reading across a gap of this size is cheaper than another call.
const GAP_BYTES: u64 = 8 << 10;
const SPAN_BYTES: u64 = 1 << 20;
/// How far the kernel reads ahead by itself.
const READ_AHEAD_BYTES: usize = 128 << 10;
/// Each time a record is looked up again it lies in a later segment, so this many rounds are never needed.
const MAX_ROUNDS: usize = 16;

/// A record to read: its first `take` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadItem {
    pub entry: IndexEntry,
    pub take: u32,
    /// The caller's number for it.
    pub asked: usize,
}

impl ReadItem {
    pub(crate) fn whole(entry: IndexEntry, asked: usize) -> Self {
        Self { entry, take: entry.location.bytes, asked }
    }

    fn end(&self) -> u64 {
        u64::from(self.entry.location.offset) + u64::from(self.take)
    }
}

/// Records that were read with one call, and the bytes between them.
pub(crate) struct ReadSpan<'a> {
    pub items: &'a [ReadItem],
    file: &'a File,
    bytes: Bytes,
}

impl ReadSpan<'_> {
    /// Returns the range of an item in the span's bytes.
    fn range(&self, item: &ReadItem) -> Range<usize> {
        let start = (item.entry.location.offset - self.items[0].entry.location.offset) as usize;
        start..start + item.take as usize
    }

    pub(crate) fn bytes_of(&self, item: &ReadItem) -> Bytes {
        self.bytes.slice(self.range(item))
    }

    /// Drops the span from the page cache, as a record that was only read to be checked is not worth the memory.
    pub(crate) fn drop_from_cache(&self) {
        dont_need(self.file, u64::from(self.items[0].entry.location.offset), self.bytes.len() as u64);
    }

    /// The first `len` bytes of an item, read anew.
    pub(crate) fn read_again(&self, item: &ReadItem, len: usize) -> io::Result<Bytes> {
        read_at(self.file, u64::from(item.entry.location.offset), len)
    }
}

/// Passes each record that is returned to `found` as well.
pub(crate) fn get(
    table: &RecordTable,
    wanted: &[ChunkRef],
    mut found: impl FnMut(&IndexEntry, &[u8]),
) -> Result<Vec<Bytes>, StoreError> {
    let here = |(asked, chunk): (usize, &ChunkRef)| {
        let (key, id) = (chunk.key(), chunk.id);
        Some(ReadItem::whole(IndexEntry { key, id, location: table.index.get(key, id)? }, asked))
    };
    let items = wanted.iter().enumerate().filter_map(here).collect();
    let mut pieces = Vec::new();
    read_spans(table, items, |span| collect(table, span, wanted, &mut pieces, &mut found))?;
    Ok(pieces)
}

/// Returns the records that are in the cache and, by the index, still where they were read; removes their chunks from
/// `wanted`.
pub(crate) fn take_cached(table: &RecordTable, cache: &RecordCache, wanted: &mut Vec<ChunkRef>) -> Vec<Bytes> {
    let mut records = Vec::new();
    wanted.retain(|chunk| {
        let (key, id) = (chunk.key(), chunk.id);
        let entry = table.index.get(key, id).map(|location| IndexEntry { key, id, location });
        let record = entry.and_then(|entry| cache.get(&entry));
        let record = record.filter(|record| name_of(record) == Some(chunk.file.as_bytes()));
        let is_missing = record.is_none();
        records.extend(record);
        is_missing
    });
    cache.count_hits(records.len());
    records
}

/// Collects the records of the span that are sound and have the wanted name, adjacent ones as one piece.
fn collect(
    table: &RecordTable,
    span: &ReadSpan<'_>,
    wanted: &[ChunkRef],
    pieces: &mut Vec<Bytes>,
    found: &mut impl FnMut(&IndexEntry, &[u8]),
) {
    let named = |item: &ReadItem, record: &[u8]| name_of(record) == Some(wanted[item.asked].file.as_bytes());
    let mut run = 0..0;
    for item in span.items {
        let range = span.range(item);
        let record = &span.bytes[range.clone()];
        if is_sound(&item.entry, record) && named(item, record) {
            if run.end != range.start {
                pieces.extend(piece(span, run));
                run = range.start..range.start;
            }
            run.end = range.end;
            found(&item.entry, record);
        } else if !is_sound(&item.entry, record)
            && let Some(record) = second_look(table, span, item)
            && named(item, &record)
        {
            found(&item.entry, &record);
            pieces.push(record);
        }
    }
    pieces.extend(piece(span, run));
}

fn piece(span: &ReadSpan<'_>, run: Range<usize>) -> Option<Bytes> {
    (!run.is_empty()).then(|| span.bytes.slice(run))
}

/// Returns the entries that are still here and sound, each with its record. Damaged ones are dropped.
pub(crate) fn sound_records(
    table: &RecordTable,
    entries: &[IndexEntry],
) -> Result<Vec<(IndexEntry, Bytes)>, StoreError> {
    let mut records = Vec::with_capacity(entries.len());
    read_spans(table, entries.iter().map(|entry| ReadItem::whole(*entry, 0)).collect(), |span| {
        for item in span.items {
            let record = Some(span.bytes_of(item)).filter(|record| is_sound(&item.entry, record));
            records.extend(record.or_else(|| second_look(table, span, item)).map(|record| (item.entry, record)));
        }
    })?;
    Ok(records)
}

/// Whether `record` is sound and the one that the index entry describes.
pub(crate) fn is_sound(entry: &IndexEntry, record: &[u8]) -> bool {
    sound_record(record).is_some_and(|header| belongs(entry, &header))
}

/// Whether a header is that of the record that the index entry describes.
pub(crate) fn belongs(entry: &IndexEntry, header: &RecordHeader) -> bool {
    (header.id, header.key, header.record_bytes()) == (entry.id, entry.key, entry.location.bytes as usize)
}

/// Returns the NAME in a record, if `record` is long enough to contain it.
pub(crate) fn name_of(record: &[u8]) -> Option<&[u8]> {
    let header = RecordHeader::parse(record).ok()?;
    record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + usize::from(header.name_bytes))
}

/// Reads an unsound record again; drops it as damaged if it is still unsound.
pub(crate) fn second_look(table: &RecordTable, span: &ReadSpan<'_>, item: &ReadItem) -> Option<Bytes> {
    let record = span.read_again(item, item.entry.location.bytes as usize);
    let fault = match record {
        Ok(record) if is_sound(&item.entry, &record) => return Some(record),
        Ok(_) => Fault::Contents,
        Err(_) => Fault::Unreadable,
    };
    let _gate = table.removal_gate.read();
    drop_damaged(table, &item.entry, fault);
    None
}

/// Reads all items, sorted by location, and passes them to `show` span by span. Unreadable records are dropped; records
/// that are gone are left out.
pub(crate) fn read_spans(
    table: &RecordTable,
    items: Vec<ReadItem>,
    mut show: impl FnMut(&ReadSpan<'_>),
) -> Result<(), StoreError> {
    let mut items = items;
    for _ in 0..MAX_ROUNDS {
        items.sort_unstable_by_key(|item| item.entry.location);
        items.dedup_by_key(|item| (item.entry.location, item.asked));
        let mut moved = Vec::new();
        for group in items.chunk_by(in_one_span(SPAN_BYTES)) {
            match file_of(table, &group[0].entry)? {
                Some(file) => read_span(table, &file, group, &mut show),
                None => moved.extend(group.iter().filter_map(|item| look_up_again(table, item))),
            }
        }
        if moved.is_empty() {
            break;
        }
        items = moved;
    }
    Ok(())
}

/// Returns a function that tells whether the next item belongs in the span of the previous one. The function keeps the
/// start of the span, so each use needs a new one.
fn in_one_span(limit: u64) -> impl FnMut(&ReadItem, &ReadItem) -> bool {
    let mut start = None;
    move |last, next| {
        let first = *start.get_or_insert(u64::from(last.entry.location.offset));
        let near = u64::from(next.entry.location.offset) <= last.end() + GAP_BYTES && next.end() <= first + limit;
        let together = near && last.entry.location.segment == next.entry.location.segment;
        if !together {
            start = None;
        }
        together
    }
}

/// Returns the open segment file of an entry; `None` if the segment is gone.
pub(crate) fn file_of(table: &RecordTable, entry: &IndexEntry) -> Result<Option<Arc<File>>, StoreError> {
    let number = entry.location.segment;
    let Some(segment) = table.segments.get(number) else { return Ok(None) };
    match table.segments.file(&segment) {
        Ok(file) => Ok(Some(file)),
        Err(_) if table.segments.get(number).is_none() => Ok(None),
        Err(source) => Err(StoreError::io("open segment", segment.path(), source)),
    }
}

fn read_span(table: &RecordTable, file: &File, items: &[ReadItem], show: &mut impl FnMut(&ReadSpan<'_>)) {
    let start = u64::from(items[0].entry.location.offset);
    let end = items.iter().map(ReadItem::end).max().unwrap_or(start);
    match read_at(file, start, (end - start) as usize) {
        Ok(bytes) => show(&ReadSpan { items, file, bytes }),
        Err(error) if items.len() == 1 => {
            tracing::debug!(location = ?items[0].entry.location, %error, "record not readable");
            let cut_off = error.kind() == ErrorKind::UnexpectedEof;
            let fault = if cut_off { Fault::Contents } else { Fault::Unreadable };
            let _gate = table.removal_gate.read();
            drop_damaged(table, &items[0].entry, fault);
        }
        Err(_) => items.iter().for_each(|item| read_span(table, file, std::slice::from_ref(item), show)),
    }
}

fn look_up_again(table: &RecordTable, item: &ReadItem) -> Option<ReadItem> {
    let IndexEntry { key, id, location } = item.entry;
    let now = table.index.get(key, id).filter(|now| *now != location)?;
    Some(ReadItem { entry: IndexEntry { key, id, location: now }, ..*item })
}

/// Advice: whether it is taken does not matter.
pub(crate) fn dont_need(file: &File, offset: u64, len: u64) {
    let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    if len > READ_AHEAD_BYTES {
        // Without this the kernel asks the disk for 128 KiB, waits, asks again. Advice: whether it is taken does not
        // matter.
        let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }
    let mut bytes = BytesMut::zeroed(len);
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.freeze())
}
