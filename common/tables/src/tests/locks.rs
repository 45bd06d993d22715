//! Locks: what conflicts, who waits for whom, and when locks end.

use chordfs_types::namespace::{FileLock, HeldLock, LockKind, LockRange, LockSpace};

use super::*;
use crate::InodeLocks;

const WHOLE: (u64, u64) = (0, u64::MAX);

fn range(owner: u64, (first, last): (u64, u64)) -> LockRange {
    LockRange { owner, space: LockSpace::Ranges, first, last }
}

fn lock(owner: u64, kind: LockKind, bytes: (u64, u64)) -> FileLock {
    FileLock { range: range(owner, bytes), kind, pid: owner as u32 }
}

fn shared(owner: u64, bytes: (u64, u64)) -> FileLock {
    lock(owner, LockKind::Shared, bytes)
}

fn exclusive(owner: u64, bytes: (u64, u64)) -> FileLock {
    lock(owner, LockKind::Exclusive, bytes)
}

fn of_file(lock: FileLock) -> FileLock {
    FileLock { range: LockRange { space: LockSpace::WholeFile, ..lock.range }, ..lock }
}

impl Fixture {
    fn lock(&mut self, ino: Ino, lock: FileLock, ticket: Option<u64>) -> Result<Reply, FsError> {
        self.run(Change::Lock { ino, lock, ticket })
    }

    fn try_lock(&mut self, ino: Ino, lock: FileLock) -> bool {
        match self.lock(ino, lock, None) {
            Ok(Reply::Done) => true,
            Err(FsError::WouldBlock) => false,
            other => panic!("{other:?}"),
        }
    }

    fn unlock(&mut self, ino: Ino, range: LockRange) -> Vec<u64> {
        self.run(Change::Unlock { ino, range }).unwrap();
        self.granted()
    }

    /// The tickets of those who have just got what they waited for.
    fn granted(&self) -> Vec<u64> {
        let ticket = |event: &FeedEvent| match event {
            FeedEvent::LockGranted { ticket, .. } => *ticket,
            other => panic!("{other:?}"),
        };
        self.feed.iter().map(ticket).collect()
    }

    /// Each lock that is held: its owner, whether it is exclusive, and its bytes.
    fn held(&self, ino: Ino) -> Vec<(u64, bool, u64, u64)> {
        let Ok(Answer::Locks(locks)) = self.tables.query(&Query::Locks { ino }) else { panic!("no locks") };
        let shown = |held: &HeldLock| {
            let LockRange { owner, first, last, .. } = held.lock.range;
            (owner, held.lock.kind == LockKind::Exclusive, first, last)
        };
        let mut held: Vec<_> = locks.iter().map(shown).collect();
        held.sort();
        held
    }
}

#[test]
fn shared_locks_go_together_and_exclusive_ones_stand_alone() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    assert!(fixture.try_lock(ino, shared(1, (0, 9))) && fixture.try_lock(ino, shared(2, (5, 20))));
    assert!(!fixture.try_lock(ino, exclusive(3, (9, 9))) && fixture.try_lock(ino, exclusive(3, (21, 30))));
    assert!(!fixture.try_lock(ino, shared(1, (30, 40))));
    assert!(fixture.try_lock(ino, of_file(exclusive(3, WHOLE))), "the other space");
    assert!(!fixture.try_lock(ino, of_file(shared(4, WHOLE))));
    let other = fixture.open(2);
    fixture.session = other;
    assert!(!fixture.try_lock(ino, exclusive(3, (0, 9))), "the owner of another session is another one");
}

#[test]
fn a_lock_replaces_what_its_owner_holds_of_the_range() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    assert!(fixture.try_lock(ino, exclusive(1, (0, 99))) && fixture.try_lock(ino, shared(1, (20, 29))));
    assert_eq!(fixture.held(ino), [(1, false, 20, 29), (1, true, 0, 19), (1, true, 30, 99)]);
    fixture.unlock(ino, range(1, (10, 39)));
    assert_eq!(fixture.held(ino), [(1, true, 0, 9), (1, true, 40, 99)]);
    assert!(fixture.try_lock(ino, exclusive(1, (10, 39))));
    assert_eq!(fixture.held(ino), [(1, true, 0, 99)], "neighbours are one lock");
    fixture.unlock(ino, range(1, WHOLE));
    assert!(fixture.held(ino).is_empty() && fixture.tables.locks.is_empty());
    assert!(is_invalid(fixture.lock(ino, shared(1, (5, 4)), None)));
    assert_eq!(fixture.lock(Ino(99), shared(1, WHOLE), None), Err(FsError::Stale { ino: Ino(99) }));
}

