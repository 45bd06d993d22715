//! The attached sessions together, and which of them hear of a change.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use chordfs_leases::{LeaseNotice, NoticeKind};
use chordfs_net::boot_clock::since_boot;
use chordfs_types::namespace::{FeedEvent, FeedMessage, Ino, SessionId, encode};

use super::connections::{FeedConnection, SessionConnections};
use crate::{
    answer_terms::AnswerTerms,
    state::{
        lease_book::{LeaseBook, demands, is_removal},
        told::Told,
    },
};

#[derive(Default)]
pub(super) struct AttachedSessions {
    pub(super) sessions: HashMap<SessionId, SessionConnections>,
    pub(super) by_connection: HashMap<u64, SessionId>,
    pub(super) leases: LeaseBook,
}

/// Which events of a change a session has to hear of.
enum EventScope {
    Inodes(BTreeSet<Ino>),
    All,
    /// All, and names only in these directories: a session that is bound to a folder must not see names outside of it.
    /// Without a lease it remembers none.
    NamesIn(BTreeSet<Ino>),
    /// A session without leases remembers nothing; it may have a file open that has lost its last name.
    Removals,
}

impl Default for EventScope {
    fn default() -> Self {
        Self::Inodes(BTreeSet::new())
    }
}

fn is_grant(event: &FeedEvent) -> bool {
    matches!(event, FeedEvent::LockGranted { .. })
}

impl EventScope {
    fn covers(&self, event: &FeedEvent) -> bool {
        match self {
            Self::Inodes(inos) => inos.contains(&event.ino()),
            Self::All => true,
            Self::NamesIn(directories) => match event {
                FeedEvent::Entry { parent, .. } => directories.contains(parent),
                _ => true,
            },
            Self::Removals => is_removal(event),
        }
    }
}

impl AttachedSessions {
    /// `told` is what the replies tell beside the events. `is_repeated`: another part of the answer was given before.
    pub(super) fn push(
        &mut self,
        origin: Option<SessionId>,
        events: &[FeedEvent],
        told: Told,
        is_repeated: bool,
    ) -> AnswerTerms {
        if self.by_connection.is_empty() && !self.leases.is_leading() {
            return AnswerTerms::default();
        }
        let others: Vec<FeedEvent>;
        let events = if events.iter().any(is_grant) {
            others = self.send_grants(events);
            &others
        } else {
            events
        };
        let mut terms = self.leases.change(origin, events, told, since_boot());
        if is_repeated {
            // It waits for every notice of a change, and so for those that were just issued, too.
            terms = AnswerTerms { granted: terms.granted.once(), ..self.leases.repeat(origin) };
        }
        let notices = self.leases.take_notices();
        if !events.is_empty() {
            self.tell(origin, events, &notices);
        }
        self.send_demands(&notices);
        terms
    }

    /// Tells those who waited for a lock that they have it, which contradicts nothing that anybody remembers. Returns
    /// the other events.
    fn send_grants(&mut self, events: &[FeedEvent]) -> Vec<FeedEvent> {
        let (grants, others): (Vec<FeedEvent>, Vec<FeedEvent>) = events.iter().cloned().partition(is_grant);
        for grant in grants {
            if let FeedEvent::LockGranted { session, .. } = grant {
                self.send(session, &encode(&FeedMessage { notice: None, events: vec![grant] }));
            }
        }
        others
    }

    /// Sends the events of a change to the sessions that it concerns. One that holds a lease acknowledges its notice.
    fn tell(&mut self, origin: Option<SessionId>, events: &[FeedEvent], notices: &[LeaseNotice]) {
        let changed = notices.iter().filter(|notice| notice.kind == NoticeKind::Changed);
        let numbers: HashMap<SessionId, u64> = changed.map(|notice| (notice.id.session, notice.id.number)).collect();
        let mut addressees = self.concerned(events, notices);
        addressees.retain(|session, _| Some(*session) != origin);
        let all = OnceCell::new();
        for (session, scope) in addressees {
            if matches!(scope, EventScope::All) && !numbers.contains_key(&session) {
                let message = || encode(&FeedMessage { notice: None, events: events.to_vec() });
                self.send(session, all.get_or_init(message));
                continue;
            }
            let heard: Vec<FeedEvent> = events.iter().filter(|event| scope.covers(event)).cloned().collect();
            if !heard.is_empty() {
                let notice = numbers.get(&session).copied();
                self.send(session, &encode(&FeedMessage { notice, events: heard }));
            }
        }
    }

