//! Which events of the change feed their receiver has handled. The leader keeps a file without a name until every
//! session has answered whether it has the file open, so handling an event includes the answer to it.

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
}

/// One event of the feed that is being handled, until this is dropped.
pub struct EventReceipt(Option<(Arc<Mutex<ReceivedEvents>>, u64)>);

impl FeedReceipts {
    /// For the next event; the receiver takes one for each, in their order.
    pub(super) fn next(&self) -> EventReceipt {
        let mut events = self.0.lock();
        events.received += 1;
        let number = events.received;
        events.unhandled.insert(number);
        EventReceipt(Some((self.0.clone(), number)))
    }

    /// All events up to this number have been handled.
    pub(super) fn handled(&self) -> u64 {
        let events = self.0.lock();
        events.unhandled.first().map_or(events.received, |first| first - 1)
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
        if let Some((events, number)) = self.0.take() {
            events.lock().unhandled.remove(&number);
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
        assert_eq!(receipts.handled(), 0);
        drop(first);
        assert_eq!(receipts.handled(), 2);
        drop(third);
        assert_eq!(receipts.handled(), 3);
    }
}
