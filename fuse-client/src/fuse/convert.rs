//! Conversion between the kernel's types and chordfs's: attributes, times, inode numbers, names, errors.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chordfs_log::warn_limited;
use chordfs_net::operation;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, EntryName, FileKind, Ino, SetAttr, Time, Truncate, XattrMode, XattrName},
};
use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use tracing::debug;

use crate::{
    fs::{CreationMode, Sought},
    root_map::RootMap,
};

/// st_blksize: the size in which programs should read and write.
const BLOCK_BYTES: u32 = 4096;
/// The unit of st_blocks.
const SECTOR_BYTES: u64 = 512;

impl RootMap {
    pub fn file_attr(self, attr: &Attr) -> FileAttr {
        let (shown, stored) = (self.shown(), file_attr(attr));
        let (uid, gid, perm) = (shown.uid(stored.uid), shown.gid(stored.gid), shown.mode(stored.perm));
        FileAttr { ino: self.outward(attr.ino), uid, gid, perm, ..stored }
    }

    /// Attributes for `.` and `..`, of which the kernel uses only the inode number and the kind.
    pub fn directory_attr(self, ino: Ino) -> FileAttr {
        FileAttr {
            ino: self.outward(ino),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

pub(super) fn entry_name(name: &OsStr) -> Result<EntryName, FsError> {
    EntryName::new(name.as_bytes().to_vec()).map_err(FsError::Name)
}

pub(super) fn xattr_name(name: &OsStr) -> Result<XattrName, FsError> {
    XattrName::new(name.as_bytes().to_vec()).map_err(FsError::Name)
}

/// Translates the flags of setxattr(2); `None` for unknown ones.
pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Any),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// Converts an error to the errno for the kernel. Errors of requests are logged here and nowhere else.
pub(super) fn errno(op: &'static str, ino: Ino, error: &FsError) -> Errno {
    let code = error.errno();
    if code == libc::EIO {
        operation::note_failure();
    }
    if matches!(code, libc::EIO | libc::ENOSPC) {
        warn_limited!(op, ino = ino.0, "{error}");
    } else {
        debug!(op, ino = ino.0, "{error}");
    }
    Errno::from_i32(code)
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Extracts the file kind from a mode of mknod(2); `None` for a directory or an invalid kind.
pub(super) fn special_kind(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(FileKind::File),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

/// What fallocate(2) is to do.
pub(super) enum Allocation {
    Space { keeps_size: bool },
    Hole,
    Zeros { keeps_size: bool },
}

/// Translates the mode of fallocate(2); `None` for an unsupported one. The kernel passes none that moves contents.
pub(super) fn allocation(mode: i32) -> Option<Allocation> {
    let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Some(Allocation::Space { keeps_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keeps_size => Some(Allocation::Hole),
        libc::FALLOC_FL_ZERO_RANGE => Some(Allocation::Zeros { keeps_size }),
        _ => None,
    }
}

/// Translates what lseek(2) looks for. The kernel answers all other requests itself.
pub(super) fn sought(whence: i32) -> Option<Sought> {
    match whence {
        libc::SEEK_DATA => Some(Sought::Data),
        libc::SEEK_HOLE => Some(Sought::Hole),
        _ => None,
    }
}

pub(super) fn creation_mode(mode: u32, umask: u32) -> CreationMode {
    CreationMode { bits: mode_bits(mode), umask: mode_bits(umask) }
}

/// Permission, set-id and sticky bits.
fn mode_bits(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// The times of a setattr request.
pub(super) struct Times {
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
    pub ctime: Option<SystemTime>,
}

pub(super) fn set_attr(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    times: Times,
    now: SystemTime,
) -> SetAttr {
    let chosen = |time| match time {
        TimeOrNow::SpecificTime(time) => from_kernel_time(time),
        TimeOrNow::Now => Time::from(now),
    };
    SetAttr {
        mode: mode.map(mode_bits),
        uid,
        gid,
        atime: times.atime.map(chosen),
        mtime: times.mtime.map(chosen),
        ctime: times.ctime.map(from_kernel_time),
        truncate: size.map(|size| Truncate { size, tail: None }),
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.stored_bytes().div_ceil(SECTOR_BYTES),
        atime: to_system_time(attr.atime),
        mtime: to_system_time(attr.mtime),
        ctime: to_system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// Converts a time; one outside the range of `SystemTime` becomes the epoch.
fn to_system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// Converts a time from fuser. fuser 0.18.0 converts -1.25 s (seconds -2, nanoseconds 750 million) to 2.75 s before
/// 1970, because it subtracts both parts. Splitting that value again restores the kernel's two parts.
fn from_kernel_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Time::from(time),
        Err(before) => Time { secs: -saturating(before.duration().as_secs()), nanos: before.duration().subsec_nanos() },
    }
}

fn saturating(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test as sample;

    #[test]
    fn times_survive_a_round_trip() {
        for (secs, nanos) in [(0, 0), (5, 999_999_999), (-1, 0), (-2, 750_000_000), (1 << 40, 1)] {
            let time = Time { secs, nanos };
            assert_eq!(Time::from(to_system_time(time)), time);
        }
    }

    #[test]
    fn times_before_1970_are_converted_as_the_kernel_sent_them() {
        let from_fuser = UNIX_EPOCH - Duration::new(2, 750_000_000);
        assert_eq!(from_kernel_time(from_fuser), Time { secs: -2, nanos: 750_000_000 });
        assert_eq!(from_kernel_time(UNIX_EPOCH - Duration::from_secs(3)), Time { secs: -3, nanos: 0 });
    }

    #[test]
    fn a_time_out_of_range_does_not_panic() {
        to_system_time(Time { secs: i64::MIN, nanos: 999_999_999 });
        to_system_time(Time { secs: i64::MAX, nanos: 999_999_999 });
    }

    #[test]
    fn blocks_are_counted_in_sectors() {
        let mut attr = sample::attr(5, 1);
        attr.size = 513;
        assert_eq!(file_attr(&attr).blocks, 2);
        (attr.size, attr.holes) = (100_000, 20);
        assert_eq!(file_attr(&attr).blocks, 5 * 8);
    }

    #[test]
    fn only_a_kind_that_mknod_can_create_is_accepted() {
        assert_eq!(special_kind(libc::S_IFIFO | 0o644), Some(FileKind::Fifo));
        assert_eq!(special_kind(0o644), Some(FileKind::File));
        assert_eq!(special_kind(libc::S_IFDIR), None);
        assert_eq!(mode_bits(libc::S_IFREG | 0o4755), 0o4755);
    }

    #[test]
    fn names_are_checked() {
        assert!(entry_name(OsStr::new("a")).is_ok());
        assert_eq!(entry_name(OsStr::new(&"x".repeat(256))).map_err(|error| error.errno()), Err(libc::ENAMETOOLONG));
    }
}
