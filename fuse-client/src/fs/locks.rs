//! Locks of programs, which hold on all mounts.
//!
//! A mount that is alone with a file (it holds the file's lease alone, and nobody has a lock on it) decides by itself,
//! and the namespace knows nothing of its locks. When another mount wants the file, this one first commits what was
//! written under its locks and hands them over to the namespace, which decides from then on. A program that has to wait
//! always waits at the namespace, which alone knows who waits for whom.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chordfs_log::warn_limited;
use chordfs_net::{operation, session::EventAcknowledgement, tasks};
use chordfs_tables::InodeLocks;
use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{
        Answer, Change, FileLock, HeldLock, Ino, LEASE, LockKind, LockRange, LockSpace, MAX_LOCKS, Query, Reply,
        SessionId,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{FileSystem, unexpected};

/// How often a program that waits is asked whether it still wants to.
const INTERRUPT_CHECK: Duration = Duration::from_millis(50);
/// How many of these checks pass until the namespace is asked, too: its message may have been lost.
const CHECKS_PER_QUESTION: u32 = 20;
/// How long to wait before something is tried again that the namespace did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// When more inodes are known, those without locks are forgotten.
const MAX_INODES: usize = 1024;
/// Stands for this mount among the holders of an inode's locks.
const THIS_MOUNT: SessionId = SessionId(0);

#[derive(Default)]
pub(super) struct Locks {
    inodes: Mutex<HashMap<Ino, Arc<LockedInode>>>,
    /// Wakes programs that wait, by their tickets.
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
    tickets: AtomicU64,
}

/// An inode that programs of this mount have locked.
#[derive(Default)]
struct LockedInode {
    /// Held while the namespace is asked: requests about one inode go one after the other.
    gate: tokio::sync::Mutex<()>,
    own: Mutex<OwnLocks>,
    /// How often another mount wanted the inode.
    recalls: AtomicU64,
}

#[derive(Default)]
struct OwnLocks {
    /// What programs of this mount hold.
    held: InodeLocks,
    /// This mount decides by itself, and the namespace does not know these locks.
    is_alone: bool,
    /// Through which handles locks were taken: they end with the handle.
    handles: Vec<(u64, LockRange)>,
}

/// Whether a program that waits was interrupted by a signal.
pub type IsInterrupted = Box<dyn Fn() -> bool + Send + Sync>;

impl Locks {
    /// `is_open`: what was written under a lock may not be committed yet.
    fn of(&self, ino: Ino, is_open: impl Fn(Ino) -> bool) -> Arc<LockedInode> {
        let mut inodes = self.inodes.lock();
        if inodes.len() >= MAX_INODES {
            inodes.retain(|ino, inode| Arc::strong_count(inode) > 1 || inode.own.lock().is_needed() || is_open(*ino));
        }
        inodes.entry(ino).or_default().clone()
    }

    fn known(&self, ino: Ino) -> Option<Arc<LockedInode>> {
        self.inodes.lock().get(&ino).cloned()
    }

    fn all(&self) -> Vec<(Ino, Arc<LockedInode>)> {
        self.inodes.lock().iter().map(|(ino, inode)| (*ino, inode.clone())).collect()
    }

    fn new_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn begin_wait(&self) -> LockWait<'_> {
        let ticket = self.new_ticket();
        let woken = Arc::<Notify>::default();
        self.waiters.lock().insert(ticket, woken.clone());
        LockWait { locks: self, ticket, woken }
    }

    /// A program has the lock that it waits for.
    pub(super) fn wake(&self, ticket: u64) {
        if let Some(waiter) = self.waiters.lock().get(&ticket) {
            waiter.notify_one();
        }
    }
}

/// A program that waits, until this is dropped.
struct LockWait<'a> {
    locks: &'a Locks,
    ticket: u64,
    woken: Arc<Notify>,
}

impl Drop for LockWait<'_> {
    fn drop(&mut self) {
        self.locks.waiters.lock().remove(&self.ticket);
    }
}

impl OwnLocks {
    /// The locks of an owner end with the handle that it used last: an earlier one may be released later.
    fn take(&mut self, handle: u64, lock: FileLock) {
        self.held.set(of_this_mount(lock));
        let range = whole(lock.range.owner, lock.range.space);
        self.handles.retain(|(_, of)| *of != range);
        self.handles.push((handle, range));
    }

