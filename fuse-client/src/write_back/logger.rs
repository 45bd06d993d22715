//! The task that logs the changes which were answered: one list at a time, so that they are logged in their order.

use std::{sync::Weak, time::Duration};

use chordfs_log::{error_limited, warn_limited};
use chordfs_net::clients::NamespaceClient;
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, Extent, Ino, Reply},
};
use tokio::time::timeout;

use super::{
    WriteBack, WriteBackState,
    queue::{QueuedChange, SentChange},
};

/// How long what is ready waits for the contents that come next in the order, while a program waits for any.
const CONTENTS_PAUSE: Duration = Duration::from_millis(2);
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Changes that wait for longer are reported to operators. Usually they wait for some milliseconds.
const OLD: Duration = Duration::from_secs(3);

/// Logs changes until the mount ends.
pub(super) async fn log_changes(write_back: Weak<WriteBack>) {
    while let Some(owner) = write_back.upgrade() {
        if owner.state.lock().queue.is_ready() {
            owner.urgency.linger(|| owner.state.lock().queue.has_enough()).await;
            owner.await_contents().await;
            let list = owner.state.lock().queue.take_list();
            owner.log_list(list).await;
        } else {
            let wake = owner.wake.clone();
            drop(owner);
            wake.notified().await;
        }
    }
}

/// Tells operators when changes wait for long, until the mount ends.
pub(super) async fn watch_age(write_back: Weak<WriteBack>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let Some(owner) = write_back.upgrade() else { return };
        let (oldest, count) = {
            let state = owner.state.lock();
            (state.queue.oldest(), state.queue.len())
        };
        if let Some((age, waits_for)) = oldest.filter(|(age, _)| *age > OLD) {
            warn_limited!(count, ?age, "changes that programs were told of are not logged: they wait for {waits_for}");
        }
    }
}

impl WriteBack {
    /// Waits a moment for the contents that come next in the order, if a program may wait for them and none is known to
    /// wait for less: to log them together with what is ready costs that program one round trip and not two.
    async fn await_contents(&self) {
        let awaiting = async {
            while self.urgency.is_waiting() && self.state.lock().awaits_contents() {
                self.wake.notified().await;
            }
        };
        let _ended_early = timeout(CONTENTS_PAUSE, awaiting).await;
    }

    async fn log_list(&self, list: Vec<SentChange>) {
        let changes = list.iter().map(|(_, queued)| (queued.now, queued.change.clone())).collect();
        let mut inos: Vec<Ino> = list.iter().flat_map(|(_, queued)| queued.inos.iter().copied()).collect();
        inos.sort();
        inos.dedup();
        let results = match self.log.apply_list(changes, inos).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); list.len()],
        };
        let mut is_refused = false;
        {
            let mut state = self.state.lock();
            for ((place, queued), result) in list.into_iter().zip(results) {
                state.queue.note_logged(place);
                state.readers.note_logged(&queued.inos, place);
                is_refused |= state.note_result(queued, result);
            }
        }
        self.note_progress();
        if is_refused {
            self.note_refusal();
        }
    }

    /// Tells those that wait how far the log has come.
    pub(super) fn note_progress(&self) {
        let before = self.state.lock().queue.logged_before();
        self.logged.send_if_modified(|logged| std::mem::replace(logged, before) != before);
    }

    /// What is remembered follows from a change that was refused.
    fn note_refusal(&self) {
        self.forget_all();
        self.on_refusal.lock().iter().for_each(|call| call());
    }
}

impl WriteBackState {
    /// Whether the next list may be longer in a moment, and nobody is known to wait for less of it.
    fn awaits_contents(&self) -> bool {
        let Some(slot) = self.queue.awaited_slot() else { return false };
        self.awaited.first().is_none_or(|first| first > slot)
    }

    /// Takes over the result of a change. Returns true if a program was told that it was made, and it is refused.
    fn note_result(&mut self, queued: QueuedChange, result: Result<Reply, FsError>) -> bool {
        let QueuedChange { change, waiting, contents, .. } = queued;
        let mut result = result;
        if let Ok(reply) = &mut result {
            self.note_reply(&change, reply);
            self.note_contents(&change, contents);
        }
        if let Some(waiting) = waiting {
            // Without a receiver, the commit was given up.
            let _ = waiting.send(result);
            return false;
        }
        let Err(error) = result else { return false };
        error_limited!(%error, ?change, "a change was made here while another mount made one that contradicts it: it is lost");
        self.refused = Some(error);
        true
    }

    /// Takes the contents of a file over, unless a later change of them is queued.
    fn note_contents(&mut self, change: &Change, contents: Option<Vec<Extent>>) {
        if let (Some((ino, _)), Some(contents)) = (change.as_commit(), contents)
            && !self.queue.has_unlogged(ino)
        {
            self.mirror.learn_contents(ino, contents);
        }
    }

    /// Also completes the reply with what has been changed here since and is not logged: whoever waits for it remembers
    /// the attributes.
    fn note_reply(&mut self, change: &Change, reply: &mut Reply) {
        let (Reply::Entry { attr, .. } | Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) = reply else {
            return;
        };
        let has_unlogged = self.queue.last_change(attr.ino).is_some();
        match change {
            Change::Commit { .. } | Change::CommitWithData { .. } => {
                let is_dated = self.queue.is_dated(attr.ino);
                self.mirror.note_committed(attr, has_unlogged, is_dated);
            }
            _ => self.mirror.note_logged(attr, has_unlogged),
        }
        if let Some(known) = self.mirror.attr(attr.ino, &|_| true) {
            *attr = known.clone();
        }
        self.forget_removed(attr.ino, attr.nlink, has_unlogged);
    }

    /// The namespace knows better how long a file without a name remains.
    fn forget_removed(&mut self, ino: Ino, nlink: u32, has_unlogged: bool) {
        if nlink == 0 && !has_unlogged {
            self.mirror.forget(ino);
        }
    }
}
