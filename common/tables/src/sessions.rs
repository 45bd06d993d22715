//! Sessions: their replies, their versions, and the files that they hold open.
//!
//! An operation may arrive twice, because its sender lost the answer or the leader changed; the reply is kept under its
//! sequence number until the session acknowledges it, and is returned again instead of applying the operation twice.

use std::{collections::VecDeque, sync::Arc};

use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    identity::IdentityId,
    namespace::{Ino, InoBlock, MAX_HOLDS, OpId, Reply, SessionId, VersionBlock},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{
    SESSION_VERSIONS, Tables, Transaction,
    detached::{EndedHolds, HOLDS_STEP},
    invalid, map,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub(super) nonce: u64,
    /// The client's description of itself, for operators.
    pub(super) client: Arc<str>,
    pub(super) versions: VersionBlock,
    /// All versions that were allocated to the session, in ascending order.
    pub(super) blocks: VecDeque<VersionBlock>,
    pub(super) answered_below: u64,
    #[serde(with = "map")]
    pub(super) replies: OrdMap<u64, Result<Reply, FsError>>,
    /// The orphaned inodes that the session has open.
    #[serde(with = "map")]
    pub(super) holds: OrdMap<Ino, ()>,
    /// Whether it may hold leases on directories and inodes.
    pub(super) holds_leases: bool,
    /// What is left of the inode numbers that were allocated to the session, in ascending order.
    pub(super) inos: VecDeque<InoBlock>,
    /// It was silent for so long that it holds no lease, and no file without a name.
    pub(super) is_suspended: bool,
}

#[cfg(test)]
impl SessionRecord {
    pub(super) fn replies(&self) -> impl Iterator<Item = &u64> {
        self.replies.keys()
    }

    pub(super) fn forget_replies(&mut self) {
        self.replies.clear();
        self.answered_below = 0;
    }
}

/// An open session, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    pub id: SessionId,
    /// The client's description of itself.
    pub client: Arc<str>,
    /// Inodes without a name that it has open.
    pub held_inodes: usize,
    /// Whether it may hold leases on directories and inodes.
    pub holds_leases: bool,
    /// It was silent for long, and has not come back yet.
    pub is_suspended: bool,
}

impl Tables {
    /// The open sessions in the order of their ids.
    pub fn session_descriptions(&self) -> impl Iterator<Item = SessionDescription> {
        let describe = |(id, session): (&SessionId, &Arc<SessionRecord>)| SessionDescription {
            id: *id,
            client: session.client.clone(),
            held_inodes: session.holds.len(),
            holds_leases: session.holds_leases,
            is_suspended: session.is_suspended,
        };
        self.sessions.iter().map(describe)
    }

