//! Commits: everything that was written when one begins is stored, and then made current in one operation.
//!
//! ```text
//! seal -> an unanswered one is decided -> whole chunks fly -> all earlier uploads land -> sync (fsync only) -> partly written chunks are laid over
//! their bases and stored -> Change::Commit -> on Conflict: extents again, lay over again what has changed
//! ```
//!
//! Failures. An `fsync` reports its failure, and what it could not store is given up, as Linux does it. A commit at close
//! or by age keeps the data for the next try; after [`TRIES`] of them, or when no try can help, it is given up, and each
//! handle that writes the file is told why at its next commit (see `losses`). A close says what went wrong and takes
//! nothing away: it may be that of a child, with the descriptor of a parent which goes on writing. Attributes that were
//! to go with the data go alone then; when that fails as well, in the same number of tries, they are given up in the
//! same way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkId, Version},
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Attr, Change, ChunkWrite, Commit, Extent, Reply},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::MutexGuard;

use super::{
    FileData,
    error_seq::ErrorCursor,
    extents::ExtentMap,
    read::PLANS,
    state::{Base, FileState},
    unanswered::UnansweredCommit,
};

/// Background commits that may fail before the data is given up.
const TRIES: u32 = 3;
/// Extents and single chunks one operation names at most.
const COMMIT_ITEMS: usize = 4096;

/// The right to commit; leaves the layers in order however the commit ends, also when its caller goes away.
pub(super) struct CommitGuard<'a> {
    file: &'a FileData,
    _lock: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for CommitGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.file.state.lock();
        state.end_commit();
        self.file.settle(&state, 0);
        self.file.note_committed(&state);
    }
}

/// Whom a commit is for.
#[derive(Clone, Copy)]
pub enum CommitReason<'a> {
    /// A descriptor is closed; others of the same handle may stay open.
    Close(&'a ErrorCursor),
    Fsync(&'a ErrorCursor),
}

impl<'a> CommitReason<'a> {
    fn seen(self) -> &'a ErrorCursor {
        match self {
            Self::Close(seen) | Self::Fsync(seen) => seen,
        }
    }

    fn is_fsync(self) -> bool {
        matches!(self, Self::Fsync(_))
    }

    fn durability(self) -> Durability {
        self.is_fsync().into()
    }
}

/// A partly written chunk that has been laid over `base` and stored.
#[derive(Clone, Copy)]
struct Merged {
    base: Base,
    version: Version,
}

/// A partly written chunk to lay over `base`, whose bytes are needed or not.
struct ToMerge {
    index: u32,
    base: Base,
    needs_base: bool,
}

impl FileData {
    /// Stores and commits all that was written before the call. Returns the new attributes, or `None` if there was
    /// nothing to commit. With [`Durability::Disk`], everything that this mount has written to the file is on its holders' disks
    /// when this returns.
    ///
    /// Errors: also that of an earlier background flush whose data was given up, once.
    pub async fn commit(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        let _guard = self.lock_commits().await;
        self.commit_and_report(durability).await
    }

    /// The same, for a handle.
    pub async fn commit_for(self: &Arc<Self>, reason: CommitReason<'_>) -> Result<Option<Attr>, FsError> {
        let _guard = self.lock_commits().await;
        self.commit_and_report_to(reason.durability(), reason).await
    }

    /// Called in the turn, for an operation that belongs to no handle.
    pub(super) async fn commit_and_report(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        self.commit_and_report_to(durability, CommitReason::Fsync(&self.own_cursor)).await
    }

    /// The fate for the program that asked: its own failure, or one kept for it.
    async fn commit_and_report_to(
        self: &Arc<Self>,
        durability: Durability,
        reason: CommitReason<'_>,
    ) -> Result<Option<Attr>, FsError> {
        let mut outcome = self.commit_locked(durability).await;
        if matches!(outcome, Err(FsError::NoSession)) {
            // This machine slept for longer than the session was kept. The next one is there in a moment.
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
        let Err(error) = self.commit_locked(Durability::Memory).await else { return };
        let restarted = matches!(error, FsError::Stale { .. });
        self.note_failure(error);
        if restarted {
            self.refetch_restarted().await;
        }
    }

    /// A commit that nobody asked for has failed, or one whose failure must not cost the data yet.
    fn note_failure(&self, error: FsError) {
        {
            let mut state = self.state.lock();
            state.failed_commits += 1;
            if state.failed_commits < TRIES && may_pass(&error) {
                tracing::warn!(ino = self.ino.0, %error, "written data is not committed yet, trying again");
                return;
            }
        }
        tracing::error!(ino = self.ino.0, %error, "written data is given up; the next fsync or close reports it");
        self.give_up_data(error);
    }

    fn give_up_data(&self, error: FsError) {
        {
            let mut state = self.state.lock();
            state.give_up();
            state.errors.add(error);
        }
        if let Some(call) = self.transfer.on_data_loss.get() {
            call(self.ino);
        }
    }

    pub(super) async fn lock_commits(&self) -> CommitGuard<'_> {
        CommitGuard { file: self, _lock: self.commit_lock.lock().await }
    }

