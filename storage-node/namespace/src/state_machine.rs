//! The tables under Raft: applies committed operations in order, tells the feed, makes and installs snapshots.
//!
//! The tables live in memory; the log is what survives, and a snapshot shortens its replay. Readers share the tables
//! through a lock that is held for one operation at a time. An operation's feed is pushed before that lock is released,
//! so nobody can read what an operation did before its feed event is on the reader's connection.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chordfs_tables::{IdJump, Tables};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, NamespaceOp, Query, SessionId, Time},
};
use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use parking_lot::{Mutex, RwLock};

use super::{
    feed::Feed,
    raft_types::{Entry, LogId, LoggedOp, Outcome, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
    recover::out_of_numbers,
    room::is_full,
    snapshot::{self, SnapshotFile},
};

/// How often a snapshot is tried again on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The tables as of the last applied entry. Cheap to clone; the clones are one state.
#[derive(Clone, Default)]
pub struct State(Arc<RwLock<Applied>>);

#[derive(Clone, Default)]
struct Applied {
    tables: Tables,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl State {
    /// Answers `query` if the last applied entry satisfies `fresh`.
    pub fn query_if(&self, fresh: impl Fn(Option<LogId>) -> bool, query: &Query) -> Option<Result<Answer, FsError>> {
        let applied = self.0.read();
        fresh(applied.last).then(|| applied.tables.query(query))
    }

    pub fn query(&self, query: &Query) -> Result<Answer, FsError> {
        self.0.read().tables.query(query)
    }

    pub fn sessions(&self) -> Vec<SessionId> {
        self.0.read().tables.sessions().map(|(id, _)| id).collect()
    }

    pub fn has_session(&self, session: SessionId) -> bool {
        self.0.read().tables.sessions().any(|(id, _)| id == session)
    }

    /// A copy of the tables, sharing their structure.
    pub fn tables(&self) -> Tables {
        self.0.read().tables.clone()
    }

    pub fn last_applied(&self) -> Option<LogId> {
        self.0.read().last
    }
}

pub struct StateMachine {
    state: State,
    feed: Arc<Feed>,
    snapshots: Arc<Snapshots>,
}

struct Snapshots {
    dir: PathBuf,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
}

impl StateMachine {
    /// The state of the last snapshot in `dir`; Raft replays the log from there.
    pub fn open(dir: &Path, state: State, feed: Arc<Feed>) -> io::Result<Self> {
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

impl State {
    fn replace(&self, meta: &SnapshotMeta, tables: Tables) {
        let membership = meta.last_membership.clone();
        *self.0.write() = Applied { tables, last: meta.last_log_id, membership };
    }

    /// Applies one operation and tells the feed before anybody can see it.
    fn apply(&self, log_id: LogId, at: Time, op: &NamespaceOp, feed: &Feed) -> Outcome {
        let mut applied = self.0.write();
        let result = applied.tables.apply(log_id.index, at, op);
        applied.last = Some(log_id);
        feed.push(result.origin, &result.feed);
        Outcome(Some(result.reply))
    }

    fn note(&self, log_id: LogId, membership: Option<StoredMembership>) -> Outcome {
        let mut applied = self.0.write();
        applied.last = Some(log_id);
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        Outcome(None)
    }
}

impl StateMachine {
    /// Applies an entry; its outcome is for whoever asked for it.
    pub fn apply_entry(&self, entry: Entry) -> io::Result<Outcome> {
        Ok(match entry.payload {
            EntryPayload::Blank => self.state.note(entry.log_id, None),
            EntryPayload::Membership(members) => {
                self.state.note(entry.log_id, Some(StoredMembership::new(Some(entry.log_id), members)))
            }
            EntryPayload::Normal(op) => self.state.apply(entry.log_id, op.at, &decode(&op, entry.log_id)?, &self.feed),
        })
    }

    /// What was applied counts as applied up to `last`, and new numbers begin further on.
    pub fn jump_ids(&self, jump: IdJump, last: LogId, now: Time) -> io::Result<()> {
        let mut applied = self.state.0.write();
        if !applied.tables.jump_ids(jump, now) {
            return Err(out_of_numbers());
        }
        applied.last = Some(last);
        Ok(())
    }

    /// Makes what was applied a snapshot in which `membership` holds.
    pub fn save_with(&self, membership: StoredMembership) -> io::Result<()> {
        let applied = self.state.0.read().clone();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: membership };
        self.snapshots.save(meta, &applied.tables).map(drop)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.state.0.read();
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

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { applied: self.state.0.read().clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        let (meta, tables) = blocking(move || snapshots.install(meta, file)).await?;
        self.state.replace(&meta, tables);
        // Whoever is attached here was not told what the snapshot skipped.
        self.feed.interrupt();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.snapshots.current.lock().clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl Snapshots {
    /// Keeps the newer one when a snapshot was installed while this one was being built.
    fn save(&self, meta: SnapshotMeta, tables: &Tables) -> io::Result<Snapshot> {
        let written = snapshot::write(&self.dir, &meta, tables)?;
        let mut current = self.current.lock();
        if let Some((newer, snapshot)) = current.as_ref().filter(|(have, _)| have.last_log_id > meta.last_log_id) {
            return Ok(Snapshot { meta: newer.clone(), snapshot: snapshot.clone() });
        }
        let snapshot = snapshot::take_name(&self.dir, &written)?;
        *current = Some((meta.clone(), snapshot.clone()));
        Ok(Snapshot { meta, snapshot })
    }

    fn install(&self, meta: SnapshotMeta, file: SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
        let (found, tables) = snapshot::load(&file)?;
        if found.last_log_id != meta.last_log_id {
            return Err(io::Error::other("the snapshot is not the one that was announced"));
        }
        let path = match file.path.parent() == Some(&self.dir) {
            true => file.path,
            false => snapshot::write(&self.dir, &meta, &tables)?,
        };
        let mut current = self.current.lock();
        let file = snapshot::take_name(&self.dir, &path)?;
        *current = Some((meta.clone(), file));
        Ok((meta, tables))
    }
}

/// A view of the state that later operations do not touch.
pub struct Builder {
    applied: Applied,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (applied, snapshots) = (self.applied.clone(), self.snapshots.clone());
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        loop {
            let (applied, snapshots, meta) = (applied.tables.clone(), snapshots.clone(), meta.clone());
            match blocking(move || snapshots.save(meta, &applied)).await {
                // Raft stops for ever at an error. Until there is room the log is longer.
                Err(error) if is_full(&error) => {
                    tracing::debug!(%error, "no room for a snapshot");
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

/// An operation that this program cannot read must stop it: to skip it would make this replica differ from the others.
fn decode(op: &LoggedOp, log_id: LogId) -> io::Result<NamespaceOp> {
    op.decode().map_err(|error| {
        let text = format!("the operation at {log_id} of the log cannot be read ({error}): update this node's program");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