#[test]
fn those_who_wait_get_the_lock_in_their_order() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    assert!(fixture.try_lock(ino, exclusive(1, (0, 9))));
    for (ticket, wanted) in [(2, exclusive(2, (0, 9))), (3, shared(3, (5, 5))), (4, shared(4, (5, 5)))] {
        assert_eq!(fixture.lock(ino, wanted, Some(ticket)), Ok(Reply::LockQueued));
        assert_eq!(fixture.lock(ino, wanted, Some(ticket)), Ok(Reply::LockQueued), "asked again");
    }
    assert_eq!(fixture.unlock(ino, range(1, WHOLE)), [2]);
    assert_eq!(fixture.lock(ino, exclusive(2, (0, 9)), Some(2)), Ok(Reply::Done), "asked again");
    assert_eq!(fixture.lock(ino, shared(5, (5, 5)), Some(5)), Ok(Reply::LockQueued));
    fixture.run(Change::CancelLock { ino, ticket: 4 }).unwrap();
    assert_eq!(fixture.run(Change::CancelLock { ino, ticket: 4 }), Err(FsError::NoEntry));
    assert!(fixture.try_lock(ino, shared(2, (0, 9))), "its own exclusive lock becomes a shared one");
    assert_eq!(fixture.granted(), [3, 5], "and lets the others in");
}

#[test]
fn nobody_is_overtaken_by_one_who_waits_for_less() {
    let mut fixture = Fixture::new();
    let ino = fixture.file("f");
    assert!(fixture.try_lock(ino, shared(1, (0, 9))));
    assert_eq!(fixture.lock(ino, exclusive(2, (0, 9)), Some(2)), Ok(Reply::LockQueued));
    assert_eq!(fixture.lock(ino, shared(3, (0, 9)), Some(3)), Ok(Reply::LockQueued), "readers would starve the writer");
    assert!(fixture.try_lock(ino, shared(4, (0, 9))), "but one who does not wait takes what is free");
    assert_eq!(fixture.lock(ino, shared(1, (0, 20)), Some(1)), Ok(Reply::Done), "the writer waits for this owner");
    fixture.unlock(ino, range(4, WHOLE));
    assert_eq!(fixture.unlock(ino, range(1, WHOLE)), [2]);
    assert_eq!(fixture.unlock(ino, range(2, WHOLE)), [3]);
}

#[test]
fn a_circle_of_waiting_is_refused_across_files_and_sessions() {
    let mut fixture = Fixture::new();
    let (a, b, c) = (fixture.file("a"), fixture.file("b"), fixture.file("c"));
    let sessions = [fixture.session, fixture.open(2)];
    assert!(fixture.try_lock(a, exclusive(1, WHOLE)) && fixture.try_lock(c, exclusive(3, WHOLE)));
    fixture.session = sessions[1];
    assert!(fixture.try_lock(b, exclusive(1, WHOLE)));
    assert_eq!(fixture.lock(a, exclusive(1, WHOLE), Some(7)), Ok(Reply::LockQueued));
    fixture.session = sessions[0];
    assert_eq!(fixture.lock(c, exclusive(1, WHOLE), Some(8)), Ok(Reply::LockQueued), "its owner does not wait");
    assert_eq!(fixture.lock(b, exclusive(3, WHOLE), Some(9)), Err(FsError::Deadlock));
    assert_eq!(fixture.lock(b, of_file(exclusive(3, WHOLE)), Some(9)), Ok(Reply::Done));
}

