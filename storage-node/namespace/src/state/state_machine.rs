//! The tables under Raft: applies committed operations in order, pushes the feed, makes and installs snapshots.
//!
//! The tables live in memory; the log is what survives, and a snapshot shortens its replay. Readers share the tables
//! through a lock that is held for one operation at a time. An operation's feed is pushed before that lock is released,
//! so no reader can see an operation's effect before its feed event is queued on the reader's connection.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chordfs_log::warn_limited;
use chordfs_tables::{AppliedOp, IdJump, SessionDescription, Tables};
use chordfs_types::{
    admin::LoggedStatus,
    fs_error::FsError,
    namespace::{Answer, Change, Ino, NamespaceOp, Query, SessionId, Time},
};
use futures_util::{Stream, TryStreamExt};
use nix::time::{ClockId, clock_gettime};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
    type_config::alias,
};
use parking_lot::{Mutex, RwLock};

use super::{
    change_intent::{ChangeIntent, Concerned, NotReady},
    session_feed::{AttachingSession, FeedConnection, SessionFeed},
    told::Told,
};
use crate::{
    answer_terms::{AnswerTerms, Wait},
    raft_types::{EntryResult, LeaderTerm, LogEntry, LogId, LoggedOp, SnapshotMeta, StoredMembership, TypeConfig},
    storage::{
        disk_space::is_full,
        snapshot::{self, SnapshotFile},
    },
};

pub(crate) type Snapshot = alias::SmSnapshotOf<TypeConfig, StateMachine>;

/// How often a snapshot is tried again on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// An entry that takes longer delays every other operation and every query noticeably.
const LONG_APPLY: Duration = Duration::from_millis(100);

/// What became of an attempt to attach a connection to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttachOutcome {
    /// `is_new`: it was not attached to any session before.
    Attached {
        is_new: bool,
    },
    /// The session has to be resumed first.
    Suspended,
    NoSession,
}

/// The tables as of the last applied entry. Cheap to clone; the clones share one state.
#[derive(Clone, Default)]
pub(crate) struct NamespaceState(Arc<SharedState>);

#[derive(Default)]
struct SharedState {
    applied: RwLock<AppliedState>,
    /// The longest time that the lock was held for one entry, and the most CPU time of one entry, in microseconds.
    longest_hold: AtomicU64,
    longest_work: AtomicU64,
}

#[derive(Clone, Default)]
struct AppliedState {
    tables: Tables,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl NamespaceState {
    pub(crate) fn query(&self, query: &Query) -> Result<Answer, FsError> {
        if is_short(query) { self.0.applied.read().tables.query(query) } else { self.tables().query(query) }
    }

    /// Answers `query` if the last applied entry satisfies `fresh`, and says when and how the answer may be given to
    /// `reader`. `Err`: another session has to let go of a lease first, and the query has to be asked again. `ask` asks
    /// the tables for one who may not see everything.
    pub(crate) fn read(
        &self,
        fresh: impl Fn(Option<LogId>) -> bool,
        (query, ask): (&Query, impl Fn(&Tables) -> Result<Answer, FsError>),
        (reader, asked): (Option<SessionId>, &mut BTreeSet<SessionId>),
        feed: &SessionFeed,
    ) -> Option<Result<TermedAnswer, Wait>> {
        let applied = self.0.applied.read();
        if !fresh(applied.last) {
            return None;
        }
        if !is_short(query) {
            drop(applied);
            return Some(Ok((ask(&self.tables()), AnswerTerms::default())));
        }
        let answer = ask(&applied.tables);
        if matches!(answer, Err(FsError::NotPermitted { .. })) {
            return Some(Ok((answer, AnswerTerms::default())));
        }
        Some(match Told::by_query(&applied.tables, query, &answer) {
            Some(told) => feed.read(reader, &told, asked).map(|terms| (answer, terms)),
            None => Ok((answer, AnswerTerms::remembered())),
        })
    }

    /// Returns the term in which the changes may be proposed: nobody else has answered changes that would have to come
    /// before them, or can as long as `intent` exists.
    pub(crate) fn prepare(&self, ops: &[NamespaceOp], intent: &mut ChangeIntent) -> Result<LeaderTerm, NotReady> {
        let applied = self.0.applied.read();
        intent.prepare(Concerned::by(&applied.tables, ops))
    }

    /// Attaches a connection to a session, and the session to those leases that it claims; see
    /// [`SessionFeed::attach`] and [`SessionFeed::claim`]. Nothing is applied meanwhile, so that a session which may
    /// hold leases is never a suspended one.
    pub(crate) fn attach(
        &self,
        session: SessionId,
        is_bound: bool,
        claims: &[Ino],
        connection: Arc<dyn FeedConnection>,
        feed: &SessionFeed,
    ) -> AttachOutcome {
        let applied = self.0.applied.read();
        if !applied.tables.has_session(session) {
            return AttachOutcome::NoSession;
        }
        if applied.tables.is_suspended(session) {
            return AttachOutcome::Suspended;
        }
        let (holds_leases, index) =
            (applied.tables.may_hold_leases(session), applied.last.map_or(0, |log_id| log_id.index));
        let attaching = AttachingSession { session, holds_leases, is_bound };
        let is_new = feed.attach(attaching, connection, index, Instant::now());
        if holds_leases {
            let exists = |ino: Ino| applied.tables.query(&Query::GetAttr { ino }).is_ok();
            feed.claim(session, claims, exists);
        }
        AttachOutcome::Attached { is_new }
    }

    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.0.applied.read().tables.sessions().map(|(id, _)| id).collect()
    }

