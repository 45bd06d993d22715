//! The change feed as one mount sees it: events in order, resets where events may be missing, and an epoch that shows
//! whether an event has arrived.

use std::sync::atomic::{AtomicU64, Ordering};

use chordfs_log::warn_limited;
use chordfs_types::namespace::{FeedEvent, calls, decode};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    SessionEvent,
    receipts::{EventReceipt, FeedReceipts},
};
use crate::rpc::{Notification, Value};

pub(super) struct ChangeFeed {
    epoch: AtomicU64,
    receipts: FeedReceipts,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl ChangeFeed {
    pub(super) fn new(events: mpsc::UnboundedSender<SessionEvent>) -> Self {
        Self { epoch: AtomicU64::new(0), receipts: FeedReceipts::default(), events }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// For the next event that the receiver handles.
    pub(super) fn receipt(&self) -> EventReceipt {
        self.receipts.next()
    }

    /// For a change of this session that is about to be sent.
    pub(super) fn own_change_receipt(&self) -> EventReceipt {
        self.receipts.own_change()
    }

    /// Returns whether everything that was received up to this epoch has been handled.
    pub(super) fn has_handled(&self, epoch: u64) -> bool {
        // Without a receiver, nothing is cached and nothing is open.
        self.events.is_closed() || self.receipts.have_handled(epoch)
    }

    /// Reports that events may have been missed.
    pub(super) fn interrupt(&self) {
        self.push(SessionEvent::Reset);
    }

    /// Called by the connection's reader, and thus before any later answer is delivered.
    pub(super) fn receive(&self, notification: Notification) {
        if notification.method != calls::FEED {
            debug!(method = notification.method, "ignoring an unknown notification");
            return;
        }
        match events(&notification.params) {
            Ok(events) => self.push(SessionEvent::Feed(events)),
            Err(error) => {
                warn_limited!(error, "cannot decode the change feed; all cached entries are dropped");
                self.interrupt();
            }
        }
    }

    /// Raises the epoch first, so that the receiver of the event sees it raised.
    fn push(&self, event: SessionEvent) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        // Without a receiver, nothing is cached.
        let _ = self.events.send(event);
    }
}

fn events(params: &[Value]) -> Result<Vec<FeedEvent>, String> {
    match params {
        [Value::Binary(bytes)] => decode(bytes).map_err(|error| error.to_string()),
        _ => Err("the notification is not a single binary".to_owned()),
    }
}
