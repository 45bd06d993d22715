//! What lies in each segment, in the order in which it lies: so whoever walks through the store page by page looks at
//! one segment at a time, and never at the whole index for each page.
//!
//! A segment that is being filled notes what is added to it; once it is sealed, its hint says so. Where there is none to
//! be trusted the index is asked, once for the segment. A list names more than lives: an entry counts only while the
//! index has it in that place. Nothing is added to a sealed segment, so its list never changes, and the lists that were
//! read last are kept.
//!
//! The order makes pages stable: a record only ever moves to a later place, so a token (the place to go on from) never
//! runs past one that has not been seen. A segment's successor is looked for when its turn comes, and its list is read
//! then, so what moves there meanwhile is in it. An arc with few chunks is asked of the index: its keys are together there.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use chordfs_types::ring_id::{RingArc, RingId};
use parking_lot::Mutex;

use super::{Shared, hint, index::Entry, segment::Segment};

/// Entries of all lists that are kept: 32 MiB.
const KEPT_ENTRIES: usize = 1 << 20;
/// Taken at a time from the notes of a segment that is being filled.
const PIECE: usize = 4096;
/// An arc with no more than this many pages is asked of the index.
const FEW_PAGES: u64 = 4;

/// Where a page ends: at the first of these that is reached. It has one entry at least, if there is any.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub chunks: usize,
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub struct Page {
    /// In the order in which they lie.
    pub entries: Vec<Entry>,
    /// The position of the one after them.
    pub next: Option<u64>,
    bytes: u64,
    looked_at: u64,
}

/// The lists of sealed segments that were read last, oldest first.
#[derive(Default)]
pub struct Catalog {
    kept: Mutex<VecDeque<(u32, Arc<[Entry]>)>>,
    /// Entries that walks and readers of lists have looked at.
    looked_at: AtomicU64,
}

impl Catalog {
    #[cfg(test)]
    pub fn looked_at(&self) -> u64 {
        self.looked_at.load(Relaxed)
    }

    fn get(&self, number: u32) -> Option<Arc<[Entry]>> {
        let kept = self.kept.lock();
        kept.iter().find(|(kept, _)| *kept == number).map(|(_, entries)| entries.clone())
    }

    fn keep(&self, number: u32, entries: &Arc<[Entry]>) {
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

/// The first chunks of `arc` from `token` on by position.
pub fn page(shared: &Shared, arc: RingArc, token: u64, most: Most) -> Page {
    let mut page = Page::default();
    match few_in(shared, arc, most) {
        Some(looked_at) => {
            page.looked_at = looked_at;
            by_index(shared, arc, token, most, &mut page);
        }
        None => by_segments(shared, arc, token, most, &mut page),
    }
    shared.catalog.looked_at.fetch_add(page.looked_at, Relaxed);
    page
}

/// What lives in a sealed segment, in the order in which it lies.
pub fn living_in(shared: &Shared, segment: &Segment) -> Vec<Entry> {
    let noted = segment.noted_from(0, usize::MAX).map(Arc::from);
    let all = noted.unwrap_or_else(|| list_of(shared, segment));
    let living: Vec<Entry> = all.iter().filter(|entry| lives(shared, entry)).copied().collect();
    // What no list names would stay behind for ever; a deletion just now is the other reason.
    if (living.len() as u64) < segment.live_chunks() { from_index(shared, segment.number) } else { living }
}

/// How many entries it took to find out that there are few chunks in the arc; `None` if there are many.
fn few_in(shared: &Shared, arc: RingArc, most: Most) -> Option<u64> {
    if arc.after == arc.upto {
        return None;
    }
    let (sums, looked_at) = shared.index.sums(&[arc]);
    (sums[0].count <= FEW_PAGES.saturating_mul(most.chunks as u64)).then_some(looked_at)
}

fn by_index(shared: &Shared, arc: RingArc, token: u64, most: Most, page: &mut Page) {
    let mut entries = Vec::new();
    shared.index.each_in_pieces(arc, |entry| {
        page.looked_at += 1;
        if entry.place.position() >= token {
            entries.push(entry);
        }
    });
    entries.sort_unstable_by_key(|entry| entry.place);
    for entry in entries {
        if page.is_full(&entry, most) {
            return;
        }
        page.add(entry);
    }
}

fn by_segments(shared: &Shared, arc: RingArc, token: u64, most: Most, page: &mut Page) {
    let mut from = token;
    while let Some(segment) = shared.segments.first_from((from >> 32) as u32) {
        // Below 2^32 by the shift.
        let offset = if u64::from(segment.number) == from >> 32 { from as u32 } else { 0 };
        if add_segment(shared, &segment, offset, arc, most, page) {
            return;
        }
        let Some(next) = segment.number.checked_add(1) else { return };
        from = u64::from(next) << 32;
    }
}

/// True when the page is full.
fn add_segment(shared: &Shared, segment: &Segment, mut offset: u32, arc: RingArc, most: Most, page: &mut Page) -> bool {
    loop {
        let Some(noted) = segment.noted_from(offset, PIECE) else {
            let all = list_of(shared, segment);
            let first = all.partition_point(|entry| entry.place.offset < offset);
            return add_all(shared, &all[first..], arc, most, page);
        };
        if add_all(shared, &noted, arc, most, page) {
            return true;
        }
        match noted.last().and_then(|last| last.place.offset.checked_add(1)) {
            Some(next) => offset = next,
            None => return false,
        }
    }
}

fn add_all(shared: &Shared, entries: &[Entry], arc: RingArc, most: Most, page: &mut Page) -> bool {
    for entry in entries {
        page.looked_at += 1;
        if !arc.contains(entry.key) || !lives(shared, entry) {
            continue;
        }
        if page.is_full(entry, most) {
            return true;
        }
        page.add(*entry);
    }
    false
}

fn lives(shared: &Shared, entry: &Entry) -> bool {
    shared.index.get(entry.key, entry.id) == Some(entry.place)
}

impl Page {
    /// If so, `entry` is the next page's first.
    fn is_full(&mut self, entry: &Entry, most: Most) -> bool {
        let full = self.entries.len() >= most.chunks.max(1) || self.bytes >= most.bytes.max(1);
        if full {
            self.next = Some(entry.place.position());
        }
        full
    }

    fn add(&mut self, entry: Entry) {
        self.bytes += u64::from(entry.place.bytes);
        self.entries.push(entry);
    }
}

/// Of a sealed segment.
fn list_of(shared: &Shared, segment: &Segment) -> Arc<[Entry]> {
    if let Some(kept) = shared.catalog.get(segment.number) {
        return kept;
    }
    let hint = hint::read(segment.hint_path(), segment.number, segment.written_bytes());
    let mut entries = hint.unwrap_or_else(|| from_index(shared, segment.number));
    entries.sort_unstable_by_key(|entry| entry.place);
    shared.catalog.looked_at.fetch_add(entries.len() as u64, Relaxed);
    let entries: Arc<[Entry]> = entries.into();
    shared.catalog.keep(segment.number, &entries);
    entries
}

/// The long way.
fn from_index(shared: &Shared, number: u32) -> Vec<Entry> {
    let mut entries = Vec::new();
    shared.index.each_in(RingArc::new(RingId(0), RingId(0)), |entry| {
        if entry.place.segment == number {
            entries.push(entry);
        }
    });
    entries.sort_unstable_by_key(|entry| entry.place);
    entries
}
