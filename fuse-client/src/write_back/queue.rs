//! The changes that were answered and are not logged yet, in the order in which they were answered, as a value.
//!
//! Each has a place in the order. A slot is a place that is kept for changes which are not ready: the contents of a
//! file whose chunks are still being stored. Whatever comes after it waits, so that the log always holds a prefix of
//! what the programs did. `logger` sends the changes that are ready, one list at a time.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, Commit, Extent, Ino, Reply, Time},
};
use tokio::sync::oneshot;

/// A place in the order of changes; later ones are larger.
pub(super) type ChangePlace = u64;

/// The most changes in one list.
const MAX_LIST: usize = 256;
/// The most bytes of one list, about.
const MAX_LIST_BYTES: usize = 512 << 10;

pub(super) struct QueuedChange {
    pub(super) now: Time,
    pub(super) change: Change,
    pub(super) inos: Vec<Ino>,
    /// The contents of the file when it is logged, if they are known.
    pub(super) contents: Option<Vec<Extent>>,
    /// For the contents of a file, whose commit waits for the answer. All other changes were answered before.
    pub(super) waiting: Option<oneshot::Sender<Result<Reply, FsError>>>,
}

#[derive(Default)]
pub(super) struct ChangeQueue {
    places: VecDeque<QueuePlace>,
    /// The place of the first one.
    first: ChangePlace,
    /// The last place of each inode whose attributes or names have changed.
    changed: HashMap<Ino, ChangePlace>,
    /// The place at which each inode was created.
    created: HashMap<Ino, ChangePlace>,
    /// The last place at which each file was created or cut to nothing.
    cut: HashMap<Ino, ChangePlace>,
    /// The last place at which a program has set the time of each file's last write.
    dated: HashMap<Ino, ChangePlace>,
    /// How many slots each file has.
    slots: HashMap<Ino, usize>,
    /// Changes that are queued or being logged.
    len: usize,
}

struct QueuePlace {
    since: Instant,
    ready: VecDeque<QueuedChange>,
    /// How many of its changes are being logged.
    sent: usize,
    /// The file of a slot in which more changes may come.
    slot: Option<Ino>,
    /// Those of which this place is, or was, the last.
    inos: Vec<Ino>,
}

/// A change that is being logged, with its place.
pub(super) type SentChange = (ChangePlace, QueuedChange);

impl ChangeQueue {
    /// The changes at places before this one are logged.
    pub(super) fn logged_before(&self) -> ChangePlace {
        self.first
    }

