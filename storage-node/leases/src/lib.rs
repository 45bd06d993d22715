//! Which session may answer by itself for which inode, as a value: requests and the time go in, notices come out.
//!
//! A lease is a session's right to answer from memory. It is on an inode: a file's attributes and extents, or a
//! directory's attributes and names. Many sessions may hold a shared lease; a sole lease excludes every other one, so
//! its holder may let the kernel keep names too, and may change the inode, answer, and have the change logged later. A
//! session whose lease is contradicted is sent a notice, and the answer that contradicts it waits until the session has
//! acknowledged the notice, or until its leases have run out. A sole lease is recalled before anything is read or
//! proposed that it excludes: what its holder has answered comes first in the log.
//!
//! Leases live in the leader's memory only. A new leader knows the sessions, but not what they hold. So at first it
//! waits for each to attach and to claim the sole leases under which it has answered changes, or for the time after
//! which any lease has run out.
//!
//! Why a value: every interleaving of lost connections, late acknowledgements and new leaders can be tried in memory.
//! There is no clock, socket or task here. The driver calls every method under one lock, sends the notices in their
//! order, and releases the answers that waited. `holders` is the view from the inode, `held` that from the session,
//! `notices` knows what is not acknowledged and which answers wait for it, `intents` which changes are about to be
//! logged, and `interest` which sessions hear of changes although they hold no lease.
#![deny(clippy::disallowed_methods)]

mod held;
mod holders;
mod intents;
mod interest;
mod notices;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    time::Duration,
};

use chordfs_types::namespace::{Ino, SessionId};

pub use self::intents::{ChangeKey, IntentId};
pub use self::notices::{LeaseNotice, NoticeCounts, NoticeId, NoticeKind, WaitId};
use self::{held::HeldLeases, holders::Holders, intents::Intents, interest::Interests, notices::LeaseNotices};

