//! The hint of a sealed segment, `NNNNNNNN.idx`: a list of its records, so that an open need not read the segment.
//!
//! ```text
//! offset size field (little-endian)
//!      0    4 magic "CFi1"
//!      4    4 CRC32C of everything after this field
//!      8    4 the segment's number
//!     12    4 count of entries
//!     16    8 the segment's length in bytes
//!     24   24 per entry: version (8), chunk index (4), key (4), offset (4), record bytes (4)
//! ```
//! A hint is only a shortcut: if it is missing, torn, damaged, or does not match its segment's length, the segment is
//! read instead. It is written after the segment's bytes are on the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use bytes::{Buf, BufMut};
use chordfs_types::{
    chunk::{ChunkId, Version},
    ring_id::RingId,
};

use crate::index::{IndexEntry, RecordLocation};

const MAGIC: &[u8; 4] = b"CFi1";
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;

/// Writes the hint of a segment of `segment_bytes` that holds `entries`.
pub(crate) fn write(path: &Path, segment: u32, segment_bytes: u64, entries: &[IndexEntry]) -> io::Result<()> {
    File::create(path)?.write_all(&encode(segment, segment_bytes, entries))
}

/// Reads a hint; returns `None` if there is none that can be trusted.
pub(crate) fn read(path: &Path, segment: u32, segment_bytes: u64) -> Option<Vec<IndexEntry>> {
    decode(&fs::read(path).ok()?, segment, segment_bytes)
}

fn encode(segment: u32, segment_bytes: u64, entries: &[IndexEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(segment);
    out.put_u32_le(entries.len() as u32);
    out.put_u64_le(segment_bytes);
    for entry in entries {
        out.put_u64_le(entry.id.version.0);
        out.put_u32_le(entry.id.index);
        out.put_u32_le(entry.key.0);
        out.put_u32_le(entry.location.offset);
        out.put_u32_le(entry.location.bytes);
    }
    let checksum = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn decode(bytes: &[u8], segment: u32, segment_bytes: u64) -> Option<Vec<IndexEntry>> {
    let (mut header, mut rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let magic = header.get_u32().to_be_bytes();
    let checksum = header.get_u32_le();
    let sound = magic == *MAGIC
        && crc32c::crc32c(&bytes[8..]) == checksum
        && header.get_u32_le() == segment
        && header.get_u32_le() as usize * ENTRY_BYTES == rest.len()
        && header.get_u64_le() == segment_bytes;
    if !sound {
        return None;
    }
    let entries = rest.len() / ENTRY_BYTES;
    let entries: Vec<IndexEntry> = (0..entries).map(|_| take_entry(&mut rest, segment)).collect();
    entries.iter().all(|entry| entry.location.end() <= segment_bytes).then_some(entries)
}

fn take_entry(rest: &mut &[u8], segment: u32) -> IndexEntry {
    let version = Version(rest.get_u64_le());
    let (index, key) = (rest.get_u32_le(), RingId(rest.get_u32_le()));
    let (offset, bytes) = (rest.get_u32_le(), rest.get_u32_le());
    IndexEntry { key, id: ChunkId { version, index }, location: RecordLocation { segment, offset, bytes } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_reads_back_and_damaged_ones_are_rejected() {
        let entry = |at: u32| IndexEntry {
            key: RingId(at * 7),
            id: ChunkId { version: Version(u64::from(at) << 40), index: at + 1 },
            location: RecordLocation { segment: 5, offset: at * 100, bytes: 100 },
        };
        let entries: Vec<IndexEntry> = (0..3).map(entry).collect();
        let bytes = encode(5, 300, &entries);
        assert_eq!(decode(&bytes, 5, 300).as_ref(), Some(&entries));
        assert_eq!(decode(&bytes, 6, 300), None);
        assert_eq!(decode(&bytes, 5, 299), None);
        assert_eq!(decode(&encode(5, 299, &entries), 5, 299), None, "an entry beyond the end");
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len], 5, 300), None, "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 5, 300), None, "bit {bit}");
        }
    }
}