    /// The open sessions in the order of their ids, at most `limit`.
    pub(crate) fn session_descriptions(&self, limit: usize) -> Vec<SessionDescription> {
        self.0.applied.read().tables.session_descriptions().take(limit).collect()
    }

    /// The place of the last applied entry in the log, and the sessions as of that entry that are open and not
    /// suspended.
    pub(crate) fn applied_and_sessions(&self) -> (u64, Vec<SessionId>) {
        let applied = self.0.applied.read();
        let open = applied.tables.sessions().map(|(id, _)| id);
        let sessions = open.filter(|id| !applied.tables.is_suspended(*id)).collect();
        (applied.last.map_or(0, |log_id| log_id.index), sessions)
    }

    #[cfg(test)]
    pub(crate) fn is_suspended(&self, session: SessionId) -> bool {
        self.0.applied.read().tables.is_suspended(session)
    }

    /// See [`Tables::is_to_be_suspended`].
    pub(crate) fn is_to_be_suspended(&self, session: SessionId) -> bool {
        self.0.applied.read().tables.is_to_be_suspended(session)
    }

    /// Whether the session remembers answers, as mounts do.
    pub(crate) fn may_hold_leases(&self, session: SessionId) -> bool {
        self.0.applied.read().tables.may_hold_leases(session)
    }

    /// A short look at the tables as they are: nothing is applied meanwhile.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Tables) -> R) -> R {
        look(&self.0.applied.read().tables)
    }

    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.0.applied.read().tables.has_session(session)
    }

    /// See [`Tables::has_purgeable`].
    pub(crate) fn has_purgeable(&self, before: u64) -> bool {
        self.0.applied.read().tables.has_purgeable(before)
    }

    /// See [`Tables::logged_totals`].
    pub(crate) fn logged_status(&self) -> LoggedStatus {
        let (chunks, bytes) = self.0.applied.read().tables.logged_totals();
        LoggedStatus { chunks: chunks as u64, bytes }
    }

    /// The tables as they are now, if chunks have to be stored on their holders.
    pub(crate) fn tables_with_chunks_to_place(&self) -> Option<Tables> {
        let applied = self.0.applied.read();
        (applied.tables.logged_totals().0 > 0).then(|| applied.tables.clone())
    }

    /// See [`Tables::jumped_at`].
    pub(crate) fn jumped_at(&self) -> Option<Time> {
        self.0.applied.read().tables.jumped_at()
    }

    /// Returns a copy of the tables, which shares their structure.
    pub(crate) fn tables(&self) -> Tables {
        self.0.applied.read().tables.clone()
    }

    /// The place of the last applied entry in the log; 0 if there is none.
    pub(crate) fn applied_index(&self) -> u64 {
        self.last_applied().map_or(0, |log_id| log_id.index)
    }

    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.0.applied.read().last
    }
}