    fn drop_range(&mut self, range: &LockRange) {
        self.held.unset(THIS_MOUNT, range);
        if !self.has_any_of(range) {
            let ended = whole(range.owner, range.space);
            self.handles.retain(|(_, of)| *of != ended);
        }
    }

    fn is_needed(&self) -> bool {
        !self.held.is_empty()
    }

    /// The parts of a range that its owner does not hold.
    fn not_held(&self, range: &LockRange) -> Vec<LockRange> {
        let mut left = InodeLocks::default();
        left.set(of_this_mount(FileLock { range: *range, kind: LockKind::Exclusive, pid: 0 }));
        for held in self.held.held() {
            left.unset(THIS_MOUNT, &held.lock.range);
        }
        left.held().iter().map(|held| held.lock.range).collect()
    }

    fn has_any_of(&self, range: &LockRange) -> bool {
        let is_of = |held: &HeldLock| (held.lock.range.owner, held.lock.range.space) == (range.owner, range.space);
        self.held.held().iter().any(is_of)
    }
}

impl FileSystem {
    /// Gives a program a lock if this mount decides alone, and nothing conflicts with it. Otherwise [`Self::lock`]
    /// does.
    pub fn try_lock(&self, ino: Ino, handle: u64, lock: FileLock) -> bool {
        let is_given = |own: &mut OwnLocks| {
            let is_free = own.held.held().len() < MAX_LOCKS && own.held.conflict(&of_this_mount(lock)).is_none();
            if is_free {
                own.take(handle, lock);
            }
            is_free
        };
        self.locks.known(ino).is_some_and(|inode| self.decide_at_once(ino, &inode, is_given))
    }

    /// Does something that no other mount may do at the same time, if this mount is alone with the file.
    pub(super) fn do_alone(&self, ino: Ino, action: impl FnOnce()) {
        if let Some(inode) = self.locks.known(ino) {
            self.decide_at_once(ino, &inode, |_| {
                action();
                true
            });
        }
    }

    /// Whether the namespace knows nothing of this mount's locks on the file.
    pub(super) fn is_alone(&self, ino: Ino) -> bool {
        self.locks.known(ino).is_some_and(|inode| inode.own.lock().is_alone)
    }

    /// Whether an owner still has what it has locked.
    pub(super) fn holds_lock(&self, ino: Ino, range: &LockRange) -> bool {
        self.locks.known(ino).is_some_and(|inode| inode.own.lock().has_any_of(range))
    }

    /// An owner that the kernel does not know.
    pub(super) fn new_lock_owner(&self) -> u64 {
        self.locks.new_ticket()
    }

    /// Takes from an owner what it holds of a range, if this mount decides alone. Otherwise [`Self::unlock`] does.
    pub fn try_unlock(&self, ino: Ino, range: LockRange) -> bool {
        let Some(inode) = self.locks.known(ino) else { return true };
        self.decide_at_once(ino, &inode, |own| {
            own.drop_range(&range);
            true
        })
    }

    /// Gives a program a lock. With `wait` the program waits until it can have it, or is interrupted.
    pub async fn lock(
        &self,
        ino: Ino,
        handle: u64,
        lock: FileLock,
        wait: Option<IsInterrupted>,
    ) -> Result<(), FsError> {
        let inode = self.locked_inode(ino);
        let gate = inode.gate.lock().await;
        if self.decides_alone(ino, &inode).await? {
            let mut own = inode.own.lock();
            if own.held.held().len() >= MAX_LOCKS {
                return Err(FsError::NoLocks);
            }
            if own.held.conflict(&of_this_mount(lock)).is_none() {
                own.take(handle, lock);
                return Ok(());
            }
            if wait.is_none() {
                return Err(FsError::WouldBlock);
            }
        }
        self.hand_over(ino, &inode).await?;
        let waiting = wait.is_some().then(|| self.locks.begin_wait());
        let ticket = waiting.as_ref().map(|waiting| waiting.ticket);
        let asked = self.ask_for_lock(ino, lock, ticket).await;
        let is_queued = asked.inspect_err(|error| self.give_up_later(error, ino, &inode, lock.range, ticket))?;
        if is_queued && lock.range.space == LockSpace::WholeFile {
            // flock(2) gives the former lock up.
            inode.own.lock().drop_range(&lock.range);
        }
        drop(gate);
        if is_queued && let (Some(waiting), Some(is_interrupted)) = (waiting, wait) {
            let waited = self.wait_for_lock(ino, lock, &waiting, &is_interrupted).await;
            waited.inspect_err(|error| self.give_up_later(error, ino, &inode, lock.range, ticket))?;
        }
        inode.own.lock().take(handle, lock);
        Ok(())
    }

