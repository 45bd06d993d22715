//! Changes by other mounts. An event first removes the affected entries of this mount's caches; only then is the kernel
//! notified, by a separate thread. So a request that follows the notice cannot find the old state here.

use std::{collections::BTreeSet, sync::Arc};

use chordfs_log::info_limited;
use chordfs_net::{
    session::{EventAcknowledgement, EventReceipt, SessionEvent},
    tasks,
};
use chordfs_types::namespace::{FeedEvent, Ino};
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tracing::debug;

use super::FileSystem;

fn revoked(events: &[FeedEvent]) -> Vec<Ino> {
    let revoked = events.iter().filter(|event| matches!(event, FeedEvent::Revoked { .. }));
    revoked.map(FeedEvent::ino).collect()
}

impl FileSystem {
    /// Follows the change feed until the session ends.
    pub async fn follow_feed(self: Arc<Self>, mut events: mpsc::UnboundedReceiver<SessionEvent>) {
        while let Some(event) = events.recv().await {
            // Until it is dropped, the namespace keeps the files that lost their names by this event.
            let receipt = Arc::new(self.namespace.event_receipt());
            match event {
                SessionEvent::Feed(events, done) => {
                    let events = self.take_granted_locks(events);
                    let inos: BTreeSet<Ino> = events.iter().map(FeedEvent::ino).collect();
                    self.namespace.leases_ended(&revoked(&events));
                    let gives_back = done.is_awaited() && !self.is_any_in_use(&inos);
                    if gives_back {
                        self.give_back(&inos, &done);
                    }
                    let keeps = !gives_back && events.iter().all(|event| matches!(event, FeedEvent::Wanted { .. }));
                    if !keeps {
                        self.recall_locks(&inos, &done);
                    }
                    self.let_go(&inos, keeps, &done);
                    events.into_iter().for_each(|event| self.handle_event(event, &receipt, &done));
                }
                SessionEvent::Reset => {
                    self.namespace.forget_all();
                    self.forget_everything();
                    self.restore_locks();
                    self.creations.note_event(None, &receipt);
                    // Any of them may have lost its last name meanwhile.
                    self.hold_at_namespace(self.opens.inos(), Some(receipt));
                }
            }
            self.namespace.note_handled();
        }
    }

    /// Wakes programs that have the locks that they wait for. Returns the other events.
    fn take_granted_locks(&self, mut events: Vec<FeedEvent>) -> Vec<FeedEvent> {
        events.retain(|event| {
            let FeedEvent::LockGranted { ticket, .. } = event else { return true };
            self.locks.wake(*ticket);
            false
        });
        events
    }

    /// Keeps `done` until the changes that were made here before are logged.
    fn let_go(&self, inos: &BTreeSet<Ino>, keeps: bool, done: &EventAcknowledgement) {
        let mut logged = self.namespace.let_go(inos.iter().copied().collect(), keeps);
        if (&mut logged).now_or_never().is_none() {
            let done = done.clone();
            tasks::spawn(async move {
                logged.await;
                drop(done);
            });
        }
    }

    /// Whether any of them was used here since the last event about it.
    fn is_any_in_use(&self, inos: &BTreeSet<Ino>) -> bool {
        let is_in_use = |ino: &&Ino| {
            let is_used = self.cache.take_use(**ino);
            is_used || self.opens.is_open(**ino) || self.kernel_names.known_until(**ino).is_some()
        };
        // Each is asked: to ask ends the use.
        inos.iter().filter(is_in_use).count() > 0
    }

    /// Gives the leases on what nobody uses here back. Otherwise each change by another mount would wait for this one
    /// for ever.
    fn give_back(&self, inos: &BTreeSet<Ino>, done: &EventAcknowledgement) {
        // First, so that nothing is answered from memory any longer when the names are forgotten.
        self.namespace.return_leases(&inos.iter().copied().collect::<Vec<Ino>>());
        inos.iter().for_each(|ino| self.forget_inode(*ino, done));
        done.give_back();
    }

    /// `done` is dropped when the kernel has forgotten what the event contradicts, too.
    fn handle_event(&self, event: FeedEvent, receipt: &Arc<EventReceipt>, done: &EventAcknowledgement) {
        debug!(?event, "another mount changed something");
        match event {
            FeedEvent::Inode { ino, contents } => self.inode_changed(ino, contents, done),
            FeedEvent::Entry { parent, name } => {
                self.cache.drop_name(parent, &name);
                self.forget_in_kernel(parent, name, done);
                self.notices.attr(parent, done.clone());
            }
            FeedEvent::Orphaned { ino } => self.orphaned(ino, receipt.clone(), done),
            FeedEvent::Recalled { ino } => self.await_kernel_names(ino, done),
            FeedEvent::Revoked { ino } => self.forget_inode(ino, done),
            // What this mount has answered is being logged: see `let_go`.
            FeedEvent::Wanted { .. } => {}
            // Its program was woken before.
            FeedEvent::LockGranted { .. } => {}
        }
    }

    fn inode_changed(&self, ino: Ino, contents: bool, done: &EventAcknowledgement) {
        self.removed.remember(self.cache.attr_maybe_touched(ino));
        self.cache.drop_attr(ino);
        if !contents {
            return self.notices.attr(ino, done.clone());
        }
        self.pages.invalidate(ino);
        self.invalidate_data(ino);
        self.notices.pages(ino, done.clone());
    }

    fn orphaned(&self, ino: Ino, receipt: Arc<EventReceipt>, done: &EventAcknowledgement) {
        self.cache.drop_attr(ino);
        self.notices.attr(ino, done.clone());
        self.creations.note_event(Some(ino), &receipt);
        if self.opens.is_open(ino) {
            self.hold_at_namespace(vec![ino], Some(receipt));
        }
    }

    /// Forgets what is remembered of the inode.
    fn forget_inode(&self, ino: Ino, done: &EventAcknowledgement) {
        self.cache.drop_names_in(ino);
        self.cache.drop_attr(ino);
        self.await_kernel_names(ino, done);
        self.notices.attr(ino, done.clone());
    }

    /// Clears the caches after events may have been missed. The kernel's names and attributes expire by themselves; its
    /// pages of files that are not open are dropped at the next `open`.
    pub fn forget_everything(&self) {
        info_limited!("the change feed was interrupted: clearing cached attributes and names");
        self.cache.clear();
        self.pages.clear();
        self.opens.note_all_changed();
        self.transfer.invalidate_all();
        for (ino, file) in self.opens.files() {
            file.invalidate();
            self.notices.pages(ino, EventAcknowledgement::none());
        }
    }
}
