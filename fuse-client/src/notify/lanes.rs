//! The order in which notices are sent: those of one inode one after the other, those of different inodes beside each
//! other. Notices that wait are merged, so their number is bounded by what the kernel can have cached. Pure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use chordfs_types::namespace::{EntryName, Ino};

use super::{Notice, NoticeEnd};

#[derive(Default)]
pub(super) struct Lanes {
    waiting: HashMap<Ino, Pending>,
    /// The inodes in `waiting` that are not busy, in order of arrival.
    ready: VecDeque<Ino>,
    busy: HashSet<Ino>,
}

/// What the kernel has to drop of one inode, a directory for `entries`.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub attr: bool,
    /// The pages, and with them the attributes.
    pub pages: bool,
    /// To be dropped once the attributes and pages are.
    pub inode_done: Vec<NoticeEnd>,
    pub entries: BTreeSet<EntryName>,
    /// To be dropped once the entries are.
    pub entries_done: Vec<NoticeEnd>,
}

impl Lanes {
    pub(super) fn push(&mut self, notice: Notice) {
        match notice {
            Notice::Attr { ino, done } => {
                let pending = self.pending(ino);
                pending.attr = true;
                pending.inode_done.push(done);
            }
            Notice::Pages { ino, done } => {
                let pending = self.pending(ino);
                pending.pages = true;
                pending.inode_done.push(done);
            }
            Notice::Entry { parent, name, done } => {
                let pending = self.pending(parent);
                pending.entries.insert(name);
                pending.entries_done.push(done);
            }
        }
    }

    /// Returns the notices of the next inode, which is busy from now on.
    pub(super) fn next(&mut self) -> Option<(Ino, Pending)> {
        let ino = self.ready.pop_front()?;
        self.busy.insert(ino);
        let pending = self.waiting.remove(&ino).expect("an inode that is ready has notices");
        Some((ino, pending))
    }

    /// Ends what `next` began.
    pub(super) fn done(&mut self, ino: Ino) {
        self.busy.remove(&ino);
        if self.waiting.contains_key(&ino) {
            self.ready.push_back(ino);
        }
    }

    fn pending(&mut self, ino: Ino) -> &mut Pending {
        if !self.waiting.contains_key(&ino) && !self.busy.contains(&ino) {
            self.ready.push_back(ino);
        }
        self.waiting.entry(ino).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chordfs_net::session::EventAcknowledgement;

    use crate::samples_test::name;

    fn done() -> NoticeEnd {
        EventAcknowledgement::none().into()
    }

    const A: Ino = Ino(5);
    const B: Ino = Ino(6);

    /// One thread sent all notices in turn: while one waited for the reader of a page, no other was sent.
    #[test]
    fn a_notice_that_waits_delays_only_those_of_its_own_inode() {
        let mut lanes = Lanes::default();
        lanes.push(Notice::Pages { ino: A, done: done() });
        let (slow, _) = lanes.next().expect("one waits");
        lanes.push(Notice::Attr { ino: A, done: done() });
        lanes.push(Notice::Entry { parent: B, name: name("f"), done: done() });
        assert_eq!(lanes.next().map(|(ino, _)| ino), Some(B));
        assert!(lanes.next().is_none(), "A is busy");
        lanes.done(slow);
        assert_eq!(lanes.next().map(|(ino, pending)| (ino, pending.pages)), Some((A, false)));
    }

    #[test]
    fn notices_that_wait_are_merged() {
        let mut lanes = Lanes::default();
        lanes.push(Notice::Attr { ino: A, done: done() });
        for _ in 0..100 {
            lanes.push(Notice::Pages { ino: A, done: done() });
            lanes.push(Notice::Entry { parent: A, name: name("f"), done: done() });
        }
        let (_, pending) = lanes.next().expect("all in one");
        assert_eq!((pending.attr, pending.pages, pending.entries.len()), (true, true, 1));
        assert!(lanes.next().is_none());
    }
}