/// What a lease allows its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// To answer from memory.
    Shared,
    /// Also to let the kernel keep names, and to answer changes before they are logged, because no other session has
    /// any lease on the inode.
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
    intents: Intents,
    /// Inodes on which nobody gets a sole lease until then.
    contended: HashMap<Ino, Duration>,
    interests: Interests,
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
            intents: Intents::default(),
            contended: HashMap::new(),
            interests: Interests::default(),
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
            self.interests.begin(session);
        }
    }

    /// Ends the term of a leader. All waits are released: their answers are no longer this node's to give, which the
    /// driver has to check before it gives one.
    pub fn end_term(&mut self) {
        self.holders = Holders::default();
        self.sessions.clear();
        self.unclaimed.clear();
        self.contended.clear();
        self.intents.clear();
        self.interests.clear();
        self.notices.resolve_all();
    }

    /// Attaches a session, also one that is attached. It keeps its sole leases among those that it claims and nothing
    /// else, so that a broken connection costs no change that it has answered. Claimed leases that are not its own any
    /// longer, or never were, are revoked. `exists`: nobody holds a lease on an inode whose creation is not logged yet,
    /// so a claim on one is not refused.
    ///
    /// At a new leader a session that was waited for keeps all that nobody else has claimed. One whose leases have run
    /// out keeps nothing: others may have changed anything since.
    pub fn attach(&mut self, session: SessionId, claims: &[Ino], exists: impl Fn(Ino) -> bool, now: Duration) {
        let was_attached = self.sessions.contains_key(&session);
        let was_awaited = self.unclaimed.remove(&session).is_some();
        let (claimed, excess) = claims.split_at(claims.len().min(self.settings.max_per_session.get()));
        let keeps = |ino: &Ino| match self.holders.sole(*ino) {
            Some(holder) => holder == session,
            None => was_awaited && self.holders.of(*ino).next().is_none(),
        };
        let (kept, mut refused): (Vec<Ino>, Vec<Ino>) = claimed.iter().copied().partition(keeps);
        refused.extend(excess);
        refused.retain(|ino| !was_attached || exists(*ino));
        self.drop_leases(session);
        let expires = now + self.settings.duration;
        self.sessions.insert(session, AttachedSession { expires, held: HeldLeases::default() });
        self.interests.begin(session);
        for ino in &kept {
            self.holders.grant(*ino, session, false);
            self.note_held(session, *ino);
        }
        let wanting = self.notices.take_waits(session, NoticeKind::Wanted);
        self.notices.resolve_of(session);
        self.want_again(session, kept, wanting);
        if !refused.is_empty() {
            self.notices.issue(session, NoticeKind::Revoked, refused);
        }
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
    /// It is the strongest lease that the others allow: a sole one if no other session has any, and nobody else is
    /// about to change the inode.
    pub fn grant(&mut self, session: SessionId, ino: Ino, now: Duration) -> Option<Lease> {
        let lease = self.grant_what_others_allow(session, ino, now);
        if lease.is_none() {
            self.interests.add(session, ino);
        }
        lease
    }

    fn grant_what_others_allow(&mut self, session: SessionId, ino: Ino, now: Duration) -> Option<Lease> {
        // What an absent session will claim is not free.
        if !self.unclaimed.is_empty() || self.recall_of(ino).is_some() {
            return None;
        }
        let is_contended = self.contended.get(&ino).is_some_and(|until| *until > now);
        let shared_only = is_contended || self.notices.has_any_about(ino) || self.intents.has_others(ino, session);
        self.grant_to_valid(session, ino, shared_only, now)
    }

    /// Grants a sole lease on an inode that the session has just created under a number of its own, whatever is going
    /// on: nobody else can know the inode, and the session may have answered more changes of it.
    pub fn grant_created(&mut self, session: SessionId, ino: Ino, now: Duration) -> Option<Lease> {
        let lease = self.grant_to_valid(session, ino, false, now);
        if lease.is_none() {
            self.interests.add(session, ino);
        }
        lease
    }

    fn grant_to_valid(&mut self, session: SessionId, ino: Ino, shared_only: bool, now: Duration) -> Option<Lease> {
        self.sessions.get(&session).filter(|attached| attached.expires > now)?;
        let lease = self.holders.grant(ino, session, shared_only)?;
        self.note_held(session, ino);
        self.revoke_excess(session);
        Some(lease)
    }

    /// Prepares a change of `inos`, before it is proposed: its own inodes are recalled from others that hold them
    /// alone, who may have answered changes that are not logged yet. When the wait is over, the change has to be
    /// prepared again with what it concerns then; without one, it may be proposed. In both cases nobody else gets a
    /// sole lease on the inodes until [`Self::end_change`]. `former` is what was returned before for the same change.
    ///
    /// A change waits for those with a key in common that are on their way into the log: where its names lead is known
    /// only when they are applied. One that does not wait any longer never waits for another, so this has an end. A
    /// session that holds everything alone waits for nothing, because nobody can interfere; so it can always log what
    /// others wait for.
    pub fn prepare_change(
        &mut self,
        former: Option<IntentId>,
        origin: Option<SessionId>,
        inos: &[Ino],
        keys: Vec<ChangeKey>,
        now: Duration,
    ) -> (IntentId, Option<WaitId>) {
        let id = self.intents.note(former, origin, inos);
        if !self.is_alone(origin, inos) {
            self.note_contended(origin, inos, now);
            if let Some(wait) = self.recall(origin, inos) {
                return (id, Some(wait));
            }
            if let Some(holder) = self.intents.holder_of(&keys, id) {
                let wait = self.notices.single_wait();
                self.intents.add_wait(holder, wait);
                return (id, Some(wait));
            }
        }
        self.intents.pass(id, keys);
        (id, None)
    }

    /// What the answer to a change that was applied has to wait for beside its own notices: it may tell of earlier
    /// changes of the same inodes, if only by being refused.
    pub fn settled_change(&mut self, id: IntentId) -> Option<WaitId> {
        let (origin, inos) = (self.intents.origin(id), self.intents.inos(id).to_vec());
        if self.is_alone(origin, &inos) { None } else { self.settled(origin, &inos) }
    }

    /// Ends what [`Self::prepare_change`] began: the change was applied, or will never be.
    pub fn end_change(&mut self, id: IntentId) {
        for wait in self.intents.end(id) {
            self.notices.count_down(wait);
        }
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

    /// Has others log what they have answered, before an answer about `inos` to somebody who remembers nothing. When
    /// the wait is over it has to be asked again, about what the answer tells then; `None`: it may be given.
    ///
    /// `asked` are the sessions that were asked for this answer: each is asked once, because what one answers later it
    /// answers while the reader still waits. So this ends however busy they are. The kernels keep their names.
    pub fn want(&mut self, reader: Option<SessionId>, inos: &[Ino], asked: &mut BTreeSet<SessionId>) -> Option<WaitId> {
        let claims = self.awaited_claims(reader);
        if !claims.is_empty() {
            return self.notices.wait_for(claims);
        }
        let (mut wanted, mut ids) = (BTreeMap::<SessionId, Vec<Ino>>::new(), Vec::new());
        for ino in inos {
            if let Some(holder) = self.holders.sole(*ino).filter(|holder| Some(*holder) != reader)
                && !asked.contains(&holder)
            {
                wanted.entry(holder).or_default().push(*ino);
            }
        }
        asked.extend(wanted.keys());
        self.issue_to_all(wanted, NoticeKind::Wanted, &mut ids);
        self.notices.wait_for(ids)
    }

    /// Notes that a change by `origin` was applied to `inos`, each named once, before anybody can read it. Its answer
    /// waits as returned.
    pub fn changed(&mut self, origin: Option<SessionId>, inos: &[Ino]) -> Option<WaitId> {
        let claims = if self.is_alone(origin, inos) { Vec::new() } else { self.awaited_claims(origin) };
        let (mut affected, mut ids) = (BTreeMap::<SessionId, Vec<Ino>>::new(), claims);
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
        self.interests.end(session);
        self.notices.resolve_of(session);
    }

    /// Ends the leases that have run out, and returns the sessions that held them. Such a session may have missed
    /// notices, so it has to attach again before it is granted anything.
    pub fn expire(&mut self, now: Duration) -> Vec<SessionId> {
        let expired: BTreeSet<SessionId> =
            self.expiries().filter(|(_, expires)| *expires <= now).map(|(session, _)| session).collect();
        expired.iter().for_each(|session| self.close(*session));
        self.contended.retain(|_, until| *until > now);
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

    /// Notes that the session may have these inodes open, although it holds no lease on some.
    pub fn note_open(&mut self, session: SessionId, inos: &[Ino]) {
        for ino in inos {
            if !self.holders.of(*ino).any(|holder| holder == session) {
                self.interests.add(session, *ino);
            }
        }
    }

    /// Notes that the session has named, with [`Self::note_open`], all that it had open when it attached. One that has
    /// not attached in this term yet may have missed something.
    pub fn note_open_files_named(&mut self, session: SessionId) {
        if self.sessions.contains_key(&session) {
            self.interests.note_named(session);
        }
    }

    /// Notes that the session has nothing open, and that no answer to it is under way.
    pub fn note_nothing_open(&mut self, session: SessionId) {
        if self.sessions.contains_key(&session) {
            self.interests.note_nothing_open(session);
        }
    }

    /// The sessions that hold no lease on the inode and have to hear of its changes all the same.
    pub fn interested_in(&self, ino: Ino) -> impl Iterator<Item = SessionId> {
        self.interests.of(ino)
    }

    /// The sessions that have to hear of every change.
    pub fn interested_in_everything(&self) -> impl Iterator<Item = SessionId> {
        self.interests.in_everything()
    }

    /// The number of leases that a session holds.
    pub fn held_by(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |attached| attached.held.len())
    }

    /// The number of leases that are held.
    pub fn held(&self) -> usize {
        self.sessions.values().map(|attached| attached.held.len()).sum()
    }

    /// How many notices a session has not acknowledged.
    pub fn unacknowledged_by(&self, session: SessionId) -> usize {
        self.notices.unacknowledged_by(session)
    }

    /// How many notices were issued.
    pub fn issued(&self) -> NoticeCounts {
        self.notices.counts()
    }

    /// A session without any lease has nothing that could run out.
    fn expiries(&self) -> impl Iterator<Item = (SessionId, Duration)> {
        let holding = self.sessions.iter().filter(|(_, attached)| attached.held.len() > 0);
        let attached = holding.map(|(session, attached)| (*session, attached.expires));
        attached.chain(self.unclaimed.iter().map(|(session, expires)| (*session, *expires)))
    }

    /// Readers that have asked a session once wait until it has logged what it had answered, also over a new
    /// connection.
    fn want_again(&mut self, session: SessionId, kept: Vec<Ino>, wanting: Vec<WaitId>) {
        if kept.is_empty() {
            wanting.into_iter().for_each(|wait| self.notices.count_down(wait));
        } else if !wanting.is_empty() {
            let notice = self.notices.issue(session, NoticeKind::Wanted, kept);
            self.notices.give_waits(notice, wanting);
        }
    }

    /// Whether nobody else can know anything of the inodes, or claim to.
    fn is_alone(&self, session: Option<SessionId>, inos: &[Ino]) -> bool {
        inos.is_empty() || session.is_some() && inos.iter().all(|ino| self.holders.sole(*ino) == session)
    }

    /// A session without leases leaves no trace when it has changed something. So that the next change by it need not
    /// recall a sole lease again, which takes until the kernel has forgotten the names, nobody gets one for a while.
    fn note_contended(&mut self, origin: Option<SessionId>, inos: &[Ino], now: Duration) {
        if origin.is_some_and(|origin| self.sessions.contains_key(&origin)) {
            return;
        }
        let until = now + self.settings.duration;
        let recalled = inos.iter().filter(|ino| self.holders.sole(**ino).is_some());
        self.contended.extend(recalled.map(|ino| (*ino, until)));
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
            self.interests.remove(session, ino);
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

    /// The session may have the inode open, or be about to open it from memory.
    fn take_back(&mut self, session: SessionId, ino: Ino) {
        self.holders.remove(ino, session);
        self.interests.add(session, ino);
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
    /// Waits for a session that is not attached as at the beginning of a term.
    fn await_claims_of(&mut self, session: SessionId, now: Duration) {
        if !self.sessions.contains_key(&session) && !self.unclaimed.contains_key(&session) {
            self.unclaimed.insert(session, now + self.settings.duration);
            self.notices.expect_claims(session);
        }
    }

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
