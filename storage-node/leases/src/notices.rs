//! LeaseNotices that sessions have not acknowledged yet, and the answers that wait for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chordfs_types::namespace::{Ino, SessionId};

/// Demands something of a session that holds leases on `inos`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNotice {
    pub id: NoticeId,
    pub kind: NoticeKind,
    /// Each once.
    pub inos: Vec<Ino>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// What the session remembers of the inodes is out of date. The leases stay.
    Changed,
    /// Another session wants to read or change the inodes. The sole leases become shared ones: what the session has
    /// answered has to be logged first, and the kernel has to forget the names.
    Recalled,
    /// The session holds more leases than it may, or has claimed in vain. It has to forget the inodes, and the leases
    /// end.
    Revoked,
    /// A session that remembers nothing wants to read inodes that this one holds alone. All that it has answered has to
    /// be logged; the leases stay.
    Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NoticeId {
    pub session: SessionId,
    /// Larger than that of every notice before, to whatever session.
    pub number: u64,
}

/// How many notices of each kind were issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticeCounts {
    pub changed: u64,
    pub recalled: u64,
    pub revoked: u64,
    pub wanted: u64,
}

impl NoticeCounts {
    fn count(&mut self, kind: NoticeKind) {
        *match kind {
            NoticeKind::Changed => &mut self.changed,
            NoticeKind::Recalled => &mut self.recalled,
            NoticeKind::Revoked => &mut self.revoked,
            NoticeKind::Wanted => &mut self.wanted,
        } += 1;
    }
}

/// An answer that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);

#[derive(Debug, Default)]
pub(crate) struct LeaseNotices {
    last: u64,
    last_wait: u64,
    unacknowledged: BTreeMap<NoticeId, Unacknowledged>,
    /// Those that name each inode. It is never iterated, so its order does not matter.
    by_ino: HashMap<Ino, Vec<NoticeId>>,
    /// How many notices, or changes, each answer waits for.
    waits: BTreeMap<WaitId, usize>,
    issued: Vec<LeaseNotice>,
    /// They are never reset, also not when a term ends.
    counts: NoticeCounts,
    released: Vec<WaitId>,
}

/// What is known of a notice that was issued.
#[derive(Debug)]
struct Unacknowledged {
    kind: NoticeKind,
    inos: Vec<Ino>,
    waits: Vec<WaitId>,
}

impl NoticeId {
    /// Stands for the claims of a session that is yet to attach. No notice is sent.
    pub(crate) const fn claims(session: SessionId) -> Self {
        Self { session, number: 0 }
    }
}