/// An answer, and when and how it may be given.
pub(crate) type TermedAnswer = (Result<Answer, FsError>, AnswerTerms);

/// Queries that are not take milliseconds, and operations must not wait for them.
fn is_short(query: &Query) -> bool {
    !matches!(query, Query::Unreferenced { .. } | Query::Contents { .. } | Query::Dead { .. })
}

/// Zero if the clock cannot be read, which Linux excludes for the calling thread.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

pub(crate) struct StateMachine {
    state: NamespaceState,
    feed: Arc<SessionFeed>,
    snapshots: Arc<Snapshots>,
}

struct Snapshots {
    dir: PathBuf,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
}

impl StateMachine {
    /// Loads the last snapshot in `dir`; Raft replays the log from there.
    pub(crate) fn open(dir: &Path, state: NamespaceState, feed: Arc<SessionFeed>) -> io::Result<Self> {
        let mut current = None;
        if let Some(file) = snapshot::open_current(dir)? {
            let (meta, tables) = snapshot::load(&file)?;
            state.replace(&meta, tables);
            current = Some((meta, file));
        }
        let snapshots = Snapshots { dir: dir.to_path_buf(), current: Mutex::new(current) };
        Ok(Self { state, feed, snapshots: Arc::new(snapshots) })
    }
}

impl NamespaceState {
    fn replace(&self, meta: &SnapshotMeta, tables: Tables) {
        let membership = meta.last_membership.clone();
        let replacement = AppliedState { tables, last: meta.last_log_id, membership };
        let former = std::mem::replace(&mut *self.0.applied.write(), replacement);
        // Freeing a large namespace takes seconds: not under the lock, nor on a thread that runs tasks.
        std::thread::spawn(move || drop(former));
    }

    /// Applies the operations of one entry, and pushes their events before any reader can see their effect.
    fn apply(&self, log_id: LogId, at: Time, ops: &[NamespaceOp], feed: &SessionFeed) -> EntryResult {
        let mut applied = self.0.applied.write();
        let (start, cpu_start) = (Instant::now(), thread_cpu_time());
        feed.follow_leader(log_id.leader_id, || applied.tables.potential_lease_holders().collect());
        let results: Vec<AppliedOp> = ops.iter().map(|op| applied.tables.apply(log_id.index, at, op)).collect();
        applied.last = Some(log_id);
        let terms = feed.applied(ops, &results);
        for op in ops {
            match op.change {
                Change::CloseSession { session } => feed.close_session(session),
                Change::SuspendSession { session } => feed.suspend_session(session),
                _ => {}
            }
        }
        drop(applied);
        self.record_hold(log_id, start.elapsed(), thread_cpu_time().saturating_sub(cpu_start));
        EntryResult { replies: results.into_iter().map(|result| result.reply).collect(), terms }
    }

    /// `held` is longer than `work` when the machine did not let the thread run, or a page of memory was missing.
    fn record_hold(&self, log_id: LogId, held: Duration, work: Duration) {
        self.0.longest_hold.fetch_max(held.as_micros() as u64, Relaxed);
        self.0.longest_work.fetch_max(work.as_micros() as u64, Relaxed);
        if held > LONG_APPLY {
            warn_limited!(%log_id, ?held, cpu = ?work, "applying one entry took long; all others waited for it");
        }
    }

    /// Returns the longest time that one entry held the lock since the last call, and the most CPU time of one entry.
    #[cfg(test)]
    pub(crate) fn take_longest_hold(&self) -> (Duration, Duration) {
        let take = |longest: &AtomicU64| Duration::from_micros(longest.swap(0, Relaxed));
        (take(&self.0.longest_hold), take(&self.0.longest_work))
    }

    fn record(&self, log_id: LogId, membership: Option<StoredMembership>, feed: &SessionFeed) -> EntryResult {
        let mut applied = self.0.applied.write();
        feed.follow_leader(log_id.leader_id, || applied.tables.potential_lease_holders().collect());
        applied.last = Some(log_id);
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        EntryResult { replies: Vec::new(), terms: AnswerTerms::default() }
    }
}

