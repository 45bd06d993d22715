//! The list of a segment's dead records: `NNNNNNNN.dead` beside `NNNNNNNN.seg`, append-only.
//!
//! ```text
//! offset size field (little-endian), one entry of 8 bytes per dead record
//!      0    4 offset of the record in its segment
//!      4    4 CRC32C of the segment's number and that offset
//! ```
//! A torn tail and entries with a wrong checksum are ignored: the record is then live again, which only costs space, as
//! a stored chunk never changes. For the same reason an entry that cannot be written to a full disk is kept in memory
//! and written later, so that deleting still works. Likewise, a list that could not be synced is written again, but
//! the next process does not know of it: a power cut may then undo deletions, and their chunks are orphans, which are
//! collected later.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hashbrown::HashSet;

const ENTRY_BYTES: usize = 8;

pub(crate) struct DeadList {
    path: PathBuf,
    segment: u32,
    /// Whole entries in the file.
    file_bytes: u64,
    /// Dead, but not in the file yet.
    unwritten: Vec<u32>,
    /// In the file, but not synced yet: its last entries.
    unsynced: Vec<u32>,
    /// Bytes of the entries that were found at the open. A killed process may not have synced them.
    unsynced_found: u64,
}

impl DeadList {
    /// The empty list of a new segment.
    pub(crate) fn new(path: PathBuf, segment: u32) -> Self {
        Self { path, segment, file_bytes: 0, unwritten: Vec::new(), unsynced: Vec::new(), unsynced_found: 0 }
    }

    /// Reads the list of a segment found at the open. A missing file is an empty list.
    pub(crate) fn load(path: PathBuf, segment: u32) -> io::Result<(Self, HashSet<u32>)> {
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let (entries, _torn) = bytes.as_chunks::<ENTRY_BYTES>();
        let offsets = entries.iter().filter_map(|entry| decode(segment, entry)).collect();
        let file_bytes = (entries.len() * ENTRY_BYTES) as u64;
        Ok((Self { file_bytes, unsynced_found: file_bytes, ..Self::new(path, segment) }, offsets))
    }

    /// Adds entries. After an error they stay queued for the next call, whose `offsets` may be empty.
    pub(crate) fn add(&mut self, offsets: &[u32]) -> io::Result<()> {
        self.unwritten.extend_from_slice(offsets);
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.unwritten.iter().flat_map(|offset| encode(self.segment, *offset)).collect();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        file.write_all_at(&bytes, self.file_bytes)?;
        self.file_bytes += bytes.len() as u64;
        self.unsynced.append(&mut self.unwritten);
        Ok(())
    }

    /// Syncs the added entries. Returns true if the file may be new, so that its folder has to be synced as well.
    pub(crate) fn sync(&mut self) -> io::Result<bool> {
        self.add(&[])?;
        if self.unsynced.is_empty() && self.unsynced_found == 0 {
            return Ok(false);
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        file.sync_data().inspect_err(|_| self.write_again(&file))?;
        (self.unsynced, self.unsynced_found) = (Vec::new(), 0);
        Ok(true)
    }

    /// After a failed sync: the kernel takes the entries for written, so a later sync, also one of the next process,
    /// covers only what is written again.
    fn write_again(&mut self, file: &File) {
        self.file_bytes -= (self.unsynced.len() * ENTRY_BYTES) as u64;
        let mut found = vec![0; self.unsynced_found as usize];
        // As long as some were found and not synced, none of the others is synced.
        if file.read_exact_at(&mut found, 0).is_ok() {
            let (entries, _) = found.as_chunks::<ENTRY_BYTES>();
            let offsets = entries.iter().filter_map(|entry| decode(self.segment, entry));
            self.unsynced.splice(..0, offsets);
            self.file_bytes -= std::mem::take(&mut self.unsynced_found);
        }
        self.unsynced.append(&mut self.unwritten);
        std::mem::swap(&mut self.unsynced, &mut self.unwritten);
        if let Err(error) = self.add(&[]) {
            tracing::debug!(path = %self.path.display(), %error, "dead records will be written again later");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn encode(segment: u32, offset: u32) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&offset.to_le_bytes());
    entry[4..].copy_from_slice(&checksum(segment, offset).to_le_bytes());
    entry
}

fn decode(segment: u32, entry: &[u8; ENTRY_BYTES]) -> Option<u32> {
    let [a, b, c, d, sum @ ..] = *entry;
    let offset = u32::from_le_bytes([a, b, c, d]);
    (u32::from_le_bytes(sum) == checksum(segment, offset)).then_some(offset)
}

fn checksum(segment: u32, offset: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &offset.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(path: &Path) -> Vec<u32> {
        let (_, found) = DeadList::load(path.to_owned(), 3).unwrap();
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_torn_tail_and_flipped_bits_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000003.dead");
        DeadList::new(path.clone(), 3).add(&[10, 20, 30]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(offsets(&path), [10, 20, 30][..len / ENTRY_BYTES]);
            let (mut list, _) = DeadList::load(path.clone(), 3).unwrap();
            list.add(&[40]).unwrap();
            assert_eq!(offsets(&path).last(), Some(&40), "an entry after a torn one counts");
        }
        for bit in 0..ENTRY_BYTES * 8 {
            let mut flipped = whole.clone();
            flipped[ENTRY_BYTES + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(offsets(&path), [10, 30], "bit {bit}");
        }
    }

    #[test]
    fn entries_that_cannot_be_written_are_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/00000003.dead");
        let mut list = DeadList::new(path.clone(), 3);
        list.add(&[1]).unwrap_err();
        std::fs::create_dir(dir.path().join("gone")).unwrap();
        assert!(list.sync().unwrap());
        assert_eq!(offsets(&path), [1]);
    }
}