    /// The place of the next change.
    pub(super) fn end(&self) -> ChangePlace {
        self.first + self.places.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is enough for a list that is not held back for more.
    pub(super) fn has_enough(&self) -> bool {
        self.len >= MAX_LIST
    }

    pub(super) fn push(&mut self, change: QueuedChange) -> ChangePlace {
        let place = self.end();
        self.changed.extend(change.inos.iter().map(|ino| (*ino, place)));
        match &change.change {
            Change::MakeNumbered { ino, .. } => {
                self.created.insert(*ino, place);
                self.cut.insert(*ino, place);
            }
            Change::SetAttr { ino, set } => {
                self.cut.extend(set.truncate.is_some().then_some((*ino, place)));
                self.dated.extend(set.mtime.is_some().then_some((*ino, place)));
            }
            _ => {}
        }
        let inos = change.inos.clone();
        self.len += 1;
        self.places.push_back(QueuePlace { since: Instant::now(), ready: [change].into(), sent: 0, slot: None, inos });
        place
    }

    pub(super) fn open_slot(&mut self, file: Ino) -> ChangePlace {
        let place = self.end();
        *self.slots.entry(file).or_default() += 1;
        self.places.push_back(QueuePlace {
            since: Instant::now(),
            ready: VecDeque::new(),
            sent: 0,
            slot: Some(file),
            inos: Vec::new(),
        });
        place
    }

    /// Adds a change to a slot that is kept.
    pub(super) fn push_in(&mut self, slot: ChangePlace, change: QueuedChange) {
        for ino in &change.inos {
            // What was changed after the slot was opened is logged later.
            self.changed.entry(*ino).and_modify(|last| *last = slot.max(*last)).or_insert(slot);
        }
        self.len += 1;
        let place = self.at(slot).expect("the slot is kept, so its place is not logged");
        place.inos.extend(&change.inos);
        place.ready.push_back(change);
    }

    pub(super) fn close_slot(&mut self, slot: ChangePlace) {
        let Some(file) = self.at(slot).and_then(|place| place.slot.take()) else { return };
        if let Some(count) = self.slots.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                self.slots.remove(&file);
            }
        }
        self.drop_logged();
    }

    /// How many places are kept for contents.
    pub(super) fn slots(&self) -> usize {
        self.slots.values().sum()
    }

    pub(super) fn oldest_age(&self) -> Option<Duration> {
        self.places.front().map(|oldest| oldest.since.elapsed())
    }

    /// How long the oldest change has waited, and for what.
    pub(super) fn oldest(&self) -> Option<(Duration, String)> {
        let oldest = self.places.front()?;
        let waits_for = match oldest.slot {
            _ if oldest.sent > 0 => format!("the answer of the namespace's leader to {} changes", oldest.sent),
            Some(Ino(file)) => format!("the contents of inode {file} to be stored"),
            None => "the changes before it".to_owned(),
        };
        Some((oldest.since.elapsed(), waits_for))
    }

    /// Whether a change can be logged now.
    pub(super) fn is_ready(&self) -> bool {
        let up_to_slot =
            self.places.iter().position(|place| place.slot.is_some()).map_or(self.places.len(), |at| at + 1);
        self.places.range(..up_to_slot).any(|place| !place.ready.is_empty())
    }

    /// The slot that ends the next list, if nothing has come into it yet, and if no program waits for a commit that is
    /// ready before it.
    pub(super) fn awaited_slot(&self) -> Option<ChangePlace> {
        let at = self.places.iter().take(MAX_LIST).position(|place| place.slot.is_some())?;
        let is_empty = self.places[at].ready.is_empty() && self.places[at].sent == 0;
        let ready = self.places.range(..at).flat_map(|place| &place.ready);
        let delays_nobody = ready.into_iter().all(|change| change.waiting.is_none());
        (is_empty && delays_nobody).then_some(self.first + at as u64)
    }

    /// Takes the changes that are to be logged next.
    pub(super) fn take_list(&mut self) -> Vec<SentChange> {
        let (mut list, mut bytes) = (Vec::new(), 0);
        for (number, place) in self.places.iter_mut().enumerate() {
            while let Some(change) = place.ready.pop_front() {
                bytes += estimated_bytes(&change.change);
                place.sent += 1;
                list.push((self.first + number as u64, change));
                if list.len() == MAX_LIST || bytes > MAX_LIST_BYTES {
                    return list;
                }
            }
            if place.slot.is_some() {
                break;
            }
        }
        list
    }

    /// Notes that a change that was taken is logged.
    pub(super) fn note_logged(&mut self, place: ChangePlace) {
        if let Some(place) = self.at(place) {
            place.sent -= 1;
        }
        self.len -= 1;
        self.drop_logged();
    }

    /// The place up to which the changes of this inode's attributes or names are queued.
    pub(super) fn last_change(&self, ino: Ino) -> Option<ChangePlace> {
        self.changed.get(&ino).copied()
    }

    /// The place up to which changes are queued that make other contents of the file current, commits apart.
    pub(super) fn last_cut(&self, ino: Ino) -> Option<ChangePlace> {
        self.cut.get(&ino).copied()
    }

    /// Whether a program has set the time of the file's last write, and that is not logged.
    pub(super) fn is_dated(&self, ino: Ino) -> bool {
        self.dated.contains_key(&ino)
    }

    /// Whether the inode was created and that is not logged, so that nobody else knows it.
    pub(super) fn is_new(&self, ino: Ino) -> bool {
        self.created.contains_key(&ino)
    }

    /// All inodes with changes or contents that are not logged.
    pub(super) fn unlogged(&self) -> Vec<Ino> {
        self.changed.keys().chain(self.slots.keys()).copied().collect()
    }

    pub(super) fn has_unlogged(&self, ino: Ino) -> bool {
        self.changed.contains_key(&ino) || self.slots.contains_key(&ino)
    }

    fn at(&mut self, place: ChangePlace) -> Option<&mut QueuePlace> {
        let number = place.checked_sub(self.first)?;
        self.places.get_mut(number as usize)
    }

    fn drop_logged(&mut self) {
        while let Some(place) = self.places.pop_front_if(|place| place.is_logged()) {
            for ino in place.inos {
                for last in [&mut self.changed, &mut self.created, &mut self.cut, &mut self.dated] {
                    if last.get(&ino) == Some(&self.first) {
                        last.remove(&ino);
                    }
                }
            }
            self.first += 1;
        }
    }
}

impl QueuePlace {
    fn is_logged(&self) -> bool {
        self.ready.is_empty() && self.sent == 0 && self.slot.is_none()
    }
}

