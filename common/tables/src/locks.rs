//! Locks on files: granting, waiting, and deadlocks. Locks end with the session of their mount.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chordfs_types::{
    fs_error::FsError,
    namespace::{FeedEvent, FileLock, HeldLock, Ino, LockRange, LockSpace, MAX_LOCKS, Reply, SessionId},
};

use super::{
    Tables, Transaction, invalid,
    lock_set::{InodeLocks, LockHolder, MAX_HELD, WaitingLock, holder},
    work,
};

impl Transaction<'_> {
    /// With a `ticket` the session waits, and asks again with the same one.
    pub(super) fn lock(&mut self, ino: Ino, lock: FileLock, ticket: Option<u64>) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        self.tables.inode(ino)?;
        check_range(&lock.range)?;
        let (wanted, locks) = (HeldLock { session, lock }, self.tables.locks_of(ino));
        if ticket.is_some_and(|ticket| locks.is_waiting(session, ticket)) {
            return Ok(Reply::LockQueued);
        }
        if locks.covers(&wanted) {
            return Ok(Reply::Done);
        }
        if locks.is_full() {
            return Err(FsError::NoLocks);
        }
        let is_free = locks.conflict(&wanted).is_none();
        match ticket {
            _ if is_free && !(ticket.is_some() && locks.overtakes(&wanted)) => {
                // A shared lock in place of an exclusive one lets others in.
                self.change_locks(ino, |locks| locks.set(wanted));
                Ok(Reply::Done)
            }
            None => Err(FsError::WouldBlock),
            Some(_) if self.tables.closes_circle(ino, &wanted) => Err(FsError::Deadlock),
            Some(ticket) => {
                self.change_locks(ino, |locks| {
                    // As flock(2) says: otherwise two that want more would wait for each other.
                    if lock.range.space == LockSpace::WholeFile {
                        locks.unset(session, &lock.range);
                    }
                    locks.wait(WaitingLock { ticket, wanted });
                });
                Ok(Reply::LockQueued)
            }
        }
    }

    pub(super) fn unlock(&mut self, ino: Ino, range: &LockRange) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        check_range(range)?;
        if self.tables.locks.contains_key(&ino) {
            self.change_locks(ino, |locks| locks.unset(session, range));
        }
        Ok(Reply::Done)
    }

    pub(super) fn cancel_lock(&mut self, ino: Ino, ticket: u64) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        if !self.tables.locks_of(ino).is_waiting(session, ticket) {
            return Err(FsError::NoEntry);
        }
        self.change_locks(ino, |locks| locks.cancel(session, ticket));
        Ok(Reply::Done)
    }

    /// Takes over locks that the session has granted by itself. Those that contradict others are refused.
    pub(super) fn keep_locks(&mut self, ino: Ino, locks: &[FileLock]) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        self.tables.inode(ino)?;
        locks.iter().try_for_each(|lock| check_range(&lock.range))?;
        let held = self.tables.locks_of(ino);
        if locks.len() > MAX_LOCKS || held.held().len() + locks.len() > MAX_HELD {
            return Err(FsError::NoLocks);
        }
        let is_refused = |lock: &FileLock| held.conflict(&HeldLock { session, lock: *lock }).is_some();
        let (refused, kept): (Vec<FileLock>, Vec<FileLock>) = locks.iter().copied().partition(is_refused);
        if !kept.is_empty() {
            self.change_locks(ino, |locks| kept.iter().for_each(|lock| locks.set(HeldLock { session, lock: *lock })));
        }
        Ok(Reply::LocksRefused { locks: refused })
    }

    /// Ends all locks of a session.
    pub(super) fn drop_locks_of(&mut self, session: SessionId) {
        let concerned = |(ino, locks): (&Ino, &Arc<InodeLocks>)| {
            let is_held = locks.held().iter().any(|held| held.session == session);
            (is_held || locks.waiting().any(|waiting| waiting.wanted.session == session)).then_some(*ino)
        };
        work::count(self.tables.locks.len());
        let inos: Vec<Ino> = self.tables.locks.iter().filter_map(concerned).collect();
        for ino in inos {
            self.change_locks(ino, |locks| locks.drop_session(session));
        }
    }

    /// Changes the locks of an inode, gives those who wait what they can get now, and tells them.
    fn change_locks(&mut self, ino: Ino, change: impl FnOnce(&mut InodeLocks)) {
        work::count(1);
        let mut locks = self.tables.locks_of(ino);
        change(&mut locks);
        let granted = locks.promote();
        if locks.is_empty() {
            self.tables.locks.remove(&ino);
        } else {
            self.tables.locks.insert(ino, Arc::new(locks));
        }
        self.feed.extend(granted.into_iter().map(|(session, ticket)| FeedEvent::LockGranted { ino, session, ticket }));
    }
}

impl Tables {
    pub(super) fn held_locks(&self, ino: Ino) -> Vec<HeldLock> {
        self.locks.get(&ino).map(|locks| locks.held().to_vec()).unwrap_or_default()
    }

    fn locks_of(&self, ino: Ino) -> InodeLocks {
        self.locks.get(&ino).map(|locks| InodeLocks::clone(locks)).unwrap_or_default()
    }

    /// Whether the holders that this lock would wait for wait in the end for its own holder. As in Linux, only locks of
    /// ranges are looked at.
    fn closes_circle(&self, ino: Ino, wanted: &HeldLock) -> bool {
        if wanted.lock.range.space != LockSpace::Ranges {
            return false;
        }
        let mut waits: HashMap<LockHolder, Vec<(&InodeLocks, HeldLock)>> = HashMap::new();
        for locks in self.locks.values() {
            for waiting in locks.waiting() {
                waits.entry(holder(&waiting.wanted)).or_default().push((locks, waiting.wanted));
            }
        }
        let mut known: HashSet<LockHolder> = HashSet::new();
        let mut blockers = self.locks.get(&ino).map(|locks| locks.blockers(wanted)).unwrap_or_default();
        while let Some(blocker) = blockers.pop() {
            if blocker == holder(wanted) {
                return true;
            }
            if known.insert(blocker) {
                let of_blocker = waits.get(&blocker).into_iter().flatten();
                blockers.extend(of_blocker.flat_map(|(locks, waiting)| locks.blockers(waiting)));
            }
        }
        false
    }
}

fn check_range(range: &LockRange) -> Result<(), FsError> {
    if range.first > range.last { Err(invalid("a lock ends before it begins")) } else { Ok(()) }
}
