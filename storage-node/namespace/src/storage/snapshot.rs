//! The snapshot: the tables as of one log entry, in one file.
//!
//! ```text
//! magic "CFrs" | format u32 | length n of the meta u32 | meta, n bytes | tables | CRC32C of all before u32
//! ```
//! Meta and tables are postcard, numbers little-endian. Formats 7 to 15 are read too: format 15 has no clones, format
//! 14 no extended attributes and no locks, in format 13 only directories know their parents, format 12 has no
//! identities, in format 11 no chunk's data is logged, in format 10 sessions have no inode numbers, in format 9 they
//! also do not say whether they may hold leases, in format 8 the tables also lack the size of the pool and some of its
//! settings, and in format 7 the whole configuration of the ring and the operators' tokens.
//!
//! A new snapshot is written beside the old one and renamed over it when it is durable, so there is always a complete
//! one. A reader of the old one keeps its open file.
//!
//! The file of the next snapshot exists as soon as the last one is complete, without contents but with the space that
//! it needs. So a snapshot can be written on a full disk, which frees the space of the log before it.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use chordfs_files::rename_durably;
use chordfs_tables::{
    ConfigOfFormat8, Tables, TablesOfFormat8, TablesOfFormat9, TablesOfFormat10, TablesOfFormat11, TablesOfFormat12,
    TablesOfFormat13,
};
use chordfs_types::ring_config::RingConfig;
use nix::fcntl::{FallocateFlags, fallocate};
use openraft::StoredMembership;

use super::log_file::{damaged, other_format};
use crate::raft_types::{LogId, SnapshotMeta};

const MAGIC: [u8; 4] = *b"CFrs";
const SNAPSHOT_FORMAT: u32 = 16;
/// Its tables end before the clones.
const FORMAT_WITHOUT_CLONES: u32 = 15;
/// Its tables end before the extended attributes and the locks.
const FORMAT_WITHOUT_XATTRS: u32 = 14;
/// Its tables end before the owners of sessions, and its files do not know their parents.
const FORMAT_WITHOUT_PARENTS: u32 = 13;
/// Its tables end before the identities.
const FORMAT_WITHOUT_IDENTITIES: u32 = 12;
/// Its tables end before the chunks whose data is logged.
const FORMAT_WITHOUT_DATA: u32 = 11;
/// Its sessions end before the inode numbers.
const FORMAT_WITHOUT_INOS: u32 = 10;
/// Its sessions end before whether they may hold leases.
const FORMAT_WITHOUT_LEASES: u32 = 9;
/// Its tables end before the size of the pool.
const FORMAT_WITHOUT_POOL_SIZE: u32 = 8;
/// Its tables end before the configuration of the ring.
const FORMAT_WITHOUT_CONFIG: u32 = 7;
const HEAD_BYTES: usize = 12;
const NAME: &str = "snapshot";
const INCOMING: &str = "snapshot.incoming";
/// What is reserved for the next snapshot beside the size of the last one.
const MIN_RESERVE_BYTES: u64 = 1 << 20;
/// A snapshot is synced in pieces: the log's own syncs, and with them all operations, wait behind each of them.
pub(crate) const SYNC_EVERY_BYTES: usize = 16 << 20;
const CHECKSUM_DIFFERS: &str = "its checksum does not match";

/// A snapshot's file, open for reading. It stays readable when a newer one takes its name.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub bytes: u64,
    _received: Option<Arc<ReceivedFile>>,
}

impl SnapshotFile {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), path, bytes, _received: None })
    }

    /// Opens a received snapshot. Its file is removed on drop unless it has become the current snapshot.
    pub(crate) fn open_received(path: PathBuf) -> io::Result<Self> {
        let received = Arc::new(ReceivedFile { path: path.clone() });
        Ok(Self { _received: Some(received), ..Self::open(path)? })
    }
}

#[derive(Debug)]
struct ReceivedFile {
    path: PathBuf,
}