    /// After `Stale`: perhaps the file is there and has started anew, with chunks of another size.
    async fn refetch_restarted(&self) {
        if let Err(error) = self.refetch().await {
            tracing::debug!(ino = self.ino.0, %error, "the file is gone, or cannot be asked for");
        }
    }

    fn report<T>(&self, outcome: Result<T, FsError>, reason: CommitReason<'_>) -> Result<T, FsError> {
        match (&outcome, reason) {
            (Ok(_), _) => {}
            (Err(error), CommitReason::Close(_)) => self.note_failure(error.clone()),
            (Err(error), CommitReason::Fsync(_)) => {
                tracing::error!(ino = self.ino.0, %error, "written data could not be committed and is given up");
                self.give_up_data(error.clone());
            }
        }
        let lost = self.state.lock().errors.report(reason.seen(), reason.is_fsync());
        match (outcome, lost) {
            (Ok(_), Some(lost)) => Err(lost),
            (outcome, _) => outcome,
        }
    }

    pub(super) async fn commit_locked(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        self.state.lock().begin_commit(durability);
        self.resolve_unanswered().await?;
        self.finish_uploads().await?;
        // What is replaced may have been fsynced, and is deleted soon: it must not give way to what a power cut takes.
        if durability.is_disk() || self.state.lock().replaces_committed() {
            let transfer = &self.transfer;
            transfer.unsynced.sync(self.ino, &*transfer.chunks, &transfer.cache).await?;
        }
        self.publish(durability).await
    }

    /// Sends the sealed whole chunks off and waits for them and for all uploads before them.
    pub(super) async fn finish_uploads(self: &Arc<Self>) -> Result<(), FsError> {
        let mut upload_ended = self.upload_ended.subscribe();
        // A upload is a version and a put, each bounded by the deadline of its client.
        let patience = 3 * self.transfer.settings.deadline;
        loop {
            {
                let mut state = self.state.lock();
                self.start_uploads(&mut state, self.transfer.settings.flush_run_bytes);
                if !state.awaits_uploads() {
                    state.uploading = false;
                    return state.failure.clone().map_or(Ok(()), Err);
                }
            }
            if tokio::time::timeout(patience, upload_ended.changed()).await.is_err() {
                return Err(FsError::NoReplica { detail: format!("no flush ended within {patience:?}") });
            }
        }
    }

    async fn publish(self: &Arc<Self>, durability: Durability) -> Result<Option<Attr>, FsError> {
        let give_up_at = Instant::now() + self.transfer.settings.deadline;
        let mut merged = BTreeMap::new();
        loop {
            self.merge_partials(durability, &mut merged).await?;
            match self.apply_commit(&merged).await {
                Err(FsError::Conflict { .. }) if Instant::now() < give_up_at => self.refetch().await?,
                outcome => return outcome,
            }
        }
    }

    /// Stores the partly written chunks over their present bases, but for those in `merged` that still stand. A base that
    /// nobody has may have been replaced and purged meanwhile; if it is still the base, that is the answer.
    async fn merge_partials(
        self: &Arc<Self>,
        durability: Durability,
        merged: &mut BTreeMap<u32, Merged>,
    ) -> Result<(), FsError> {
        let mut todo = self.plan_merges(merged).await?;
        loop {
            let bases: Vec<(u32, Base)> = todo.iter().map(|todo| (todo.index, todo.base)).collect();
            let Err(error) = self.merge(todo, durability, merged).await else { return Ok(()) };
            if !matches!(error, FsError::NoReplica { .. }) {
                return Err(error);
            }
            self.refetch().await?;
            todo = self.plan_merges(merged).await?;
            if todo.iter().map(|todo| (todo.index, todo.base)).eq(bases) {
                return Err(error);
            }
        }
    }

    async fn merge(
        self: &Arc<Self>,
        todo: Vec<ToMerge>,
        durability: Durability,
        merged: &mut BTreeMap<u32, Merged>,
    ) -> Result<(), FsError> {
        let run = (self.transfer.settings.flush_run_bytes / self.state.lock().chunk_bytes()).max(1) as usize;
        let batches = in_batches(todo, run).into_iter().map(|batch| self.merge_batch(batch, durability));
        let side_by_side = self.transfer.settings.max_uploads.max(1);
        let done: Vec<Vec<(u32, Merged)>> = stream::iter(batches).buffer_unordered(side_by_side).try_collect().await?;
        merged.extend(done.into_iter().flatten());
        Ok(())
    }

