//! Commits: a commit stores everything that was written before it began, and then makes it current in one operation.
//!
//! ```text
//! begin_commit         seals the dirty bytes
//! resolve_unanswered   finds out whether an earlier commit without an answer was applied
//! finish_uploads       uploads sealed whole chunks, and waits for all earlier uploads
//! publish              merge_partials   merges partly written chunks with their bases and stores them (`merge`)
//!                      draft            on fsync, and where committed chunks are replaced, holders first write the
//!                                       chunks to disk
//!                      apply_commit     sends Change::Commit, or CommitWithData (`logged_chunks`)
//!                      on Conflict      after a pause, re-fetches the extents, stores the refused chunk again under a
//!                                       fresh version, and repeats all for the bases that have changed
//! commit_what_fits     after ENOSPC: makes the whole chunks current that were stored
//! end_commit           makes dirty again what could not be committed
//! ```
//!
//! Failures. An `fsync` reports its failure and discards what it could not store, as Linux does. A commit at close or
//! by age keeps the data for the next attempt; after [`MAX_FAILED_COMMITS`], or when no attempt can succeed, the data
//! is discarded, and each handle that writes the file receives the error at its next commit (see `error_seq`). A close
//! reports its failure and discards nothing by itself: it may be the close of a child process, whose parent continues
//! to write through the same descriptor. The same holds for a change of times or of the size, which any program may
//! ask for while others write the file. Attributes that were to go with discarded data are then sent alone; if that
//! fails as many times, they are discarded in the same way.
//!
//! While data is kept for the next attempt, its place in the order of this mount's changes is kept as well, for some
//! seconds (`commit_later`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chordfs_log::{error_limited, warn_limited};
use chordfs_net::{backoff::Backoff, clients::ChunkTransport, operation};
use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Change, Commit, Extent, MAX_COMMIT_DATA, Reply},
};

use parking_lot::MutexGuard;

use super::{
    FileData,
    error_seq::{ErrorCursor, Reporting},
    progress::CommitStep,
    state::{FileState, Merged},
};

/// Background commits that may fail before the data is discarded.
const MAX_FAILED_COMMITS: u32 = 3;
/// The first and the longest pause after a commit was refused with `Conflict`; each attempt is an entry in the log.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Holds the commit lock. Dropping it ends the commit and restores the layers, also when the caller is cancelled.
pub(super) struct CommitGuard<'a> {
    file: &'a FileData,
    _lock: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for CommitGuard<'_> {
    fn drop(&mut self) {
        self.file.end_commit();
    }
}