    /// Takes from an owner what it holds of a range.
    pub async fn unlock(&self, ino: Ino, range: LockRange) -> Result<(), FsError> {
        let Some(inode) = self.locks.known(ino).filter(|inode| inode.own.lock().has_any_of(&range)) else {
            return Ok(());
        };
        let _gate = inode.gate.lock().await;
        if self.decides_alone(ino, &inode).await? {
            inode.own.lock().drop_range(&range);
            return Ok(());
        }
        let committed = self.commit_locked(ino).await;
        // First: what is handed over must not contain it, however that ends.
        inode.own.lock().drop_range(&range);
        let ended = match self.hand_over(ino, &inode).await {
            Ok(()) => self.namespace.apply(Change::Unlock { ino, range }).await.map(drop),
            Err(error) => Err(error),
        };
        ended.or_else(|error| match error {
            // A file that is gone has no locks.
            FsError::Stale { .. } | FsError::NoEntry => Ok(()),
            error if error.is_unanswered() => {
                self.give_up_later(&error, ino, &inode, range, None);
                Ok(())
            }
            error => Err(error),
        })?;
        committed
    }

    /// Whether an owner may hold locks on ranges, which end when it closes the file.
    pub fn may_hold_locks(&self, ino: Ino, owner: u64) -> bool {
        let range = whole(owner, LockSpace::Ranges);
        self.locks.known(ino).is_some_and(|inode| inode.own.lock().has_any_of(&range))
    }

    /// Ends the locks of one that closes the file.
    pub async fn unlock_closed(&self, ino: Ino, owner: u64) {
        self.unlock_or_warn(ino, whole(owner, LockSpace::Ranges)).await;
    }

    /// What was locked through a handle that is released now.
    pub fn locked_through(&self, ino: Ino, handle: u64) -> Vec<LockRange> {
        let Some(inode) = self.locks.known(ino) else { return Vec::new() };
        let mut own = inode.own.lock();
        own.handles.extract_if(.., |(of, _)| *of == handle).map(|(_, range)| range).collect()
    }

    /// Ends locks of a handle that is released.
    pub async fn unlock_released(&self, ino: Ino, ranges: Vec<LockRange>) {
        for range in ranges {
            self.unlock_or_warn(ino, range).await;
        }
    }

    /// A lock that keeps a program from this one.
    pub async fn conflicting_lock(&self, ino: Ino, lock: FileLock) -> Result<Option<FileLock>, FsError> {
        let inode = self.locked_inode(ino);
        let _gate = inode.gate.lock().await;
        let wanted = of_this_mount(lock);
        if self.decides_alone(ino, &inode).await? {
            return Ok(inode.own.lock().held.conflict(&wanted).map(|held| held.lock));
        }
        self.hand_over(ino, &inode).await?;
        let mut all = InodeLocks::default();
        let is_own = |held: &HeldLock| inode.own.lock().held.covers(&of_this_mount(held.lock));
        for held in self.locks_at_namespace(ino).await? {
            all.set(if is_own(&held) { of_this_mount(held.lock) } else { held });
        }
        Ok(all.conflict(&wanted).map(|held| held.lock))
    }

    /// Inodes whose locks only this mount knows. It claims their leases from a new leader.
    pub fn alone_locked_inos(&self) -> Vec<Ino> {
        let is_alone = |inode: &LockedInode| {
            let own = inode.own.lock();
            own.is_alone && !own.held.is_empty()
        };
        self.locks.all().into_iter().filter(|(_, inode)| is_alone(inode)).map(|(ino, _)| ino).collect()
    }

