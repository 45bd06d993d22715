//! Files that this mount is creating. Until the answer comes their inodes are unknown here, so an event about a file
//! that lost its last name may be about one of them: another mount can remove it before this one has the answer. The
//! receipts of such events are kept until every creation that was under way has ended. A removal by this mount counts
//! as such an event, too.
//!
//! Another mount, or another program of this one, can also write the file before. So changes of contents are kept in
//! the same way: a created file is empty only if there was none. A nameless file that another program of this mount
//! has opened and closed again stays held until then.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use chordfs_net::session::EventReceipt;
use chordfs_types::namespace::Ino;
use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct Creations(Mutex<CreationsUnderWay>);

#[derive(Default)]
struct CreationsUnderWay {
    /// Counts creations and events.
    last_number: u64,
    numbers: BTreeSet<u64>,
    /// Events since the oldest creation, ascending.
    events: VecDeque<NumberedEvent>,
    /// Files that are to be released when no creation is under way any more.
    releases: Vec<Ino>,
}

struct NumberedEvent {
    number: u64,
    /// The file that lost its last name; `None` if any file may have.
    about: Option<Ino>,
    kind: EventKind,
}

enum EventKind {
    Removed(Arc<EventReceipt>),
    Changed,
}

/// One creation, under way until this is dropped.
pub(super) struct Creation<'a> {
    all: &'a Creations,
    number: u64,
}

impl Creations {
    pub(super) fn begin(&self) -> Creation<'_> {
        let mut all = self.0.lock();
        let number = all.next_number();
        all.numbers.insert(number);
        Creation { all: self, number }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().numbers.is_empty()
    }

    /// Notes that the file has lost its last name, or that any file may have.
    pub(super) fn note_event(&self, about: Option<Ino>, receipt: &Arc<EventReceipt>) {
        self.0.lock().note(about, || EventKind::Removed(receipt.clone()));
    }

    /// Puts the release of a nameless file off while it may be one that is being created. Returns false if none is.
    pub(super) fn put_off_release(&self, ino: Ino) -> bool {
        let mut all = self.0.lock();
        let is_put_off = !all.numbers.is_empty();
        if is_put_off {
            all.releases.push(ino);
        }
        is_put_off
    }

    /// Takes the files out whose release was put off, when no creation is under way.
    pub(super) fn take_releases(&self) -> Vec<Ino> {
        let mut all = self.0.lock();
        if all.numbers.is_empty() { std::mem::take(&mut all.releases) } else { Vec::new() }
    }

    /// Notes that the contents of the file may have changed.
    pub(super) fn note_change(&self, ino: Ino) {
        self.0.lock().note(Some(ino), || EventKind::Changed);
    }
}

impl CreationsUnderWay {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn note(&mut self, about: Option<Ino>, kind: impl FnOnce() -> EventKind) {
        if !self.numbers.is_empty() {
            let number = self.next_number();
            self.events.push_back(NumberedEvent { number, about, kind: kind() });
        }
    }

    /// The events since this creation that may be about the file.
    fn since(&self, creation: u64, ino: Ino) -> impl Iterator<Item = &NumberedEvent> {
        let is_about = move |event: &&NumberedEvent| event.number > creation && event.about.is_none_or(|it| it == ino);
        self.events.iter().filter(is_about)
    }
}

impl Creation<'_> {
    /// The receipt of an event since the creation began by which its file may have lost its name.
    pub(super) fn event_about(&self, ino: Ino) -> Option<Arc<EventReceipt>> {
        self.all.0.lock().since(self.number, ino).find_map(|event| match &event.kind {
            EventKind::Removed(receipt) => Some(receipt.clone()),
            EventKind::Changed => None,
        })
    }

    /// Whether the file may not be empty any more, as it was when it was created.
    pub(super) fn may_have_changed(&self, ino: Ino) -> bool {
        self.all.0.lock().since(self.number, ino).next().is_some()
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        all.numbers.remove(&self.number);
        let oldest = all.numbers.first().copied().unwrap_or(u64::MAX);
        while all.events.front().is_some_and(|event| event.number < oldest) {
            all.events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Arc<EventReceipt> {
        Arc::new(EventReceipt::none())
    }

    #[test]
    fn events_are_kept_while_a_creation_that_is_older_is_under_way() {
        let (creations, event) = (Creations::default(), receipt());
        creations.note_event(Some(Ino(5)), &event);
        assert_eq!(Arc::strong_count(&event), 1, "no creation is under way");
        let first = creations.begin();
        creations.note_event(Some(Ino(5)), &event);
        let second = creations.begin();
        assert!(first.event_about(Ino(5)).is_some() && first.event_about(Ino(6)).is_none());
        assert!(second.event_about(Ino(5)).is_none(), "the event is older");
        drop(first);
        assert_eq!(Arc::strong_count(&event), 1);
        creations.note_event(None, &event);
        assert!(second.event_about(Ino(6)).is_some(), "any file may have lost its name");
    }

    #[test]
    fn a_release_waits_for_the_creations_under_way() {
        let creations = Creations::default();
        assert!(!creations.put_off_release(Ino(5)), "no creation is under way");
        let creation = creations.begin();
        assert!(creations.put_off_release(Ino(5)) && creations.take_releases().is_empty());
        drop(creation);
        assert_eq!(creations.take_releases(), [Ino(5)]);
    }
}