    async fn plan_merges(&self, merged: &BTreeMap<u32, Merged>) -> Result<Vec<ToMerge>, FsError> {
        let indexes = {
            let state = self.state.lock();
            state.sealed.chunks(state.attr.chunk_bytes)
        };
        let state = self.with_known_bases(&indexes).await?;
        let plan = |index| ToMerge { index, base: state.base(index), needs_base: state.needs_base(index) };
        let stands = |todo: &ToMerge| merged.get(&todo.index).is_some_and(|merged| merged.base == todo.base);
        Ok(indexes.into_iter().map(plan).filter(|todo| !stands(todo)).collect())
    }

    /// The state in which the bases of all these chunks are told: a reader may ask for the extents anew at any moment,
    /// and what is not told yet is no hole.
    pub(super) async fn with_known_bases(&self, indexes: &[u32]) -> Result<MutexGuard<'_, FileState>, FsError> {
        let of_chunk = |index: u32| u64::from(index)..u64::from(index) + 1;
        for _ in 0..PLANS {
            for &index in indexes {
                let is_stored = self.state.lock().stored.get(index).is_some();
                if !is_stored {
                    self.load_extents(of_chunk(index)).await?;
                }
            }
            let state = self.state.lock();
            let told =
                |&index: &u32| state.stored.get(index).is_some() || state.first_unknown(of_chunk(index)).is_none();
            if indexes.iter().all(told) {
                return Ok(state);
            }
        }
        Err(self.changed_too_fast())
    }

    async fn merge_batch(
        self: &Arc<Self>,
        batch: Vec<ToMerge>,
        durability: Durability,
    ) -> Result<Vec<(u32, Merged)>, FsError> {
        let needed = batch.iter().filter(|todo| todo.needs_base);
        let needed = needed.filter_map(|todo| Some(ChunkId { version: todo.base.version()?, index: todo.index }));
        let bases = self.fetch_chunks(needed.collect()).await?;
        let (file, chunks) = {
            let state = self.state.lock();
            let base = |todo: &ToMerge| {
                let id = ChunkId { version: todo.base.version()?, index: todo.index };
                bases.get(&id).filter(|_| todo.needs_base)
            };
            let merge =
                |todo: &ToMerge| (todo.index, state.merge_over(todo.index, base(todo).map_or(&[][..], |data| data)));
            (state.attr.file.clone(), batch.iter().map(merge).collect::<Vec<(u32, Bytes)>>())
        };
        let replaces = batch.iter().any(|todo| matches!(todo.base, Base::Committed(_)));
        let version = self.store(&file, &chunks, if replaces { Durability::Disk } else { durability }).await?;
        Ok(batch.iter().map(|todo| (todo.index, Merged { base: todo.base, version })).collect())
    }

    /// These chunks, from the cache or their holders.
    pub(super) async fn fetch_chunks(&self, ids: Vec<ChunkId>) -> Result<HashMap<ChunkId, Bytes>, FsError> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            match self.transfer.cache.get(id) {
                Some(data) => drop(found.insert(id, data)),
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            let (file, size) = {
                let state = self.state.lock();
                (state.attr.file.clone(), state.chunk_bytes())
            };
            found.extend(self.transfer.fetcher.start(&file, &missing, size).wait().await?);
        }
        Ok(found)
    }

    async fn apply_commit(&self, merged: &BTreeMap<u32, Merged>) -> Result<Option<Attr>, FsError> {
        let (commits, replaced) = self.draft(merged)?;
        let mut newest = None;
        for commit in commits {
            let change = Change::Commit { ino: self.ino, commit: commit.clone() };
            let attr = match self.transfer.namespace.apply(change).await {
                Ok(Reply::Attr(attr)) => attr,
                Ok(other) => return Err(unexpected("Commit", &other)),
                Err(error) => {
                    self.note_unanswered(&commit, &replaced, &error);
                    return Err(error);
                }
            };
            self.adopt_commit(&commit, &attr);
            newest = Some(attr);
        }
        let mut state = self.state.lock();
        replaced.into_iter().for_each(|extent| state.stored.remove_if_same(extent));
        (state.sealed, state.sealed_set) = Default::default();
        (state.sealed_mtime, state.failed_commits) = (None, 0);
        self.settle(&state, 0);
        Ok(newest)
    }

    /// Without an answer nobody knows what is current, and the feed does not tell a session what it did itself.
    fn note_unanswered(&self, commit: &Commit, replaced: &[Extent], error: &FsError) {
        if matches!(error, FsError::NoQuorum { .. } | FsError::NoSession) {
            let mut state = self.state.lock();
            state.stale = true;
            state.unanswered = Some(UnansweredCommit::new(commit, replaced, &state, error.clone()));
        }
    }

    /// The operations to send, and what of `stored` was overwritten in part and is replaced by them. `Stale` if the file
    /// has started anew with chunks of another size since the commit began.
    fn draft(&self, merged: &BTreeMap<u32, Merged>) -> Result<(Vec<Commit>, Vec<Extent>), FsError> {
        let state = self.state.lock();
        if state.carries_data && state.attr.chunk_bytes != state.sealed_chunk_bytes {
            return Err(FsError::Stale { ino: self.ino });
        }
        let (mut whole, mut partial, mut replaced) = (state.stored.clone(), Vec::new(), Vec::new());
        for (&index, &Merged { base, version }) in merged {
            if let Base::Own(old) = base {
                whole.insert(Extent { first: index, count: 1, version });
                replaced.push(Extent { first: index, count: 1, version: old });
            } else {
                partial.push(ChunkWrite { index, version, base: base.version() });
            }
        }
        let end = (u64::from(whole.last_index()) * state.chunk_bytes()).max(state.sealed.end());
        let mut commits = portions(&whole, partial, state.chunk_bytes(), end);
        // Without a time the namespace would take its own, in place of one that a program has set since it wrote.
        let mtime = Some(state.sealed_mtime.unwrap_or(state.attr.mtime));
        let chunk_bytes = Some(state.attr.chunk_bytes);
        commits.iter_mut().for_each(|commit| (commit.mtime, commit.chunk_bytes) = (mtime, chunk_bytes));
        if commits.is_empty() && !state.sealed_set.is_empty() {
            // The data they were to go with was given up.
            commits.push(Commit { mtime, ..Commit::default() });
        }
        if let Some(last) = commits.last_mut() {
            last.set = state.sealed_set.clone();
        }
        Ok((commits, replaced))
    }

    fn adopt_commit(&self, commit: &Commit, attr: &Attr) {
        let mut state = self.state.lock();
        commit.extents.iter().for_each(|extent| state.stored.remove_if_same(*extent));
        if attr.change < state.attr.change {
            // It comes late: what is known is newer, and may have replaced these chunks.
            state.stale = true;
            return;
        }
        commit.extents.iter().for_each(|extent| state.known.set(*extent));
        for write in &commit.partial {
            state.known.set(Extent { first: write.index, count: 1, version: write.version });
        }
        let size = state.attr.size.max(commit.size_at_least);
        state.adopt(attr, size);
    }
}

