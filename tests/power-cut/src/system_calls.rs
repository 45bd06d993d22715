//! The system calls that change files. Functions of these names in a program take the C library's place when it is
//! linked: `std` and the crates call them. Outside recorded folders they only pass the call on.
//!
//! In a recorded folder nothing is really synced: the recording alone decides what a power cut leaves.

use std::{
    ffi::{CStr, CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use libc::{c_char, c_int, c_long, c_void, iovec, mode_t, off64_t, size_t, ssize_t};

use crate::{
    disk::Operation,
    recording::{Journal, OpenFile, OpenTarget, RecordingTable, table},
};

fn fail(errno: c_int) -> c_int {
    // SAFETY: the location of errno can always be written.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// # Safety
/// `path` is a C string.
unsafe fn path_of(path: *const c_char) -> PathBuf {
    // SAFETY: the caller passes a C string.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())).to_owned()
}

/// Overwrites the contents of a recorded file without recording that.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path has no zero byte");
    // SAFETY: the name is a C string, and the slice can be read.
    let written = unsafe {
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name.as_ptr(), libc::O_WRONLY, 0);
        let written = libc::syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), 0);
        libc::syscall(libc::SYS_close, fd);
        written
    };
    assert_eq!(written, bytes.len() as i64, "{} can be overwritten", path.display());
}

