//! One kernel request, one call into `fs`, one reply.
//!
//! Several threads of fuser call these handlers concurrently. A request that can be answered from memory is answered in
//! that thread; any other one continues on the runtime, with its reply. A reply dropped without an answer (after
//! a panic, on either side) sends EIO to the kernel, and the thread continues. Operations that are not
//! implemented here (copy_file_range) return ENOSYS: the kernel
//! then emulates them or reports them to programs as unsupported, and sends no further requests of that kind.

mod callers;
mod convert;
mod lock_calls;
mod replies;
mod write_call;

use std::{
    ffi::OsStr,
    future::Future,
    io,
    os::unix::ffi::OsStrExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chordfs_log::error_limited;
use chordfs_net::{boot_clock::since_boot, operation};
use chordfs_types::namespace::{FileKind, FileLock, Ino, RenameMode};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot};
use tracing::debug;

use self::{
    callers::{Callers, thread_start},
    convert::{
        Allocation, Times, allocation, creation_mode, entry_name, errno, file_type, set_attr, sought, special_kind,
        xattr_mode, xattr_name,
    },
    lock_calls::{LAST_BYTE, is_interrupted, lock_kind, lock_range, lock_type},
    replies::Replies,
    write_call::WriteCall,
};
use crate::{
    fs::{Caller, CreationMode, EntryLocation, FileRange, FileSystem, IsInterrupted, ListedEntry, NewEntry},
    local_users::LocalUsers,
    options::KernelTimeouts,
    root_map::RootMap,
};

/// The largest request: the kernel's own limit unless `fs.fuse.max_pages_limit` is raised.
const MAX_WRITE_BYTES: u32 = 1 << 20;
/// How many background requests, mainly read-ahead, the kernel may have in flight.
const MAX_BACKGROUND: u16 = 64;

/// A request whose call has no time left gets this long: the ring may have returned in this moment.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The most bytes of one copy.
const MAX_COPY_BYTES: u64 = 1 << 31;
/// How long before its deadline an operation may fail: it does not begin a pause that would end later.
const EARLY_FAILURE: Duration = Duration::from_secs(1);

/// What is asked of the kernel. Not FUSE_ASYNC_DIO: with it, a direct write by libaio completes without dropping the
/// pages that a buffered reader has filled meanwhile, and they stay stale (xfstests generic/451; libfuse's own example
/// has it too). Without it, direct requests of one call are sent one after the other.
const WISHES: [InitFlags; 9] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // The target of a symlink never changes.
    InitFlags::FUSE_CACHE_SYMLINKS,
    // The kernel checks permissions by access control lists. A default list takes the place of the umask, which the
    // kernel therefore leaves to us.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    // Otherwise the kernel would ask for the attribute `security.capability` before every write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    APPENDS_UNCACHED,
];

/// With it the kernel sends appends without locking a page meanwhile (see [`Mount::init`]), and still lets programs map
/// such files. Since Linux 6.6, which also drops the pages that such a write makes outdated.
const APPENDS_UNCACHED: InitFlags = InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;

/// What is asked of the kernel so that locks hold on all mounts.
const LOCK_WISHES: [InitFlags; 2] = [InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS];

pub struct Mount {
    fs: Arc<FileSystem>,
    runtime: Handle,
    root: RootMap,
    users: LocalUsers,
    timeouts: KernelTimeouts,
    /// A system call fails after this long without an answer.
    deadline: Duration,
    /// The kernel decides about locks by itself.
    local_locks: bool,
    /// What is opened with O_APPEND is written without the kernel's pages. An append may wait for another mount's, and
    /// that one for this kernel to drop its pages of the file: one that is locked would hold up both.
    appends_uncached: bool,
    callers: Arc<Mutex<Callers>>,
    /// Signalled when the kernel has ended the mount.
    ended: Option<oneshot::Sender<()>>,
}

impl Mount {
    /// Also returns a receiver that resolves when the mount has ended, for whatever reason.
    pub fn new(
        fs: Arc<FileSystem>,
        runtime: Handle,
        root: RootMap,
        users: LocalUsers,
        timeouts: KernelTimeouts,
        deadline: Duration,
    ) -> (Self, oneshot::Receiver<()>) {
        let (ended, end) = oneshot::channel();
        let (local_locks, appends_uncached, callers) = (false, false, Arc::default());
        let ended = Some(ended);
        let mount =
            Self { fs, runtime, root, users, timeouts, deadline, local_locks, appends_uncached, callers, ended };
        (mount, end)
    }

