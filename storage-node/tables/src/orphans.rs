//! Files without a name: unlinked while open somewhere, or not yet named.
//!
//! Their contents stay while a session holds them, and for a while after, because another session may have one open and
//! learns only from the feed that its last name went.

use chordfs_types::{
    fs_error::FsError,
    namespace::{FeedEvent, Ino, Reply, SessionId, Time},
};
use serde::{Deserialize, Serialize};

use super::{Step, extents::ALL_CHUNKS};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Orphan {
    /// Since when it has had no name, or no holder if that is later.
    pub(super) since: Time,
    pub(super) holders: Vec<SessionId>,
}

impl Step<'_> {
    pub(super) fn hold_orphan(&mut self, ino: Ino) -> Result<Reply, FsError> {
        let session = self.asker()?;
        self.tables.inode(ino)?;
        self.hold(ino, session);
        Ok(Reply::Done)
    }

    pub(super) fn release_orphans(&mut self, inos: &[Ino]) -> Result<Reply, FsError> {
        let session = self.asker()?;
        for ino in inos {
            self.release(*ino, session);
        }
        Ok(Reply::Done)
    }

    pub(super) fn purge_orphans(&mut self, before: Time, limit: u32) -> Result<Reply, FsError> {
        let old = self.tables.unheld.keys().take_while(|(since, _)| *since < before);
        let inos: Vec<Ino> = old.take(limit as usize).map(|(_, ino)| *ino).collect();
        for ino in &inos {
            self.cut(*ino, ALL_CHUNKS, None);
            self.forget_orphan(*ino);
            self.tables.inodes.remove(ino);
        }
        Ok(Reply::Purged { count: inos.len() as u32 })
    }

    /// The last name is gone.
    pub(super) fn orphan(&mut self, ino: Ino, holder: Option<SessionId>) {
        self.tables.orphans.insert(ino, Orphan { since: self.logged, holders: Vec::new() });
        self.tables.unheld.insert((self.logged, ino), ());
        if let Some(session) = holder {
            self.hold(ino, session);
        }
        self.feed.push(FeedEvent::Orphaned { ino });
    }

    /// It has a name again, or is no more: nobody needs to hold it.
    pub(super) fn forget_orphan(&mut self, ino: Ino) {
        let Some(orphan) = self.tables.orphans.remove(&ino) else { return };
        self.tables.unheld.remove(&(orphan.since, ino));
        for holder in orphan.holders {
            if let Some(session) = self.tables.session_mut(holder) {
                session.holds.remove(&ino);
            }
        }
    }

    /// Whether the asking session holds this file without a name.
    pub(super) fn holds(&self, ino: Ino) -> bool {
        let orphan = self.tables.orphans.get(&ino);
        orphan.zip(self.session).is_some_and(|(orphan, session)| orphan.holders.contains(&session))
    }

    /// Nothing for a file that has a name: opening it again is enough.
    fn hold(&mut self, ino: Ino, session: SessionId) {
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
        let Some(orphan) = self.tables.orphans.get_mut(&ino) else { return };
        let Some(at) = orphan.holders.iter().position(|holder| *holder == session) else { return };
        orphan.holders.remove(at);
        if orphan.holders.is_empty() {
            orphan.since = self.logged;
            self.tables.unheld.insert((self.logged, ino), ());
        }
        if let Some(session) = self.tables.session_mut(session) {
            session.holds.remove(&ino);
        }
    }
}