impl Drop for ReceivedFile {
    fn drop(&mut self) {
        // This fails if it has been renamed to the current snapshot.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The path of a snapshot while it is received; such files are removed at start.
pub(crate) fn incoming_path(dir: &Path, nonce: u64) -> PathBuf {
    dir.join(format!("{INCOMING}.{nonce:016x}"))
}

/// Writes a snapshot durably under a temporary name; [`make_current`] then makes it the current one. An incomplete one
/// is removed, because it may be what fills the disk.
pub(crate) fn write(dir: &Path, meta: &SnapshotMeta, tables: &Tables) -> io::Result<PathBuf> {
    let temporary = next_path(dir);
    match write_to(&temporary, meta, tables) {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            reserve_space(dir);
            Err(error)
        }
    }
}

fn next_path(dir: &Path) -> PathBuf {
    dir.join(format!("{NAME}.new"))
}

/// Reserves the space of the next snapshot, as far as the disk has it: somewhat more than that of the current one.
pub(crate) fn reserve_space(dir: &Path) {
    let current = current_bytes(dir);
    let bytes = current + current / 4 + MIN_RESERVE_BYTES;
    let reserve = || {
        let file = File::options().write(true).create(true).truncate(false).open(next_path(dir))?;
        // The length stays, so that a reader never takes the space for contents.
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes as i64).map_err(io::Error::from)
    };
    if let Err(error) = reserve() {
        tracing::debug!(%error, bytes, "cannot reserve the space of the next snapshot");
    }
}

fn write_to(path: &Path, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
    // What an interrupted process left is overwritten and cut off: truncating it first would give the space away.
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    let mut file = Summing { file, checksum: 0, unsynced: 0, failure: None };
    let written = write_body(BufWriter::with_capacity(1 << 20, &mut file), meta, tables);
    // The error of the disk; postcard reports only that it failed.
    file.failure.take().filter(|_| written.is_err()).map_or(written, Err)?;
    file.file.write_all(&file.checksum.to_le_bytes())?;
    let len = file.file.stream_position()?;
    file.file.set_len(len)?;
    file.file.sync_all()
}

fn write_body(mut out: BufWriter<&mut Summing>, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
    let meta = postcard::to_stdvec(&(meta.last_log_id, &meta.last_membership)).map_err(io::Error::other)?;
    out.write_all(&MAGIC)?;
    out.write_all(&SNAPSHOT_FORMAT.to_le_bytes())?;
    out.write_all(&(meta.len() as u32).to_le_bytes())?;
    out.write_all(&meta)?;
    let out = postcard::to_io(tables, out).map_err(io::Error::other)?;
    out.into_inner().map_err(|error| error.into_error()).map(drop)
}

/// Makes the sound and durable snapshot at `path` the current one.
pub(crate) fn make_current(dir: &Path, path: &Path) -> io::Result<SnapshotFile> {
    let current = dir.join(NAME);
    rename_durably(path, &current)?;
    reserve_space(dir);
    SnapshotFile::open(current)
}

/// Returns the size of the current snapshot, 0 without one.
pub(crate) fn current_bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(NAME)).map_or(0, |file| file.len())
}

/// Opens the current snapshot; `None` in a new folder. Removes snapshots that were being received when the process
/// ended.
pub(crate) fn open_current(dir: &Path) -> io::Result<Option<SnapshotFile>> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(INCOMING)) {
            std::fs::remove_file(entry.path())?;
        }
    }
    reserve_space(dir);
    match SnapshotFile::open(dir.join(NAME)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads and checks a whole snapshot.
pub(crate) fn load(snapshot: &SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
    let path = &snapshot.path;
    let mut bytes = Vec::with_capacity(snapshot.bytes as usize);
    ReadAt { file: &snapshot.file, at: 0 }.read_to_end(&mut bytes)?;
    let Some((body, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged(path, "it is cut off"));
    };
    let Some((head, rest)) = body.split_first_chunk::<HEAD_BYTES>() else {
        return Err(damaged(path, "it is cut off"));
    };
    let head = check_head(path, head)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(damaged(path, CHECKSUM_DIFFERS));
    }
    let Some((meta, tables)) = rest.split_at_checked(head.meta_bytes) else {
        return Err(damaged(path, "its meta is longer than the file"));
    };
    let undecodable = |error: postcard::Error| damaged(path, &error.to_string());
    let (last_log_id, last_membership): (Option<LogId>, StoredMembership<_, _, _>) =
        postcard::from_bytes(meta).map_err(undecodable)?;
    Ok((SnapshotMeta { last_log_id, last_membership }, read_tables(head.format, tables).map_err(undecodable)?))
}