/// The reason for a commit, with the error cursor of the handle that asked for it.
#[derive(Clone, Copy)]
pub enum CommitReason<'a> {
    /// A descriptor is closed; others of its handle may stay open.
    Close(&'a ErrorCursor),
    Fsync(&'a ErrorCursor),
    /// The times or the size are about to be set, possibly by a program that has written nothing.
    SetAttr(&'a ErrorCursor),
}

impl<'a> CommitReason<'a> {
    fn cursor(self) -> &'a ErrorCursor {
        match self {
            Self::Close(cursor) | Self::Fsync(cursor) | Self::SetAttr(cursor) => cursor,
        }
    }

    fn durability(self) -> Durability {
        match self {
            Self::Close(_) | Self::SetAttr(_) => Durability::Memory,
            Self::Fsync(_) => Durability::Disk,
        }
    }

    fn reporting(self) -> Reporting {
        match self {
            Self::Close(_) => Reporting::Again,
            Self::Fsync(_) | Self::SetAttr(_) => Reporting::Once,
        }
    }
}

impl FileData {
    /// Stores and commits everything written before the call. Returns the new attributes, or `None` if there was
    /// nothing to commit. With [`Durability::Disk`], everything that this mount has written to the file is on its
    /// holders' disks when this returns.
    ///
    /// Belongs to no handle. A failure with [`Durability::Disk`] discards the data, as that of an fsync does; with
    /// [`Durability::Memory`] the data is kept for the next attempt.
    ///
    /// Errors: this commit's; else, once, the error of an earlier background commit whose data was discarded.
    pub async fn commit(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        let reason = match durability {
            Durability::Disk => CommitReason::Fsync(&self.own_cursor),
            Durability::Memory => CommitReason::SetAttr(&self.own_cursor),
        };
        self.commit_for(reason).await
    }

    /// Like [`Self::commit`], on behalf of a handle.
    pub async fn commit_for(self: &Arc<Self>, reason: CommitReason<'_>) -> Result<Option<Attr>, FsError> {
        let _waits = self.transfer.urgency.wait();
        let _guard = self.lock_commits().await;
        self.begin_slot();
        self.commit_and_report(reason).await
    }

    /// Commits, and returns this commit's failure or an earlier one that this handle has not received yet. The caller
    /// holds the commit lock.
    pub(super) async fn commit_and_report(self: &Arc<Self>, reason: CommitReason<'_>) -> Result<Option<Attr>, FsError> {
        let durability = reason.durability();
        let mut outcome = self.commit_locked(durability).await;
        if matches!(outcome, Err(FsError::NoSession)) {
            // The session expired while this machine slept. The next session opens in a moment.
            outcome = self.commit_locked(durability).await;
        }
        let restarted = matches!(outcome, Err(FsError::Stale { .. }));
        let outcome = self.report(outcome, reason);
        if restarted {
            self.refetch_restarted().await;
        }
        outcome
    }

    pub(super) async fn commit_in_background(self: Arc<Self>) {
        let Ok(lock) = self.commit_lock.try_lock() else { return };
        let _guard = CommitGuard { file: &self, _lock: lock };
        self.begin_slot();
        let Err(error) = self.commit_locked(Durability::Memory).await else {
            self.transfer.on_background_commit.get().iter().for_each(|call| call(self.ino));
            return;
        };
        let restarted = matches!(error, FsError::Stale { .. });
        self.note_failure(error);
        if restarted {
            self.refetch_restarted().await;
        }
    }

    /// Handles a failed commit that must not discard data at its first failure.
    fn note_failure(&self, error: FsError) {
        self.transfer.note_trouble();
        {
            let mut state = self.state.lock();
            if state.note_failed_commit() < MAX_FAILED_COMMITS && is_transient(&error) {
                state.await_repetition();
                warn_limited!(ino = self.ino.0, %error, "written data is not committed yet, trying again");
                return;
            }
        }
        error_limited!(ino = self.ino.0, %error, "written data is discarded; the next fsync or close reports it");
        self.discard_data(error);
    }

    pub(super) fn discard_data(&self, error: FsError) {
        {
            let mut state = self.state.lock();
            state.discard_commit();
            state.errors.add(error);
        }
        if let Some(call) = self.transfer.on_data_loss.get() {
            call(self.ino);
        }
    }

    /// Ends the commit under way, if there is one. The caller has the commit lock.
    pub(super) fn end_commit(&self) {
        self.progress.end();
        let is_repeated = {
            let mut state = self.state.lock();
            state.end_commit();
            self.account_memory(&state, 0);
            self.note_committed(&state);
            let discarded = state.take_discarded();
            if !discarded.is_empty() {
                self.transfer.chunks.forget(discarded.iter().copied());
                self.transfer.discards.add(&state.attr().file, discarded);
            }
            state.awaits_repetition()
        };
        self.end_slot(is_repeated);
    }

    pub(super) async fn lock_commits(&self) -> CommitGuard<'_> {
        CommitGuard { file: self, _lock: self.commit_lock.lock().await }
    }

    /// Re-fetches the state after `Stale`: the file may have been restarted with another chunk size.
    async fn refetch_restarted(&self) {
        if let Err(error) = self.refetch().await {
            tracing::debug!(ino = self.ino.0, %error, "the file is gone, or its state cannot be fetched");
        }
    }

    fn report<T>(&self, outcome: Result<T, FsError>, reason: CommitReason<'_>) -> Result<T, FsError> {
        match (&outcome, reason) {
            (Ok(_), _) => {}
            (Err(error), CommitReason::Close(_) | CommitReason::SetAttr(_)) => self.note_failure(error.clone()),
            (Err(error), CommitReason::Fsync(_)) => {
                error_limited!(ino = self.ino.0, %error, "written data could not be committed and is discarded");
                self.discard_data(error.clone());
            }
        }
        let lost = self.state.lock().errors.report(reason.cursor(), reason.reporting());
        match (outcome, lost) {
            (Ok(_), Some(lost)) => Err(lost),
            (outcome, _) => outcome,
        }
    }

    pub(super) async fn commit_locked(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        self.state.lock().begin_commit(durability);
        self.resolve_unanswered().await?;
        let stored = match self.finish_uploads().await {
            Ok(()) => self.publish(durability).await,
            Err(error) => Err(error),
        };
        match &stored {
            Ok(_) => self.state.lock().end_repetition(),
            Err(FsError::NoSpace) => self.commit_what_fits().await,
            Err(_) => {}
        }
        stored
    }

    /// Commits the whole chunks that were stored before the ring was full, as a local disk keeps what fits.
    async fn commit_what_fits(&self) {
        let drafted = match self.sync_if_needed().await {
            Ok(state) => state.draft_stored(),
            Err(error) => Err(error),
        };
        let committed = match drafted {
            // The rest follows in the same place.
            Ok(commits) => self.send_commits(commits, &[], false).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            warn_limited!(ino = self.ino.0, %error, "the part of a file that still fitted could not be committed");
        }
    }

    /// Finds out whether a commit without an answer was applied; see `state::unanswered`.
    async fn resolve_unanswered(&self) -> Result<(), FsError> {
        let Some(chunks) = self.state.lock().unanswered_chunks() else { return Ok(()) };
        self.progress.note(CommitStep::Resolve);
        self.refetch().await?;
        loop {
            self.load_extents(chunks.clone()).await?;
            let mut state = self.state.lock();
            if state.first_unknown(chunks.clone()).is_some() {
                continue;
            }
            if let Some(error) = state.resolve_unanswered() {
                error_limited!(ino = self.ino.0, %error, "written data was overwritten by another mount, or never arrived");
            }
            return Ok(());
        }
    }

    /// Uploads the sealed whole chunks, and waits for them and for all uploads before them.
    pub(super) async fn finish_uploads(self: &Arc<Self>) -> Result<(), FsError> {
        let mut upload_ended = self.upload_ended.subscribe();
        self.progress.note(CommitStep::Upload);
        self.log_few_chunks().await;
        // An upload allocates a version and puts chunks; each step is bounded by the deadline of its client.
        let stall_timeout = 3 * self.transfer.settings.deadline;
        loop {
            {
                let mut state = self.state.lock();
                self.start_uploads(&mut state, self.transfer.settings.flush_run_bytes);
                if !state.awaits_uploads() {
                    state.end_uploads();
                    return state.failure().cloned().map_or(Ok(()), Err);
                }
            }
            if tokio::time::timeout(stall_timeout, upload_ended.changed()).await.is_err() {
                return Err(FsError::NoReplica { detail: format!("no upload ended within {stall_timeout:?}") });
            }
            operation::note_progress();
            self.progress.note(CommitStep::Upload);
        }
    }

    async fn publish(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        let mut merged = BTreeMap::new();
        let outcome = self.publish_merged(durability, &mut merged).await;
        if outcome.is_err() {
            self.state.lock().discard(merged.iter().map(Merged::extent));
        }
        outcome
    }

    async fn publish_merged(
        self: &Arc<Self>,
        durability: Durability,
        merged: &mut BTreeMap<u32, Merged>,
    ) -> Result<Option<Attr>, FsError> {
        let give_up_at = Instant::now() + self.transfer.settings.deadline;
        let mut pauses = conflict_pauses();
        let mut last_attempt = false;
        loop {
            self.merge_partials(durability, merged).await?;
            let index = match self.apply_commit(merged).await {
                Err(FsError::Conflict { index }) if !last_attempt => index,
                outcome => return outcome,
            };
            // Storing may have taken all the time. One attempt with the present state costs little then.
            last_attempt = Instant::now() >= give_up_at;
            tokio::time::sleep(pauses.pause()).await;
            self.progress.note(CommitStep::Refetch);
            self.refetch().await?;
            let refused = merged.remove(&index);
            self.state.lock().discard(refused.map(|merged| Merged::extent((&index, &merged))));
            if self.store_again(index, durability).await? {
                pauses.reset();
            }
        }
    }

    /// Stores a whole chunk that was refused again under a fresh version, and with it all others of its version: they
    /// were collected as garbage because the commit came so late. Returns false if it is no whole chunk.
    async fn store_again(&self, index: u32, durability: Durability) -> Result<bool, FsError> {
        let (ids, file) = {
            let state = self.state.lock();
            (state.stored_like(index), state.attr().file.clone())
        };
        if ids.is_empty() {
            return Ok(false);
        }
        self.progress.note(CommitStep::Upload);
        let data = self.fetch_chunks(ids.clone()).await?;
        let chunks: Vec<_> = ids.iter().filter_map(|id| Some((id.index, data.get(id)?.clone()))).collect();
        let version = self.store_for_commit(&file, &chunks, durability).await?;
        self.state.lock().note_stored_again(&ids, version);
        Ok(true)
    }

    /// Syncs what was stored for the commit, if it has to be. Returns the locked state, from which the commit is to be
    /// drafted: a reader may learn at any moment of a committed chunk that the commit replaces.
    async fn sync_if_needed(&self) -> Result<MutexGuard<'_, FileState>, FsError> {
        let mut is_synced = false;
        loop {
            {
                let state = self.state.lock();
                if is_synced || !state.needs_sync() {
                    return Ok(state);
                }
            }
            self.progress.note(CommitStep::Sync);
            let transfer = &self.transfer;
            let file = self.state.lock().attr().file.clone();
            if let Err(error) = transfer.chunks.sync(&file, self).await {
                if matches!(error, FsError::Lost { .. }) {
                    transfer.discard_lost(&file, &error);
                }
                return Err(error);
            }
            operation::note_progress();
            is_synced = true;
        }
    }

    async fn apply_commit(&self, merged: &BTreeMap<u32, Merged>) -> Result<Option<Attr>, FsError> {
        let (commits, replaced) = self.sync_if_needed().await?.draft_commit(merged)?;
        let newest = self.send_commits(commits, &replaced, true).await?;
        let mut state = self.state.lock();
        state.note_committed(&replaced);
        self.account_memory(&state, 0);
        Ok(newest)
    }

    /// `are_last`: nothing else is expected to follow in their place in the order of changes.
    async fn send_commits(
        &self,
        commits: Vec<Commit>,
        replaced: &[Extent],
        are_last: bool,
    ) -> Result<Option<Attr>, FsError> {
        let (mut newest, count) = (None, commits.len());
        self.progress.note(CommitStep::Log);
        for (number, commit) in (1..).zip(commits) {
            let sent_to = self.state.lock().sent_to(&commit);
            let attr = match self.send_one(&commit, are_last && number == count).await {
                Ok(Reply::Attr(attr)) => attr,
                Ok(other) => return Err(unexpected("Commit", &other)),
                Err(error) => {
                    self.state.lock().note_unanswered(&commit, replaced, sent_to, &error);
                    return Err(error);
                }
            };
            self.state.lock().adopt_commit(&commit, &attr);
            self.transfer.chunks.forget(commit.runs());
            newest = Some(attr);
        }
        Ok(newest)
    }

    /// Sends one operation of the commit, with the data that goes into the log. If the log has no room for it, the data
    /// is stored on the nodes first.
    async fn send_one(&self, commit: &Commit, is_last: bool) -> Result<Reply, FsError> {
        let (ino, transport) = (self.ino, &self.transfer.chunks);
        let chunks = transport.chunks_of(commit);
        if !chunks.is_empty() {
            // More than that if earlier commits of the same chunks have failed.
            if chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>() <= MAX_COMMIT_DATA {
                let change = Change::CommitWithData { ino, commit: commit.clone(), chunks: chunks.clone() };
                // If the log has no room for the data, the commit is repeated in the same place.
                match self.send_commit(change, false).await {
                    Err(FsError::LogFull) => transport.note_full(),
                    outcome => return outcome,
                }
            }
            self.progress.note(CommitStep::Upload);
            let file = self.state.lock().attr().file.clone();
            transport.store(&file, chunks).await?;
            self.progress.note(CommitStep::Log);
        }
        self.send_commit(Change::Commit { ino, commit: commit.clone() }, is_last).await
    }
}

