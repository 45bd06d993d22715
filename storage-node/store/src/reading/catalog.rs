//! The entries of each segment, sorted by location, so that a walk through the store reads one segment at a time
//! instead of the whole index for every page.
//!
//! A segment that is being filled records the entries added to it; once it is sealed, they are in its hint. Without a
//! sound hint they are collected from the index, once per segment. A list also has dead entries: an entry counts only
//! if the index has it at that location. No record is added to a sealed segment, so its list never changes, and the
//! lists that were read last are cached.
//!
//! The order makes pages stable: a record only ever moves to a later location, so a token (the position to continue
//! from) never skips a record that was not listed. The next segment is looked up, and its list read, only when its turn
//! comes, so the list contains what has moved there meanwhile. An arc with few chunks is read from the index, where its
//! keys are together.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chordfs_types::ring_id::{RingArc, RingId};
use parking_lot::Mutex;

use crate::{
    index::IndexEntry,
    records::RecordTable,
    segment::{Segment, hint},
};

/// The most entries in all cached lists: 32 MiB.
const KEPT_ENTRIES: usize = 1 << 20;
/// How many entries are read at a time from a segment that is being filled.
const PIECE: usize = 4096;
/// An arc with no more than this many pages is read from the index.
const FEW_PAGES: u64 = 4;

/// A page ends when the first of these limits is reached. It has at least one entry if there is any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimit {
    pub chunks: usize,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct EntryPage {
    /// Sorted by location.
    pub entries: Vec<IndexEntry>,
    /// The position of the first entry of the next page.
    pub next: Option<u64>,
    bytes: u64,
    examined: u64,
}

/// A cache of the lists of sealed segments that were read last, oldest first.
#[derive(Default)]
pub(crate) struct Catalog {
    kept: Mutex<VecDeque<(u32, Arc<[IndexEntry]>)>>,
    /// How many entries walks and readers of lists have examined.
    examined: AtomicU64,
}

impl Catalog {
    #[cfg(test)]
    pub(crate) fn examined(&self) -> u64 {
        self.examined.load(Relaxed)
    }

    fn get(&self, number: u32) -> Option<Arc<[IndexEntry]>> {
        let kept = self.kept.lock();
        kept.iter().find(|(kept, _)| *kept == number).map(|(_, entries)| entries.clone())
    }

    fn keep(&self, number: u32, entries: &Arc<[IndexEntry]>) {
        let mut kept = self.kept.lock();
        kept.retain(|(kept, _)| *kept != number);
        kept.push_back((number, entries.clone()));
        let mut sum: usize = kept.iter().map(|(_, entries)| entries.len()).sum();
        while sum > KEPT_ENTRIES
            && let Some((_, oldest)) = kept.pop_front()
        {
            sum -= oldest.len();
        }
    }
}

/// Returns the first chunks of `arc` with positions from `token` on.
pub(crate) fn page(table: &RecordTable, catalog: &Catalog, arc: RingArc, token: u64, most: PageLimit) -> EntryPage {
    let mut page = EntryPage::default();
    match few_in(table, arc, most) {
        Some(examined) => {
            page.examined = examined;
            by_index(table, arc, token, most, &mut page);
        }
        None => by_segments(table, catalog, arc, token, most, &mut page),
    }
    catalog.examined.fetch_add(page.examined, Relaxed);
    page
}

/// Returns the live entries of a sealed segment, sorted by location.
pub(crate) fn living_in(table: &RecordTable, catalog: &Catalog, segment: &Segment) -> Vec<IndexEntry> {
    let noted = segment.noted_from(0, usize::MAX).map(Arc::from);
    let all = noted.unwrap_or_else(|| list_of(table, catalog, segment));
    let living: Vec<IndexEntry> = all.iter().filter(|entry| lives(table, entry)).copied().collect();
    // The list may be incomplete, and a missing record would keep the segment for ever; or a chunk was just deleted.
    if (living.len() as u64) < segment.live_chunks() { from_index(table, segment.number) } else { living }
}

/// If the arc has few chunks, returns how many entries were examined to find that out; `None` if it has many.
fn few_in(table: &RecordTable, arc: RingArc, most: PageLimit) -> Option<u64> {
    if arc.after == arc.upto {
        return None;
    }
    let (sums, examined) = table.index.sums(&[arc]);
    (sums[0].count <= FEW_PAGES.saturating_mul(most.chunks as u64)).then_some(examined)
}