fn read_tables(format: u32, tables: &[u8]) -> Result<Tables, postcard::Error> {
    let format_8 = |tables: &[u8]| postcard::from_bytes::<TablesOfFormat8>(tables).map(Tables::from);
    match format {
        FORMAT_WITHOUT_CONFIG => format_8(&with_default_config(tables)),
        FORMAT_WITHOUT_POOL_SIZE => format_8(tables),
        FORMAT_WITHOUT_LEASES => postcard::from_bytes::<TablesOfFormat9>(tables).map(Tables::from),
        FORMAT_WITHOUT_INOS => postcard::from_bytes::<TablesOfFormat10>(tables).map(Tables::from),
        FORMAT_WITHOUT_DATA => postcard::from_bytes::<TablesOfFormat11>(tables).map(Tables::from),
        FORMAT_WITHOUT_IDENTITIES => postcard::from_bytes::<TablesOfFormat12>(tables).map(Tables::from),
        FORMAT_WITHOUT_PARENTS => postcard::from_bytes::<TablesOfFormat13>(tables).map(Tables::from),
        FORMAT_WITHOUT_XATTRS => {
            let tables = with_no_clones(&with_no_xattrs_and_locks(tables));
            postcard::from_bytes(&tables).map(|mut tables: Tables| {
                tables.count_holes();
                tables
            })
        }
        FORMAT_WITHOUT_CLONES => postcard::from_bytes(&with_no_clones(tables)),
        _ => postcard::from_bytes(tables),
    }
}

/// Completes tables of format 15 to those of format 16.
fn with_no_clones(tables: &[u8]) -> Vec<u8> {
    let none: [(); 0] = [];
    postcard::to_extend(&(&none[..], &none[..], &none[..]), tables.to_vec()).expect("plain data always encodes")
}

/// Completes tables of format 14 to those of format 15.
fn with_no_xattrs_and_locks(tables: &[u8]) -> Vec<u8> {
    let none: [(); 0] = [];
    postcard::to_extend(&(&none[..], &none[..]), tables.to_vec()).expect("plain data always encodes")
}

/// Completes tables of format 7 to those of format 8.
fn with_default_config(tables: &[u8]) -> Vec<u8> {
    let no_operator_tokens: [(); 0] = [];
    let lacking = (ConfigOfFormat8::from(RingConfig::default()), &no_operator_tokens[..]);
    postcard::to_extend(&lacking, tables.to_vec()).expect("plain data always encodes")
}

/// Checks the format and the checksum of a received snapshot, piece by piece: the memory for its tables is needed only
/// once, when they are installed.
pub(crate) fn verify(snapshot: &SnapshotFile) -> io::Result<()> {
    let path = &snapshot.path;
    let mut read = ReadAt { file: &snapshot.file, at: 0 };
    let mut head = [0; HEAD_BYTES];
    let Some(mut left) = snapshot.bytes.checked_sub(HEAD_BYTES as u64 + 4) else {
        return Err(damaged(path, "it is cut off"));
    };
    read.read_exact(&mut head)?;
    check_head(path, &head)?;
    let (mut checksum, mut piece) = (crc32c::crc32c(&head), vec![0; 1 << 20]);
    while left > 0 {
        let len = left.min(piece.len() as u64) as usize;
        read.read_exact(&mut piece[..len])?;
        checksum = crc32c::crc32c_append(checksum, &piece[..len]);
        left -= len as u64;
    }
    let mut expected = [0; 4];
    read.read_exact(&mut expected)?;
    if checksum == u32::from_le_bytes(expected) { Ok(()) } else { Err(damaged(path, CHECKSUM_DIFFERS)) }
}