pub(super) fn conflict_pauses() -> Backoff {
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)
}

pub(super) fn unexpected(what: &str, reply: &Reply) -> FsError {
    FsError::Internal { detail: format!("the namespace answered {what} with {reply:?}") }
}

/// Whether the commit could succeed if it is retried a little later.
fn is_transient(error: &FsError) -> bool {
    match error {
        FsError::NoSpace
        | FsError::NoReplica { .. }
        | FsError::NoQuorum { .. }
        | FsError::Conflict { .. }
        | FsError::OutOfOrder
        | FsError::NoSession
        | FsError::LogFull
        | FsError::Internal { .. } => true,
        FsError::NoEntry
        | FsError::Stale { .. }
        | FsError::Exists
        | FsError::NotDirectory
        | FsError::IsDirectory
        | FsError::NotEmpty
        | FsError::IntoItself
        | FsError::TooManyLinks
        | FsError::FileTooLarge
        | FsError::Name(_)
        | FsError::Invalid { .. }
        | FsError::NotPermitted { .. }
        | FsError::ReadOnly
        | FsError::Unsupported { .. }
        | FsError::NoXattr
        | FsError::WouldBlock
        | FsError::Deadlock
        | FsError::NoLocks
        | FsError::Interrupted
        | FsError::XattrsTooLarge { .. }
        | FsError::Lost { .. } => false,
    }
}
