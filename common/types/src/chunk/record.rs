//! The one format in which chunks are sent and stored.
//!
//! A stored chunk never changes, so the writer makes its record once, and the same bytes go over the wire, through the
//! owner, to the replicas and into their segments; every holder and every reader can check the same checksum.
//!
//! ```text
//! offset size field (little-endian)
//!      0    4 magic "CFc1"
//!      4    4 CRC32C of everything after this field
//!      8    4 data length in bytes, 0..=MAX_CHUNK_BYTES
//!     12    4 chunk index I, counted from 1
//!     16    8 version
//!     24    4 key: position on the ring
//!     28    2 length of NAME in bytes, 1..=MAX_FILE_NAME_BYTES
//!     30    2 zero
//!     32    n NAME, then the data
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{ChunkId, FileName, MAX_CHUNK_BYTES, MAX_FILE_NAME_BYTES, NameError, Version, chunk_key};
use crate::ring_id::RingId;

/// Size of the fixed part of a record, up to NAME.
pub const RECORD_HEADER_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"CFc1";

/// A chunk with its bytes; `data` and `file` are usually slices of one larger buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// NAME from which the key was computed.
    pub file: FileName,
    /// Unique in the namespace.
    pub id: ChunkId,
    /// [`take_record`] takes it as stored; only [`VerifiedBatch::verify`] compares it with NAME and index.
    pub key: RingId,
    /// 0 to [`MAX_CHUNK_BYTES`] bytes; a chunk shorter than the file's chunk size reads as if zeros followed.
    pub data: Bytes,
}

/// Why bytes are not a sound record. Only after `Truncated` can more bytes help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not a record, or one of another format.
    #[error("not a chunk record (wrong magic bytes)")]
    Magic,
    /// The bytes end before the header does, or before the length that the header claims.
    #[error("the record is cut off: {have} of {need} bytes")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes of the header, or of the whole record if the header is complete.
        need: usize,
    },
    /// The record was damaged after it was made, on a disk or on its way.
    #[error("the record's checksum does not fit its contents")]
    Checksum,
    /// Read from the header, before the checksum is checked.
    #[error("chunk index 0 (chunks count from 1)")]
    Index,
    /// Read from the header, before the checksum is checked.
    #[error("the record claims {len} bytes of data, at most {MAX_CHUNK_BYTES} are allowed")]
    TooLarge {
        /// The length that the header claims.
        len: u32,
    },
    /// NAME is empty, too long or contains a NUL.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Found by [`VerifiedBatch::verify`] only.
    #[error("the record's key is not that of its name")]
    Key,
}

