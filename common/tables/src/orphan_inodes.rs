//! Orphaned inodes: files without a name, unlinked while open somewhere, or not yet named.
//!
//! Their contents stay while a session holds them, and after that until every other session had its chance to hold them
//! too: it may have one open, and learns only from the feed that its last name is gone. The leader decides when that is
//! so, and purges by place in the log.

use chordfs_types::{
    fs_error::FsError,
    namespace::{FeedEvent, Ino, MAX_HOLDS, Reply, SessionId},
};
use serde::{Deserialize, Serialize};

use super::{Transaction, detached::STEP, extents::ALL_CHUNKS, invalid, work};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OrphanInode {
    /// The place in the log at which the file lost its last name, or its last holder if that was later.
    pub(super) since: u64,
    pub(super) holders: Vec<SessionId>,
}

impl Transaction<'_> {
    pub(super) fn hold_orphan(&mut self, ino: Ino) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        self.tables.inode(ino)?;
        self.hold(ino, session);
        Ok(Reply::Done)
    }

    pub(super) fn hold_orphans(&mut self, inos: &[Ino]) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        check_count(inos)?;
        for ino in inos {
            if self.may_hold(*ino) {
                self.hold(*ino, session);
            }
        }
        let held = inos.iter().filter(|ino| self.holds(**ino)).copied();
        Ok(Reply::Held { inos: held.collect() })
    }

    pub(super) fn release_orphans(&mut self, inos: &[Ino]) -> Result<Reply, FsError> {
        let session = self.require_session()?;
        check_count(inos)?;
        for ino in inos {
            self.release(*ino, session);
        }
        Ok(Reply::Done)
    }

    pub(super) fn purge_orphans(&mut self, before: u64, limit: u32) -> Result<Reply, FsError> {
        let old = self.tables.unheld.keys().take_while(|(since, _)| *since < before);
        let inos: Vec<Ino> = old.take(limit as usize).map(|(_, ino)| *ino).collect();
        self.release_ended();
        let mut left = self.dissolve(STEP);
        work::count(inos.len());
        for ino in &inos {
            if !self.detach(*ino, ALL_CHUNKS, left) {
                left -= self.tables.extents_from(*ino, 1).count();
                self.remove_chunks(*ino, ALL_CHUNKS, None);
            }
            self.forget_orphan(*ino);
            self.tables.remove_inode(*ino);
            self.tables.forget_places(*ino);
        }
        Ok(Reply::Purged { count: inos.len() as u32 })
    }

    /// Makes an orphan of an inode that has lost its last name.
    pub(super) fn orphan(&mut self, ino: Ino, holder: Option<SessionId>) {
        self.tables.orphans.insert(ino, OrphanInode { since: self.index, holders: Vec::new() });
        self.tables.unheld.insert((self.index, ino), ());
        if let Some(session) = holder {
            self.hold(ino, session);
        }
        self.feed.push(FeedEvent::Orphaned { ino });
    }

    /// Removes the orphan and its holds, because the inode has a name again or is removed.
    pub(super) fn forget_orphan(&mut self, ino: Ino) {
        let Some(orphan) = self.tables.orphans.remove(&ino) else { return };
        self.tables.unheld.remove(&(orphan.since, ino));
        for holder in orphan.holders {
            self.tables.forget_hold(holder, ino);
            if let Some(session) = self.tables.session_mut(holder) {
                session.holds.remove(&ino);
            }
        }
    }

    /// Returns whether the issuing session holds this orphan.
    pub(super) fn holds(&self, ino: Ino) -> bool {
        let orphan = self.tables.orphans.get(&ino);
        orphan.zip(self.session).is_some_and(|(orphan, session)| orphan.holders.contains(&session))
    }

    /// Adds a holder. Does nothing for a file that has a name, because its contents stay anyway.
    fn hold(&mut self, ino: Ino, session: SessionId) {
        work::count(1);
        let Some(orphan) = self.tables.orphans.get_mut(&ino) else { return };
        if orphan.holders.contains(&session) {
            return;
        }
        orphan.holders.push(session);
        self.tables.unheld.remove(&(orphan.since, ino));
        if let Some(session) = self.tables.session_mut(session) {
            session.holds.insert(ino, ());
        }
    }

    pub(super) fn release(&mut self, ino: Ino, session: SessionId) {
        work::count(1);
        let Some(orphan) = self.tables.orphans.get_mut(&ino) else { return };
        let Some(at) = orphan.holders.iter().position(|holder| *holder == session) else { return };
        orphan.holders.remove(at);
        if orphan.holders.is_empty() {
            orphan.since = self.index;
            self.tables.unheld.insert((self.index, ino), ());
        }
        if let Some(session) = self.tables.session_mut(session) {
            session.holds.remove(&ino);
        }
    }
}

/// Refuses very many files at once, because each takes time.
fn check_count(inos: &[Ino]) -> Result<(), FsError> {
    if inos.len() > MAX_HOLDS {
        return Err(invalid(format!("{} files to hold or to release; at most {MAX_HOLDS} are allowed", inos.len())));
    }
    Ok(())
}