    /// Another mount wants the inodes: keeps `done` until the namespace has the locks on them.
    pub(super) fn recall_locks(self: &Arc<Self>, inos: &BTreeSet<Ino>, done: &EventAcknowledgement) {
        for (ino, inode) in inos.iter().filter_map(|ino| Some((*ino, self.locks.known(*ino)?))) {
            inode.recalls.fetch_add(1, Ordering::AcqRel);
            if !inode.own.lock().is_alone {
                continue;
            }
            let (fs, done) = (self.clone(), done.clone());
            tasks::spawn(async move {
                let _gate = inode.gate.lock().await;
                fs.give_locks_up(ino, &inode).await;
                drop(done);
            });
        }
    }

    /// After the feed was interrupted: what this session held may have ended meanwhile.
    pub(super) fn restore_locks(self: &Arc<Self>) {
        for (ino, inode) in self.locks.all() {
            inode.recalls.fetch_add(1, Ordering::AcqRel);
            let fs = self.clone();
            tasks::spawn(async move {
                let _gate = inode.gate.lock().await;
                inode.own.lock().is_alone = true;
                fs.give_locks_up(ino, &inode).await;
            });
        }
    }

    /// Tries again for as long as the lease may last: until then nobody else is given the locks.
    async fn give_locks_up(&self, ino: Ino, inode: &LockedInode) {
        let end = Instant::now() + LEASE;
        while let Err(error) = self.hand_over(ino, inode).await {
            warn_limited!(ino = ino.0, %error, "locks could not be handed over to the namespace");
            if Instant::now() >= end {
                return;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn locked_inode(&self, ino: Ino) -> Arc<LockedInode> {
        self.locks.of(ino, |ino| self.opens.is_open(ino))
    }

    /// Whether this mount is alone with the file, so that it may decide about locks. The caller holds the gate.
    async fn decides_alone(&self, ino: Ino, inode: &LockedInode) -> Result<bool, FsError> {
        let is_sole = || self.namespace.is_sole(ino) && !self.namespace.memory_usable_for().is_zero();
        {
            let own = inode.own.lock();
            if own.is_alone || !own.held.is_empty() || !is_sole() {
                return Ok(own.is_alone && is_sole());
            }
        }
        let recalls = inode.recalls.load(Ordering::Acquire);
        let is_free = self.namespace.is_unlogged_creation(ino) || self.locks_at_namespace(ino).await?.is_empty();
        // A recall is counted before it looks, so one of both sees the other.
        let mut own = inode.own.lock();
        own.is_alone = is_free && is_sole() && inode.recalls.load(Ordering::Acquire) == recalls;
        Ok(own.is_alone)
    }

    /// Whether `decide` has decided, which it does only if this mount decides alone.
    fn decide_at_once(&self, ino: Ino, inode: &LockedInode, decide: impl FnOnce(&mut OwnLocks) -> bool) -> bool {
        let Ok(_gate) = inode.gate.try_lock() else { return false };
        let mut own = inode.own.lock();
        let is_usable = own.is_alone && self.namespace.is_sole(ino) && !self.namespace.memory_usable_for().is_zero();
        is_usable && decide(&mut own)
    }

    /// Tells the namespace what only this mount knows. The caller holds the gate.
    async fn hand_over(&self, ino: Ino, inode: &LockedInode) -> Result<(), FsError> {
        if !inode.own.lock().is_alone {
            return Ok(());
        }
        // The next owner of a lock must see what was written under the last one.
        self.commit_locked(ino).await?;
        let locks: Vec<FileLock> = {
            let mut own = inode.own.lock();
            if own.held.is_empty() {
                own.is_alone = false;
                return Ok(());
            }
            own.held.held().iter().map(|held| held.lock).collect()
        };
        let refused = match self.namespace.apply(Change::KeepLocks { ino, locks }).await? {
            Reply::LocksRefused { locks } => locks,
            other => return Err(unexpected("handing locks over", &other)),
        };
        let mut own = inode.own.lock();
        own.is_alone = false;
        for lock in refused {
            own.drop_range(&lock.range);
            warn_limited!(
                ino = ino.0,
                pid = lock.pid,
                "a program has lost a lock: this mount was silent for so long that another one got it"
            );
        }
        Ok(())
    }

    /// Returns whether the lock has to be waited for.
    async fn ask_for_lock(&self, ino: Ino, lock: FileLock, ticket: Option<u64>) -> Result<bool, FsError> {
        match self.namespace.apply(Change::Lock { ino, lock, ticket }).await? {
            Reply::Done => Ok(false),
            Reply::LockQueued => Ok(true),
            other => Err(unexpected("locking", &other)),
        }
    }

    async fn wait_for_lock(
        &self,
        ino: Ino,
        lock: FileLock,
        waiting: &LockWait<'_>,
        is_interrupted: &IsInterrupted,
    ) -> Result<(), FsError> {
        let mut checks = 0;
        loop {
            let is_woken = tokio::select! {
                () = waiting.woken.notified() => true,
                () = sleep(INTERRUPT_CHECK) => false,
            };
            if is_interrupted() {
                return self.cancel_lock(ino, lock, waiting.ticket).await;
            }
            checks += 1;
            if !is_woken && checks % CHECKS_PER_QUESTION != 0 {
                continue;
            }
            match self.ask_for_lock(ino, lock, Some(waiting.ticket)).await {
                Ok(false) => return Ok(()),
                // The namespace is there, and others come first.
                Ok(true) => operation::note_progress(),
                Err(error) if error.is_unanswered() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends waiting, unless the lock came in this moment.
    async fn cancel_lock(&self, ino: Ino, lock: FileLock, ticket: u64) -> Result<(), FsError> {
        match self.namespace.apply(Change::CancelLock { ino, ticket }).await {
            Ok(_) => Err(FsError::Interrupted),
            // It has come, or the session has lost its place.
            Err(FsError::NoEntry) => match self.ask_for_lock(ino, lock, None).await {
                Err(FsError::WouldBlock) => Err(FsError::Interrupted),
                asked => asked.map(|_| ()),
            },
            Err(error) => Err(error),
        }
    }

    async fn locks_at_namespace(&self, ino: Ino) -> Result<Vec<HeldLock>, FsError> {
        match self.namespace.query(Query::Locks { ino }).await.map_err(|error| self.stale_if_gone(ino, error))? {
            Answer::Locks(locks) => Ok(locks),
            other => Err(unexpected("asking for locks", &other)),
        }
    }

    /// Commits what was written to a locked file, if it is open here.
    async fn commit_locked(&self, ino: Ino) -> Result<(), FsError> {
        match self.opens.get(ino) {
            Some(file) if file.has_uncommitted_writes() => self.commit(ino, Durability::Memory).await,
            _ => Ok(()),
        }
    }

    async fn unlock_or_warn(&self, ino: Ino, range: LockRange) {
        if let Err(error) = self.unlock(ino, range).await {
            warn_limited!(ino = ino.0, %error, "a lock could not be ended");
        }
    }

    /// After an error that leaves open what the namespace has done: makes sure that it keeps no lock which no program
    /// has, nor a place in the queue. The program has gone on, and may lock again meanwhile.
    fn give_up_later(
        &self,
        error: &FsError,
        ino: Ino,
        inode: &Arc<LockedInode>,
        range: LockRange,
        ticket: Option<u64>,
    ) {
        if !error.is_unanswered() {
            return;
        }
        let (namespace, inode) = (self.namespace.clone(), inode.clone());
        tasks::spawn(async move {
            loop {
                sleep(RETRY_PAUSE).await;
                let _gate = inode.gate.lock().await;
                if let Some(ticket) = ticket
                    && is_unanswered(&namespace.apply(Change::CancelLock { ino, ticket }).await)
                {
                    continue;
                }
                let mut is_open = false;
                let ranges = inode.own.lock().not_held(&range);
                for range in ranges {
                    is_open |= is_unanswered(&namespace.apply(Change::Unlock { ino, range }).await);
                }
                if !is_open {
                    return;
                }
            }
        });
    }
}

fn is_unanswered<T>(result: &Result<T, FsError>) -> bool {
    result.as_ref().is_err_and(FsError::is_unanswered)
}

fn of_this_mount(lock: FileLock) -> HeldLock {
    HeldLock { session: THIS_MOUNT, lock }
}

pub(super) fn whole(owner: u64, space: LockSpace) -> LockRange {
    LockRange { owner, space, first: 0, last: u64::MAX }
}
