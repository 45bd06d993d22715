//! Changes by other mounts. An event first removes the affected entries of this mount's caches; only then is the kernel
//! notified, by a separate thread. So a request that follows the notice cannot find the old state here.

use std::sync::Arc;

use chordfs_log::info_limited;
use chordfs_net::session::{EventReceipt, SessionEvent};
use chordfs_types::namespace::{FeedEvent, Ino};
use tokio::sync::mpsc;
use tracing::debug;

use super::FileSystem;

impl FileSystem {
    /// Follows the change feed until the session ends.
    pub async fn follow_feed(self: Arc<Self>, mut events: mpsc::UnboundedReceiver<SessionEvent>) {
        while let Some(event) = events.recv().await {
            // Until it is dropped, the namespace keeps the files that lost their names by this event.
            let receipt = Arc::new(self.namespace.event_receipt());
            match event {
                SessionEvent::Feed(events) => events.into_iter().for_each(|event| self.handle_event(event, &receipt)),
                SessionEvent::Reset => {
                    self.forget_everything();
                    self.creations.note_event(None, &receipt);
                    // Any of them may have lost its last name meanwhile.
                    self.hold_at_namespace(self.opens.inos(), Some(receipt));
                }
            }
        }
    }

    fn handle_event(&self, event: FeedEvent, receipt: &Arc<EventReceipt>) {
        debug!(?event, "another mount changed something");
        match event {
            FeedEvent::Inode { ino, contents } => self.inode_changed(ino, contents),
            FeedEvent::Entry { parent, name } => {
                self.cache.drop_name(parent, &name);
                self.notices.entry(parent, name);
                self.notices.attr(parent);
            }
            FeedEvent::Orphaned { ino } => self.orphaned(ino, receipt.clone()),
        }
    }

    fn inode_changed(&self, ino: Ino, contents: bool) {
        self.removed.remember(self.cache.attr_maybe_touched(ino));
        self.cache.drop_attr(ino);
        if !contents {
            return self.notices.attr(ino);
        }
        self.pages.invalidate(ino);
        self.invalidate_data(ino);
        self.notices.pages(ino);
    }

    fn orphaned(&self, ino: Ino, receipt: Arc<EventReceipt>) {
        self.cache.drop_attr(ino);
        self.notices.attr(ino);
        self.creations.note_event(Some(ino), &receipt);
        if self.opens.is_open(ino) {
            self.hold_at_namespace(vec![ino], Some(receipt));
        }
    }

    /// Clears the caches after events may have been missed. The kernel's names and attributes expire by themselves; its
    /// pages of files that are not open are dropped at the next `open`.
    fn forget_everything(&self) {
        info_limited!("the change feed was interrupted: clearing cached attributes and names");
        self.cache.clear();
        self.pages.clear();
        self.opens.note_all_changed();
        self.transfer.invalidate_all();
        for (ino, file) in self.opens.files() {
            file.invalidate();
            self.notices.pages(ino);
        }
    }
}
