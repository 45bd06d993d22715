//! Changes by other mounts. An event first removes the affected entries of this mount's caches; only then is the kernel
//! notified, by a separate thread. So a request that follows the notice cannot find the old state here.

use std::sync::Arc;

use chordfs_net::session::{EventReceipt, SessionEvent};
use chordfs_types::namespace::{FeedEvent, Ino};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

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
                    let holding = self.clone().hold_orphaned_files();
                    tokio::spawn(async move {
                        holding.await;
                        drop(receipt);
                    });
                }
            }
        }
    }

    fn handle_event(self: &Arc<Self>, event: FeedEvent, receipt: &Arc<EventReceipt>) {
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
        self.cache.drop_attr(ino);
        if !contents {
            return self.notices.attr(ino);
        }
        self.pages.invalidate(ino);
        if let Some(file) = self.opens.get(ino) {
            file.invalidate();
        }
        self.notices.pages(ino);
    }

    fn orphaned(self: &Arc<Self>, ino: Ino, receipt: Arc<EventReceipt>) {
        self.cache.drop_attr(ino);
        self.notices.attr(ino);
        if self.opens.hold(ino) {
            let fs = self.clone();
            tokio::spawn(async move {
                fs.hold_at_namespace(ino).await;
                drop(receipt);
            });
        }
    }

    /// Clears the caches after events may have been missed. The kernel's names and attributes expire by themselves; its
    /// pages of files that are not open are dropped at the next `open`.
    fn forget_everything(&self) {
        info!("the change feed was interrupted: clearing cached attributes and names");
        self.cache.clear();
        self.pages.clear();
        for (ino, file) in self.opens.files() {
            file.invalidate();
            self.notices.pages(ino);
        }
    }

    /// Holds open files that lost their last name while the feed was interrupted.
    async fn hold_orphaned_files(self: Arc<Self>) {
        for (ino, _) in self.opens.files() {
            match self.attr(ino).await {
                Ok(attr) if attr.nlink == 0 && self.opens.hold(ino) => self.hold_at_namespace(ino).await,
                Ok(_) => {}
                Err(failure) => warn!(ino = ino.0, "cannot determine whether an open file still has a name: {failure}"),
            }
        }
    }
}
