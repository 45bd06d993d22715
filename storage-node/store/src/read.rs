//! Reading records back: in the order in which they lie, neighbours with one call, and nothing that is not sound.
//!
//! A record that the disk gives back wrong, twice, is condemned: it leaves the index and counts as absent, so that
//! repair puts a sound copy. A segment may vanish under a reader because compaction moved its records: those are looked
//! up again.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use chordfs_types::{
    chunk::{ChunkRef, RECORD_HEADER_BYTES, RecordHeader},
    ring_id::{RingArc, RingId},
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{
    Shared, StoreError,
    catalog::{Most, Page, page},
    index::Entry,
    remove::{Fault, condemn},
    scan::sound_record,
};

/// Reading on across a gap is cheaper than another call.
const GAP_BYTES: u64 = 8 << 10;
const SPAN_BYTES: u64 = 1 << 20;
/// What the kernel reads ahead by itself.
const READ_AHEAD_BYTES: usize = 128 << 10;
/// Each time a record is looked up again it lies in a later segment, so this many are never needed.
const MAX_ROUNDS: usize = 16;

/// A record to read: its first `take` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub entry: Entry,
    pub take: u32,
    /// The caller's number for it.
    pub asked: usize,
}

impl Item {
    pub fn whole(entry: Entry, asked: usize) -> Self {
        Self { entry, take: entry.place.bytes, asked }
    }

    fn end(&self) -> u64 {
        u64::from(self.entry.place.offset) + u64::from(self.take)
    }
}

/// Records that were read with one call, and what lies between them.
pub struct Span<'a> {
    pub items: &'a [Item],
    file: &'a File,
    bytes: Bytes,
}

impl Span<'_> {
    /// Where in the span's bytes an item lies.
    fn range(&self, item: &Item) -> Range<usize> {
        let start = (item.entry.place.offset - self.items[0].entry.place.offset) as usize;
        start..start + item.take as usize
    }

    pub fn bytes_of(&self, item: &Item) -> Bytes {
        self.bytes.slice(self.range(item))
    }

    /// What was read once to be checked is not worth the memory that others' chunks could have.
    fn drop_from_cache(&self) {
        dont_need(self.file, u64::from(self.items[0].entry.place.offset), self.bytes.len() as u64);
    }

    /// The first `len` bytes of an item, read anew.
    pub fn read_again(&self, item: &Item, len: usize) -> io::Result<Bytes> {
        read_at(self.file, u64::from(item.entry.place.offset), len)
    }
}

/// What one step of the scrub did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub chunks: u64,
    pub bytes: u64,
    /// Found damaged in this step.
    pub damaged: u64,
    /// Where to go on; `None` when all was read.
    pub next: Option<u64>,
}

pub fn get(shared: &Shared, wanted: &[ChunkRef]) -> Result<Vec<Bytes>, StoreError> {
    let here = |(asked, chunk): (usize, &ChunkRef)| {
        let (key, id) = (chunk.key(), chunk.id);
        Some(Item::whole(Entry { key, id, place: shared.index.get(key, id)? }, asked))
    };
    let items = wanted.iter().enumerate().filter_map(here).collect();
    let mut pieces = Vec::new();
    read_spans(shared, items, |span| collect(shared, span, wanted, &mut pieces))?;
    Ok(pieces)
}

/// Every record of the span that is sound and the one asked for, neighbours as one piece.
fn collect(shared: &Shared, span: &Span<'_>, wanted: &[ChunkRef], pieces: &mut Vec<Bytes>) {
    let named = |item: &Item, record: &[u8]| name_of(record) == Some(wanted[item.asked].file.as_bytes());
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
        } else if !is_sound(&item.entry, record)
            && let Some(record) = second_look(shared, span, item)
            && named(item, &record)
        {
            pieces.push(record);
        }
    }
    pieces.extend(piece(span, run));
}

fn piece(span: &Span<'_>, run: Range<usize>) -> Option<Bytes> {
    (!run.is_empty()).then(|| span.bytes.slice(run))
}

pub fn scrub_step(shared: &Shared, token: u64, bytes: u64) -> Result<Scrubbed, StoreError> {
    const STEP_CHUNKS: usize = 8192;
    let whole = RingArc::new(RingId(0), RingId(0));
    let Page { entries, next, .. } = page(shared, whole, token, Most { chunks: STEP_CHUNKS, bytes });
    let mut done = Scrubbed { next, ..Scrubbed::default() };
    let before = shared.damage.count();
    drop_from_cache(shared, &entries)?;
    read_spans(shared, entries.into_iter().map(|entry| Item::whole(entry, 0)).collect(), |span| {
        for item in span.items {
            if !is_sound(&item.entry, &span.bytes[span.range(item)]) {
                second_look(shared, span, item);
            }
            done.chunks += 1;
            done.bytes += u64::from(item.take);
        }
        span.drop_from_cache();
    })?;
    done.damaged = shared.damage.count() - before;
    Ok(done)
}

/// What the kernel remembers of the disk says nothing about the disk. Entries come in the order in which they lie.
fn drop_from_cache(shared: &Shared, entries: &[Entry]) -> Result<(), StoreError> {
    for group in entries.chunk_by(|a, b| a.place.segment == b.place.segment) {
        if let Some(file) = file_of(shared, &group[0])? {
            let start = u64::from(group[0].place.offset);
            dont_need(&file, start, group[group.len() - 1].place.end() - start);
        }
    }
    Ok(())
}