    /// Every open session with its client's description, for the session leases and for operators.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &str)> {
        self.sessions.iter().map(|(id, session)| (*id, session.client.as_ref()))
    }

    /// The open sessions that may hold leases, in the order of their ids. A new leader does not know which leases the
    /// former one has granted, so it waits for all of these.
    pub fn potential_lease_holders(&self) -> impl Iterator<Item = SessionId> {
        let may_hold = |session: &SessionRecord| session.holds_leases && !session.is_suspended;
        self.sessions.iter().filter(move |(_, session)| may_hold(session)).map(|(id, _)| *id)
    }

    pub fn is_suspended(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.is_suspended)
    }

    /// Whether a session that has been silent for long is yet to be suspended, or holds files all the same.
    pub fn is_to_be_suspended(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.is_suspended || !session.holds.is_empty())
    }

    /// Whether the session is open and may hold leases.
    pub fn may_hold_leases(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.holds_leases)
    }

    /// The identity that opened the session; `None` if the caller was not checked then, or there is no such session.
    pub fn session_owner(&self, id: SessionId) -> Option<IdentityId> {
        self.session_owners.get(&id).copied()
    }

    pub fn has_session(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// The reply to an operation that must not be applied: its earlier reply, or a refusal. `None` for a new operation.
    pub(super) fn answered(&self, id: OpId) -> Option<Result<Reply, FsError>> {
        let Some(session) = self.sessions.get(&id.session) else {
            return Some(Err(FsError::NoSession));
        };
        if id.sequence < session.answered_below.max(id.answered_below) {
            return Some(Err(FsError::OutOfOrder));
        }
        session.replies.get(&id.sequence).cloned()
    }

    pub(super) fn remember(&mut self, id: OpId, reply: &Result<Reply, FsError>) {
        // The operation may have closed its own session.
        let Some(session) = self.session_mut(id.session) else { return };
        session.answered_below = session.answered_below.max(id.answered_below);
        session.replies.insert(id.sequence, reply.clone());
        while let Some(&(sequence, _)) = session.replies.get_min()
            && sequence < session.answered_below
        {
            session.replies.remove(&sequence);
        }
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut SessionRecord> {
        self.sessions.get_mut(&id).map(Arc::make_mut)
    }
}

impl Transaction<'_> {
    /// `owner`: only this identity may act in the session.
    pub(super) fn open_session(
        &mut self,
        nonce: u64,
        client: &str,
        holds_leases: bool,
        owner: Option<IdentityId>,
    ) -> Result<Reply, FsError> {
        if let Some(&id) = self.tables.nonces.get(&nonce)
            && let Some(session) = self.tables.sessions.get(&id)
        {
            if self.tables.session_owner(id) != owner {
                return Err(invalid("the nonce belongs to another session"));
            }
            return Ok(Reply::Session { session: id, versions: session.versions });
        }
        let versions = self.allocate(SESSION_VERSIONS)?;
        let id = SessionId(self.tables.next.session);
        self.tables.next.session += 1;
        let session = SessionRecord {
            nonce,
            client: client.into(),
            versions,
            blocks: [versions].into(),
            answered_below: 0,
            replies: OrdMap::new(),
            holds: OrdMap::new(),
            holds_leases,
            inos: VecDeque::new(),
            is_suspended: false,
        };
        self.tables.sessions.insert(id, Arc::new(session));
        self.tables.nonces.insert(nonce, id);
        if let Some(owner) = owner {
            self.tables.session_owners.insert(id, owner);
        }
        Ok(Reply::Session { session: id, versions })
    }

    pub(super) fn close_session(&mut self, id: SessionId) -> Result<Reply, FsError> {
        let session = self.tables.sessions.get(&id).cloned().ok_or(FsError::NoSession)?;
        if session.holds.len() > HOLDS_STEP {
            self.tables.ended.insert(id, EndedHolds(session.holds.clone()));
        } else {
            session.holds.keys().for_each(|ino| self.release(*ino, id));
        }
        self.drop_locks_of(id);
        self.tables.nonces.remove(&session.nonce);
        self.tables.session_owners.remove(&id);
        self.tables.sessions.remove(&id);
        Ok(Reply::Done)
    }

    pub(super) fn suspend_session(&mut self, id: SessionId) -> Result<Reply, FsError> {
        let session = self.tables.session_mut(id).ok_or(FsError::NoSession)?;
        session.is_suspended = true;
        let held: Vec<Ino> = session.holds.keys().take(MAX_HOLDS).copied().collect();
        held.into_iter().for_each(|ino| self.release(ino, id));
        self.drop_locks_of(id);
        Ok(Reply::Done)
    }

    pub(super) fn resume_session(&mut self, id: SessionId) -> Result<Reply, FsError> {
        self.tables.session_mut(id).ok_or(FsError::NoSession)?.is_suspended = false;
        Ok(Reply::Done)
    }

    pub(super) fn allocate_to_session(&mut self, count: u32) -> Result<Reply, FsError> {
        let block = self.allocate(count)?;
        if let Some(session) = self.session.and_then(|session| self.tables.session_mut(session)) {
            session.add_block(block);
        }
        Ok(Reply::Versions(block))
    }

    fn allocate(&mut self, count: u32) -> Result<VersionBlock, FsError> {
        if count == 0 {
            return Err(invalid("cannot allocate a block of 0 versions"));
        }
        let first = self.tables.next.version;
        let next = first.checked_add(count.into());
        self.tables.next.version = next.ok_or_else(|| FsError::Internal { detail: "out of versions".into() })?;
        Ok(VersionBlock { first: Version(first), count })
    }
}
