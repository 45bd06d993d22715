//! Bytes that are written and not yet stored, as segments that neither overlap nor are ever reallocated.
//!
//! A segment is one buffer of contiguous bytes with room at its end. A sequential writer fills segments that grow from
//! call to call up to [`SEGMENT_BYTES`] and end on a chunk's border, so its bytes are copied once, on their way in, and
//! whole chunks leave as slices of the same buffers. Only a chunk that lies across two segments is copied again.
//!
//! Deals with offsets and chunk borders only, not with versions, uploads or commits.

use std::{collections::BTreeMap, ops::Range};

use bytes::{Bytes, BytesMut};

/// Size of the largest segment: the kernel's largest write.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Counted for each segment in addition to its bytes, so that many tiny writes cannot exceed a ceiling unnoticed.
const SEGMENT_OVERHEAD: u64 = 256;

#[derive(Default)]
pub(super) struct DirtyBytes {
    /// Maps the offset of a segment's first byte to its bytes.
    segments: BTreeMap<u64, BytesMut>,
    bytes: u64,
}

impl DirtyBytes {
    pub(super) const fn new() -> Self {
        Self { segments: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The memory that this holds.
    pub(super) fn held_bytes(&self) -> u64 {
        self.bytes + self.segments.len() as u64 * SEGMENT_OVERHEAD
    }

    /// The most that a write of `len` bytes can add to [`Self::held_bytes`].
    pub(super) fn cost_of(len: usize) -> u64 {
        len as u64 + (len as u64 / SEGMENT_BYTES + 3) * SEGMENT_OVERHEAD
    }

    /// The offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(start, bytes)| start + bytes.len() as u64)
    }

    /// Overwrites the bytes at `offset`. `chunk_bytes` only decides where new segments end.
    pub(super) fn write(&mut self, mut offset: u64, mut data: &[u8], chunk_bytes: u32) {
        while !data.is_empty() {
            let taken = self.write_some(offset, data, chunk_bytes);
            offset += taken as u64;
            data = &data[taken..];
        }
    }

    /// Puts `older` below: where both have bytes, those of `self` win.
    pub(super) fn merge_under(&mut self, older: DirtyBytes, chunk_bytes: u32) {
        if self.is_empty() {
            *self = older;
            return;
        }
        for (start, bytes) in older.segments {
            self.put_under(start, &bytes, chunk_bytes);
        }
    }

    pub(super) fn put_under(&mut self, start: u64, bytes: &[u8], chunk_bytes: u32) {
        for gap in self.gaps(start..start + bytes.len() as u64) {
            self.write(gap.start, &bytes[(gap.start - start) as usize..(gap.end - start) as usize], chunk_bytes);
        }
    }

    /// Copies the bytes held of the range that begins at `offset` into `out`.
    pub(super) fn overlay(&self, offset: u64, out: &mut [u8]) {
        let range = offset..offset + out.len() as u64;
        for (start, bytes) in self.overlapping(range.clone()) {
            let (from, to) = (start.max(range.start), (start + bytes.len() as u64).min(range.end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
    }

    pub(super) fn touches(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_some()
    }

    pub(super) fn covers(&self, range: Range<u64>) -> bool {
        let mut reached = range.start;
        for (start, bytes) in self.overlapping(range.clone()) {
            if start > reached {
                return false;
            }
            reached = start + bytes.len() as u64;
        }
        reached >= range.end
    }

    /// The offset after the last byte that lies in `range`.
    pub(super) fn end_within(&self, range: Range<u64>) -> Option<u64> {
        let (start, bytes) = self.overlapping(range.clone()).last()?;
        Some((start + bytes.len() as u64).min(range.end))
    }

    /// The chunks of which bytes are held, ascending; chunks count from 1.
    pub(super) fn chunks(&self, chunk_bytes: u32) -> Vec<u32> {
        let size = u64::from(chunk_bytes);
        let mut found: Vec<u32> = Vec::new();
        for (start, bytes) in &self.segments {
            let (first, last) = (start / size + 1, (start + bytes.len() as u64 - 1) / size + 1);
            let first = first.max(found.last().map_or(0, |&index| u64::from(index) + 1));
            found.extend((first..=last).map(|index| index as u32));
        }
        found
    }

    /// Takes out whole chunks, ascending, up to `max_bytes`; none if there are fewer than `min_bytes` of them.
    pub(super) fn take_whole(
        &mut self,
        chunk_bytes: u32,
        min_bytes: u64,
        max_bytes: u64,
        blocked: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Bytes)> {
        let picks = self.pick_whole(chunk_bytes, max_bytes, blocked);
        let size = u64::from(chunk_bytes);
        let total: u64 = picks.iter().map(|pick| (pick.end - pick.start) * size).sum();
        if total < min_bytes.max(1) {
            return Vec::new();
        }
        let mut chunks = Vec::with_capacity((total / size) as usize);
        for pick in picks {
            let pieces = self.extract(pick.start * size..pick.end * size);
            cut_into_chunks(pieces, pick.start as u32 + 1, chunk_bytes as usize, &mut chunks);
        }
        chunks
    }

    /// Ranges of whole chunks, counted from 0.
    fn pick_whole(&self, chunk_bytes: u32, max_bytes: u64, blocked: impl Fn(u32) -> bool) -> Vec<Range<u64>> {
        let size = u64::from(chunk_bytes);
        let mut left = (max_bytes / size).max(1);
        let mut picks: Vec<Range<u64>> = Vec::new();
        let mut reached = 0;
        let mut run_start = 0;
        for (&start, bytes) in &self.segments {
            if start != reached {
                run_start = start;
            }
            reached = start + bytes.len() as u64;
            let next = picks.last().map_or(0, |pick| pick.end);
            for index in run_start.div_ceil(size).max(next).max(start / size)..reached / size {
                if left == 0 {
                    return picks;
                }
                if blocked(index as u32 + 1) {
                    continue;
                }
                left -= 1;
                match picks.last_mut() {
                    Some(pick) if pick.end == index => pick.end += 1,
                    _ => picks.push(index..index + 1),
                }
            }
        }
        picks
    }

    /// Takes out the bytes of a range that is wholly held.
    fn extract(&mut self, range: Range<u64>) -> Vec<BytesMut> {
        if let Some((start, bytes)) = self.segments.range_mut(..range.start).next_back()
            && start + bytes.len() as u64 > range.start
        {
            let tail = bytes.split_off((range.start - start) as usize);
            self.segments.insert(range.start, tail);
        }
        let mut pieces = Vec::new();
        while let Some((&start, _)) = self.segments.range(range.clone()).next() {
            let Some(mut piece) = self.segments.remove(&start) else { break };
            if start + piece.len() as u64 > range.end {
                let tail = piece.split_off((range.end - start) as usize);
                self.segments.insert(range.end, tail);
            }
            self.bytes -= piece.len() as u64;
            pieces.push(piece);
        }
        pieces
    }

    /// Writes a first part of `data` into a segment, at the end of one, or as a new one. Returns the part's length.
    fn write_some(&mut self, offset: u64, data: &[u8], chunk_bytes: u32) -> usize {
        let next_start = self.segments.range(offset + 1..).next().map_or(u64::MAX, |(&start, _)| start);
        let free = data.len().min(usize::try_from(next_start - offset).unwrap_or(usize::MAX));
        let mut want = 0;
        if let Some((start, bytes)) = self.segments.range_mut(..=offset).next_back() {
            let at = (offset - start) as usize;
            if at < bytes.len() {
                let len = data.len().min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&data[..len]);
                return len;
            }
            let room = bytes.capacity() - bytes.len();
            if at == bytes.len() && room > 0 {
                let len = free.min(room);
                bytes.extend_from_slice(&data[..len]);
                self.bytes += len as u64;
                return len;
            }
            if at == bytes.len() {
                want = bytes.len() as u64 * 4;
            }
        }
        let want = want.clamp(free as u64, SEGMENT_BYTES.max(free as u64));
        let mut segment = BytesMut::with_capacity(segment_capacity(offset, want, chunk_bytes));
        let len = free.min(segment.capacity());
        segment.extend_from_slice(&data[..len]);
        self.segments.insert(offset, segment);
        self.bytes += len as u64;
        len
    }

    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut reached = range.start;
        for (start, bytes) in self.overlapping(range.clone()) {
            if start > reached {
                gaps.push(reached..start);
            }
            reached = start + bytes.len() as u64;
        }
        if reached < range.end {
            gaps.push(reached..range.end);
        }
        gaps
    }

    fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &BytesMut)> {
        let before = self.segments.range(..range.start).next_back();
        let before = before.filter(|(start, bytes)| **start + bytes.len() as u64 > range.start);
        let inside = (range.start < range.end).then(|| self.segments.range(range.clone())).into_iter().flatten();
        before.filter(|_| range.start < range.end).into_iter().chain(inside).map(|(&start, bytes)| (start, bytes))
    }
}

/// A segment that can hold a whole chunk ends on a chunk's border.
fn segment_capacity(offset: u64, want: u64, chunk_bytes: u32) -> usize {
    let size = u64::from(chunk_bytes);
    let border = (offset + want) / size * size;
    if border > offset { (border - offset) as usize } else { want as usize }
}

fn cut_into_chunks(pieces: Vec<BytesMut>, first: u32, chunk_bytes: usize, out: &mut Vec<(u32, Bytes)>) {
    let mut index = first;
    let mut across = BytesMut::new();
    for piece in pieces {
        let mut piece = piece.freeze();
        if !across.is_empty() {
            let part = piece.split_to(piece.len().min(chunk_bytes - across.len()));
            across.extend_from_slice(&part);
        }
        if across.len() == chunk_bytes {
            out.push((index, std::mem::take(&mut across).freeze()));
            index += 1;
        }
        while piece.len() >= chunk_bytes {
            out.push((index, piece.split_to(chunk_bytes)));
            index += 1;
        }
        if !piece.is_empty() {
            across.reserve(chunk_bytes);
            across.extend_from_slice(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Maps the offset of each dirty byte to the byte.
    type ModelBytes = BTreeMap<u64, u8>;

    fn check(dirty: &DirtyBytes, plain: &ModelBytes, chunk_bytes: u32) {
        let mut out = vec![0; 3000];
        dirty.overlay(0, &mut out);
        for (at, byte) in out.iter().enumerate() {
            assert_eq!(*byte, plain.get(&(at as u64)).copied().unwrap_or(0), "at {at}");
        }
        assert_eq!(dirty.bytes, plain.len() as u64);
        assert_eq!(dirty.end(), plain.keys().last().map_or(0, |at| at + 1));
        let mut chunks: Vec<u32> = plain.keys().map(|at| (at / u64::from(chunk_bytes)) as u32 + 1).collect();
        chunks.dedup();
        assert_eq!(dirty.chunks(chunk_bytes), chunks);
        for (start, len) in [(0, 10), (100, 300), (900, 64)] {
            let range = start..start + len;
            assert_eq!(dirty.covers(range.clone()), range.clone().all(|at| plain.contains_key(&at)));
            assert_eq!(dirty.touches(range.clone()), plain.range(range.clone()).next().is_some());
            assert_eq!(dirty.end_within(range.clone()), plain.range(range).next_back().map(|(at, _)| at + 1));
        }
    }

    proptest! {
        #[test]
        fn segments_agree_with_a_map_of_single_bytes(
            chunk_bytes in prop::sample::select(vec![1u32, 7, 64, 100, 1000]),
            ops in prop::collection::vec((0..4u8, 0..2000u64, 1..900usize, 1..255u8), 1..40),
        ) {
            let (mut dirty, mut plain) = (DirtyBytes::default(), ModelBytes::new());
            let mut sequential = 0;
            for (kind, offset, len, byte) in ops {
                let offset = if kind == 0 && sequential < 2000 { sequential } else { offset };
                let data: Vec<u8> = (0..len).map(|at| byte.wrapping_add(at as u8).max(1)).collect();
                let fresh = data.iter().enumerate().map(|(at, byte)| (offset + at as u64, *byte));
                match kind {
                    0 | 1 => {
                        dirty.write(offset, &data, chunk_bytes);
                        plain.extend(fresh);
                        sequential = offset + len as u64;
                    }
                    2 => {
                        let mut older = DirtyBytes::default();
                        older.write(offset, &data, chunk_bytes);
                        dirty.merge_under(older, chunk_bytes);
                        for (at, byte) in fresh {
                            plain.entry(at).or_insert(byte);
                        }
                    }
                    _ => {
                        let size = u64::from(chunk_bytes);
                        for (index, data) in dirty.take_whole(chunk_bytes, size, 5 * size, |index| index % 5 == 4) {
                            prop_assert!(index % 5 != 4);
                            prop_assert_eq!(data.len(), chunk_bytes as usize);
                            for (at, byte) in data.iter().enumerate() {
                                let taken = plain.remove(&(u64::from(index - 1) * size + at as u64));
                                prop_assert_eq!(taken, Some(*byte));
                            }
                        }
                    }
                }
                check(&dirty, &plain, chunk_bytes);
            }
        }
    }

    #[test]
    fn the_bytes_of_a_sequential_writer_are_copied_once() {
        let mut dirty = DirtyBytes::default();
        let data = vec![7; 1 << 20];
        for at in 0..4 {
            dirty.write(at << 20, &data, 4096);
        }
        let segment_memory: Vec<_> = dirty.segments.values().map(|bytes| bytes.as_ptr_range()).collect();
        let chunks = dirty.take_whole(4096, 4 << 20, 4 << 20, |_| false);
        assert_eq!(chunks.len(), 1024);
        assert!(chunks.iter().all(|(_, data)| segment_memory.iter().any(|range| range.contains(&data.as_ptr()))));
        assert!(dirty.is_empty());
    }

    #[test]
    fn chunks_of_a_sequential_writer_do_not_straddle_segments() {
        let mut dirty = DirtyBytes::default();
        for at in 0..64u64 {
            dirty.write(at * 65536, &[1; 65536], 4000);
        }
        let straddling = dirty.segments.keys().filter(|start| *start % 4000 != 0).count();
        assert!(straddling <= 1, "{straddling} segments begin inside a chunk");
    }
}