pub(super) fn unexpected(what: &str, reply: &Reply) -> FsError {
    FsError::Internal { detail: format!("the namespace answered {what} with {reply:?}") }
}

/// One operation as a rule; a commit of very many pieces is split, so that none is too large to log.
fn portions(whole: &ExtentMap, partial: Vec<ChunkWrite>, chunk_bytes: u64, end: u64) -> Vec<Commit> {
    let extents: Vec<Extent> = whole.iter().collect();
    if extents.is_empty() && partial.is_empty() {
        return Vec::new();
    }
    if extents.len() + partial.len() <= COMMIT_ITEMS {
        return vec![Commit { extents, partial, size_at_least: end, ..Commit::default() }];
    }
    let upto = |index: u32| (u64::from(index) * chunk_bytes).min(end);
    let of_extents = extents.chunks(COMMIT_ITEMS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| upto(last.first + (last.count - 1))),
        extents: part.to_vec(),
        ..Commit::default()
    });
    let of_partial = partial.chunks(COMMIT_ITEMS).map(|part| Commit {
        size_at_least: part.last().map_or(0, |last| upto(last.index)),
        partial: part.to_vec(),
        ..Commit::default()
    });
    of_extents.chain(of_partial).collect()
}

fn in_batches<T>(mut items: Vec<T>, most: usize) -> Vec<Vec<T>> {
    let mut batches = Vec::with_capacity(items.len() / most + 1);
    while items.len() > most {
        let rest = items.split_off(most);
        batches.push(std::mem::replace(&mut items, rest));
    }
    batches.push(items);
    batches.retain(|batch| !batch.is_empty());
    batches
}

/// Could the same commit succeed a little later?
fn may_pass(error: &FsError) -> bool {
    match error {
        FsError::NoSpace
        | FsError::NoReplica { .. }
        | FsError::NoQuorum { .. }
        | FsError::Conflict { .. }
        | FsError::OutOfOrder
        | FsError::NoSession
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
        | FsError::Unsupported { .. } => false,
    }
}
