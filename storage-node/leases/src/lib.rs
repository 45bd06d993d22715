//! Which session may answer by itself for which inode, as a value: requests and the time go in, notices come out.
//!
//! A lease is a session's right to answer from memory. It is on an inode: a file's attributes and extents, or a
//! directory's attributes and names. Many sessions may hold a shared lease; a sole lease excludes every other one, so
//! its holder may let the kernel keep names too. A session whose lease is contradicted is sent a notice, and the answer
//! that contradicts it waits until the session has acknowledged the notice, or until its leases have run out.
//!
//! Leases live in the leader's memory only. A new leader knows the sessions, but not what they hold. So at first it
//! waits for each to attach and to claim what it held, or for the time after which any lease has run out.
//!
//! Why a value: every interleaving of lost connections, late acknowledgements and new leaders can be tried in memory.
//! There is no clock, socket or task here. The driver calls every method under one lock, sends the notices in their
//! order, and releases the answers that waited. `holders` is the view from the inode, `held` that from the session, and
//! `notices` knows what is not acknowledged and which answers wait for it.
#![deny(clippy::disallowed_methods)]

mod held;
mod holders;
mod notices;
#[cfg(test)]
mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    time::Duration,
};

use chordfs_types::namespace::{Ino, SessionId};

pub use self::notices::{LeaseNotice, NoticeId, NoticeKind, WaitId};
use self::{held::HeldLeases, holders::Holders, notices::LeaseNotices};

/// What a lease allows its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// To answer from memory.
    Shared,
    /// Also to let the kernel keep names, because no other session has any lease on the inode.
    Sole,
}

#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// The leases of a session that has sent nothing for this long have run out. A silent mount delays others by at
    /// most this.
    pub duration: Duration,
    /// The most leases of one session; beyond it the ones that were granted first are revoked.
    pub max_per_session: NonZeroUsize,
}

/// The leases of all sessions, at the leader.
#[derive(Debug)]
pub struct LeaseTable {
    settings: LeaseSettings,
    holders: Holders,
    sessions: BTreeMap<SessionId, AttachedSession>,
    /// Sessions that were open when the term began and have not attached yet, and when their leases have run out.
    unclaimed: BTreeMap<SessionId, Duration>,
    notices: LeaseNotices,
}

#[derive(Debug)]
struct AttachedSession {
    /// When its leases run out.
    expires: Duration,
    held: HeldLeases,
}

