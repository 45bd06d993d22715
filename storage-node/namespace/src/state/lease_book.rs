//! The leases of all sessions while this node leads, between the feed and the pure rules (`chordfs-leases`): events
//! become notices, notices become messages, and answers wait for their acknowledgement.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    time::Duration,
};

use chordfs_leases::{Lease, LeaseNotice, LeaseSettings, LeaseTable, NoticeCounts, NoticeId, NoticeKind, WaitId};
use chordfs_tables::AppliedOp;
use chordfs_types::namespace::{FeedEvent, Granted, Ino, LEASE, SessionId};
use tokio::sync::watch;

use super::{
    change_intent::{Concerned, NotReady, NotedIntent},
    told::Told,
};
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

    pub(crate) fn term(&self) -> Option<u64> {
        self.term.map(|leader| leader.term)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn attach(&mut self, session: SessionId, claims: &[Ino], exists: impl Fn(Ino) -> bool, now: Duration) {
        self.table.attach(session, claims, exists, now);
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
        let wait = self.table.recall(reader, &told.inos);
        self.expect(wait)
    }

    /// Has others log what they have answered before somebody who remembers nothing reads it.
    pub(crate) fn want(
        &mut self,
        reader: Option<SessionId>,
        told: &Told,
        asked: &mut BTreeSet<SessionId>,
    ) -> Option<Wait> {
        let wait = self.table.want(reader, &told.inos, asked);
        self.expect(wait)
    }

    /// Prepares changes before they are proposed. Returns the term in which they may be.
    pub(super) fn prepare(
        &mut self,
        noted: &mut Option<NotedIntent>,
        Concerned { origin, inos, keys }: Concerned,
        now: Duration,
    ) -> Result<LeaderTerm, NotReady> {
        let term = self.term.ok_or(NotReady::NotLeading)?;
        let generation = self.generation;
        let former = noted.filter(|noted| noted.generation == generation).map(|noted| noted.id);
        let (id, wait) = self.table.prepare_change(former, origin, &inos, keys, now);
        *noted = Some(NotedIntent { id, generation });
        match self.expect(wait) {
            Some(wait) => Err(NotReady::Wait(wait)),
            None => Ok(term),
        }
    }

    pub(super) fn settled_change(&mut self, noted: NotedIntent) -> Option<Wait> {
        if noted.generation != self.generation {
            return None;
        }
        let wait = self.table.settled_change(noted.id);
        self.expect(wait)
    }

    pub(super) fn end_change(&mut self, noted: NotedIntent) {
        self.table.end_change(noted.id);
        self.release();
    }

    /// The terms of an answer with what it tells as it is now.
    pub(crate) fn read(&mut self, reader: Option<SessionId>, told: &Told, now: Duration) -> AnswerTerms {
        let wait = self.table.settled(reader, &told.inos);
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
        // First, so that the session is alone with what it has created.
        let created = self.grant_created(origin, &told.created, now);
        let wait = self.table.changed(origin, &affected);
        told.inos.extend(affected);
        let mut granted = self.grant(origin, &told, now);
        granted.sole.extend(created);
        self.terms(wait, granted)
    }

    /// The notices to send, in their order.
    pub(crate) fn take_notices(&mut self) -> Vec<LeaseNotice> {
        self.table.take_notices()
    }

    /// Notes that the session may have these inodes open.
    pub(crate) fn note_open(&mut self, session: SessionId, inos: &[Ino]) {
        self.table.note_open(session, inos);
    }

    /// See [`LeaseTable::note_open_files_named`].
    pub(crate) fn note_open_files_named(&mut self, session: SessionId) {
        self.table.note_open_files_named(session);
    }

    /// See [`LeaseTable::note_nothing_open`].
    pub(crate) fn note_nothing_open(&mut self, session: SessionId) {
        self.table.note_nothing_open(session);
    }

    /// See [`LeaseTable::interested_in`].
    pub(crate) fn interested_in(&self, ino: Ino) -> impl Iterator<Item = SessionId> {
        self.table.interested_in(ino)
    }

    /// See [`LeaseTable::interested_in_everything`].
    pub(crate) fn interested_in_everything(&self) -> impl Iterator<Item = SessionId> {
        self.table.interested_in_everything()
    }

    pub(crate) fn held_by(&self, session: SessionId) -> usize {
        self.table.held_by(session)
    }

    /// How many notices the session has not acknowledged.
    pub(crate) fn unacknowledged_by(&self, session: SessionId) -> usize {
        self.table.unacknowledged_by(session)
    }

    /// How many leases are held.
    pub(crate) fn held(&self) -> usize {
        self.table.held()
    }

    /// How many notices of each kind were issued.
    pub(crate) fn issued(&self) -> NoticeCounts {
        self.table.issued()
    }

    /// Grants leases on everything that an answer tells. If one is refused, the session remembers nothing of it.
    fn grant(&mut self, session: Option<SessionId>, told: &Told, now: Duration) -> Granted {
        let Some(session) = session else { return Granted::default() };
        let mut granted = Granted { remember: true, sole: Vec::new() };
        for ino in &told.inos {
            match self.table.grant(session, *ino, now) {
                Some(Lease::Sole) => granted.sole.push(*ino),
                Some(Lease::Shared) => {}
                None => granted.remember = false,
            }
        }
        granted
    }

    /// Returns those that the session holds alone now.
    fn grant_created(&mut self, session: Option<SessionId>, created: &[Ino], now: Duration) -> Vec<Ino> {
        let Some(session) = session else { return Vec::new() };
        let mut grant = |ino: &Ino| self.table.grant_created(session, *ino, now) == Some(Lease::Sole);
        created.iter().copied().filter(|ino| grant(ino)).collect()
    }

    fn terms(&mut self, wait: Option<WaitId>, granted: Granted) -> AnswerTerms {
        AnswerTerms { waits: self.expect(wait).into_iter().collect(), generation: self.generation, granted }
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
        NoticeKind::Wanted => Some(FeedEvent::Wanted { ino: *ino }),
    };
    notice.inos.iter().filter_map(demand).collect()
}

/// The events of all changes in one entry, in their order, but each inode once.
pub(crate) fn merged_events(results: &[AppliedOp]) -> Vec<FeedEvent> {
    if let [result] = results {
        return result.feed.clone();
    }
    let (mut events, mut places) = (Vec::new(), HashMap::<Ino, usize>::new());
    for event in results.iter().flat_map(|result| &result.feed) {
        let FeedEvent::Inode { ino, contents } = event else {
            events.push(event.clone());
            continue;
        };
        let place = *places.entry(*ino).or_insert(events.len());
        match events.get_mut(place) {
            Some(FeedEvent::Inode { contents: merged, .. }) => *merged |= *contents,
            _ => events.push(event.clone()),
        }
    }
    events
}

/// Whether a file lost its last name.
pub(crate) fn is_removal(event: &FeedEvent) -> bool {
    matches!(event, FeedEvent::Orphaned { .. })
}