/// Names, targets and extents are what makes a change large.
fn estimated_bytes(change: &Change) -> usize {
    64 + match change {
        Change::MakeNumbered { file, name, node, .. } => {
            file.as_bytes().len() + name.as_bytes().len() + node.target.len()
        }
        Change::Rename { name, new_name, .. } => name.as_bytes().len() + new_name.as_bytes().len(),
        Change::Commit { commit, .. } => commit_bytes(commit),
        Change::CommitWithData { commit, chunks, .. } => {
            commit_bytes(commit) + chunks.iter().map(|chunk| chunk.data.len() + 24).sum::<usize>()
        }
        _ => 256,
    }
}

fn commit_bytes(commit: &Commit) -> usize {
    24 * commit.extents.len() + 40 * commit.partial.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(ino: u64) -> QueuedChange {
        let change = Change::Hold { ino: Ino(ino) };
        QueuedChange { now: Time::default(), change, inos: vec![Ino(ino)], waiting: None, contents: None }
    }

    fn places(list: &[SentChange]) -> Vec<ChangePlace> {
        list.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn changes_after_a_slot_wait_until_it_is_closed() {
        let mut queue = ChangeQueue::default();
        let first = queue.push(change(5));
        let slot = queue.open_slot(Ino(6));
        let last = queue.push(change(7));
        assert_eq!(places(&queue.take_list()), [first]);
        queue.note_logged(first);
        assert_eq!(queue.awaited_slot(), Some(slot));
        queue.push_in(slot, change(6));
        assert_eq!(queue.awaited_slot(), None, "it is filled");
        assert_eq!(places(&queue.take_list()), [slot]);
        queue.note_logged(slot);
        assert!(queue.take_list().is_empty(), "more may come into the slot");
        assert_eq!(queue.logged_before(), slot);
        queue.close_slot(slot);
        assert_eq!(places(&queue.take_list()), [last]);
        queue.note_logged(last);
        assert_eq!((queue.logged_before(), queue.len()), (queue.end(), 0));
    }

    #[test]
    fn a_slot_is_awaited_unless_a_commit_before_it_or_a_whole_list_is_ready() {
        let mut queue = ChangeQueue::default();
        let (filled, empty) = (queue.open_slot(Ino(5)), queue.open_slot(Ino(6)));
        assert_eq!(queue.awaited_slot(), Some(filled));
        queue.push_in(filled, QueuedChange { waiting: Some(oneshot::channel().0), ..change(5) });
        queue.close_slot(filled);
        assert_eq!(queue.awaited_slot(), None, "a program waits for the first commit alone");
        queue.take_list();
        queue.note_logged(filled);
        assert_eq!(queue.awaited_slot(), Some(empty));
        let mut queue = ChangeQueue::default();
        for ino in 0..MAX_LIST as u64 {
            queue.push(change(ino));
        }
        queue.open_slot(Ino(6));
        assert_eq!(queue.awaited_slot(), None, "the list cannot get longer");
    }

    #[test]
    fn an_inode_is_unlogged_until_its_last_change_is_logged() {
        let mut queue = ChangeQueue::default();
        let (first, second) = (queue.push(change(5)), queue.push(change(5)));
        queue.take_list();
        queue.note_logged(first);
        assert_eq!((queue.last_change(Ino(5)), queue.unlogged()), (Some(second), vec![Ino(5)]));
        queue.note_logged(second);
        assert!(!queue.has_unlogged(Ino(5)) && queue.unlogged().is_empty());
        let slot = queue.open_slot(Ino(6));
        assert!(queue.has_unlogged(Ino(6)));
        queue.push_in(slot, change(6));
        queue.close_slot(slot);
        assert!(queue.has_unlogged(Ino(6)), "the contents are not logged");
        queue.take_list();
        queue.note_logged(slot);
        assert!(!queue.has_unlogged(Ino(6)));
    }

    #[test]
    fn a_change_after_a_slot_is_still_the_last_one_when_the_slot_is_filled() {
        let mut queue = ChangeQueue::default();
        let slot = queue.open_slot(Ino(5));
        let last = queue.push(change(5));
        queue.push_in(slot, change(5));
        queue.close_slot(slot);
        assert_eq!(queue.last_change(Ino(5)), Some(last));
        queue.take_list();
        queue.note_logged(slot);
        assert_eq!(queue.last_change(Ino(5)), Some(last));
    }

    #[test]
    fn a_list_has_a_limit() {
        let mut queue = ChangeQueue::default();
        for ino in 0..=MAX_LIST as u64 {
            queue.push(change(ino));
        }
        assert_eq!((queue.take_list().len(), queue.take_list().len()), (MAX_LIST, 1));
    }
}
