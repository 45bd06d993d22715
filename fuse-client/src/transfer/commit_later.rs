//! Commits that a program does not wait for: at its close a file keeps a place in the order of this mount's changes,
//! and its contents are stored and made current while the program goes on. What is renamed or removed later is logged
//! later.
//!
//! Whoever has the commit lock commits in the earliest place that is kept, whether it asked for that place or not: a
//! commit that waited for a place behind another one's would otherwise wait for itself. If the commit fails and is to
//! be repeated, the place is kept for a while: a name that the file was given since should not be logged before its
//! contents.

use std::{sync::Arc, time::Duration};

use chordfs_log::warn_limited;
use chordfs_net::{clients::ChangeSlot, operation};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, Change, Reply},
};
use tokio::time::Instant;

use super::{CommitReason, FileData, Transfer};

/// A close of a file that has more in memory waits until it is committed, so that what follows in the order need not
/// wait for long.
const MAX_LATER_BYTES: u64 = 4 << 20;
/// The pause before a commit that has failed is repeated.
const REPEAT_PAUSE: Duration = Duration::from_secs(2);
/// How long a place is kept after the first failure. Everything that was answered after it waits.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// After a commit has failed, closes wait for this long, so that programs are told of failures at once.
const WARY_FOR: Duration = Duration::from_secs(10);

/// The places that a file keeps.
#[derive(Default)]
pub(super) struct CommitSlots {
    pending: Vec<Arc<dyn ChangeSlot>>,
    /// The place of the commit under way.
    current: Option<Arc<dyn ChangeSlot>>,
}

impl FileData {
    /// Keeps a place for a commit that follows. Returns false if the caller has to wait for the commit.
    pub fn reserve_commit(&self) -> bool {
        // A change of attributes under way has to come after all places that are kept. It would wait for this one, and
        // the commit in it for that change.
        let Ok(_lock) = self.commit_lock.try_lock() else { return false };
        if self.held_bytes() > MAX_LATER_BYTES || self.transfer.is_wary() {
            return false;
        }
        let slot = self.transfer.namespace.reserve(self.ino);
        let is_kept = slot.is_some();
        self.slots.lock().pending.extend(slot.map(Arc::from));
        is_kept
    }

    /// Commits in a place that was kept, while no program waits.
    /// Errors: the data was discarded.
    pub async fn commit_later(self: &Arc<Self>) -> Result<Option<Attr>, FsError> {
        let deadline = self.transfer.settings.deadline;
        let mut kept_until = None;
        loop {
            // No program waits, so each attempt has the time of an operation.
            let attempt = async {
                let _guard = self.lock_commits().await;
                self.begin_slot();
                self.commit_and_report(CommitReason::SetAttr(&self.own_cursor)).await
            };
            let attempt = Box::pin(operation::run(deadline, deadline, || {}, attempt));
            let outcome = self.in_place_until(kept_until, attempt).await;
            if outcome.is_ok() || !self.state.lock().awaits_repetition() {
                return outcome;
            }
            // The first attempt may have failed only because this machine slept.
            kept_until.get_or_insert_with(|| Instant::now() + KEPT_FOR);
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    /// Carries a commit out. At the time `until` the places that are kept are given up.
    async fn in_place_until<T>(&self, until: Option<Instant>, commit: impl Future<Output = T>) -> T {
        let Some(until) = until else { return commit.await };
        let mut commit = std::pin::pin!(commit);
        match tokio::time::timeout_at(until, &mut commit).await {
            Ok(outcome) => outcome,
            Err(_) => {
                warn_limited!(ino = self.ino.0, "what was done after a file was written is logged before its contents");
                self.give_slots_up();
                commit.await
            }
        }
    }

    /// Commits if a place is kept: what is done to the file next comes after its contents. The caller has the commit
    /// lock.
    ///
    /// Errors: the commit has failed, and its place may be kept still.
    pub(super) async fn commit_in_kept_place(self: &Arc<Self>) -> Result<(), FsError> {
        if self.slots.lock().pending.is_empty() {
            return Ok(());
        }
        self.begin_slot();
        let committed = self.commit_and_report(CommitReason::SetAttr(&self.own_cursor)).await;
        self.end_commit();
        committed.map(drop)
    }

    /// Takes the earliest place that is kept for the commit that begins now. The caller has the commit lock.
    pub(super) fn begin_slot(&self) {
        let mut pending = std::mem::take(&mut self.slots.lock().pending).into_iter();
        let slot = match pending.next() {
            Some(slot) => Some(slot),
            None if self.is_dirty() => self.transfer.namespace.reserve(self.ino).map(Arc::from),
            None => None,
        };
        self.slots.lock().current = slot;
        drop(pending);
    }

    /// Gives up all places.
    pub(super) fn give_slots_up(&self) {
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
    }

    /// Ends the place of the commit that has ended, or keeps it for the next attempt.
    pub(super) fn end_slot(&self, is_repeated: bool) {
        let mut slots = self.slots.lock();
        let current = slots.current.take();
        if is_repeated {
            slots.pending.splice(0..0, current);
        } else {
            drop(slots);
            drop(current);
        }
    }

    /// Sends a commit, in the place that is kept for it if there is one.
    pub(super) async fn send_commit(&self, change: Change, is_last: bool) -> Result<Reply, FsError> {
        let slot = self.slots.lock().current.clone();
        match slot {
            Some(slot) => slot.apply(change, is_last).await,
            None => self.transfer.namespace.apply(change).await,
        }
    }
}

impl Transfer {
    pub(super) fn note_trouble(&self) {
        *self.trouble.lock() = Some(Instant::now());
    }

    /// Whether a commit has failed lately.
    fn is_wary(&self) -> bool {
        self.trouble.lock().is_some_and(|at| at.elapsed() < WARY_FOR)
    }
}