impl StateMachine {
    /// Applies an entry; its result is for the proposer.
    pub(crate) fn apply_entry(&self, entry: LogEntry) -> io::Result<EntryResult> {
        Ok(match entry.payload {
            EntryPayload::Blank => self.state.record(entry.log_id, None, &self.feed),
            EntryPayload::Membership(members) => {
                let membership = StoredMembership::new(Some(entry.log_id), members);
                self.state.record(entry.log_id, Some(membership), &self.feed)
            }
            EntryPayload::Normal(ops) => {
                self.state.apply(entry.log_id, ops.at, &decode(&ops, entry.log_id)?, &self.feed)
            }
        })
    }

    /// Marks the state as applied up to `last`, and makes the counters jump.
    pub(crate) fn jump_ids(&self, jump: IdJump, last: LogId, now: Time) -> io::Result<()> {
        let mut applied = self.state.0.applied.write();
        if !applied.tables.jump_ids(jump, now) {
            return Err(out_of_numbers());
        }
        applied.last = Some(last);
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn replace_tables(&self, tables: Tables) {
        self.state.0.applied.write().tables = tables;
    }

    /// Saves the applied state as a snapshot with the membership `membership`.
    pub(crate) fn save_with(&self, membership: StoredMembership) -> io::Result<()> {
        let applied = self.state.0.applied.read().clone();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: membership };
        self.snapshots.save(meta, &applied.tables).map(drop)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.state.0.applied.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { applied: self.state.0.applied.read().clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        let (meta, tables) = blocking(move || snapshots.install(meta, file)).await?;
        self.state.replace(&meta, tables);
        // The attached sessions were not sent the changes that the snapshot skipped.
        self.feed.interrupt();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.snapshots.current.lock().clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl Snapshots {
    /// Keeps the newer snapshot if one was installed while this one was being built.
    fn save(&self, meta: SnapshotMeta, tables: &Tables) -> io::Result<Snapshot> {
        let written = snapshot::write(&self.dir, &meta, tables)?;
        let mut current = self.current.lock();
        if let Some((newer, snapshot)) = current.as_ref().filter(|(have, _)| have.last_log_id > meta.last_log_id) {
            return Ok(Snapshot { meta: newer.clone(), snapshot: snapshot.clone() });
        }
        let snapshot = snapshot::make_current(&self.dir, &written)?;
        *current = Some((meta.clone(), snapshot.clone()));
        Ok(Snapshot { meta, snapshot })
    }

    fn install(&self, meta: SnapshotMeta, file: SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
        let (found, tables) = snapshot::load(&file)?;
        if found.last_log_id != meta.last_log_id {
            return Err(io::Error::other("the received snapshot is not the announced one"));
        }
        let path =
            if file.path.parent() == Some(&self.dir) { file.path } else { snapshot::write(&self.dir, &meta, &tables)? };
        let mut current = self.current.lock();
        let file = snapshot::make_current(&self.dir, &path)?;
        *current = Some((meta.clone(), file));
        Ok((meta, tables))
    }
}

/// A view of the state that later operations do not change.
pub(crate) struct SnapshotBuilder {
    applied: AppliedState,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (applied, snapshots) = (self.applied.clone(), self.snapshots.clone());
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        let mut has_warned = false;
        loop {
            let (applied, snapshots, meta) = (applied.tables.clone(), snapshots.clone(), meta.clone());
            match blocking(move || snapshots.save(meta, &applied)).await {
                // Raft stops for ever at an error. Until there is space the log grows instead.
                Err(error) if is_full(&error) => {
                    if !std::mem::replace(&mut has_warned, true) {
                        let dir = self.snapshots.dir.display();
                        warn_limited!(
                            %error, %dir,
                            "no space for a snapshot of the namespace, so its log is not cut: free space on this disk"
                        );
                    }
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

/// Decodes operations. An entry that this program cannot read must stop it: skipping it would make this replica differ
/// from the others.
fn decode(ops: &LoggedOp, log_id: LogId) -> io::Result<Vec<NamespaceOp>> {
    ops.decode().map_err(|error| {
        let text = format!("the operation at {log_id} of the log cannot be read ({error}): update this node's program");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

pub(crate) fn out_of_numbers() -> io::Error {
    io::Error::other("this namespace was recovered so often that it has no numbers left for new items")
}
