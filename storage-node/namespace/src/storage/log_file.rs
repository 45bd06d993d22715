//! One file of the Raft log: its format, and reading and truncating it.
//!
//! ```text
//! header, 16 bytes:  magic "CFrl" | format u32 | index of the first entry u64
//! entry:             length n u32 | CRC32C of length, write and payload u32 | write u32 | payload, n bytes (postcard)
//! ```
//! All numbers are little-endian. Entries have consecutive indexes and no gaps. `write` is the offset in the file at
//! which the write that carried the entry began. A write begins only when everything before it is on the disk, so it
//! tells apart two kinds of unsound bytes:
//!
//! - No later write follows: the last write was under way when the machine stopped. Its entries were never
//!   acknowledged, and this torn tail is cut off.
//! - A later write follows: the disk has lost what it had. These bytes are evidence, and entries behind them are sound,
//!   so the file is left alone and an error explains what to do.

use chordfs_files::{replace_durably, sync_folder};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::raft_types::LogEntry;

const MAGIC: [u8; 4] = *b"CFrl";
const LOG_FORMAT: u32 = 3;
pub(super) const HEADER_BYTES: u64 = 16;
const FRAME_BYTES: usize = 12;

/// What [`LogFile::open`] found.
pub(super) struct OpenedLogFile {
    pub file: LogFile,
    pub entries: Vec<LogEntry>,
    pub was_damaged: bool,
}

/// An open log file with the offset of each of its entries.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    first: u64,
    /// Where each entry starts, and at the end where the next one will start.
    offsets: Vec<u64>,
}

/// What to do with a log file that has lost bytes which were on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagePolicy {
    /// Change nothing and report it.
    Refuse,
    /// Keep the entries before the damage; a copy of the file as it was stays beside it. For an operator who has no
    /// other copy of the log.
    Cut,
}

/// Appends the frame of `entry` to `out`; the write that carries it begins at the offset `write` of the file.
pub(super) fn encode_entry(out: &mut Vec<u8>, write: u32, entry: &LogEntry) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    let whole = postcard::to_extend(entry, std::mem::take(out)).expect("an entry always encodes");
    *out = whole;
    let len = (out.len() - start - FRAME_BYTES) as u32;
    let checksum = frame_checksum(len, write, &out[start + FRAME_BYTES..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&write.to_le_bytes());
}

