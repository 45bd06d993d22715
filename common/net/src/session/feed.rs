//! The change feed as one mount sees it: events in order, and resets where events may be missing.

use chordfs_log::warn_limited;
use chordfs_types::namespace::{FeedMessage, calls, decode};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    SessionEvent,
    acknowledgement::{EventAcknowledgement, NoticeDone},
    memory::SessionMemory,
    receipts::{EventReceipt, FeedReceipts},
};
use crate::rpc::{Notification, Value};

pub(super) struct ChangeFeed {
    pub memory: SessionMemory,
    receipts: FeedReceipts,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl ChangeFeed {
    pub(super) fn new(events: mpsc::UnboundedSender<SessionEvent>) -> Self {
        Self { memory: SessionMemory::default(), receipts: FeedReceipts::default(), events }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.memory.epoch()
    }

    /// For the next event that the receiver handles.
    pub(super) fn receipt(&self) -> EventReceipt {
        self.receipts.next()
    }

    /// For a change of this session that is about to be sent.
    pub(super) fn own_change_receipt(&self) -> EventReceipt {
        self.receipts.own_change()
    }

    /// How many events were received.
    pub(super) fn received(&self) -> u64 {
        self.memory.received()
    }

    /// Returns whether so many events have been handled.
    pub(super) fn has_handled(&self, received: u64) -> bool {
        // Without a receiver, nothing is cached and nothing is open.
        self.events.is_closed() || self.receipts.have_handled(received)
    }

    /// Reports that events may have been missed.
    pub(super) fn interrupt(&self) {
        self.memory.note_received(None);
        self.push(SessionEvent::Reset);
    }

    /// Called by the connection's reader, and thus before any later answer is delivered. What has been handled goes to
    /// `done`.
    pub(super) fn receive(&self, notification: Notification, done: &mpsc::UnboundedSender<NoticeDone>) {
        if notification.method != calls::FEED {
            debug!(method = notification.method, "ignoring an unknown notification");
            return;
        }
        match message(&notification.params) {
            Ok(FeedMessage { notice, events }) => {
                self.memory.note_received(Some(&events));
                self.push(SessionEvent::Feed(events, EventAcknowledgement::of(notice, done)));
            }
            Err(error) => {
                warn_limited!(error, "cannot decode the change feed; all cached entries are dropped");
                self.interrupt();
            }
        }
    }

    fn push(&self, event: SessionEvent) {
        // Without a receiver, nothing is cached.
        let _ = self.events.send(event);
    }
}

fn message(params: &[Value]) -> Result<FeedMessage, String> {
    match params {
        [Value::Binary(bytes)] => decode(bytes).map_err(|error| error.to_string()),
        _ => Err("the notification is not a single binary".to_owned()),
    }
}
