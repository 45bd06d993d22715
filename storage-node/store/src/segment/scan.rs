//! Reads a segment from its first byte to its last and finds every sound record in it.
//!
//! A scan is needed if a segment has no usable hint: after a crash, or when the hint is damaged. An unsound record does
//! not end the scan. If its header still has a plausible length and a sound record follows there, it is skipped;
//! otherwise every later offset is tried until a sound record begins there. The bytes after the last sound record are
//! the torn tail, which the caller cuts.
//!
//! Data may look like records (a user may store a segment file in this very file system), and after a damaged length
//! data cannot be distinguished from headers. Records after damage in their segment are therefore marked `doubtful`,
//! and give way to any other copy of the same chunk.

use std::{fs::File, io, os::unix::fs::FileExt};

use chordfs_types::chunk::{MAX_CHUNK_BYTES, MAX_FILE_NAME_BYTES, RECORD_HEADER_BYTES, RecordHeader};

use crate::index::IndexEntry;

const MAX_RECORD_BYTES: usize = RECORD_HEADER_BYTES + MAX_FILE_NAME_BYTES + MAX_CHUNK_BYTES as usize;
const WINDOW_BYTES: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// In the order of their offsets.
    pub found: Vec<ScannedRecord>,
    /// Where the last sound record ends.
    pub sound_bytes: u64,
    /// The number of gaps between sound records.
    pub damaged: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedRecord {
    pub entry: IndexEntry,
    pub doubtful: bool,
}

/// Returns the header of the record at the start of `bytes`, if the record is complete and its checksum is right.
pub(crate) fn sound_record(bytes: &[u8]) -> Option<RecordHeader> {
    let header = RecordHeader::parse(bytes).ok()?;
    let record = bytes.get(..header.record_bytes())?;
    (crc32c::crc32c(&record[8..]) == header.checksum).then_some(header)
}

/// Scans `file`, the segment `segment` of `file_bytes`.
pub(crate) fn scan(file: &File, segment: u32, file_bytes: u64) -> io::Result<Scan> {
    let mut window = Window { file, file_bytes, start: 0, bytes: Vec::new() };
    let (mut scan, mut offset) = (Scan::default(), 0);
    // A `RecordLocation` has no larger offset, so no record was written there.
    while offset < file_bytes && offset <= u64::from(u32::MAX) {
        if let Some(header) = sound_record(window.at(offset)?) {
            scan.damaged += u64::from(offset > scan.sound_bytes);
            let entry = IndexEntry::new(&header, segment, offset as u32);
            scan.found.push(ScannedRecord { entry, doubtful: scan.damaged > 0 });
            offset += header.record_bytes() as u64;
            scan.sound_bytes = offset;
        } else {
            offset = step_over(&mut window, offset)?;
        }
    }
    Ok(scan)
}

/// Returns the next offset at which a record may begin after an unsound one; the end of the file if there is none.
fn step_over(window: &mut Window<'_>, offset: u64) -> io::Result<u64> {
    if let Ok(header) = RecordHeader::parse(window.at(offset)?) {
        let next = offset + header.record_bytes() as u64;
        if next < window.file_bytes && sound_record(window.at(next)?).is_some() {
            return Ok(next);
        }
    }
    let mut from = offset + 1;
    while from < window.file_bytes {
        let bytes = window.at(from)?;
        let starts = bytes.len().saturating_sub(MAX_RECORD_BYTES).max(1);
        if let Some(at) = (0..starts).find(|at| RecordHeader::parse(&bytes[*at..]).is_ok()) {
            return Ok(from + at as u64);
        }
        from += starts as u64;
    }
    Ok(window.file_bytes)
}

/// A stretch of the file in memory, moved along as needed.
struct Window<'a> {
    file: &'a File,
    file_bytes: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Returns the bytes from `offset` on: enough for the largest record, or all up to the end of the file.
    fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        let need = (offset + MAX_RECORD_BYTES as u64).min(self.file_bytes);
        if offset < self.start || need > end {
            let len = (self.file_bytes - offset).min(WINDOW_BYTES as u64) as usize;
            self.bytes.resize(len, 0);
            self.start = offset;
            self.file.read_exact_at(&mut self.bytes, offset)?;
        }
        Ok(&self.bytes[(offset - self.start) as usize..])
    }
}