struct SnapshotHead {
    format: u32,
    meta_bytes: usize,
}

fn check_head(path: &Path, head: &[u8; HEAD_BYTES]) -> io::Result<SnapshotHead> {
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if head[..4] != MAGIC {
        return Err(damaged(path, "it has the wrong magic bytes for a snapshot"));
    }
    let format = number(4);
    if !(FORMAT_WITHOUT_CONFIG..=SNAPSHOT_FORMAT).contains(&format) {
        return Err(other_format(path, format, SNAPSHOT_FORMAT));
    }
    Ok(SnapshotHead { format, meta_bytes: number(8) as usize })
}

/// A file and the CRC32C of all bytes written to it.
struct Summing {
    file: File,
    checksum: u32,
    unsynced: usize,
    failure: Option<io::Error>,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let failed = |error: &io::Error| self.failure = Some(error.kind().into());
        let written = self.file.write(bytes).inspect_err(failed)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..written]);
        self.unsynced += written;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a shared file at an offset of its own.
pub(crate) struct ReadAt<'a> {
    pub file: &'a File,
    pub at: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chordfs_types::{
        chunk::FileName,
        namespace::{
            Answer, Change, FileKind, Ino, NamespaceOp, NewNode, OpId, Query, SessionId, Time, XattrMode, XattrName,
        },
    };

    use super::*;
    use crate::storage::disk_space::is_full;

    #[test]
    fn a_damaged_or_cut_snapshot_is_neither_loaded_nor_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let path = write(dir.path(), &meta, &Tables::default()).unwrap();
        let sound = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = SnapshotFile::open(path.clone()).unwrap();
            (verify(&file).is_ok(), load(&file).is_ok())
        };
        assert_eq!(check(&sound), (true, true));
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            assert_eq!(check(&damaged), (false, false), "a flipped bit in byte {at}");
            assert_eq!(check(&sound[..at]), (false, false), "cut after {at} bytes");
        }
    }

    /// Tables whose configuration is not that of a new ring, with a session that holds a file without a name.
    fn tables_in_use() -> Tables {
        let mut tables = Tables::default();
        let mut apply = |sequence: u64, change| {
            let origin = Some(OpId { session: SessionId(1), sequence, answered_below: 1 }).filter(|_| sequence > 0);
            let op = NamespaceOp { origin, now: Time::default(), change };
            _ = tables.apply(sequence + 1, Time::default(), &op).reply.unwrap();
        };
        let config = RingConfig::default().with([("cache.capacity", "off"), ("pool.largest", "5")]).unwrap();
        apply(0, Change::Configure { config });
        apply(0, Change::OpenSession { nonce: 7, client: "here".into(), holds_leases: true });
        let node = NewNode {
            kind: FileKind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            rdev: 0,
            chunk_bytes: 4096,
            target: Bytes::new(),
        };
        apply(1, Change::MakeUnnamed { file: FileName::new("unnamed").unwrap(), node });
        tables
    }

    #[test]
    fn extended_attributes_are_in_the_snapshot() {
        let mut tables = tables_in_use();
        let name = XattrName::new("user.kept").unwrap();
        let change = Change::SetXattr { ino: Ino::ROOT, name, value: "here".into(), mode: XattrMode::Any };
        let op = NamespaceOp { origin: None, now: Time::default(), change };
        _ = tables.apply(9, Time::default(), &op).reply.unwrap();
        assert_ne!(tables, tables_in_use());
        assert_eq!(read(SNAPSHOT_FORMAT, &postcard::to_stdvec(&tables).unwrap()), (true, Some(tables)));
    }

    /// [`tables_in_use`] as the release of format 9 has written them.
    const TABLES_OF_FORMAT_9: &[u8] = b"\
        \x02\x01\x01\x01\xed\x03\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01/\x01\x00\x02\x02\
        \x00\xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x00\x00\x00\x00\x01\x02\
        \x02\x01\x01\x00\x00\x00\x00\x01\x01\x07\x04here\x01\x80 \x01\x01\x80 \x01\x01\x01\x00\x03\x02\x00\
        \xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x01\x01\x02\x01\x07\x01\x00\
        \x00\x00\x03\x02\x81 \x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00\x00\x01\x07chordfs\x01\x00\x00\
        \x00\x01\x05\xa0\xc2\x1e\xa0\x8d\x06\x80\x89z\xa0\xc2\x1e\xe0\xdc*\xe0\xa7\x12\x00\x00\x00\x00";

    /// [`tables_in_use`] as the release of format 10 has written them.
    const TABLES_OF_FORMAT_10: &[u8] = b"\
        \x02\x01\x01\x01\xed\x03\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01/\x01\x00\x02\x02\
        \x00\xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x00\x00\x00\x00\x01\x02\
        \x02\x01\x01\x00\x00\x00\x00\x01\x01\x07\x04here\x01\x80 \x01\x01\x80 \x01\x01\x01\x00\x03\x02\x00\
        \xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x01\x01\x02\x01\x01\x07\x01\
        \x00\x00\x00\x03\x02\x81 \x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00\x00\x01\x07chordfs\x01\
        \x00\x00\x00\x01\x05\xa0\xc2\x1e\xa0\x8d\x06\x80\x89z\xa0\xc2\x1e\xe0\xdc*\xe0\xa7\x12\x00\x00\x00\x00";

    /// [`tables_in_use`] as the release of format 13 has written them.
    const TABLES_OF_FORMAT_13: &[u8] = b"\
        \x02\x01\x01\x01\xed\x03\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01/\x01\x00\x02\x02\
        \x00\xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x00\x00\x00\x00\x01\x02\
        \x02\x01\x01\x00\x00\x00\x00\x01\x01\x07\x04here\x01\x80 \x01\x01\x80 \x01\x01\x01\x00\x03\x02\x00\
        \xa4\x03\x00\x01\x02\x00\x00\x80 \x00\x00\x00\x00\x00\x00\x02\x07unnamed\x01\x01\x02\x01\x00\x00\x01\x07\x01\
        \x00\x00\x00\x03\x02\x81 \x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00\x00\x01\x07chordfs\x01\
        \x00\x00\x00\x01\x05\xa0\xc2\x1e\xa0\x8d\x06\x80\x89z\xa0\xc2\x1e\xe0\xdc*\xe0\xa7\x12\x00\x00\x00\x00\
        \x00\x00\x00\x00\x00\x00";

    fn config_of(tables: &Tables) -> RingConfig {
        match tables.query(&Query::RingConfig) {
            Ok(Answer::RingConfig(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    /// Reads a snapshot whose tables have the bytes `tables`: whether it is sound, and what it holds.
    fn read(format: u32, tables: &[u8]) -> (bool, Option<Tables>) {
        let dir = tempfile::tempdir().unwrap();
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let path = write(dir.path(), &meta, &Tables::default()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let default_bytes = postcard::to_stdvec(&Tables::default()).unwrap().len();
        bytes.truncate(bytes.len() - 4 - default_bytes);
        bytes[4..8].copy_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(tables);
        let checksum = crc32c::crc32c(&bytes);
        std::fs::write(&path, [&bytes[..], &checksum.to_le_bytes()].concat()).unwrap();
        let file = SnapshotFile::open(path).unwrap();
        (verify(&file).is_ok(), load(&file).ok().map(|(_, tables)| tables))
    }

    #[test]
    fn snapshots_of_formats_7_to_15_are_read_and_their_sessions_may_hold_leases() {
        let tables = tables_in_use();
        let config = config_of(&tables);
        let bytes = postcard::to_stdvec(&tables).unwrap();
        assert_eq!(read(16, &bytes), (true, Some(tables.clone())));
        // Three tables of clones.
        assert_eq!(read(15, &bytes[..bytes.len() - 3]), (true, Some(tables.clone())));
        // No extended attributes and no locks.
        assert_eq!(read(14, &bytes[..bytes.len() - 5]), (true, Some(tables.clone())));
        assert_eq!(read(16, &bytes[..bytes.len() - 1]), (true, None), "its tables are cut off");
        assert_eq!(read(13, TABLES_OF_FORMAT_13), (true, Some(tables.clone())));
        assert_eq!(read(14, TABLES_OF_FORMAT_13), (true, None), "its files have no parents");
        // No invitation and no identity.
        let of_format_12 = &TABLES_OF_FORMAT_13[..TABLES_OF_FORMAT_13.len() - 2];
        assert_eq!(read(12, of_format_12), (true, Some(tables.clone())));
        assert_eq!(read(13, of_format_12), (true, None), "its tables are cut off");
        // No chunk, none that was replaced, and no bytes of either.
        let of_format_11 = &of_format_12[..of_format_12.len() - 4];
        assert_eq!(read(11, of_format_11), (true, Some(tables.clone())));
        assert_eq!(read(12, of_format_11), (true, None), "its tables are cut off");
        assert_eq!(read(10, TABLES_OF_FORMAT_10), (true, Some(tables.clone())));
        assert_eq!(read(11, TABLES_OF_FORMAT_10), (true, None), "its session is cut off");
        assert_eq!(read(9, TABLES_OF_FORMAT_9), (true, Some(tables.clone())));
        assert_eq!(read(10, TABLES_OF_FORMAT_9), (true, None), "its session is cut off");
        // No token, serial 0, no wanted size, no decision: a byte each.
        let ending = postcard::to_stdvec(&config).unwrap().len() + 4;
        let of_format_7 = &TABLES_OF_FORMAT_9[..TABLES_OF_FORMAT_9.len() - ending];
        let no_operator_tokens = [0];
        let config_of_format_8 = postcard::to_stdvec(&ConfigOfFormat8::from(config)).unwrap();
        let of_format_8 = [of_format_7, &config_of_format_8[..], &no_operator_tokens].concat();
        assert_eq!(read(8, &of_format_8), (true, Some(tables.clone())));
        assert_eq!(read(9, &of_format_8), (true, None), "its tables are cut off");
        let (sound, read_tables) = read(7, of_format_7);
        assert_eq!((sound, read_tables.as_ref().map(config_of)), (true, Some(RingConfig::default())));
        assert_eq!(read_tables.map(|tables| tables.session_descriptions().count()), Some(1));
        assert_eq!(read(8, of_format_7), (true, None), "its tables are cut off");
        assert_eq!(read(6, of_format_7), (false, None));
        assert_eq!(read(17, &bytes), (false, None));
    }

    #[test]
    fn the_space_of_the_next_snapshot_is_reserved_and_an_old_remainder_of_it_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        std::fs::write(next_path(dir.path()), vec![7; 100_000]).unwrap();
        let written = write(dir.path(), &meta, &Tables::default()).unwrap();
        let current = make_current(dir.path(), &written).unwrap();
        assert!(load(&current).is_ok() && current.bytes < 1000);
        let reserved = std::fs::metadata(next_path(dir.path())).unwrap();
        assert_eq!(reserved.len(), 0);
        assert!(std::os::unix::fs::MetadataExt::blocks(&reserved) * 512 >= MIN_RESERVE_BYTES);
    }

    #[test]
    fn a_full_disk_is_distinguished_from_other_errors() {
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let error = write_to(Path::new("/dev/full"), &meta, &Tables::default()).expect_err("nothing fits there");
        assert!(is_full(&error), "{error:?}");
    }
}