impl LeaseTable {
    pub fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            holders: Holders::default(),
            sessions: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            notices: LeaseNotices::default(),
        }
    }

    /// Begins the term of a leader. `sessions` are the open ones that may hold leases. Until each has attached, or its
    /// leases have run out, every answer waits for it: the former leader may have applied changes of which it told
    /// nobody.
    pub fn begin_term(&mut self, sessions: impl IntoIterator<Item = SessionId>, now: Duration) {
        self.end_term();
        for session in sessions {
            self.unclaimed.insert(session, now + self.settings.duration);
            self.notices.expect_claims(session);
        }
    }

    /// Ends the term of a leader. All waits are released: their answers are no longer this node's to give, which the
    /// driver has to check before it gives one.
    pub fn end_term(&mut self) {
        self.holders = Holders::default();
        self.sessions.clear();
        self.unclaimed.clear();
        self.notices.resolve_all();
    }

    /// Attaches a session, also one that is attached. It still holds what it claims and nothing else, so that a broken
    /// connection costs no lease. Whatever it remembers may have changed meanwhile, of which a notice tells it.
    pub fn attach(&mut self, session: SessionId, claims: &[Ino], now: Duration) {
        self.drop_leases(session);
        self.unclaimed.remove(&session);
        let expires = now + self.settings.duration;
        self.sessions.insert(session, AttachedSession { expires, held: HeldLeases::default() });
        // Where another session holds a sole lease, the claimed one had run out.
        let kept: Vec<Ino> = claims.iter().copied().filter(|ino| self.holders.sole(*ino).is_none()).collect();
        for ino in &kept {
            self.holders.add(*ino, session);
            self.note_held(session, *ino);
        }
        let notice = (!kept.is_empty()).then(|| self.notices.issue(session, NoticeKind::Changed, kept));
        self.notices.resolve_others(session, notice);
        self.revoke_excess(session);
    }

    /// Notes that the session has sent something.
    pub fn renew(&mut self, session: SessionId, now: Duration) {
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.expires = attached.expires.max(now + self.settings.duration);
        }
    }

    /// Notes that the driver could not hear the sessions until now.
    pub fn renew_all(&mut self, now: Duration) {
        let expires = now + self.settings.duration;
        let attached = self.sessions.values_mut().map(|attached| &mut attached.expires);
        attached.chain(self.unclaimed.values_mut()).for_each(|it| *it = expires.max(*it));
    }

    /// Grants a lease on what an answer tells the session about `ino`. To be called while nothing can change the inode
    /// between the answer and the grant. `None`: the session must not remember the answer.
    ///
    /// At most what is `wanted`, but a sole lease that it has already stays.
    pub fn grant(&mut self, session: SessionId, ino: Ino, wanted: Lease, now: Duration) -> Option<Lease> {
        let valid = self.sessions.get(&session).is_some_and(|attached| attached.expires > now);
        // What an absent session will claim is not free.
        if !valid || !self.unclaimed.is_empty() || self.recall_of(ino).is_some() {
            return None;
        }
        let shared_only = wanted == Lease::Shared || self.notices.has_any_about(ino);
        let lease = self.holders.grant(ino, session, shared_only)?;
        self.note_held(session, ino);
        self.revoke_excess(session);
        Some(lease)
    }

    /// Recalls the sole leases of others on what `reader` is about to read, before it does so. When the wait
    /// is over it has to ask again; `None`: it may go on.
    pub fn recall(&mut self, reader: Option<SessionId>, inos: &[Ino]) -> Option<WaitId> {
        let (mut recalled, mut ids) = (BTreeMap::<SessionId, Vec<Ino>>::new(), self.awaited_claims(reader));
        for ino in inos {
            let Some(holder) = self.holders.sole(*ino).filter(|holder| Some(*holder) != reader) else { continue };
            match self.recall_of(*ino) {
                Some(id) => ids.push(id),
                None => recalled.entry(holder).or_default().push(*ino),
            }
        }
        self.issue_to_all(recalled, NoticeKind::Recalled, &mut ids);
        self.notices.wait_for(ids)
    }

    /// Notes that a change by `origin` was applied to `inos`, each named once, before anybody can read it. Its answer
    /// waits as returned.
    pub fn changed(&mut self, origin: Option<SessionId>, inos: &[Ino]) -> Option<WaitId> {
        let (mut affected, mut ids) = (BTreeMap::<SessionId, Vec<Ino>>::new(), self.awaited_claims(origin));
        for ino in inos {
            for holder in self.holders.of(*ino).filter(|holder| Some(*holder) != origin) {
                affected.entry(holder).or_default().push(*ino);
            }
        }
        self.issue_to_all(affected, NoticeKind::Changed, &mut ids);
        self.notices.wait_for(ids)
    }

    /// What an answer about `inos` has to wait for: another session may still remember what was before a change that
    /// the answer shows.
    pub fn settled(&mut self, reader: Option<SessionId>, inos: &[Ino]) -> Option<WaitId> {
        let mut ids = self.awaited_claims(reader);
        for ino in inos {
            ids.extend(self.notices.about(*ino, NoticeKind::Changed).filter(|id| Some(id.session) != reader));
        }
        self.notices.wait_for(ids)
    }

    /// Like `settled`, for the answer to an operation that was sent again: it is not known what it is about.
    pub fn all_settled(&mut self, reader: Option<SessionId>) -> Option<WaitId> {
        let ids = self.notices.changes().filter(|id| Some(id.session) != reader).collect();
        self.notices.wait_for(ids)
    }

    /// Notes that the session has done what a notice demands. With `keeps` false it also gives back its leases on those
    /// inodes, for example because it has not used them lately.
    pub fn acknowledge(&mut self, id: NoticeId, keeps: bool) {
        let Some((kind, inos)) = self.notices.resolve(id) else { return };
        for ino in inos {
            if kind == NoticeKind::Recalled {
                self.holders.share(ino, id.session);
            }
            // When the session sent this it did not know of a lease that was granted after the notice.
            let held = self.sessions.get(&id.session).map(|attached| &attached.held);
            if (!keeps || kind == NoticeKind::Revoked) && held.is_some_and(|held| held.was_granted_before(ino, id)) {
                self.take_back(id.session, ino);
            }
        }
    }

    /// Ends the leases of a session that is closed.
    pub fn close(&mut self, session: SessionId) {
        self.drop_leases(session);
        self.sessions.remove(&session);
        self.unclaimed.remove(&session);
        self.notices.resolve_others(session, None);
    }

    /// Ends the leases that have run out, and returns the sessions that held them. Such a session may have missed
    /// notices, so it has to attach again before it is granted anything.
    pub fn expire(&mut self, now: Duration) -> Vec<SessionId> {
        let expired: BTreeSet<SessionId> =
            self.expiries().filter(|(_, expires)| *expires <= now).map(|(session, _)| session).collect();
        expired.iter().for_each(|session| self.close(*session));
        expired.into_iter().collect()
    }

    /// The notices to send, in their order, since the last call.
    pub fn take_notices(&mut self) -> Vec<LeaseNotice> {
        self.notices.take_issued()
    }

    /// The waits that are over since the last call.
    pub fn take_released(&mut self) -> Vec<WaitId> {
        self.notices.take_released()
    }

    /// The number of leases that a session holds.
    pub fn held_by(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |attached| attached.held.len())
    }

    /// A session without any lease has nothing that could run out.
    fn expiries(&self) -> impl Iterator<Item = (SessionId, Duration)> {
        let holding = self.sessions.iter().filter(|(_, attached)| attached.held.len() > 0);
        let attached = holding.map(|(session, attached)| (*session, attached.expires));
        attached.chain(self.unclaimed.iter().map(|(session, expires)| (*session, *expires)))
    }

    fn recall_of(&self, ino: Ino) -> Option<NoticeId> {
        self.notices.about(ino, NoticeKind::Recalled).next()
    }

    fn awaited_claims(&self, except: Option<SessionId>) -> Vec<NoticeId> {
        let awaited = self.unclaimed.keys().filter(|session| Some(**session) != except);
        awaited.map(|session| NoticeId::claims(*session)).collect()
    }

    fn issue_to_all(&mut self, inos: BTreeMap<SessionId, Vec<Ino>>, kind: NoticeKind, ids: &mut Vec<NoticeId>) {
        ids.extend(inos.into_iter().map(|(session, inos)| self.notices.issue(session, kind, inos)));
    }

    fn note_held(&mut self, session: SessionId, ino: Ino) {
        let last = self.notices.last();
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.held.insert(ino, last);
        }
    }

    /// Many at once, so that a session at its limit is not sent a notice for each lease that it is granted.
    fn revoke_excess(&mut self, session: SessionId) {
        let max = self.settings.max_per_session.get();
        let Some(attached) = self.sessions.get_mut(&session).filter(|attached| attached.held.not_revoked() > max)
        else {
            return;
        };
        let inos = attached.held.revoke_oldest(max.div_ceil(16));
        self.notices.issue(session, NoticeKind::Revoked, inos);
    }

    fn take_back(&mut self, session: SessionId, ino: Ino) {
        self.holders.remove(ino, session);
        if let Some(attached) = self.sessions.get_mut(&session) {
            attached.held.remove(ino);
        }
    }

    fn drop_leases(&mut self, session: SessionId) {
        let Some(attached) = self.sessions.get_mut(&session) else { return };
        for ino in attached.held.drain() {
            self.holders.remove(ino, session);
        }
    }
}

#[cfg(test)]
impl LeaseTable {
    /// Panics if the two views disagree, or a sole lease is not alone.
    fn check(&self) {
        self.holders.check();
        for (session, attached) in &self.sessions {
            for ino in attached.held.inos() {
                assert!(self.holders.of(ino).any(|holder| holder == *session), "{session:?} does not hold {ino:?}");
            }
        }
        let held: usize = self.sessions.values().map(|attached| attached.held.len()).sum();
        assert_eq!(held, self.holders.count());
    }
}
