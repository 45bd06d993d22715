//! Queries that the leader is answering. An answer may be older than a change that is logged while it is on its way, so
//! the inodes of such changes are remembered until every query that was sent before has its answer.

use std::collections::{BTreeMap, HashMap};

use chordfs_types::namespace::Ino;

use super::queue::ChangePlace;

#[derive(Default)]
pub(super) struct Readers {
    /// How many queries were sent when the log had come to each place.
    sent: BTreeMap<ChangePlace, u32>,
    /// The last place of the inodes that were logged since the oldest of them.
    logged: HashMap<Ino, ChangePlace>,
}

impl Readers {
    pub(super) fn begin(&mut self, logged_before: ChangePlace) {
        *self.sent.entry(logged_before).or_default() += 1;
    }

    pub(super) fn end(&mut self, logged_before: ChangePlace) {
        let Some(count) = self.sent.get_mut(&logged_before) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.sent.remove(&logged_before);
        match self.sent.first_key_value().map(|(oldest, _)| *oldest) {
            None => self.logged.clear(),
            Some(oldest) if oldest > logged_before => self.logged.retain(|_, place| *place >= oldest),
            Some(_) => {}
        }
    }

    /// Notes that a change of the inodes at this place is logged.
    pub(super) fn note_logged(&mut self, inos: &[Ino], place: ChangePlace) {
        if !self.sent.is_empty() {
            self.logged.extend(inos.iter().map(|ino| (*ino, place)));
        }
    }

    /// Whether a change of the inode was logged after the query was sent.
    pub(super) fn has_changed(&self, ino: Ino, logged_before: ChangePlace) -> bool {
        self.logged.get(&ino).is_some_and(|place| *place >= logged_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_remembered_until_the_queries_before_it_are_answered() {
        let mut readers = Readers::default();
        readers.note_logged(&[Ino(4)], 6);
        readers.begin(7);
        readers.note_logged(&[Ino(5)], 7);
        readers.begin(8);
        readers.note_logged(&[Ino(6)], 8);
        let changed = |readers: &Readers, sent| [4, 5, 6].map(|ino| readers.has_changed(Ino(ino), sent));
        assert_eq!((changed(&readers, 7), changed(&readers, 8)), ([false, true, true], [false, false, true]));
        readers.end(7);
        assert_eq!((readers.logged.len(), changed(&readers, 8)), (1, [false, false, true]));
        readers.end(8);
        assert!(readers.logged.is_empty() && readers.sent.is_empty());
    }
}