/// The entries that are still where they were and sound, each with its record. The others are condemned, or were gone.
pub fn sound_records(shared: &Shared, entries: &[Entry]) -> Result<Vec<(Entry, Bytes)>, StoreError> {
    let mut records = Vec::with_capacity(entries.len());
    read_spans(shared, entries.iter().map(|entry| Item::whole(*entry, 0)).collect(), |span| {
        for item in span.items {
            let record = Some(span.bytes_of(item)).filter(|record| is_sound(&item.entry, record));
            records.extend(record.or_else(|| second_look(shared, span, item)).map(|record| (item.entry, record)));
        }
    })?;
    Ok(records)
}

/// Whether `record` is what the index says lies there.
pub fn is_sound(entry: &Entry, record: &[u8]) -> bool {
    sound_record(record).is_some_and(|header| belongs(entry, &header))
}

/// Whether a header is that of the record which the index says lies there.
pub fn belongs(entry: &Entry, header: &RecordHeader) -> bool {
    (header.id, header.key, header.record_bytes()) == (entry.id, entry.key, entry.place.bytes as usize)
}

/// The NAME in a record, if that much of it is there.
pub fn name_of(record: &[u8]) -> Option<&[u8]> {
    let header = RecordHeader::parse(record).ok()?;
    record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + usize::from(header.name_bytes))
}

/// Reads a record again that did not look sound; condemns it if it still does not.
pub fn second_look(shared: &Shared, span: &Span<'_>, item: &Item) -> Option<Bytes> {
    let record = span.read_again(item, item.entry.place.bytes as usize);
    let fault = match record {
        Ok(record) if is_sound(&item.entry, &record) => return Some(record),
        Ok(_) => Fault::Contents,
        Err(_) => Fault::Unreadable,
    };
    let _gate = shared.moving.read();
    condemn(shared, &item.entry, fault);
    None
}

/// Reads all items, in the order of their places, and shows them span by span. What the disk does not give is condemned,
/// what is gone is left out.
pub fn read_spans(shared: &Shared, items: Vec<Item>, mut show: impl FnMut(&Span<'_>)) -> Result<(), StoreError> {
    let mut items = items;
    for _ in 0..MAX_ROUNDS {
        items.sort_unstable_by_key(|item| item.entry.place);
        items.dedup_by_key(|item| (item.entry.place, item.asked));
        let mut moved = Vec::new();
        for group in items.chunk_by(in_one_span(SPAN_BYTES)) {
            match file_of(shared, &group[0].entry)? {
                Some(file) => read_span(shared, &file, group, &mut show),
                None => moved.extend(group.iter().filter_map(|item| look_up_again(shared, item))),
            }
        }
        if moved.is_empty() {
            break;
        }
        items = moved;
    }
    Ok(())
}

/// Whether the next item belongs in the span of the one before it. Counts along, so it is made anew for each use.
fn in_one_span(limit: u64) -> impl FnMut(&Item, &Item) -> bool {
    let mut start = None;
    move |last, next| {
        let first = *start.get_or_insert(u64::from(last.entry.place.offset));
        let near = u64::from(next.entry.place.offset) <= last.end() + GAP_BYTES && next.end() <= first + limit;
        let together = near && last.entry.place.segment == next.entry.place.segment;
        if !together {
            start = None;
        }
        together
    }
}

/// `None` if the segment is gone.
fn file_of(shared: &Shared, entry: &Entry) -> Result<Option<Arc<File>>, StoreError> {
    let number = entry.place.segment;
    let Some(segment) = shared.segments.get(number) else { return Ok(None) };
    match shared.segments.file(&segment) {
        Ok(file) => Ok(Some(file)),
        Err(_) if shared.segments.get(number).is_none() => Ok(None),
        Err(source) => Err(StoreError::io("open segment", segment.path(), source)),
    }
}

fn read_span(shared: &Shared, file: &File, items: &[Item], show: &mut impl FnMut(&Span<'_>)) {
    let start = u64::from(items[0].entry.place.offset);
    let end = items.iter().map(Item::end).max().unwrap_or(start);
    match read_at(file, start, (end - start) as usize) {
        Ok(bytes) => show(&Span { items, file, bytes }),
        Err(error) if items.len() == 1 => {
            tracing::debug!(place = ?items[0].entry.place, %error, "record not readable");
            let cut_off = error.kind() == ErrorKind::UnexpectedEof;
            let fault = if cut_off { Fault::Contents } else { Fault::Unreadable };
            let _gate = shared.moving.read();
            condemn(shared, &items[0].entry, fault);
        }
        Err(_) => items.iter().for_each(|item| read_span(shared, file, std::slice::from_ref(item), show)),
    }
}

fn look_up_again(shared: &Shared, item: &Item) -> Option<Item> {
    let Entry { key, id, place } = item.entry;
    let now = shared.index.get(key, id).filter(|now| *now != place)?;
    Some(Item { entry: Entry { key, id, place: now }, ..*item })
}

/// Advice: whether it is taken does not matter.
fn dont_need(file: &File, offset: u64, len: u64) {
    let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    if len > READ_AHEAD_BYTES {
        // Without this the kernel asks the disk for 128 KiB, waits, asks again. Advice: whether it is taken does not matter.
        let _ = posix_fadvise(file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }
    let mut bytes = BytesMut::zeroed(len);
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.freeze())
}
