//! Which sessions may still use an inode on which they hold no lease: they may have it open, and have to hear of its
//! changes. Nobody waits for them.
//!
//! It is kept as the inodes that a session was told of without a lease, or lost its lease on: a superset of what it has
//! open. Of a session that has just attached nothing is known, so it hears of everything until it has named the files
//! that it has open.

use std::collections::{BTreeSet, HashMap, HashSet};

use chordfs_types::namespace::{Ino, SessionId};

/// A session with more is told of everything, until it has nothing open.
const MAX_PER_SESSION: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Interests {
    sessions: HashMap<SessionId, SessionInterest>,
    by_ino: HashMap<Ino, BTreeSet<SessionId>>,
    in_everything: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct SessionInterest {
    inos: HashSet<Ino>,
    /// It has not named yet what it has open.
    is_new: bool,
    has_too_many: bool,
}

impl Interests {
    /// Notes a session of which nothing is known.
    pub(crate) fn begin(&mut self, session: SessionId) {
        self.end(session);
        self.sessions.insert(session, SessionInterest { is_new: true, ..SessionInterest::default() });
        self.in_everything.insert(session);
    }

    /// Notes that the session has named all that it had open when it began.
    pub(crate) fn note_named(&mut self, session: SessionId) {
        self.change(session, |interest| interest.is_new = false);
    }

    /// Notes that the session has nothing open and is told nothing now.
    pub(crate) fn note_nothing_open(&mut self, session: SessionId) {
        self.forget_inos(session);
        self.change(session, |interest| *interest = SessionInterest::default());
    }

    pub(crate) fn add(&mut self, session: SessionId, ino: Ino) {
        let Some(interest) = self.sessions.get_mut(&session).filter(|interest| !interest.has_too_many) else { return };
        if interest.inos.insert(ino) {
            self.by_ino.entry(ino).or_default().insert(session);
        }
        if interest.inos.len() > MAX_PER_SESSION {
            self.forget_inos(session);
            self.change(session, |interest| interest.has_too_many = true);
        }
    }

    /// A lease tells the session of changes from now on.
    pub(crate) fn remove(&mut self, session: SessionId, ino: Ino) {
        if self.sessions.get_mut(&session).is_some_and(|interest| interest.inos.remove(&ino)) {
            self.forget_in(ino, session);
        }
    }

    pub(crate) fn end(&mut self, session: SessionId) {
        self.forget_inos(session);
        self.sessions.remove(&session);
        self.in_everything.remove(&session);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn of(&self, ino: Ino) -> impl Iterator<Item = SessionId> {
        self.by_ino.get(&ino).into_iter().flatten().copied()
    }

    pub(crate) fn in_everything(&self) -> impl Iterator<Item = SessionId> {
        self.in_everything.iter().copied()
    }

    fn change(&mut self, session: SessionId, change: impl FnOnce(&mut SessionInterest)) {
        let Some(interest) = self.sessions.get_mut(&session) else { return };
        change(interest);
        if interest.is_new || interest.has_too_many {
            self.in_everything.insert(session);
        } else {
            self.in_everything.remove(&session);
        }
    }

    fn forget_inos(&mut self, session: SessionId) {
        let inos = self.sessions.get_mut(&session).map(|interest| std::mem::take(&mut interest.inos));
        inos.into_iter().flatten().for_each(|ino| self.forget_in(ino, session));
    }

    fn forget_in(&mut self, ino: Ino, session: SessionId) {
        if let Some(sessions) = self.by_ino.get_mut(&ino) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.by_ino.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSIONS: [SessionId; 2] = [SessionId(1), SessionId(2)];

    /// The sessions that hear of a change of `ino`.
    fn told(interests: &Interests, ino: u64) -> Vec<u64> {
        let told: BTreeSet<SessionId> = interests.of(Ino(ino)).chain(interests.in_everything()).collect();
        told.into_iter().map(|session| session.0).collect()
    }

    #[test]
    fn a_session_hears_of_everything_until_it_has_named_what_it_has_open() {
        let mut interests = Interests::default();
        SESSIONS.iter().for_each(|session| interests.begin(*session));
        interests.add(SESSIONS[0], Ino(7));
        assert_eq!(told(&interests, 9), [1, 2]);
        SESSIONS.iter().for_each(|session| interests.note_named(*session));
        assert_eq!((told(&interests, 7), told(&interests, 9)), (vec![1], vec![]));
        interests.begin(SESSIONS[0]);
        assert_eq!((told(&interests, 7), told(&interests, 9)), (vec![1], vec![1]), "it has attached again");
    }

    #[test]
    fn interest_ends_with_a_lease_or_when_nothing_is_open() {
        let mut interests = Interests::default();
        for session in SESSIONS {
            interests.begin(session);
            interests.note_named(session);
            [7, 8].iter().for_each(|ino| interests.add(session, Ino(*ino)));
        }
        interests.remove(SESSIONS[0], Ino(7));
        interests.note_nothing_open(SESSIONS[1]);
        assert_eq!((told(&interests, 7), told(&interests, 8)), (vec![], vec![1]));
        interests.end(SESSIONS[0]);
        assert!(interests.by_ino.is_empty() && interests.in_everything.is_empty());
    }

    #[test]
    fn a_session_with_too_many_hears_of_everything_until_it_has_nothing_open() {
        let mut interests = Interests::default();
        interests.begin(SESSIONS[0]);
        interests.note_named(SESSIONS[0]);
        (0..=MAX_PER_SESSION as u64).for_each(|ino| interests.add(SESSIONS[0], Ino(ino)));
        assert!(interests.by_ino.is_empty());
        interests.add(SESSIONS[0], Ino(3));
        assert_eq!(told(&interests, u64::MAX), [1]);
        interests.note_nothing_open(SESSIONS[0]);
        interests.add(SESSIONS[0], Ino(3));
        assert_eq!((told(&interests, 3), told(&interests, 4)), (vec![1], vec![]));
    }
}
