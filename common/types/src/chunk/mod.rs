//! Chunks: their names, their versions, and the ids by which they are found. Their bytes travel in records (`record`).

mod record;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::record::{
    RECORD_HEADER_BYTES, Record, RecordError, RecordHeader, VerifiedBatch, encode_record, record_bytes, take_record,
};
use crate::ring_id::RingId;

/// Chunk size of files written through a mount.
pub const CHUNK_BYTES: u32 = 4096;
/// Chunk size of files sent by the old scripts, unless their first chunk is larger.
pub const SCRIPT_CHUNK_BYTES: u32 = 4000;
/// No chunk is larger than this.
pub const MAX_CHUNK_BYTES: u32 = 1 << 20;
/// The longest NAME: it is a path at creation, so it may be as long as a path.
pub const MAX_FILE_NAME_BYTES: usize = 4095;

const SEPARATOR: &[u8] = b"_chunk_";

/// NAME, the first part of a file's chunk names: its path at creation, without a leading slash, or the end of a very
/// long one. Any bytes but NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileName(Bytes);

impl FileName {
    /// Takes 1 to [`MAX_FILE_NAME_BYTES`] bytes without a NUL.
    pub fn new(name: impl Into<Bytes>) -> Result<Self, NameError> {
        let name = name.into();
        match name.len() {
            0 => Err(NameError::Empty),
            len if len > MAX_FILE_NAME_BYTES => Err(NameError::TooLong { len, limit: MAX_FILE_NAME_BYTES }),
            _ if name.contains(&0) => Err(NameError::Nul),
            _ => Ok(Self(name)),
        }
    }

    /// The NAME of what is created at a path: the path itself, or the end of one that is too long. A NAME need not be
    /// unique.
    pub fn of_path(path: impl Into<Bytes>) -> Result<Self, NameError> {
        let mut path = path.into();
        if let Some(excess) = path.len().checked_sub(MAX_FILE_NAME_BYTES).filter(|excess| *excess > 0) {
            path = path.split_off(excess);
            let slash = path.iter().position(|byte| *byte == b'/');
            path = path.split_off(slash.map_or(0, |slash| slash + 1));
        }
        Self::new(path)
    }

    /// The bytes need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the name of a directory entry, a NAME or a symlink's target was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum NameError {
    /// All three have at least one byte.
    #[error("the name is empty")]
    Empty,
    /// The limit depends on what is named: a directory entry, a file's NAME or a symlink's target.
    #[error("the name has {len} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes of the refused name.
        len: usize,
        /// Bytes that are allowed here.
        limit: usize,
    },
    /// The kernel ends names at a NUL, so such a file could not be opened.
    #[error("the name contains a NUL byte")]
    Nul,
    /// Only names of directory entries; NAME may contain slashes.
    #[error("the name contains a slash")]
    Slash,
    /// Both exist in every directory without an entry.
    #[error("`.` and `..` name directories")]
    Dots,
}

/// `NAME_chunk_I`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChunkName {
    /// Everything before the last `_chunk_`.
    pub file: FileName,
    /// Counts from 1.
    pub index: u32,
}

impl ChunkName {
    /// Splits at the last `_chunk_`; returns `None` if this is no chunk name (index 0, leading zeros, or beyond 2^32 -
    /// 1).
    pub fn parse(name: &[u8]) -> Option<Self> {
        let at = name.windows(SEPARATOR.len()).rposition(|window| window == SEPARATOR)?;
        let digits = &name[at + SEPARATOR.len()..];
        if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let index = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Self { file: FileName::new(name[..at].to_vec()).ok()?, index })
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_chunk_{}", self.file, self.index)
    }
}

/// The key of chunk `index` of `file`.
pub fn chunk_key(file: &FileName, index: u32) -> RingId {
    let mut name = Vec::with_capacity(file.0.len() + SEPARATOR.len() + 10);
    name.extend_from_slice(&file.0);
    name.extend_from_slice(SEPARATOR);
    name.extend_from_slice(index.to_string().as_bytes());
    RingId::of_chunk_name(&name)
}

/// A chunk's write-once stamp. Handed out by the namespace, each to one flushed run of chunks of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    const CLONE: u64 = 1 << 63;

    /// The version of a clone: no chunk is stored under it, but it stands for chunks that are stored under another one
    /// (`ClonedRun`).
    pub fn of_clone(number: u64) -> Self {
        Self(number | Self::CLONE)
    }

    /// Whether it is the version of a clone.
    pub fn is_clone(self) -> bool {
        self.0 & Self::CLONE != 0
    }
}

/// Identifies one stored chunk. A version belongs to one run of one file, so version and index are enough; NAME serves
/// placement and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId {
    /// Comes first, so that ids sort by version.
    pub version: Version,
    /// Counts from 1.
    pub index: u32,
}

/// A reference to a chunk for a request: its id, and the NAME from which its key is computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// NAME does not change when the file is renamed.
    pub file: FileName,
    /// Together with the key it finds the record in a node's index.
    pub id: ChunkId,
}

impl ChunkRef {
    /// Computes MD5 at every call.
    pub fn key(&self) -> RingId {
        chunk_key(&self.file, self.id.index)
    }
}

/// `count` chunks of `file` from `first` on that share a version: the unit of deletion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRun {
    /// NAME from which the keys of the chunks are computed.
    pub file: FileName,
    /// Counts from 1.
    pub first: u32,
    /// At least 1; the last chunk is `first + count - 1`, at most 2^32 - 1.
    pub count: u32,
    /// Other chunks with this version may still be current.
    pub version: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_names() {
        let parsed = |name: &str| ChunkName::parse(name.as_bytes()).map(|chunk| (chunk.file.to_string(), chunk.index));
        assert_eq!(parsed("a.txt_chunk_1"), Some(("a.txt".into(), 1)));
        assert_eq!(parsed("a_chunk_2_chunk_30"), Some(("a_chunk_2".into(), 30)));
        assert_eq!(parsed("a_chunk_4294967295"), Some(("a".into(), u32::MAX)));
        for no in
            ["a", "a_chunk_", "a_chunk_0", "a_chunk_01", "a_chunk_4294967296", "_chunk_1", "a_chunk_1x", "a_chunk_+1"]
        {
            assert_eq!(parsed(no), None, "{no}");
        }
    }
}
