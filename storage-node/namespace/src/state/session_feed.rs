//! The attached sessions: their connections, how long they have been silent, what they hold leases on, and pushing the
//! change feed to them.
//!
//! A session hears only of what it holds a lease on or may have open, so the cost of a change does not grow with the
//! number of mounts.
//!
//! Connections are attached on the leader only. Pushing happens while an operation is applied, in the order of the log,
//! and only queues bytes on a connection; one that does not keep up is closed by its own queue and must attach again.
//! One lock covers connections and leases, so the messages to a session leave in the order in which they were decided.

mod attached;
mod connections;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_leases::NoticeCounts;
use chordfs_net::boot_clock::since_boot;
use chordfs_tables::AppliedOp;
use chordfs_types::namespace::{ClientReport, Ino, NamespaceOp, SessionId, SessionRequests};
use parking_lot::Mutex;

use self::attached::AttachedSessions;
pub(crate) use self::connections::{FeedConnection, SessionContact};
use super::{
    change_intent::{ChangeIntent, Concerned, NotReady, NotedIntent},
    lease_book::merged_events,
    told::Told,
};
use crate::{
    answer_terms::{AnswerTerms, Wait},
    raft_types::LeaderTerm,
};

#[derive(Default)]
pub(crate) struct SessionFeed {
    /// This node's id among the members; `None` for a folder that is only read.
    uid: Option<u64>,
    attached: Mutex<AttachedSessions>,
}

/// A session to which a connection is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachingSession {
    pub session: SessionId,
    /// It may hold leases.
    pub holds_leases: bool,
    /// It sees one folder only.
    pub is_bound: bool,
}

impl SessionFeed {
    pub(crate) fn of_node(uid: u64) -> Self {
        Self { uid: Some(uid), ..Self::default() }
    }

    /// Attaches a connection to a session when the log is applied up to `applied`. Returns true if it was not attached
    /// to any before.
    pub(crate) fn attach(
        &self,
        session: AttachingSession,
        connection: Arc<dyn FeedConnection>,
        applied: u64,
        now: Instant,
    ) -> bool {
        let AttachingSession { session, holds_leases, is_bound } = session;
        let mut attached = self.attached.lock();
        let id = connection.id();
        let new = !attached.by_connection.contains_key(&id);
        attached.detach(id);
        let entry = attached.session(session, now);
        (entry.last_request, entry.heard_since) = (now, now);
        entry.connections.insert(id, connection);
        (entry.holds_leases, entry.attached_at, entry.attached_by) = (holds_leases, applied, Some(id));
        entry.is_bound = is_bound;
        attached.by_connection.insert(id, session);
        new
    }

    /// Gives an attached session its leases back, as far as it claims them and they have not run out. What it claims in
    /// vain is revoked by a message that leaves before the answer. To be called while nothing can be applied.
    pub(crate) fn claim(&self, session: SessionId, claims: &[Ino], exists: impl Fn(Ino) -> bool) {
        let mut attached = self.attached.lock();
        attached.leases.attach(session, claims, exists, since_boot());
        attached.send_notices();
    }

    pub(crate) fn detach(&self, connection: u64) {
        self.attached.lock().detach(connection);
    }

    /// Renews the lease of the session that `connection` is attached to, and returns it; `None` if it is not attached.
    pub(crate) fn renew(&self, connection: u64, now: Instant) -> Option<SessionId> {
        let mut attached = self.attached.lock();
        let session = *attached.by_connection.get(&connection)?;
        attached.session(session, now).renew(now);
        attached.leases.renew(session, since_boot());
        Some(session)
    }

    /// The session that `connection` is attached to.
    pub(crate) fn session_of(&self, connection: u64) -> Option<SessionId> {
        self.attached.lock().by_connection.get(&connection).copied()
    }

    /// Counts an operation or query of the session that `connection` is attached to. Called before it is carried out.
    pub(crate) fn count_request(&self, connection: u64) {
        let mut attached = self.attached.lock();
        if let Some(session) = attached.by_connection.get(&connection).copied()
            && let Some(entry) = attached.sessions.get_mut(&session)
        {
            entry.requests += 1;
        }
    }

