//! Small values that are replaced as a whole: the vote, the identity, the purged and the committed log id.
//!
//! ```text
//! magic "CFrv" | format u32 | CRC32C of the value u32 | value (postcard)
//! ```

use std::{io, path::Path};

use chordfs_files::{replace_durably, replace_without_sync};
use serde::{Serialize, de::DeserializeOwned};

use super::log_file::{damaged, other_format};

const MAGIC: [u8; 4] = *b"CFrv";
const VALUE_FORMAT: u32 = 1;
const HEAD_BYTES: usize = 12;

/// Replaces the value durably: a crash leaves the old one or the new one.
pub(super) fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    replace_durably(&dir.join(name), &encode(value))
}

/// Replaces the value without waiting for the disk: a crash of the machine may leave the old value, or damage.
pub(super) fn write_lazily<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    replace_without_sync(&dir.join(name), &encode(value))
}

pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    let path = dir.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((head, value)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(damaged(&path, "it is cut off"));
    };
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if head[..4] != MAGIC {
        return Err(damaged(&path, "it has the wrong magic bytes"));
    }
    if number(4) != VALUE_FORMAT {
        return Err(other_format(&path, number(4), VALUE_FORMAT));
    }
    if crc32c::crc32c(value) != number(8) {
        return Err(damaged(&path, "its checksum does not match"));
    }
    postcard::from_bytes(value).map(Some).map_err(|error| damaged(&path, &error.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let value = postcard::to_stdvec(value).expect("plain data always encodes");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + value.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VALUE_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&value).to_le_bytes());
    bytes.extend_from_slice(&value);
    bytes
}