    /// With `true` the locks of programs hold within this mount only.
    pub fn with_local_locks(self, local_locks: bool) -> Self {
        Self { local_locks, ..self }
    }

    /// Keeps a panic in a handler from ending the thread that serves the kernel.
    fn guarded(&self, op: &'static str, handle: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(handle)).is_err() {
            error_limited!(op, "a request ended in a panic; the calling program received EIO");
        }
    }

    /// Runs a request that needs the ring. The deadline counts from the beginning of its system call; see [`callers`].
    /// `inodes` are those whose locks the kernel holds for it.
    fn spawn(&self, req: &Request, inodes: [Ino; 2], work: impl Future<Output = ()> + Send + 'static) {
        let (thread, arrived, callers) = (req.pid(), since_boot(), self.callers.clone());
        let times = callers.lock().begin(thread, &inodes, arrived, thread_start);
        let left = (times.begun + self.deadline).saturating_sub(arrived).max(SHORTEST_WAIT);
        let on_failure = move || {
            let now = since_boot();
            if now + EARLY_FAILURE >= arrived + left {
                callers.lock().note_failure(thread, &inodes, times, now);
            }
        };
        self.begin(operation::run(left, self.deadline, on_failure, work));
    }

    /// Runs a request that may store written data. It has the whole deadline in any case: it is a system call of its
    /// own, and data that cannot be stored may be discarded.
    fn spawn_commit(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.begin(operation::run(self.deadline, self.deadline, || {}, work));
    }

    /// Runs a request in this thread as far as it needs not wait, which is often to its end: handing it to another
    /// thread takes longer than to answer it from memory.
    fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        let _runtime = self.runtime.enter();
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            // It is polled again there, which tells what it waits for whom to wake.
            self.runtime.spawn(work);
        }
    }

    /// How the kernel shall treat a file that is opened with these flags.
    fn file_flags(&self, flags: i32) -> FopenFlags {
        let appends = flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE != libc::O_RDONLY;
        if appends && self.appends_uncached { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
    }

    fn replies(&self) -> Replies {
        Replies { fs: self.fs.clone(), root: self.root, timeouts: self.timeouts }
    }

    fn make(&self, op: &'static str, parent: INodeNo, name: &OsStr, req: &Request, new: NewEntry, reply: ReplyEntry) {
        let (fs, replies, parent) = (self.fs.clone(), self.replies(), self.root.inward(parent));
        let caller = self.users.creator(req.uid(), req.gid());
        let name = match entry_name(name) {
            Ok(name) => name,
            Err(failure) => return reply.error(errno(op, parent, &failure)),
        };
        self.spawn(req, [parent; 2], async move {
            let made = fs.make(parent, &name, new, caller).await.map(|(attr, _)| attr);
            replies.entry(op, parent, &name, made, reply);
        });
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // For a value out of bounds, fuser returns the nearest one that is accepted.
        if let Err(nearest) = config.set_max_write(MAX_WRITE_BYTES) {
            config.set_max_write(nearest).map_err(|_| io::Error::other("the kernel accepts no request size"))?;
        }
        if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
            debug!("max_background {MAX_BACKGROUND} was refused; the nearest accepted value is {nearest}");
        }
        let lock_wishes = if self.local_locks { &[][..] } else { &LOCK_WISHES };
        for wish in WISHES.iter().chain(lock_wishes) {
            if let Err(missing) = config.add_capabilities(*wish) {
                debug!("the kernel does not support {missing:?}; continuing without it");
            }
        }
        self.appends_uncached = config.capabilities().contains(APPENDS_UNCACHED);
        Ok(())
    }

    fn destroy(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _closed_during_shutdown = ended.send(());
        }
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guarded("lookup", || {
            let (replies, parent) = (self.replies(), self.root.inward(parent));
            let name = match entry_name(name) {
                Ok(name) => name,
                Err(failure) => return reply.error(errno("lookup", parent, &failure)),
            };
            if let Some(known) = self.fs.cached_lookup(parent, &name) {
                return replies.entry("lookup", parent, &name, known, reply);
            }
            let fs = self.fs.clone();
            self.spawn(req, [parent; 2], async move {
                let found = fs.lookup(parent, &name).await;
                replies.entry("lookup", parent, &name, found, reply);
            });
        });
    }

    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {
        // Inode numbers are the namespace's own, so there is no table of numbers to shrink.
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.guarded("getattr", || {
            let (replies, ino) = (self.replies(), self.root.inward(ino));
            if let Some(attr) = self.fs.cached_attr(ino) {
                return replies.attr("getattr", ino, Ok(attr), reply);
            }
            let fs = self.fs.clone();
            self.spawn(req, [ino; 2], async move { replies.attr("getattr", ino, fs.attr(ino).await, reply) });
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.guarded("setattr", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            let mut set = set_attr(mode, uid, gid, size, Times { atime, mtime, ctime }, SystemTime::now());
            let shown = self.root.shown();
            let caller = caller(req);
            // The kernel leaves the set-id bits to us. Before a write that takes them away it sends a request that sets
            // nothing, and fuser does not say whether a caller who truncates may keep them.
            let is_cut_by_user = size.is_some() && caller.uid != 0;
            // Where root has no power the ring does it, because the caller may not be the owner.
            let is_ours = !self.users.squashes_root && (is_cut_by_user || set.is_empty());
            let loses_set_id = uid.is_some() || gid.is_some() || is_ours;
            let drops_set_id = mode.is_none() && loses_set_id;
            let changed = async move {
                if let Some(mode) = set.mode.filter(|_| shown.umask.is_some()) {
                    set.mode = Some(shown.stored_mode(mode, fs.attr(ino).await?.mode));
                }
                if drops_set_id {
                    set.mode = fs.mode_without_set_id(ino, caller).await?;
                }
                fs.set_attr(ino, set).await
            };
            self.spawn_commit(async move { replies.attr("setattr", ino, changed.await, reply) });
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.guarded("readlink", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            self.spawn(req, [ino; 2], async move { replies.data("readlink", ino, fs.read_link(ino).await, reply) });
        });
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        self.guarded("mknod", || match special_kind(mode) {
            Some(kind) => {
                let mode = creation_mode(mode, umask);
                let new = NewEntry { kind, mode, rdev, target: Vec::new(), exclusive: true };
                self.make("mknod", parent, name, req, new, reply);
            }
            None => reply.error(Errno::EINVAL),
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.guarded("mkdir", || {
            let (kind, mode) = (FileKind::Directory, creation_mode(mode, umask));
            let new = NewEntry { kind, mode, rdev: 0, target: Vec::new(), exclusive: true };
            self.make("mkdir", parent, name, req, new, reply);
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.guarded("symlink", || {
            let target = target.as_os_str().as_bytes().to_vec();
            let mode = CreationMode { bits: 0o777, umask: 0 };
            let new = NewEntry { kind: FileKind::Symlink, mode, rdev: 0, target, exclusive: true };
            self.make("symlink", parent, link_name, req, new, reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded("unlink", || {
            let (fs, replies, parent) = (self.fs.clone(), self.replies(), self.root.inward(parent));
            match entry_name(name) {
                Ok(name) => self.spawn(req, [parent; 2], async move {
                    replies.empty("unlink", parent, fs.unlink(parent, &name).await, reply);
                }),
                Err(failure) => reply.error(errno("unlink", parent, &failure)),
            }
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded("rmdir", || {
            let (fs, replies, parent) = (self.fs.clone(), self.replies(), self.root.inward(parent));
            match entry_name(name) {
                Ok(name) => self.spawn(req, [parent; 2], async move {
                    replies.empty("rmdir", parent, fs.rmdir(parent, &name).await, reply);
                }),
                Err(failure) => reply.error(errno("rmdir", parent, &failure)),
            }
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.guarded("rename", || {
            let (fs, replies, parent) = (self.fs.clone(), self.replies(), self.root.inward(parent));
            let Some(mode) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
            let places = entry_name(name).and_then(|name| {
                let to = EntryLocation { parent: self.root.inward(newparent), name: entry_name(newname)? };
                Ok((EntryLocation { parent, name }, to))
            });
            match places {
                Ok((from, to)) => self.spawn(req, [from.parent, to.parent], async move {
                    replies.empty("rename", parent, fs.rename(&from, &to, mode).await, reply);
                }),
                Err(failure) => reply.error(errno("rename", parent, &failure)),
            }
        });
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.guarded("link", || {
            let (fs, replies) = (self.fs.clone(), self.replies());
            let (ino, parent) = (self.root.inward(ino), self.root.inward(newparent));
            match entry_name(newname) {
                Ok(name) => self.spawn(req, [parent, ino], async move {
                    replies.entry("link", parent, &name, fs.link(ino, parent, &name).await, reply);
                }),
                Err(failure) => reply.error(errno("link", parent, &failure)),
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.guarded("create", || {
            let (fs, replies, caller) = (self.fs.clone(), self.replies(), self.users.creator(req.uid(), req.gid()));
            let (parent, exclusive) = (self.root.inward(parent), flags & libc::O_EXCL != 0);
            let file_flags = self.file_flags(flags);
            let name = match entry_name(name) {
                Ok(name) => name,
                Err(failure) => return reply.error(errno("create", parent, &failure)),
            };
            self.spawn(req, [parent; 2], async move {
                let made = fs.create(parent, &name, creation_mode(mode, umask), exclusive, caller).await;
                replies.created(parent, &name, made, file_flags, reply);
            });
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.guarded("open", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            let can_write = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
            let can_read = flags.0 & libc::O_ACCMODE != libc::O_WRONLY;
            let file_flags = self.file_flags(flags.0);
            let is_checked = self.users.has_no_power(req.uid());
            let opened = async move {
                if is_checked {
                    fs.check_open_without_root(ino, can_write).await?;
                }
                let opened = fs.open(ino, can_write).await?;
                if can_read {
                    fs.note_opened(ino, opened.keep_cache);
                }
                Ok(opened)
            };
            self.spawn(req, [ino; 2], async move { replies.opened(ino, opened.await, file_flags, reply) });
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.guarded("read", || {
            let (replies, ino) = (self.replies(), self.root.inward(ino));
            if let Some(read) = self.fs.try_read(ino, offset, size) {
                return replies.data("read", ino, read, reply);
            }
            let fs = self.fs.clone();
            self.spawn(
                req,
                [ino; 2],
                async move { replies.data("read", ino, fs.read(ino, offset, size).await, reply) },
            );
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.guarded("write", || {
            let (replies, ino, len) = (self.replies(), self.root.inward(ino), data.len());
            // A mapped page is written back at its own offset, even through a handle opened with O_APPEND.
            let appends = flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
            let write = WriteCall { ino, offset, appends, thread: req.pid() };
            // The kernel sets the flag for each write by somebody other than root.
            let kills_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) && !self.users.squashes_root;
            if kills_set_id && self.fs.may_have_set_id(ino) {
                let (fs, bytes, writer) = (self.fs.clone(), data.to_vec(), caller(req));
                let written = async move {
                    fs.drop_set_id(ino, writer).await?;
                    write.run(&fs, bytes).await
                };
                return self.spawn_commit(async move { replies.written(ino, len, written.await, reply) });
            }
            if let Some(written) = write.try_now(&self.fs, data) {
                return replies.written(ino, len, written, reply);
            }
            let (fs, bytes) = (self.fs.clone(), data.to_vec());
            self.spawn_commit(async move { replies.written(ino, len, write.run(&fs, bytes).await, reply) });
        });
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        self.guarded("flush", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            if fs.may_hold_locks(ino, lock_owner.0) {
                return self.spawn_commit(async move {
                    fs.unlock_closed(ino, lock_owner.0).await;
                    replies.empty("flush", ino, fs.flush(ino, fh.0).await, reply);
                });
            }
            if fs.try_flush(ino, fh.0) {
                return reply.ok();
            }
            if let Some(commit) = fs.close_later(ino, fh.0) {
                self.spawn_commit(commit);
                return reply.ok();
            }
            self.spawn_commit(async move { replies.empty("flush", ino, fs.flush(ino, fh.0).await, reply) });
        });
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.guarded("fsync", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            self.spawn_commit(async move { replies.empty("fsync", ino, fs.fsync(ino, fh.0).await, reply) });
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.guarded("release", || {
            let (fs, ino) = (self.fs.clone(), self.root.inward(ino));
            let locked = fs.locked_through(ino, fh.0);
            if locked.is_empty() && fs.try_release(ino, fh.0) {
                return reply.ok();
            }
            // No program waits for it.
            self.runtime.spawn(async move {
                fs.unlock_released(ino, locked).await;
                fs.release(ino, fh.0).await;
                reply.ok();
            });
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.guarded("opendir", || {
            let handle = self.fs.open_directory(self.root.inward(ino));
            reply.opened(FileHandle(handle), FopenFlags::empty());
        });
    }

    fn readdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.guarded("readdir", || {
            let (fs, root, ino) = (self.fs.clone(), self.root, self.root.inward(ino));
            self.spawn(req, [ino; 2], async move {
                let take = |entry: ListedEntry<'_>| {
                    let kind = file_type(entry.kind);
                    !reply.add(root.outward(entry.ino), entry.next, kind, OsStr::from_bytes(entry.name))
                };
                match fs.list(fh.0, offset, take).await {
                    Ok(()) => reply.ok(),
                    Err(failure) => reply.error(errno("readdir", ino, &failure)),
                }
            });
        });
    }

    fn readdirplus(&self, req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.guarded("readdirplus", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            self.spawn(req, [ino; 2], async move {
                match fs.list(fh.0, offset, |entry| replies.add_plus(&mut reply, ino, &entry)).await {
                    Ok(()) => reply.ok(),
                    Err(failure) => reply.error(errno("readdirplus", ino, &failure)),
                }
            });
        });
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.guarded("releasedir", || {
            self.fs.close_directory(fh.0);
            reply.ok();
        });
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.guarded("fsyncdir", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            self.spawn_commit(async move { replies.empty("fsyncdir", ino, fs.sync().await, reply) });
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.guarded("fallocate", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            let Some(kind) = allocation(mode) else { return reply.error(Errno::from_i32(libc::EOPNOTSUPP)) };
            let range = FileRange { offset, len: length };
            self.spawn_commit(async move {
                let done = match kind {
                    Allocation::Space { keeps_size } => fs.allocate(ino, range, keeps_size).await,
                    Allocation::Hole => fs.punch_hole(ino, range).await,
                    Allocation::Zeros { keeps_size } => fs.zero_range(ino, range, keeps_size).await,
                };
                replies.empty("fallocate", ino, done, reply);
            });
        });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.guarded("copy_file_range", || {
            let (fs, from, to) = (self.fs.clone(), self.root.inward(ino_in), self.root.inward(ino_out));
            // The answer has 32 bits for the number of bytes.
            let range = FileRange { offset: offset_in, len: len.min(MAX_COPY_BYTES) };
            let (writer, squashes_root) = (caller(req), self.users.squashes_root);
            self.spawn_commit(async move {
                let kills_set_id = writer.uid != 0 && !squashes_root && fs.may_have_set_id(to);
                let dropped = if kills_set_id { fs.drop_set_id(to, writer).await } else { Ok(()) };
                let copied = match dropped {
                    Ok(()) => fs.copy_range(from, range, to, offset_out).await,
                    Err(failure) => Err(failure),
                };
                match copied {
                    Ok(copied) => reply.written(copied as u32),
                    Err(failure) => reply.error(errno("copy_file_range", to, &failure)),
                }
            });
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.guarded("setxattr", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            let Some(mode) = xattr_mode(flags) else { return reply.error(Errno::EINVAL) };
            let (name, value) = match xattr_name(name) {
                Ok(name) => (name, Bytes::copy_from_slice(value)),
                Err(failure) => return reply.error(errno("setxattr", ino, &failure)),
            };
            self.spawn(req, [ino; 2], async move {
                replies.empty("setxattr", ino, fs.set_xattr(ino, name, value, mode).await, reply);
            });
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.guarded("getxattr", || {
            let (replies, ino) = (self.replies(), self.root.inward(ino));
            let name = match xattr_name(name) {
                Ok(name) => name,
                Err(failure) => return reply.error(errno("getxattr", ino, &failure)),
            };
            if let Some(known) = self.fs.cached_xattr(ino, &name) {
                return replies.xattr("getxattr", ino, size, known, reply);
            }
            let fs = self.fs.clone();
            self.spawn(req, [ino; 2], async move {
                replies.xattr("getxattr", ino, size, fs.xattr(ino, &name).await, reply);
            });
        });
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.guarded("listxattr", || {
            let (replies, ino) = (self.replies(), self.root.inward(ino));
            if let Some(known) = self.fs.cached_xattr_names(ino) {
                return replies.xattr("listxattr", ino, size, Ok(known), reply);
            }
            let fs = self.fs.clone();
            self.spawn(req, [ino; 2], async move {
                replies.xattr("listxattr", ino, size, fs.xattr_names(ino).await, reply);
            });
        });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded("removexattr", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            match xattr_name(name) {
                Ok(name) => self.spawn(req, [ino; 2], async move {
                    replies.empty("removexattr", ino, fs.remove_xattr(ino, name).await, reply);
                }),
                Err(failure) => reply.error(errno("removexattr", ino, &failure)),
            }
        });
    }

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        self.guarded("getlk", || {
            let (fs, ino, thread) = (self.fs.clone(), self.root.inward(ino), req.pid());
            let range = lock_range(thread, lock_owner, start, end);
            let Some(kind) = lock_kind(typ) else { return reply.error(Errno::EINVAL) };
            self.spawn(req, [ino; 2], async move {
                match fs.conflicting_lock(ino, FileLock { range, kind, pid }).await {
                    Ok(None) => reply.locked(0, 0, libc::F_UNLCK, 0),
                    Ok(Some(FileLock { range, kind, pid })) => {
                        reply.locked(range.first, range.last.min(LAST_BYTE), lock_type(kind), pid);
                    }
                    Err(failure) => reply.error(errno("getlk", ino, &failure)),
                }
            });
        });
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        self.guarded("setlk", || {
            let (fs, replies, ino, thread) = (self.fs.clone(), self.replies(), self.root.inward(ino), req.pid());
            let range = lock_range(thread, lock_owner, start, end);
            if typ == libc::F_UNLCK {
                if fs.try_unlock(ino, range) {
                    return reply.ok();
                }
                return self
                    .spawn_commit(async move { replies.empty("setlk", ino, fs.unlock(ino, range).await, reply) });
            }
            let Some(kind) = lock_kind(typ) else { return reply.error(Errno::EINVAL) };
            let lock = FileLock { range, kind, pid };
            if fs.try_lock(ino, fh.0, lock) {
                return reply.ok();
            }
            if !sleep {
                return self.spawn(req, [ino; 2], async move {
                    replies.empty("setlk", ino, fs.lock(ino, fh.0, lock, None).await, reply);
                });
            }
            // It waits for as long as the program wants to, and has no deadline.
            let is_interrupted: IsInterrupted = Box::new(move || is_interrupted(thread));
            self.begin(async move {
                replies.empty("setlk", ino, fs.lock(ino, fh.0, lock, Some(is_interrupted)).await, reply);
            });
        });
    }

    fn lseek(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.guarded("lseek", || {
            let (fs, ino) = (self.fs.clone(), self.root.inward(ino));
            let (Ok(offset), Some(sought)) = (u64::try_from(offset), sought(whence)) else {
                return reply.error(Errno::EINVAL);
            };
            self.spawn(req, [ino; 2], async move {
                match fs.seek(ino, offset, sought).await {
                    Ok(Some(found)) => reply.offset(found as i64),
                    Ok(None) => reply.error(Errno::ENXIO),
                    Err(failure) => reply.error(errno("lseek", ino, &failure)),
                }
            });
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs send an ioctl at each open to find out whether the file is a terminal.
        reply.error(Errno::ENOTTY);
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.guarded("statfs", || {
            let (fs, replies, ino) = (self.fs.clone(), self.replies(), self.root.inward(ino));
            self.spawn(req, [ino; 2], async move { replies.statistics(fs.statistics().await, reply) });
        });
    }
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

/// Translates the flags of renameat2(2); `None` for unsupported ones.
fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffered reader beside direct writes by libaio got stale pages that stayed.
    #[test]
    fn direct_writes_are_not_asynchronous() {
        assert!(!WISHES.contains(&InitFlags::FUSE_ASYNC_DIO));
    }
}
