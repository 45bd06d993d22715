//! The change feed as one mount sees it: events in their order, resets where some may be missing, and the epoch that
//! shows whether anything arrived meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use chordfs_types::namespace::{FeedEvent, calls, decode};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::SessionEvent;
use crate::rpc::{Notification, Value};

pub(super) struct ChangeFeed {
    epoch: AtomicU64,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl ChangeFeed {
    pub(super) fn new(events: mpsc::UnboundedSender<SessionEvent>) -> Self {
        Self { epoch: AtomicU64::new(0), events }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Some events may have been missed.
    pub(super) fn interrupt(&self) {
        self.push(SessionEvent::Reset);
    }

    /// Called by the connection's reader, so before any answer that follows is delivered.
    pub(super) fn receive(&self, notification: Notification) {
        if notification.method != calls::FEED {
            debug!(method = notification.method, "ignoring an unknown notification");
            return;
        }
        match events(&notification.params) {
            Ok(events) => self.push(SessionEvent::Feed(events)),
            Err(error) => {
                warn!(error, "the change feed does not decode, so all that is cached is dropped");
                self.interrupt();
            }
        }
    }

    /// Raises the epoch first, so that the receiver of the event sees it raised.
    fn push(&self, event: SessionEvent) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        // Without a receiver nothing is cached.
        let _ = self.events.send(event);
    }
}

fn events(params: &[Value]) -> Result<Vec<FeedEvent>, String> {
    match params {
        [Value::Binary(bytes)] => decode(bytes).map_err(|error| error.to_string()),
        _ => Err("the notification does not carry one binary".to_owned()),
    }
}
