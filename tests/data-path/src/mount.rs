//! One simulated mount: the real file system, transfer and session over the simulated network and nodes.

use std::{sync::Arc, time::Duration};

use chordfs_net::{
    clients::NamespaceClient,
    session::{EventReceipt, Session, SessionOptions},
    tasks,
};
use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, Ino, Query, Reply},
};
use fuse_client::{
    fs::FileSystem,
    notify::Notices,
    transfer::{Transfer, TransferSettings},
};
use futures_util::future::BoxFuture;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    namespace::{Namespace, VOTERS, client_name, voter_address},
    network::{Link, SimDialer},
    oracle::Oracle,
    plane::{Plane, SimChunks},
    random::Random,
    sleep::SleepGate,
    world::World,
};

pub(crate) struct Mount {
    pub number: usize,
    pub world: Arc<World>,
    pub oracle: Arc<Oracle>,
    pub plane: Arc<Plane>,
    pub namespace: Arc<Namespace>,
    pub link: Arc<Link>,
    pub session: Session,
    pub fs: Arc<FileSystem>,
    pub gate: Arc<SleepGate>,
}

/// Small, so that a file of a few chunks meets every limit.
fn settings(world: &World) -> TransferSettings {
    world.random(|random| TransferSettings {
        cache_bytes: [1 << 20, 64 << 10, 16 << 10][random.below(3) as usize],
        dirty_bytes: [1 << 20, 48 << 10][random.below(2) as usize],
        flush_run_bytes: [4096, 8192, 64 << 10][random.below(3) as usize],
        max_uploads: random.between(1, 4) as usize,
        read_ahead_bytes: [0, 16 << 10][random.below(2) as usize],
        log_bytes: [0, 8192, 64 << 10][random.below(3) as usize],
        flush_age: Duration::from_secs(2),
        deadline: Duration::from_secs(30),
    })
}

/// Most clocks are nearly right; some are a day or years off.
fn clock_offset(random: &mut Random) -> i64 {
    let size = [0, 3, 86_400, 100_000_000][random.below(4) as usize];
    if random.chance(50) { size } else { -size }
}

impl Mount {
    pub(crate) async fn start(
        number: usize,
        world: &Arc<World>,
        oracle: &Arc<Oracle>,
        plane: &Arc<Plane>,
        namespace: &Arc<Namespace>,
    ) -> Result<Arc<Self>, FsError> {
        let gate = Arc::new(SleepGate::new(world.random(clock_offset)));
        tasks::behind(gate.clone(), Self::start_at(gate, number, world, oracle, plane, namespace)).await
    }

    async fn start_at(
        gate: Arc<SleepGate>,
        number: usize,
        world: &Arc<World>,
        oracle: &Arc<Oracle>,
        plane: &Arc<Plane>,
        namespace: &Arc<Namespace>,
    ) -> Result<Arc<Self>, FsError> {
        let link = Link::new(number, world.clone());
        let dialer = Arc::new(SimDialer { link: link.clone(), namespace: namespace.clone() });
        let nodes = (0..VOTERS).map(voter_address).collect();
        let options = SessionOptions { holds_leases: true, ..SessionOptions::new(nodes, client_name(number)) };
        let (session, mut events) = Session::open_over(dialer, options).await?;
        let client = Arc::new(WatchedSession { session: session.clone(), mount: number, oracle: oracle.clone() });
        let chunks = SimChunks::new(world.clone(), plane.clone(), link.clone(), oracle.clone());
        let transfer = Transfer::with_clients(client.clone(), chunks, Handle::current(), settings(world));
        let epoch = session.clone();
        // There is no kernel: nothing waits for its notices.
        let (notices, _) = Notices::new();
        let space = Arc::new(|| -> BoxFuture<'static, _> { Box::pin(async { None }) });
        let fs = FileSystem::with_namespace(client, move || epoch.feed_epoch(), transfer, notices, space);
        let (deliver, delivered) = mpsc::unbounded_channel();
        tasks::spawn(fs.clone().follow_feed(delivered));
        let (watcher, watched) = (oracle.clone(), world.clone());
        tasks::spawn(async move {
            while let Some(event) = events.recv().await {
                watched.note(format!("mount {number}: {event:?}"));
                watcher.delivered(number, &event);
                let _ = deliver.send(event);
            }
        });
        Ok(Arc::new(Self {
            number,
            world: world.clone(),
            oracle: oracle.clone(),
            plane: plane.clone(),
            namespace: namespace.clone(),
            link,
            session,
            fs,
            gate,
        }))
    }
}

/// The session, with what the reference model has to know of its answers.
struct WatchedSession {
    session: Session,
    mount: usize,
    oracle: Arc<Oracle>,
}

impl NamespaceClient for WatchedSession {
    fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
        Box::pin(async move {
            let subject = match &change {
                Change::SetAttr { ino, .. } => Some(*ino),
                other => other.as_commit().map(|(ino, _)| ino),
            };
            if let Some(ino) = subject {
                self.oracle.begin_commit(self.mount, ino);
            }
            let outcome = self.session.apply(change).await;
            if let Some(ino) = subject {
                match &outcome {
                    Ok(Reply::Attr(attr)) => self.oracle.commit_answered(self.mount, ino, attr.change),
                    Ok(_) => {}
                    Err(FsError::Conflict { .. }) => self.oracle.conflict(self.mount, ino),
                    Err(error) => self.trouble(ino, error),
                }
            }
            outcome
        })
    }

    fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
        Box::pin(async move {
            let subject = match &query {
                Query::Open { ino } | Query::Extents { ino, .. } | Query::GetAttr { ino } => Some(*ino),
                _ => None,
            };
            let outcome = self.session.query(query).await;
            if let (Some(ino), Err(error)) = (subject, &outcome) {
                self.oracle.trouble_with(self.mount, ino, matches!(error, FsError::Stale { .. }));
            }
            outcome
        })
    }

    fn event_receipt(&self) -> EventReceipt {
        self.session.event_receipt()
    }

    fn own_change_receipt(&self) -> EventReceipt {
        self.session.own_change_receipt()
    }

    fn note_handled(&self) {
        self.session.note_handled();
    }

    fn memory_usable_for(&self) -> Duration {
        self.session.memory_usable_for()
    }

    fn is_sole(&self, directory: Ino) -> bool {
        self.session.is_sole(directory)
    }

    fn note_kernel(&self, time: Duration) {
        self.session.note_kernel(time);
    }

    fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
        Box::pin(async move {
            let outcome = self.session.next_version().await;
            if outcome.is_err() {
                self.oracle.trouble(self.mount, None);
            }
            outcome
        })
    }
}

impl WatchedSession {
    /// Without an answer to a commit its data may have to be given up: other mounts may have replaced all of it.
    fn trouble(&self, ino: Ino, error: &FsError) {
        let is_final = matches!(
            error,
            FsError::Stale { .. }
                | FsError::NoEntry
                | FsError::Invalid { .. }
                | FsError::NoQuorum { .. }
                | FsError::NoSession
        );
        self.oracle.trouble_with(self.mount, ino, is_final);
    }
}
