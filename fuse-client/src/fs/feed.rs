//! What other mounts changed. Our own caches are dropped first, then the kernel is told, by a thread of its own: a
//! kernel that asks again must not find the old state here.

use std::sync::Arc;

use chordfs_net::session::SessionEvent;
use chordfs_types::namespace::{FeedEvent, Ino};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::FileSystem;

impl FileSystem {
    /// Follows the change feed until the session ends.
    pub async fn follow_feed(self: Arc<Self>, mut events: mpsc::UnboundedReceiver<SessionEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                SessionEvent::Feed(events) => events.into_iter().for_each(|event| self.take_event(event)),
                SessionEvent::Reset => {
                    self.forget_everything();
                    tokio::spawn(self.clone().hold_what_was_orphaned());
                }
            }
        }
    }

    fn take_event(self: &Arc<Self>, event: FeedEvent) {
        debug!(?event, "another mount changed something");
        match event {
            FeedEvent::Inode { ino, contents } => self.inode_changed(ino, contents),
            FeedEvent::Entry { parent, name } => {
                self.cache.drop_name(parent, &name);
                self.notices.entry(parent, name);
                self.notices.attr(parent);
            }
            FeedEvent::Orphaned { ino } => self.orphaned(ino),
        }
    }

    fn inode_changed(&self, ino: Ino, contents: bool) {
        self.cache.drop_attr(ino);
        if !contents {
            return self.notices.attr(ino);
        }
        self.pages.foreign(ino);
        if let Some(file) = self.opens.get(ino) {
            file.invalidate();
        }
        self.notices.pages(ino);
    }

    fn orphaned(self: &Arc<Self>, ino: Ino) {
        self.cache.drop_attr(ino);
        self.notices.attr(ino);
        if self.opens.hold(ino) {
            let fs = self.clone();
            tokio::spawn(async move { fs.hold_at_namespace(ino).await });
        }
    }

    /// What was missed is not known. The kernel's names and attributes expire by themselves; its pages of files that
    /// are not open are dropped when they are opened.
    fn forget_everything(&self) {
        info!("the change feed was interrupted: forgetting what is remembered about the namespace");
        self.cache.clear();
        self.pages.clear();
        for (ino, file) in self.opens.files() {
            file.invalidate();
            self.notices.pages(ino);
        }
    }

    /// Open files may have lost their last name while nobody could tell us.
    async fn hold_what_was_orphaned(self: Arc<Self>) {
        for (ino, _) in self.opens.files() {
            match self.attr(ino).await {
                Ok(attr) if attr.nlink == 0 && self.opens.hold(ino) => self.hold_at_namespace(ino).await,
                Ok(_) => {}
                Err(failure) => warn!(ino = ino.0, "whether an open file still has a name is not known: {failure}"),
            }
        }
    }
}