    /// Records what a keepalive reports: the session holds all files that it has open and that lost their names up to
    /// `answered`, and it had nothing open when it had sent the requests `nothing_open`. Returns how many it has sent.
    pub(crate) fn answer(
        &self,
        session: SessionId,
        connection: u64,
        answered: u64,
        nothing_open: Option<SessionRequests>,
        now: Instant,
    ) -> u64 {
        let mut attached = self.attached.lock();
        let term = attached.leases.term();
        let entry = attached.session(session, now);
        entry.answered = entry.answered.max(answered);
        entry.nothing_open = nothing_open;
        let requests = entry.requests;
        let has_named = entry.attached_by == Some(connection) && answered >= entry.attached_at;
        let had_nothing_open = term.is_some_and(|term| entry.had_nothing_open(term));
        if has_named {
            // It has asked to hold every file that was open when it attached.
            attached.leases.note_open_files_named(session);
        }
        if had_nothing_open {
            attached.leases.note_nothing_open(session);
        }
        requests
    }

    /// Returns the place in the log up to which each of the `sessions` holds what it has open, which are open and not
    /// suspended. `excused` is a place and how long ago it was applied here: a session that could have answered for
    /// that long is not waited for, nor is one that has nothing open in this `term`.
    pub(crate) fn answered_by_all(
        &self,
        sessions: &[SessionId],
        now: Instant,
        term: u64,
        excused: (u64, Duration),
    ) -> u64 {
        let (index, age) = excused;
        let mut attached = self.attached.lock();
        let answered = sessions.iter().map(|id| {
            let entry = attached.session(*id, now);
            match () {
                () if entry.has_nothing_open(term) => u64::MAX,
                () if entry.heard_for(age, now) => entry.answered.max(index),
                () => entry.answered,
            }
        });
        answered.min().unwrap_or(u64::MAX)
    }

    /// Renews the leases of all sessions: a new leader cannot know when they last sent a request.
    pub(crate) fn renew_all(&self, now: Instant) {
        for entry in self.attached.lock().sessions.values_mut() {
            (entry.last_request, entry.heard_since) = (now, now);
        }
    }

    /// Renews all leases on inodes, because nothing that the sessions sent was read for a while.
    pub(crate) fn renew_inode_leases(&self) {
        self.attached.lock().leases.renew_all(since_boot());
    }

    /// Forgets the sessions that are not open any longer.
    pub(crate) fn keep_only(&self, open: &[SessionId]) {
        self.attached.lock().sessions.retain(|id, entry| !entry.connections.is_empty() || open.contains(id));
    }

    /// How long an open session has been silent. The time of an unknown session starts now.
    pub(crate) fn silent_for(&self, session: SessionId, now: Instant) -> Duration {
        now.saturating_duration_since(self.attached.lock().session(session, now).last_request)
    }

    /// Follows the leader of the entry that is being applied: leases are granted by this node only while it leads.
    pub(crate) fn follow_leader(&self, leader: LeaderTerm, sessions: impl FnOnce() -> Vec<SessionId>) {
        let own = (Some(leader.node_id) == self.uid).then_some(leader);
        self.attached.lock().leases.follow(own, sessions, since_boot());
    }

    /// See [`AnswerTerms`].
    pub(crate) fn generation(&self) -> u64 {
        self.attached.lock().leases.generation()
    }

    /// Tells all sessions of the changes in one entry but the one that caused them, and returns the terms of their
    /// answer: those that hold leases on what they concern have to acknowledge it first. To be called before anybody
    /// can read the changes.
    pub(crate) fn applied(&self, ops: &[NamespaceOp], results: &[AppliedOp]) -> AnswerTerms {
        let Some(origin) = results.first().map(|result| result.origin) else { return AnswerTerms::default() };
        let (mut told, mut told_again) = (Told::default(), Told::default());
        for (op, result) in ops.iter().zip(results) {
            let told = if result.repeated { &mut told_again } else { &mut told };
            told.add_reply(&op.change, &result.reply);
        }
        let is_repeated = results.iter().any(|result| result.repeated);
        let events = merged_events(results);
        let mut attached = self.attached.lock();
        if let Some(origin) = origin {
            attached.leases.note_open(origin, &told.open);
            attached.leases.note_open(origin, &told_again.named());
        }
        if results.iter().all(|result| result.repeated) {
            return attached.leases.repeat(origin);
        }
        attached.push(origin, &events, told, is_repeated)
    }

