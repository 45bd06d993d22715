//! The leases of all sessions while this node leads, between the feed and the pure rules (`chordfs-leases`): events
//! become notices, notices become messages, and answers wait for their acknowledgement.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use chordfs_leases::{Lease, LeaseNotice, LeaseSettings, LeaseTable, NoticeId, NoticeKind, WaitId};
use chordfs_types::namespace::{FeedEvent, Granted, Ino, LEASE, SessionId};
use tokio::sync::watch;

use crate::{
    answer_terms::{AnswerTerms, Wait},
    raft_types::LeaderTerm,
};

/// Each takes about 200 bytes of the leader's memory.
const MAX_PER_SESSION: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

pub(crate) struct LeaseBook {
    table: LeaseTable,
    /// This node's term in which the table is valid; `None` while another node leads.
    term: Option<LeaderTerm>,
    /// Grows when the term changes.
    generation: u64,
    /// The answers that wait; each entry goes when its wait is over.
    waits: HashMap<WaitId, watch::Sender<()>>,
}

/// What an answer tells a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Inodes whose attributes or contents it tells.
    pub inos: Vec<Ino>,
    /// Directories in which it tells names.
    pub directories: Vec<Ino>,
}

impl Default for LeaseBook {
    fn default() -> Self {
        let table = LeaseTable::new(LeaseSettings { duration: LEASE, max_per_session: MAX_PER_SESSION });
        Self { table, term: None, generation: 0, waits: HashMap::new() }
    }
}

impl LeaseBook {
    /// Follows the term of the entry that is being applied; `None` if another node leads in it. `sessions` are those
    /// that may hold leases from before.
    pub(crate) fn follow(
        &mut self,
        term: Option<LeaderTerm>,
        sessions: impl FnOnce() -> Vec<SessionId>,
        now: Duration,
    ) {
        if self.term == term {
            return;
        }
        self.term = term;
        self.generation += 1;
        match term {
            Some(_) => self.table.begin_term(sessions(), now),
            None => self.table.end_term(),
        }
        self.release();
    }

    /// Whether this node leads, and so grants leases.
    pub(crate) fn is_leading(&self) -> bool {
        self.term.is_some()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn attach(&mut self, session: SessionId, now: Duration) {
        self.table.attach(session, &[], now);
        self.release();
    }

    pub(crate) fn renew(&mut self, session: SessionId, now: Duration) {
        self.table.renew(session, now);
    }

    pub(crate) fn renew_all(&mut self, now: Duration) {
        self.table.renew_all(now);
    }

    pub(crate) fn close(&mut self, session: SessionId) {
        self.table.close(session);
        self.release();
    }

    pub(crate) fn acknowledge(&mut self, session: SessionId, number: u64, keeps: bool) {
        self.table.acknowledge(NoticeId { session, number }, keeps);
        self.release();
    }

    /// Returns the sessions whose leases have run out.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<SessionId> {
        let expired = self.table.expire(now);
        self.release();
        expired
    }

    /// Recalls what others hold alone of what the session is about to read. It has to ask again after the wait.
    pub(crate) fn recall(&mut self, reader: Option<SessionId>, told: &Told) -> Option<Wait> {
        let inos: Vec<Ino> = told.directories.iter().chain(&told.inos).copied().collect();
        let wait = self.table.recall(reader, &inos);
        self.expect(wait)
    }

    /// The terms of an answer with what it tells as it is now.
    pub(crate) fn read(&mut self, reader: Option<SessionId>, told: &Told, now: Duration) -> AnswerTerms {
        let inos: Vec<Ino> = told.directories.iter().chain(&told.inos).copied().collect();
        let wait = self.table.settled(reader, &inos);
        let granted = self.grant(reader, told, now);
        self.terms(wait, granted)
    }

    /// The terms of an answer about which nothing is known: it was given before.
    pub(crate) fn repeat(&mut self, reader: Option<SessionId>) -> AnswerTerms {
        let wait = self.table.all_settled(reader);
        self.terms(wait, Granted::default())
    }

    /// The terms of the answer to a change that was just applied, before anybody can read it. `told` is what its reply
    /// tells beside the events.
    pub(crate) fn change(
        &mut self,
        origin: Option<SessionId>,
        events: &[FeedEvent],
        mut told: Told,
        now: Duration,
    ) -> AnswerTerms {
        let mut affected: Vec<Ino> = events.iter().map(FeedEvent::ino).collect();
        affected.sort();
        affected.dedup();
        let wait = self.table.changed(origin, &affected);
        told.inos.extend(affected);
        let granted = self.grant(origin, &told, now);
        self.terms(wait, granted)
    }

    /// The notices to send, in their order.
    pub(crate) fn take_notices(&mut self) -> Vec<LeaseNotice> {
        self.table.take_notices()
    }

    pub(crate) fn held_by(&self, session: SessionId) -> usize {
        self.table.held_by(session)
    }

    /// Grants leases on everything that an answer tells. If one is refused, the session remembers nothing of it.
    fn grant(&mut self, session: Option<SessionId>, told: &Told, now: Duration) -> Granted {
        let Some(session) = session else { return Granted::default() };
        let mut granted = Granted { remember: true, sole: Vec::new() };
        let directories = told.directories.iter().map(|ino| (*ino, Lease::Sole));
        for (ino, wanted) in told.inos.iter().map(|ino| (*ino, Lease::Shared)).chain(directories) {
            match self.table.grant(session, ino, wanted, now) {
                Some(Lease::Sole) if wanted == Lease::Sole => granted.sole.push(ino),
                Some(_) => {}
                None => granted.remember = false,
            }
        }
        if granted.remember { granted } else { Granted::default() }
    }

    fn terms(&mut self, wait: Option<WaitId>, granted: Granted) -> AnswerTerms {
        AnswerTerms { wait: self.expect(wait), generation: self.generation, granted }
    }

    fn expect(&mut self, wait: Option<WaitId>) -> Option<Wait> {
        let wait = wait?;
        let (over, receiver) = watch::channel(());
        self.waits.insert(wait, over);
        Some(Wait::until_closed(receiver))
    }

    /// Dropping its sender ends a wait.
    fn release(&mut self) {
        self.table.take_released().iter().for_each(|wait| drop(self.waits.remove(wait)));
    }
}

/// What a notice demands, beside the events of the change that was just applied.
pub(crate) fn demands(notice: &LeaseNotice) -> Vec<FeedEvent> {
    let demand = |ino: &Ino| match notice.kind {
        NoticeKind::Changed => None,
        NoticeKind::Recalled => Some(FeedEvent::Recalled { ino: *ino }),
        NoticeKind::Revoked => Some(FeedEvent::Revoked { ino: *ino }),
    };
    notice.inos.iter().filter_map(demand).collect()
}

/// A session that remembers nothing has to know only that a file lost its last name: it may have it open.
pub(crate) fn removals(events: &[FeedEvent]) -> Vec<FeedEvent> {
    events.iter().filter(|event| matches!(event, FeedEvent::Orphaned { .. })).cloned().collect()
}