impl LogFile {
    /// Creates a file whose first entry will be `first`; it is durable when this returns.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(file_name(first));
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&LOG_FORMAT.to_le_bytes());
        header.extend_from_slice(&first.to_le_bytes());
        file.write_all(&header)?;
        file.sync_all()?;
        sync_folder(dir)?;
        Ok(Self { path, file, first, offsets: vec![HEADER_BYTES] })
    }

    /// Opens a file and reads its entries. `None` if not even the header had been written. With `newest` a torn tail is
    /// cut off; an older file was complete before the next was created, and entries up to `synced` were on the disk.
    /// Whether the file was damaged and cut is returned with it.
    pub(super) fn open(
        path: PathBuf,
        newest: bool,
        synced: Option<u64>,
        policy: DamagePolicy,
    ) -> io::Result<Option<OpenedLogFile>> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(first) = read_header(&path, &bytes, newest)? else { return Ok(None) };
        let (entries, offsets) = read_entries(&path, &bytes, first)?;
        let end = *offsets.last().expect("there is always an end");
        let mut was_damaged = false;
        if end < bytes.len() as u64 {
            let next = first + entries.len() as u64;
            let was_synced = synced.is_some_and(|synced| next <= synced);
            was_damaged = !newest || was_synced || later_write_follows(&bytes, end as usize);
            match policy {
                DamagePolicy::Refuse if was_damaged => {
                    return Err(damaged(&path, &format!("entry {next} at byte {end} does not match its checksum")));
                }
                DamagePolicy::Cut if was_damaged => keep_copy(&path, &bytes)?,
                _ => {}
            }
            tracing::warn!(path = %path.display(), at = end, cut = bytes.len() as u64 - end, "cut the end of a log file");
            file.set_len(end)?;
        }
        if newest || was_damaged {
            // Raft acts on these entries from now on, and the next write begins behind them, but a killed process may
            // not have synced the last write. If it tried in vain, the kernel takes the bytes for written, so they are
            // written again.
            let last_write = last_write(&bytes, &offsets);
            file.write_all_at(&bytes[last_write..end as usize], last_write as u64)?;
            file.sync_data()?;
        }
        file.seek(SeekFrom::Start(end))?;
        Ok(Some(OpenedLogFile { file: Self { path, file, first, offsets }, entries, was_damaged }))
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.offsets.len() as u64 - 1
    }

    pub(super) fn bytes(&self) -> u64 {
        *self.offsets.last().expect("there is always an end")
    }

    /// Writes frames, of which entry `i` ends at `ends[i]`. They are not durable before [`Self::sync`]. On a full disk
    /// nothing is added, and the write may be tried again.
    pub(super) fn append(&mut self, frames: &[u8], ends: impl Iterator<Item = usize>) -> io::Result<()> {
        let start = self.bytes();
        if let Err(error) = self.file.write_all(frames) {
            self.file.set_len(start)?;
            self.file.seek(SeekFrom::Start(start))?;
            return Err(error);
        }
        self.offsets.extend(ends.map(|end| start + end as u64));
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Drops the entries from `index` on; this is durable when it returns.
    pub(super) fn truncate(&mut self, index: u64) -> io::Result<()> {
        let keep = index.saturating_sub(self.first) as usize;
        if keep + 1 >= self.offsets.len() {
            return Ok(());
        }
        self.offsets.truncate(keep + 1);
        let end = self.bytes();
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        self.file.sync_data()
    }

    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Lists the log files of `dir`, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("log-") && name.ends_with(".seg") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn damaged(path: &Path, what: &str) -> io::Error {
    let advice = "Nothing was changed. If other voters of the namespace run, `storage-node rejoin` puts this log aside and \
                  they fill this node anew; if this is the only copy, restore the file from a backup, or accept the \
                  loss of what follows with `storage-node recover --sole-survivor --cut-damage`";
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {what}. {advice}", path.display()))
}

/// The error for a file whose format is not the one that this program reads. Formats count from 1.
pub(super) fn other_format(path: &Path, found: u32, known: u32) -> io::Error {
    if found == 0 {
        return damaged(path, "its format is 0, which no program writes");
    }
    let age = if found < known { "older" } else { "newer" };
    let text = format!(
        "{} has format {found}, this program reads {known}: run the {age} program that wrote it",
        path.display()
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn file_name(first: u64) -> String {
    format!("log-{first:020}.seg")
}

/// Returns the index of the first entry; `None` if the creation of the newest file did not come to its end. Nothing is
/// written behind a header before it is on the disk.
fn read_header(path: &Path, bytes: &[u8], newest: bool) -> io::Result<Option<u64>> {
    let unsound = |what: &str| {
        let was_being_created = newest && bytes.len() as u64 <= HEADER_BYTES;
        if was_being_created { Ok(None) } else { Err(damaged(path, what)) }
    };
    let Some(header) = bytes.first_chunk::<{ HEADER_BYTES as usize }>() else {
        return unsound("its header is cut off");
    };
    if header[..4] != MAGIC {
        return unsound("it has the wrong magic bytes for a log file");
    }
    let format = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
    if format == 0 {
        return unsound("its header is torn");
    }
    if format != LOG_FORMAT {
        return Err(other_format(path, format, LOG_FORMAT));
    }
    let first = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
    let named = path.file_name().is_some_and(|name| *name == *file_name(first));
    if named { Ok(Some(first)) } else { unsound("its header does not match its name") }
}

/// Reads all sound entries from the start, with their offsets.
fn read_entries(path: &Path, bytes: &[u8], first: u64) -> io::Result<(Vec<LogEntry>, Vec<u64>)> {
    let (mut entries, mut offsets) = (Vec::new(), vec![HEADER_BYTES]);
    let mut at = HEADER_BYTES as usize;
    while let Some(payload) = sound_payload(bytes, at) {
        let entry: LogEntry = postcard::from_bytes(payload)
            .map_err(|error| damaged(path, &format!("the entry at byte {at} does not decode: {error}")))?;
        if entry.log_id.index != first + entries.len() as u64 {
            return Err(damaged(path, &format!("the entry at byte {at} has index {}", entry.log_id.index)));
        }
        at += FRAME_BYTES + payload.len();
        entries.push(entry);
        offsets.push(at as u64);
    }
    Ok((entries, offsets))
}

/// Returns the payload of the frame at `at`; `None` without a whole frame whose checksum matches.
fn sound_payload(bytes: &[u8], at: usize) -> Option<&[u8]> {
    sound_frame(bytes, at).map(|(_, payload)| payload)
}

/// Returns the offset at which the write of the frame at `at` began, and its payload.
fn sound_frame(bytes: &[u8], at: usize) -> Option<(u32, &[u8])> {
    let (frame, rest) = bytes.get(at..)?.split_first_chunk::<FRAME_BYTES>()?;
    let number = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().expect("four bytes"));
    let (len, checksum, write) = (number(0), number(4), number(8));
    // No write begins behind its own entries: this spares most checksums where bytes are arbitrary.
    let payload = rest.get(..len as usize).filter(|_| write as usize <= at)?;
    (frame_checksum(len, write, payload) == checksum).then_some((write, payload))
}

/// Returns where the last write of a sound file began; the creation of a file counts.
fn last_write(bytes: &[u8], offsets: &[u64]) -> usize {
    let last_entry = offsets.len().checked_sub(2).map(|at| offsets[at] as usize);
    last_entry.and_then(|at| sound_frame(bytes, at)).map_or(0, |(write, _)| write as usize)
}

fn frame_checksum(len: u32, write: u32, payload: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), &write.to_le_bytes());
    crc32c::crc32c_append(head, payload)
}

