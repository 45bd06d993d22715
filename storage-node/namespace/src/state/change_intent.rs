//! A change between the look at who holds leases on what it concerns, and its application.

use std::sync::Arc;

use chordfs_leases::{ChangeKey, IntentId};
use chordfs_tables::{Tables, names_of};
use chordfs_types::namespace::{Ino, NamespaceOp, SessionId};

use super::session_feed::SessionFeed;
use crate::{answer_terms::Wait, raft_types::LeaderTerm};

/// While it exists nobody else is granted a sole lease on what the change concerns. It has to live until the change is
/// applied, or can never be: also when nobody waits for its answer any longer.
pub(crate) struct ChangeIntent {
    feed: Arc<SessionFeed>,
    /// None before the first look.
    pub(super) id: Option<NotedIntent>,
}

/// The id is valid in one term.
#[derive(Clone, Copy)]
pub(crate) struct NotedIntent {
    pub(super) id: IntentId,
    pub(super) generation: u64,
}

/// What the changes of one entry concern, by the tables as they are now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Concerned {
    pub(super) origin: Option<SessionId>,
    /// Each once.
    pub(super) inos: Vec<Ino>,
    pub(super) keys: Vec<ChangeKey>,
}

/// Why changes may not be proposed now.
pub(crate) enum NotReady {
    /// Another session has to let go first, or another change to be applied. Then it has to be looked again.
    Wait(Wait),
    /// This node does not lead, or its tables lack something that was answered.
    NotLeading,
}

impl ChangeIntent {
    pub(crate) fn new(feed: Arc<SessionFeed>) -> Self {
        Self { feed, id: None }
    }

    /// Returns the term in which the changes may be proposed. To be called while nothing can be applied.
    pub(super) fn prepare(&mut self, concerned: Concerned) -> Result<LeaderTerm, NotReady> {
        self.feed.clone().prepare(self, concerned)
    }

    /// What the answer waits for beside the terms of its application: it may tell of earlier changes.
    pub(crate) fn settled(&self) -> Option<Wait> {
        self.id.and_then(|noted| self.feed.settled_change(noted))
    }
}

impl Drop for ChangeIntent {
    fn drop(&mut self) {
        if let Some(noted) = self.id {
            self.feed.end_change(noted);
        }
    }
}

impl Concerned {
    pub(super) fn by(tables: &Tables, ops: &[NamespaceOp]) -> Self {
        let mut inos: Vec<Ino> = ops.iter().flat_map(|op| tables.affected(&op.change)).collect();
        if ops.len() > 1 {
            inos.sort();
            inos.dedup();
        }
        let names = ops.iter().flat_map(|op| names_of(&op.change));
        let mut keys: Vec<ChangeKey> = names.map(|(parent, name)| ChangeKey::Name(parent, name.clone())).collect();
        if ops.iter().any(|op| tables.moves_directory(&op.change)) {
            keys.push(ChangeKey::Tree);
        }
        Self { origin: ops.first().and_then(|op| op.origin).map(|id| id.session), inos, keys }
    }
}