    /// The terms of an answer; `Err` with a wait if another session has to let go first. To be called while nothing can
    /// be applied.
    ///
    /// `asked` are the sessions that have logged what they had answered, for this answer.
    pub(crate) fn read(
        &self,
        reader: Option<SessionId>,
        told: &Told,
        asked: &mut BTreeSet<SessionId>,
    ) -> Result<AnswerTerms, Wait> {
        let mut attached = self.attached.lock();
        let remembers = reader.is_some_and(|reader| attached.sessions.get(&reader).is_some_and(|it| it.holds_leases));
        let wait =
            if remembers { attached.leases.recall(reader, told) } else { attached.leases.want(reader, told, asked) };
        let outcome = match wait {
            Some(wait) => Err(wait),
            None => Ok(attached.leases.read(reader, told, since_boot())),
        };
        attached.send_notices();
        outcome
    }

    /// See [`ChangeIntent::prepare`].
    pub(super) fn prepare(&self, intent: &mut ChangeIntent, concerned: Concerned) -> Result<LeaderTerm, NotReady> {
        let mut attached = self.attached.lock();
        let outcome = attached.leases.prepare(&mut intent.id, concerned, since_boot());
        attached.send_notices();
        outcome
    }

    pub(super) fn settled_change(&self, noted: NotedIntent) -> Option<Wait> {
        self.attached.lock().leases.settled_change(noted)
    }

    pub(super) fn end_change(&self, noted: NotedIntent) {
        self.attached.lock().leases.end_change(noted);
    }

    /// Notes that the session has done what a message demands.
    pub(crate) fn acknowledge(&self, connection: u64, notice: u64, keeps: bool) {
        let mut attached = self.attached.lock();
        if let Some(session) = attached.by_connection.get(&connection).copied() {
            attached.leases.acknowledge(session, notice, keeps);
        }
    }

    /// Ends the leases of a session that was closed.
    pub(crate) fn close_session(&self, session: SessionId) {
        self.attached.lock().leases.close(session);
    }

    /// Ends the leases and the connections of a session that was suspended: it may hold leases again only after it has
    /// attached again.
    pub(crate) fn suspend_session(&self, session: SessionId) {
        let mut attached = self.attached.lock();
        attached.leases.close(session);
        attached.close(session);
    }

    /// Ends the leases that have run out. The connections of such a session are closed: it has missed something, and
    /// has to attach again.
    pub(crate) fn end_old_leases(&self) {
        let mut attached = self.attached.lock();
        for session in attached.leases.expire(since_boot()) {
            attached.close(session);
        }
    }

    /// Closes all connections, because changes were skipped that cannot be sent as events.
    pub(crate) fn interrupt(&self) {
        let mut attached = self.attached.lock();
        let sessions: Vec<SessionId> = attached.sessions.keys().copied().collect();
        sessions.into_iter().for_each(|session| attached.close(session));
    }

    /// Keeps the report of the session that `connection` is attached to.
    pub(crate) fn note_report(&self, connection: u64, report: ClientReport) {
        let mut attached = self.attached.lock();
        if let Some(session) = attached.by_connection.get(&connection).copied()
            && let Some(entry) = attached.sessions.get_mut(&session)
        {
            entry.report = Some(report);
        }
    }

    /// Returns what is known of each of the `sessions`, in their order.
    pub(crate) fn contacts(&self, sessions: &[SessionId], now: Instant) -> Vec<SessionContact> {
        let attached = self.attached.lock();
        let contact = |id: &SessionId| {
            let Some(entry) = attached.sessions.get(id) else { return SessionContact::default() };
            SessionContact {
                addresses: entry.connections.values().map(|peer| peer.address()).collect(),
                silent: now.saturating_duration_since(entry.last_request),
                report: entry.report,
                leases: attached.leases.held_by(*id),
                recalls: attached.leases.unacknowledged_by(*id),
            }
        };
        sessions.iter().map(contact).collect()
    }

    /// How many leases are held, and how many notices of each kind were issued.
    pub(crate) fn lease_counts(&self) -> (usize, NoticeCounts) {
        let attached = self.attached.lock();
        (attached.leases.held(), attached.leases.issued())
    }

    pub(crate) fn attached_sessions(&self) -> usize {
        self.attached.lock().sessions.values().filter(|entry| !entry.connections.is_empty()).count()
    }
}