fn by_index(table: &RecordTable, arc: RingArc, token: u64, most: PageLimit, page: &mut EntryPage) {
    let mut entries = Vec::new();
    table.index.each_in_pieces(arc, |entry| {
        page.examined += 1;
        if entry.location.position() >= token {
            entries.push(entry);
        }
    });
    entries.sort_unstable_by_key(|entry| entry.location);
    for entry in entries {
        if page.is_full(&entry, most) {
            return;
        }
        page.add(entry);
    }
}

fn by_segments(
    table: &RecordTable,
    catalog: &Catalog,
    arc: RingArc,
    token: u64,
    most: PageLimit,
    page: &mut EntryPage,
) {
    let mut from = token;
    while let Some(segment) = table.segments.first_from((from >> 32) as u32) {
        // Below 2^32 by the shift.
        let offset = if u64::from(segment.number) == from >> 32 { from as u32 } else { 0 };
        if add_segment(table, catalog, &segment, offset, arc, most, page) {
            return;
        }
        let Some(next) = segment.number.checked_add(1) else { return };
        from = u64::from(next) << 32;
    }
}

/// Adds the entries of a segment to the page. Returns true when the page is full.
fn add_segment(
    table: &RecordTable,
    catalog: &Catalog,
    segment: &Segment,
    mut offset: u32,
    arc: RingArc,
    most: PageLimit,
    page: &mut EntryPage,
) -> bool {
    loop {
        let Some(noted) = segment.noted_from(offset, PIECE) else {
            let all = list_of(table, catalog, segment);
            let first = all.partition_point(|entry| entry.location.offset < offset);
            return add_all(table, &all[first..], arc, most, page);
        };
        if add_all(table, &noted, arc, most, page) {
            return true;
        }
        match noted.last().and_then(|last| last.location.offset.checked_add(1)) {
            Some(next) => offset = next,
            None => return false,
        }
    }
}

fn add_all(table: &RecordTable, entries: &[IndexEntry], arc: RingArc, most: PageLimit, page: &mut EntryPage) -> bool {
    for entry in entries {
        page.examined += 1;
        if !arc.contains(entry.key) || !lives(table, entry) {
            continue;
        }
        if page.is_full(entry, most) {
            return true;
        }
        page.add(*entry);
    }
    false
}

fn lives(table: &RecordTable, entry: &IndexEntry) -> bool {
    table.index.get(entry.key, entry.id) == Some(entry.location)
}

impl EntryPage {
    /// Whether the page is full. If so, `entry` becomes the first one of the next page.
    fn is_full(&mut self, entry: &IndexEntry, most: PageLimit) -> bool {
        let full = self.entries.len() >= most.chunks.max(1) || self.bytes >= most.bytes.max(1);
        if full {
            self.next = Some(entry.location.position());
        }
        full
    }

    fn add(&mut self, entry: IndexEntry) {
        self.bytes += u64::from(entry.location.bytes);
        self.entries.push(entry);
    }
}

/// Returns the list of a sealed segment.
fn list_of(table: &RecordTable, catalog: &Catalog, segment: &Segment) -> Arc<[IndexEntry]> {
    if let Some(kept) = catalog.get(segment.number) {
        return kept;
    }
    let hint = hint::read(segment.hint_path(), segment.number, segment.written_bytes());
    let mut entries = hint.unwrap_or_else(|| from_index(table, segment.number));
    entries.sort_unstable_by_key(|entry| entry.location);
    catalog.examined.fetch_add(entries.len() as u64, Relaxed);
    let entries: Arc<[IndexEntry]> = entries.into();
    catalog.keep(segment.number, &entries);
    entries
}

/// Collects the entries of a segment by a walk over the whole index: slow.
fn from_index(table: &RecordTable, number: u32) -> Vec<IndexEntry> {
    let mut entries = Vec::new();
    table.index.each_in(RingArc::new(RingId(0), RingId(0)), |entry| {
        if entry.location.segment == number {
            entries.push(entry);
        }
    });
    entries.sort_unstable_by_key(|entry| entry.location);
    entries
}