/// The fixed part of a record, read without looking at the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// CRC32C of everything after it, NAME and data included.
    pub checksum: u32,
    /// At most [`MAX_CHUNK_BYTES`].
    pub data_bytes: u32,
    /// Its index is at least 1.
    pub id: ChunkId,
    /// Not compared with NAME, which follows the header.
    pub key: RingId,
    /// 1 to [`MAX_FILE_NAME_BYTES`].
    pub name_bytes: u16,
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`, without checking the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(RecordError::Truncated { have: bytes.len(), need: RECORD_HEADER_BYTES });
        };
        if header[..4] != MAGIC {
            return Err(RecordError::Magic);
        }
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let parsed = Self {
            checksum: u32_at(4),
            data_bytes: u32_at(8),
            id: ChunkId {
                index: u32_at(12),
                version: Version(u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"))),
            },
            key: RingId(u32_at(24)),
            name_bytes: u16::from_le_bytes([header[28], header[29]]),
        };
        parsed.check()
    }

    fn check(self) -> Result<Self, RecordError> {
        let name_bytes = usize::from(self.name_bytes);
        if self.data_bytes > MAX_CHUNK_BYTES {
            return Err(RecordError::TooLarge { len: self.data_bytes });
        }
        if self.id.index == 0 {
            return Err(RecordError::Index);
        }
        if name_bytes == 0 {
            return Err(NameError::Empty.into());
        }
        if name_bytes > MAX_FILE_NAME_BYTES {
            return Err(NameError::TooLong { len: name_bytes, limit: MAX_FILE_NAME_BYTES }.into());
        }
        Ok(self)
    }

    /// Bytes of the whole record, header included.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + usize::from(self.name_bytes) + self.data_bytes as usize
    }
}

/// Bytes that a record with this NAME and data takes.
pub fn record_bytes(file: &FileName, data_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + file.as_bytes().len() + data_bytes
}

/// Appends the record of one chunk to `out`.
pub fn encode_record(out: &mut BytesMut, file: &FileName, id: ChunkId, key: RingId, data: &[u8]) {
    let start = out.len();
    out.reserve(record_bytes(file, data.len()));
    out.put_slice(&MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(data.len() as u32);
    out.put_u32_le(id.index);
    out.put_u64_le(id.version.0);
    out.put_u32_le(key.0);
    out.put_u16_le(file.as_bytes().len() as u16);
    out.put_u16_le(0);
    out.put_slice(file.as_bytes());
    out.put_slice(data);
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Splits the first record off `bytes` and verifies it. The record shares the buffer.
pub fn take_record(bytes: &mut Bytes) -> Result<Record, RecordError> {
    let header = RecordHeader::parse(bytes)?;
    let need = header.record_bytes();
    if bytes.len() < need {
        return Err(RecordError::Truncated { have: bytes.len(), need });
    }
    let record = bytes.split_to(need);
    if crc32c::crc32c(&record[8..]) != header.checksum {
        return Err(RecordError::Checksum);
    }
    let name_end = RECORD_HEADER_BYTES + usize::from(header.name_bytes);
    Ok(Record {
        file: FileName::new(record.slice(RECORD_HEADER_BYTES..name_end))?,
        id: header.id,
        key: header.key,
        data: record.slice(name_end..),
    })
}

/// The body of a put after every record has been verified. The bytes go to disk as they are.
#[derive(Clone, Debug)]
pub struct VerifiedBatch {
    /// The records as they arrived, one after the other.
    pub bytes: Bytes,
    /// Header and offset into `bytes`, in the order of arrival; the records lie without gaps.
    pub records: Vec<(RecordHeader, u32)>,
}

impl VerifiedBatch {
    /// Checks length, checksum, name and key of every record; one bad record refuses the whole batch.
    pub fn verify(bytes: Bytes) -> Result<Self, RecordError> {
        let mut records = Vec::new();
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let offset = (bytes.len() - rest.len()) as u32;
            let header = RecordHeader::parse(&rest)?;
            let record = take_record(&mut rest)?;
            if chunk_key(&record.file, record.id.index) != record.key {
                return Err(RecordError::Key);
            }
            records.push((header, offset));
        }
        Ok(Self { bytes, records })
    }

    /// One key a record, in the order of arrival.
    pub fn keys(&self) -> impl Iterator<Item = RingId> + '_ {
        self.records.iter().map(|(header, _)| header.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (FileName, Bytes) {
        let file = FileName::new("dir/a.txt").unwrap();
        let mut out = BytesMut::new();
        let id = ChunkId { version: Version(9), index: 3 };
        encode_record(&mut out, &file, id, chunk_key(&file, 3), b"hello");
        (file, out.freeze())
    }

    #[test]
    fn a_record_comes_back() {
        let (file, mut bytes) = sample();
        let record = take_record(&mut bytes).unwrap();
        assert_eq!((record.file, record.id.index, &record.data[..]), (file, 3, &b"hello"[..]));
        assert!(bytes.is_empty());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let (_, bytes) = sample();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(take_record(&mut damaged.into()).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(take_record(&mut bytes.slice(..len)).is_err(), "cut at {len}");
        }
    }
}