/// Runs `work` on the recording of a file's bytes if `fd` is a recorded file.
fn with_file<T>(fd: c_int, work: impl FnOnce(usize, bool, &mut Journal) -> T) -> Option<T> {
    let mut guard = table()?;
    match guard.as_mut()?.of_descriptor(fd)? {
        (OpenTarget::File { file, appends }, journal) => Some(work(file, appends, journal)),
        (OpenTarget::Folder(_), _) => None,
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let open = || {
        // SAFETY: the arguments are the caller's.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, c_long::from(mode)) };
        fd as c_int
    };
    let Some(mut guard) = table() else { return open() };
    let Some(table) = guard.as_mut() else { return open() };
    // SAFETY: the caller passes a C string.
    record_open(table, &unsafe { path_of(path) }, flags, open)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    unsafe { open64(path, flags, mode) }
}

fn record_open(table: &mut RecordingTable, path: &Path, flags: c_int, open: impl FnOnce() -> c_int) -> c_int {
    let Some((root, below, journal)) = table.at(path) else { return open() };
    let known = journal.file(&below);
    let creates = flags & libc::O_CREAT != 0 && known.is_none();
    let truncates = flags & libc::O_TRUNC != 0 && known.is_some();
    if (creates || truncates)
        && let Err(errno) = journal.attempt()
    {
        return fail(errno);
    }
    let fd = open();
    if fd < 0 {
        return fd;
    }
    let target = if path.is_dir() {
        OpenTarget::Folder(below)
    } else {
        let file = if creates { journal.create(&below, false) } else { known.expect("it exists") };
        if truncates {
            journal.record(Operation::SetLen { file, len: 0 });
        }
        OpenTarget::File { file, appends: flags & libc::O_APPEND != 0 }
    };
    table.open.insert(fd, OpenFile { root, target });
    fd
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(fd: c_int) -> c_int {
    let mut guard = table();
    if let Some(table) = guard.as_mut().and_then(|guard| guard.as_mut()) {
        table.open.remove(&fd);
    }
    // SAFETY: the arguments are the caller's. The table stays locked, so that no other thread gets the number before.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// Writes `parts` at `at`, or at the descriptor's own position.
///
/// # Safety
/// The parts can be read.
unsafe fn write_parts(fd: c_int, parts: &[iovec], at: Option<off64_t>) -> ssize_t {
    let write = || {
        let (first, count) = (parts.as_ptr(), parts.len() as c_long);
        let written = match at {
            // SAFETY: the parts are the caller's, who promises that they can be read.
            None => unsafe { libc::syscall(libc::SYS_writev, fd, first, count) },
            // SAFETY: as above.
            Some(at) => unsafe { libc::syscall(libc::SYS_pwritev, fd, first, count, at, 0) },
        };
        written as ssize_t
    };
    let recorded = with_file(fd, |file, appends, journal| {
        if let Err(errno) = journal.attempt() {
            return fail(errno) as ssize_t;
        }
        let whence = if appends { libc::SEEK_END } else { libc::SEEK_CUR };
        // SAFETY: it only asks for a position.
        let at = at.unwrap_or_else(|| unsafe { libc::lseek(fd, 0, whence) });
        let written = write();
        if written > 0 {
            let part = |part: &iovec| {
                // SAFETY: the caller passes parts that can be read.
                unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }
            };
            let mut bytes: Vec<u8> = parts.iter().flat_map(part).copied().collect();
            bytes.truncate(written as usize);
            journal.record(Operation::Write { file, at: at as u64, bytes });
        }
        written
    });
    recorded.unwrap_or_else(write)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    let part = iovec { iov_base: bytes.cast_mut(), iov_len: count };
    // SAFETY: the arguments are the caller's.
    unsafe { write_parts(fd, &[part], None) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, at: off64_t) -> ssize_t {
    let part = iovec { iov_base: bytes.cast_mut(), iov_len: count };
    // SAFETY: the arguments are the caller's.
    unsafe { write_parts(fd, &[part], Some(at)) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    unsafe { write_parts(fd, std::slice::from_raw_parts(parts, count as usize), None) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwritev(fd: c_int, parts: *const iovec, count: c_int, at: off64_t) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    unsafe { write_parts(fd, std::slice::from_raw_parts(parts, count as usize), Some(at)) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftruncate64(fd: c_int, len: off64_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let truncate = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int };
    let recorded = with_file(fd, |file, _, journal| {
        if let Err(errno) = journal.attempt() {
            return fail(errno);
        }
        let result = truncate();
        if result == 0 {
            journal.record(Operation::SetLen { file, len: len as u64 });
        }
        result
    });
    recorded.unwrap_or_else(truncate)
}

fn sync(fd: c_int, call: c_long) -> c_int {
    // SAFETY: it takes a descriptor only.
    let really = || unsafe { libc::syscall(call, fd) as c_int };
    let Some(mut guard) = table() else { return really() };
    let Some((target, journal)) = guard.as_mut().and_then(|table| table.of_descriptor(fd)) else {
        drop(guard);
        return really();
    };
    let failed = journal.attempt();
    match (target, failed) {
        (OpenTarget::File { file, .. }, Ok(())) => journal.record(Operation::Sync { file }),
        (OpenTarget::File { file, .. }, Err(_)) => journal.record(Operation::FailedSync { file }),
        (OpenTarget::Folder(path), Ok(())) => journal.record(Operation::SyncFolder { path }),
        (OpenTarget::Folder(_), Err(_)) => {}
    }
    failed.map_or_else(fail, |()| 0)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

/// Performs a change of names, and records it with `record` if it is in a recorded folder.
fn change_name(path: &Path, really: impl FnOnce() -> c_int, record: impl FnOnce(&mut Journal, &Path, &Path)) -> c_int {
    let Some(mut guard) = table() else { return really() };
    let Some((root, below, journal)) = guard.as_mut().and_then(|table| table.at(path)) else {
        drop(guard);
        return really();
    };
    if let Err(errno) = journal.attempt() {
        return fail(errno);
    }
    let result = really();
    if result == 0 {
        record(journal, &root, &below);
    }
    result
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let really = || {
        // SAFETY: the arguments are the caller's.
        unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int }
    };
    // SAFETY: the caller passes C strings.
    let (from, to) = unsafe { (path_of(from), path_of(to)) };
    change_name(&from, really, |journal, root, below| {
        journal.rename(below, to.strip_prefix(root).expect("files stay in the recorded folder"));
    })
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the arguments are the caller's.
    let really = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int };
    // SAFETY: the caller passes a C string.
    change_name(&unsafe { path_of(path) }, really, |journal, _, below| journal.remove(below))
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let really = || unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, c_long::from(mode)) as c_int };
    // SAFETY: the caller passes a C string.
    change_name(&unsafe { path_of(path) }, really, |journal, _, below| {
        journal.create(below, true);
    })
}