impl LeaseNotices {
    /// The number of the last notice.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn expect_claims(&mut self, session: SessionId) {
        let expected = Unacknowledged { kind: NoticeKind::Changed, inos: Vec::new(), waits: Vec::new() };
        self.unacknowledged.insert(NoticeId::claims(session), expected);
    }

    pub(crate) fn issue(&mut self, session: SessionId, kind: NoticeKind, inos: Vec<Ino>) -> NoticeId {
        self.last += 1;
        self.counts.count(kind);
        let id = NoticeId { session, number: self.last };
        inos.iter().for_each(|ino| self.by_ino.entry(*ino).or_default().push(id));
        self.issued.push(LeaseNotice { id, kind, inos: inos.clone() });
        self.unacknowledged.insert(id, Unacknowledged { kind, inos, waits: Vec::new() });
        id
    }

    /// The notices of this kind about `ino`.
    pub(crate) fn about(&self, ino: Ino, kind: NoticeKind) -> impl Iterator<Item = NoticeId> {
        let is_of_kind = move |id: &NoticeId| self.unacknowledged.get(id).is_some_and(|notice| notice.kind == kind);
        self.by_ino.get(&ino).into_iter().flatten().copied().filter(is_of_kind)
    }

    /// Whether there is a notice of any kind about `ino`.
    pub(crate) fn has_any_about(&self, ino: Ino) -> bool {
        self.by_ino.contains_key(&ino)
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = NoticeId> {
        let changes = self.unacknowledged.iter().filter(|(_, notice)| notice.kind == NoticeKind::Changed);
        changes.map(|(id, _)| *id)
    }

    /// A wait that is over when all these notices are resolved; `None` if there is nothing to wait for.
    pub(crate) fn wait_for(&mut self, ids: Vec<NoticeId>) -> Option<WaitId> {
        let ids: BTreeSet<NoticeId> = ids.into_iter().filter(|id| self.unacknowledged.contains_key(id)).collect();
        if ids.is_empty() {
            return None;
        }
        let wait = self.new_wait(ids.len());
        for id in ids {
            if let Some(notice) = self.unacknowledged.get_mut(&id) {
                notice.waits.push(wait);
            }
        }
        Some(wait)
    }

    /// A wait that one [`Self::count_down`] ends.
    pub(crate) fn single_wait(&mut self) -> WaitId {
        self.new_wait(1)
    }

    fn new_wait(&mut self, events: usize) -> WaitId {
        self.last_wait += 1;
        let wait = WaitId(self.last_wait);
        self.waits.insert(wait, events);
        wait
    }

    /// Ends a notice, and returns what it was about; `None` if it has ended before.
    pub(crate) fn resolve(&mut self, id: NoticeId) -> Option<(NoticeKind, Vec<Ino>)> {
        let notice = self.unacknowledged.remove(&id)?;
        self.unlist(id, &notice.inos);
        notice.waits.into_iter().for_each(|wait| self.count_down(wait));
        Some((notice.kind, notice.inos))
    }

    pub(crate) fn counts(&self) -> NoticeCounts {
        self.counts
    }

    /// How many notices the session has not acknowledged.
    pub(crate) fn unacknowledged_by(&self, session: SessionId) -> usize {
        let all = NoticeId { session, number: 1 }..=NoticeId { session, number: u64::MAX };
        self.unacknowledged.range(all).count()
    }

    /// Takes the answers from the notices of one kind to a session.
    pub(crate) fn take_waits(&mut self, session: SessionId, kind: NoticeKind) -> Vec<WaitId> {
        let all = NoticeId::claims(session)..=NoticeId { session, number: u64::MAX };
        let notices = self.unacknowledged.range_mut(all).map(|(_, notice)| notice);
        notices.filter(|notice| notice.kind == kind).flat_map(|notice| std::mem::take(&mut notice.waits)).collect()
    }

    /// Lets answers wait for one notice instead of another that they were taken from.
    pub(crate) fn give_waits(&mut self, id: NoticeId, waits: Vec<WaitId>) {
        if let Some(notice) = self.unacknowledged.get_mut(&id) {
            notice.waits.extend(waits);
        }
    }

    /// Ends all notices to a session.
    pub(crate) fn resolve_of(&mut self, session: SessionId) {
        let all = NoticeId::claims(session)..=NoticeId { session, number: u64::MAX };
        let ids: Vec<NoticeId> = self.unacknowledged.range(all).map(|(id, _)| *id).collect();
        for id in ids {
            self.resolve(id);
        }
    }

    pub(crate) fn resolve_all(&mut self) {
        self.unacknowledged.clear();
        self.by_ino.clear();
        self.issued.clear();
        self.released.extend(std::mem::take(&mut self.waits).into_keys());
    }

    pub(crate) fn take_issued(&mut self) -> Vec<LeaseNotice> {
        std::mem::take(&mut self.issued)
    }

    pub(crate) fn take_released(&mut self) -> Vec<WaitId> {
        std::mem::take(&mut self.released)
    }

    /// Counts one of the events that a wait needs.
    pub(crate) fn count_down(&mut self, wait: WaitId) {
        let Some(left) = self.waits.get_mut(&wait) else { return };
        *left -= 1;
        if *left == 0 {
            self.waits.remove(&wait);
            self.released.push(wait);
        }
    }

    fn unlist(&mut self, id: NoticeId, inos: &[Ino]) {
        for ino in inos {
            let Some(ids) = self.by_ino.get_mut(ino) else { continue };
            ids.retain(|listed| *listed != id);
            if ids.is_empty() {
                self.by_ino.remove(ino);
            }
        }
    }
}
