//! Small values that are replaced as a whole: the vote, the identity, what was purged, what was committed.
//!
//! ```text
//! magic "CFrv" | format u32 | CRC32C of the value u32 | value (postcard)
//! ```

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use super::log_file::{damaged, sync_dir, too_new};

const MAGIC: [u8; 4] = *b"CFrv";
const VALUE_FORMAT: u32 = 1;
const HEAD_BYTES: usize = 12;

/// Replaces the value durably: a crash leaves the old one or the new one.
pub fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&encode(value))?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Replaces the value without waiting for the disk: a crash of the machine may leave the old value, or damage.
pub fn write_lazily<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    std::fs::write(&temporary, encode(value))?;
    std::fs::rename(&temporary, dir.join(name))
}

pub fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
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
        return Err(damaged(&path, "it does not begin as it should"));
    }
    if number(4) != VALUE_FORMAT {
        return Err(too_new(&path, number(4), VALUE_FORMAT));
    }
    if crc32c::crc32c(value) != number(8) {
        return Err(damaged(&path, "its checksum does not fit"));
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