/// Each of these would wait for ever.
#[test]
fn those_who_want_more_do_not_wait_for_each_other() {
    let mut fixture = Fixture::new();
    let (ino, other) = (fixture.file("f"), fixture.file("g"));
    // flock(2) gives the shared lock up before it waits for the exclusive one.
    assert!(fixture.try_lock(ino, of_file(shared(1, WHOLE))) && fixture.try_lock(ino, of_file(shared(2, WHOLE))));
    assert_eq!(fixture.lock(ino, of_file(exclusive(1, WHOLE)), Some(1)), Ok(Reply::LockQueued));
    assert_eq!(fixture.lock(ino, of_file(exclusive(2, WHOLE)), Some(2)), Ok(Reply::Done), "it is alone now");
    assert_eq!(fixture.unlock(ino, of_file(exclusive(2, WHOLE)).range), [1]);
    // An owner that holds something is not held up by one who waits for that.
    let [a, b, c] = [5, 6, 7];
    assert!(fixture.try_lock(ino, shared(a, (0, 9))) && fixture.try_lock(ino, shared(c, (0, 9))));
    assert_eq!(fixture.lock(ino, exclusive(b, (0, 9)), Some(b)), Ok(Reply::LockQueued));
    assert_eq!(fixture.lock(ino, exclusive(a, (0, 9)), Some(a)), Ok(Reply::LockQueued));
    assert_eq!(fixture.unlock(ino, range(c, WHOLE)), [a]);
    assert_eq!(fixture.unlock(ino, range(a, WHOLE)), [b]);
    fixture.unlock(ino, range(b, WHOLE));
    // A circle may lead through the queue.
    assert!(fixture.try_lock(ino, shared(a, (0, 9))) && fixture.try_lock(other, exclusive(c, WHOLE)));
    assert_eq!(fixture.lock(ino, exclusive(b, (0, 9)), Some(b)), Ok(Reply::LockQueued));
    assert_eq!(fixture.lock(ino, shared(c, (0, 9)), Some(c)), Ok(Reply::LockQueued));
    assert_eq!(fixture.lock(other, exclusive(a, WHOLE), Some(a)), Err(FsError::Deadlock));
}

#[test]
fn locks_end_with_their_session_and_their_file() {
    let mut fixture = Fixture::new();
    let (ino, first) = (fixture.file("f"), fixture.session);
    assert!(fixture.try_lock(ino, exclusive(1, WHOLE)));
    let second = fixture.open(2);
    fixture.session = second;
    assert_eq!(fixture.lock(ino, exclusive(1, WHOLE), Some(5)), Ok(Reply::LockQueued));
    fixture.run_without_session(Change::SuspendSession { session: first }).unwrap();
    assert_eq!(fixture.feed, [FeedEvent::LockGranted { ino, session: second, ticket: 5 }]);
    fixture.session = first;
    let kept = [exclusive(1, (0, 5)), exclusive(9, (7, 8))];
    let keep = Change::KeepLocks { ino, locks: kept.to_vec() };
    assert_eq!(fixture.run(keep.clone()), Ok(Reply::LocksRefused { locks: kept.to_vec() }));
    fixture.run_without_session(Change::CloseSession { session: second }).unwrap();
    assert_eq!(fixture.run(keep), Ok(Reply::LocksRefused { locks: Vec::new() }));
    assert_eq!(fixture.held(ino), [(1, true, 0, 5), (9, true, 7, 8)]);
    fixture.unlink("f", false).unwrap();
    fixture.purge(i64::MAX);
    assert!(fixture.tables.locks.is_empty());
}

/// A seeded comparison with locks of single bytes.
#[test]
fn ranges_are_locked_as_if_each_byte_had_a_lock_of_its_own() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut locks, mut bytes) = (InodeLocks::default(), vec![[None::<LockKind>; 3]; 40]);
        for _ in 0..60 {
            let owner = random.random_range(0..3_usize);
            let first = random.random_range(0..40_u64);
            let last = random.random_range(first..40);
            let range = range(owner as u64, (first, last));
            let here = first as usize..=last as usize;
            if random.random_bool(0.3) {
                locks.unset(SessionId(1), &range);
                bytes[here].iter_mut().for_each(|byte| byte[owner] = None);
                continue;
            }
            let kind = if random.random_bool(0.5) { LockKind::Shared } else { LockKind::Exclusive };
            let wanted = HeldLock { session: SessionId(1), lock: FileLock { range, kind, pid: 1 } };
            let disturbs = |other: Option<LockKind>| {
                other.is_some_and(|other| other == LockKind::Exclusive || kind == LockKind::Exclusive)
            };
            let is_free = bytes[here.clone()].iter().all(|byte| (0..3).all(|at| at == owner || !disturbs(byte[at])));
            assert_eq!(locks.conflict(&wanted).is_none(), is_free, "seed {seed}");
            let has_it = bytes[here.clone()].iter().all(|byte| byte[owner] == Some(kind));
            assert_eq!(locks.covers(&wanted), has_it, "seed {seed}");
            if is_free {
                locks.set(wanted);
                bytes[here].iter_mut().for_each(|byte| byte[owner] = Some(kind));
            }
        }
    }
}