    /// The sessions that have to hear of the events, and of which.
    fn concerned(&self, events: &[FeedEvent], notices: &[LeaseNotice]) -> BTreeMap<SessionId, EventScope> {
        let mut concerned = BTreeMap::<SessionId, EventScope>::new();
        let mut add = |session: SessionId, ino: Ino| {
            if let EventScope::Inodes(inos) = concerned.entry(session).or_default() {
                inos.insert(ino);
            }
        };
        for notice in notices.iter().filter(|notice| notice.kind == NoticeKind::Changed) {
            notice.inos.iter().for_each(|ino| add(notice.id.session, *ino));
        }
        for ino in events.iter().map(FeedEvent::ino) {
            self.leases.interested_in(ino).for_each(|session| add(session, ino));
        }
        let of_everything: Vec<SessionId> = if self.leases.is_leading() {
            self.leases.interested_in_everything().collect()
        } else {
            // Nothing is known of leases, and a session may not have noticed yet that another node leads.
            self.sessions.iter().filter(|(_, entry)| entry.holds_leases).map(|(session, _)| *session).collect()
        };
        for session in of_everything {
            let known = concerned.remove(&session).unwrap_or_default();
            concerned.insert(session, self.widened(session, known));
        }
        if events.iter().any(is_removal) {
            let term = self.leases.term();
            let has_nothing_open = |entry: &SessionConnections| term.is_some_and(|term| entry.has_nothing_open(term));
            let readers = self.sessions.iter().filter(|(_, entry)| !entry.holds_leases && !has_nothing_open(entry));
            concerned.extend(readers.map(|(session, _)| (*session, EventScope::Removals)));
        }
        concerned
    }

    /// The scope of a session that hears of everything and already of what is in `known`.
    fn widened(&self, session: SessionId, known: EventScope) -> EventScope {
        let is_bound = self.sessions.get(&session).is_some_and(|entry| entry.is_bound);
        match known {
            EventScope::Inodes(inos) if is_bound => EventScope::NamesIn(inos),
            _ => EventScope::All,
        }
    }

    pub(super) fn send_notices(&mut self) {
        let notices = self.leases.take_notices();
        self.send_demands(&notices);
    }

    /// Sends the notices that are not about a change.
    fn send_demands(&mut self, notices: &[LeaseNotice]) {
        for notice in notices {
            let events = demands(notice);
            if !events.is_empty() {
                self.send(notice.id.session, &encode(&FeedMessage { notice: Some(notice.id.number), events }));
            }
        }
    }

    fn send(&mut self, session: SessionId, message: &Bytes) {
        let Some(entry) = self.sessions.get(&session) else { return };
        let is_gone = |peer: &&Arc<dyn FeedConnection>| !peer.push(message.clone());
        let gone: Vec<u64> = entry.connections.values().filter(is_gone).map(|peer| peer.id()).collect();
        gone.into_iter().for_each(|connection| self.detach(connection));
    }

    pub(super) fn close(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        for (id, connection) in entry.connections.drain() {
            self.by_connection.remove(&id);
            connection.close();
        }
    }

    pub(super) fn session(&mut self, session: SessionId, now: Instant) -> &mut SessionConnections {
        self.sessions.entry(session).or_insert_with(|| SessionConnections::new(now))
    }

    pub(super) fn detach(&mut self, connection: u64) {
        if let Some(session) = self.by_connection.remove(&connection)
            && let Some(entry) = self.sessions.get_mut(&session)
        {
            entry.connections.remove(&connection);
        }
    }
}