/// Whether an entry of a later write stands somewhere behind the unsound bytes at `end`.
fn later_write_follows(bytes: &[u8], end: usize) -> bool {
    (end + 1..bytes.len()).any(|at| sound_frame(bytes, at).is_some_and(|(write, _)| write as usize > end))
}

/// Keeps `bytes`, the contents of the file at `path`, under the first free name `PATH.damaged-N`.
fn keep_copy(path: &Path, bytes: &[u8]) -> io::Result<()> {
    super::damage_cut::begin(path.parent().expect("a log file is in a folder"))?;
    replace_durably(&free_name(path), bytes)
}

/// Gives the file at `path` the first free name `PATH.damaged-N`.
pub(super) fn put_aside(path: &Path) -> io::Result<()> {
    super::damage_cut::begin(path.parent().expect("a log file is in a folder"))?;
    std::fs::rename(path, free_name(path))
}

pub(super) fn free_name(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|name| !name.exists()).expect("some number is free")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::{
        fcntl::{FcntlArg, SealFlag, fcntl},
        sys::memfd::{MFdFlags, memfd_create},
    };

    use super::*;

    /// A file in memory that must not grow simulates a disk that becomes full in the middle of a write.
    #[test]
    fn half_a_write_is_undone() {
        let file = File::from(memfd_create(c"log", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(8000).unwrap();
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        let mut file = LogFile { path: PathBuf::new(), file, first: 1, offsets: vec![HEADER_BYTES] };
        file.file.seek(SeekFrom::Start(HEADER_BYTES)).unwrap();
        file.append(&[7; 4000], [4000].into_iter()).unwrap();
        assert!(file.append(&[8; 4000], [4000].into_iter()).is_err());
        assert_eq!((file.next(), file.bytes()), (2, HEADER_BYTES + 4000));
        assert_eq!(file.file.metadata().unwrap().len(), HEADER_BYTES + 4000);
        assert_eq!(file.file.stream_position().unwrap(), HEADER_BYTES + 4000, "the next write continues there");
    }
}
