//! Bytes and trees from a seed, and digests to compare them by.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use rand::{RngCore, SeedableRng, rngs::StdRng};

/// Incompressible bytes, equal for equal seeds.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

/// Writes `len` bytes of `seed` in 1 MiB pieces.
pub fn write_stream(out: &mut impl Write, seed: u64, len: u64) -> io::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut piece = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let now = left.min(piece.len() as u64) as usize;
        random.fill_bytes(&mut piece[..now]);
        out.write_all(&piece[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// CRC32C and length of a file's contents.
pub fn digest(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    let (mut len, mut checksum) = (0, 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((len, checksum));
        }
        len += read as u64;
        checksum = crc32c::crc32c_append(checksum, &piece[..read]);
    }
}
