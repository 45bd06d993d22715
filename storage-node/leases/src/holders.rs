//! The holders of the leases on each inode: any number of sessions, or one alone.

use std::collections::HashMap;

use chordfs_types::namespace::{Ino, SessionId};

use crate::Lease;

/// Only inodes that somebody holds a lease on. It is never iterated, so its order does not matter.
#[derive(Debug, Default)]
pub(crate) struct Holders(HashMap<Ino, InodeHolders>);

#[derive(Debug, Default)]
struct InodeHolders {
    /// Ascending; one or two in most cases.
    sessions: Vec<SessionId>,
    /// The only one of `sessions` holds a sole lease.
    sole: bool,
}

impl Holders {
    /// Grants the strongest lease that the others allow, or only a shared one.
    pub(crate) fn grant(&mut self, ino: Ino, session: SessionId, shared_only: bool) -> Option<Lease> {
        let holders = self.0.entry(ino).or_default();
        if holders.sole && holders.sessions != [session] {
            return None;
        }
        holders.add(session);
        holders.sole = holders.sole || (holders.sessions.len() == 1 && !shared_only);
        Some(if holders.sole { Lease::Sole } else { Lease::Shared })
    }

    /// Makes the sole lease of the session a shared one.
    pub(crate) fn share(&mut self, ino: Ino, session: SessionId) {
        if let Some(holders) = self.0.get_mut(&ino).filter(|holders| holders.sessions == [session]) {
            holders.sole = false;
        }
    }

    pub(crate) fn remove(&mut self, ino: Ino, session: SessionId) {
        let Some(holders) = self.0.get_mut(&ino) else { return };
        if let Ok(place) = holders.sessions.binary_search(&session) {
            holders.sessions.remove(place);
            holders.sole = false;
        }
        if holders.sessions.is_empty() {
            self.0.remove(&ino);
        }
    }

    /// The session that holds a sole lease.
    pub(crate) fn sole(&self, ino: Ino) -> Option<SessionId> {
        let holders = self.0.get(&ino).filter(|holders| holders.sole)?;
        holders.sessions.first().copied()
    }

    /// All sessions that hold a lease of either kind.
    pub(crate) fn of(&self, ino: Ino) -> impl Iterator<Item = SessionId> {
        self.0.get(&ino).into_iter().flat_map(|holders| holders.sessions.iter().copied())
    }
}

impl InodeHolders {
    fn add(&mut self, session: SessionId) {
        if let Err(place) = self.sessions.binary_search(&session) {
            self.sessions.insert(place, session);
        }
    }
}

#[cfg(test)]
impl Holders {
    pub(crate) fn check(&self) {
        for (ino, holders) in &self.0 {
            assert!(holders.sessions.is_sorted() && !holders.sessions.is_empty(), "{ino:?}: {holders:?}");
            assert!(!holders.sole || holders.sessions.len() == 1, "{ino:?} has a sole holder and others: {holders:?}");
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.values().map(|holders| holders.sessions.len()).sum()
    }
}
