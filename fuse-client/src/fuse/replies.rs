//! Results of `fs` as replies to the kernel.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc, time::Duration};

use bytes::Bytes;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, EntryName, Ino},
};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::convert::errno;
use crate::{
    fs::{FileSystem, ListedEntry, OpenReply, Statistics},
    options::KernelTimeouts,
    root_map::RootMap,
    transfer::read_buffer,
};

/// Inode numbers are never reused, so one generation suffices.
const GENERATION: Generation = Generation(0);
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Converts results into replies.
#[derive(Clone)]
pub(super) struct Replies {
    pub fs: Arc<FileSystem>,
    pub root: RootMap,
    /// The longest that the kernel may keep anything.
    pub timeouts: KernelTimeouts,
}

impl Replies {
    pub(super) fn entry(
        self,
        op: &'static str,
        parent: Ino,
        name: &EntryName,
        result: Result<Attr, FsError>,
        reply: ReplyEntry,
    ) {
        match result {
            Ok(attr) => {
                let KernelTimeouts { attr: attr_time, entry } = self.times(Some((parent, name)), attr.ino);
                reply.entry_with_ttls(&attr_time, &entry, &self.root.file_attr(&attr), GENERATION);
            }
            Err(failure) => reply.error(errno(op, parent, &failure)),
        }
    }

    /// With a `size` of 0 the program asks how large the value is.
    pub(super) fn xattr(
        self,
        op: &'static str,
        ino: Ino,
        size: u32,
        result: Result<impl AsRef<[u8]>, FsError>,
        reply: ReplyXattr,
    ) {
        match result.as_ref().map(AsRef::as_ref) {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(value) => reply.data(value),
            Err(failure) => reply.error(errno(op, ino, failure)),
        }
    }

    pub(super) fn attr(self, op: &'static str, ino: Ino, result: Result<Attr, FsError>, reply: ReplyAttr) {
        match result {
            Ok(attr) => reply.attr(&self.times(None, attr.ino).attr, &self.root.file_attr(&attr)),
            Err(failure) => reply.error(errno(op, ino, &failure)),
        }
    }

    pub(super) fn empty(self, op: &'static str, ino: Ino, result: Result<(), FsError>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(failure) => reply.error(errno(op, ino, &failure)),
        }
    }

    pub(super) fn created(
        self,
        parent: Ino,
        name: &EntryName,
        result: Result<(Attr, u64), FsError>,
        flags: FopenFlags,
        reply: ReplyCreate,
    ) {
        match result {
            Ok((attr, handle)) => {
                let times = self.times(Some((parent, name)), attr.ino);
                let ttl = times.entry.min(times.attr);
                let handle = FileHandle(handle);
                reply.created(&ttl, &self.root.file_attr(&attr), GENERATION, handle, flags);
            }
            Err(failure) => reply.error(errno("create", parent, &failure)),
        }
    }

    pub(super) fn opened(self, ino: Ino, result: Result<OpenReply, FsError>, flags: FopenFlags, reply: ReplyOpen) {
        match result {
            Ok(OpenReply { handle, keep_cache }) => {
                let kept = if keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
                reply.opened(FileHandle(handle), flags | kept);
            }
            Err(failure) => reply.error(errno("open", ino, &failure)),
        }
    }

    pub(super) fn data(self, op: &'static str, ino: Ino, result: Result<Vec<u8>, FsError>, reply: ReplyData) {
        match result {
            Ok(bytes) => {
                reply.data(&bytes);
                read_buffer::give_back(bytes);
            }
            Err(failure) => reply.error(errno(op, ino, &failure)),
        }
    }

    pub(super) fn written(self, ino: Ino, len: usize, result: Result<(), FsError>, reply: ReplyWrite) {
        match result {
            Ok(()) => reply.written(len as u32),
            Err(failure) => reply.error(errno("write", ino, &failure)),
        }
    }

    pub(super) fn statistics(self, result: Result<Statistics, FsError>, reply: ReplyStatfs) {
        const NAME_BYTES: u32 = chordfs_types::namespace::MAX_ENTRY_NAME_BYTES as u32;
        let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
        match result {
            Ok(Statistics { total_bytes, free_bytes, inodes, free_inodes }) => {
                let (total, free) = (blocks(total_bytes), blocks(free_bytes));
                let block_bytes = STATFS_BLOCK_BYTES;
                reply.statfs(total, free, free, inodes, free_inodes, block_bytes, NAME_BYTES, block_bytes);
            }
            Err(failure) => reply.error(errno("statfs", Ino::ROOT, &failure)),
        }
    }

    /// Adds an entry; returns false when the reply is full. The kernel must not cache `.` and `..`, nor attributes that
    /// may be outdated, so their time to live is zero.
    pub(super) fn add_plus(&self, reply: &mut ReplyDirectoryPlus, parent: Ino, entry: &ListedEntry<'_>) -> bool {
        let name = OsStr::from_bytes(entry.name);
        let ino = self.root.outward(entry.ino);
        let ttl = self.listed_for(parent, entry);
        let attr = match &entry.attr {
            Some(attr) => self.root.file_attr(attr),
            None => self.root.directory_attr(entry.ino),
        };
        !reply.add(ino, entry.next, name, &ttl, &attr, GENERATION)
    }
    fn listed_for(&self, parent: Ino, entry: &ListedEntry<'_>) -> Duration {
        match EntryName::new(Bytes::copy_from_slice(entry.name)) {
            Ok(name) if entry.fresh => {
                let times = self.times(Some((parent, &name)), entry.ino);
                times.entry.min(times.attr)
            }
            // `.` and `..` are no names of entries.
            _ => Duration::ZERO,
        }
    }

    fn times(&self, name: Option<(Ino, &EntryName)>, ino: Ino) -> KernelTimeouts {
        self.fs.kernel_times(name, ino, self.timeouts)
    }
}
