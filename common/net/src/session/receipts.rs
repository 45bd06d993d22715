//! Which events of the change feed their receiver has handled. The leader keeps a file without a name until every
//! session has answered whether it has the file open, so handling an event includes the answer to it. A change of this
//! session by which a file may lose its last name counts as such an event, from before it is sent.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct FeedReceipts(Arc<Mutex<ReceivedEvents>>);

#[derive(Default)]
struct ReceivedEvents {
    /// How many events were received.
    received: u64,
    /// The numbers of those that are still being handled; the first event is number 1.
    unhandled: BTreeSet<u64>,
    /// How many changes of this session are under way or being handled.
    own_changes: u64,
}

/// One event that is being handled, until this is dropped.
pub struct EventReceipt(Option<(Arc<Mutex<ReceivedEvents>>, EventSource)>);

enum EventSource {
    /// With the number of the event.
    Feed(u64),
    OwnChange,
}

impl FeedReceipts {
    /// For the next event; the receiver takes one for each, in their order.
    pub(super) fn next(&self) -> EventReceipt {
        let mut events = self.0.lock();
        events.received += 1;
        let number = events.received;
        events.unhandled.insert(number);
        EventReceipt(Some((self.0.clone(), EventSource::Feed(number))))
    }

    /// For a change of this session that is about to be sent.
    pub(super) fn own_change(&self) -> EventReceipt {
        self.0.lock().own_changes += 1;
        EventReceipt(Some((self.0.clone(), EventSource::OwnChange)))
    }

    /// Whether all events up to this number have been handled, and all changes of this session.
    pub(super) fn have_handled(&self, number: u64) -> bool {
        let events = self.0.lock();
        events.own_changes == 0 && events.unhandled.first().map_or(events.received, |first| first - 1) >= number
    }
}

impl EventReceipt {
    /// For a feed that nothing waits for.
    pub fn none() -> Self {
        Self(None)
    }
}

impl Drop for EventReceipt {
    fn drop(&mut self) {
        let Some((events, source)) = self.0.take() else { return };
        match source {
            EventSource::Feed(number) => drop(events.lock().unhandled.remove(&number)),
            EventSource::OwnChange => events.lock().own_changes -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_as_handled_only_after_all_earlier_ones() {
        let receipts = FeedReceipts::default();
        let [first, second, third] = [(); 3].map(|()| receipts.next());
        drop(second);
        assert!(receipts.have_handled(0) && !receipts.have_handled(1));
        drop(first);
        assert!(receipts.have_handled(2) && !receipts.have_handled(3));
        drop(third);
        assert!(receipts.have_handled(3));
    }

    #[test]
    fn nothing_counts_as_handled_while_a_change_of_the_session_is_under_way() {
        let receipts = FeedReceipts::default();
        let (first, second) = (receipts.own_change(), receipts.own_change());
        drop(receipts.next());
        drop(first);
        assert!(!receipts.have_handled(0) && !receipts.have_handled(1));
        drop(second);
        assert!(receipts.have_handled(1));
    }
}
