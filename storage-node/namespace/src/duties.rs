//! Running background tasks until the namespace stops; and the task that keeps the log short.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    raft::handle::RaftHandle,
    storage::{log_store::LogStore, snapshot},
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that a snapshot has are kept in memory, and for voters that lag, up to so many bytes.
const KEPT_BYTES: u64 = if cfg!(test) { 10_000 } else { 32 << 20 };

/// Starts tasks that run until the namespace stops.
#[derive(Default)]
pub(crate) struct DutyStarter {
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl DutyStarter {
    pub(crate) fn start(&self, duty: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = duty => {}
            }
        });
    }
}

/// Purges entries that a snapshot has, and that take much memory together. Raft itself keeps a number of them for
/// voters that lag, however large they are.
async fn purge_beyond(raft: &RaftHandle, log: &LogStore) {
    let (snapshot, purged) =
        raft.look(|metrics| (metrics.snapshot.map(|log_id| log_id.index), metrics.purged.map(|log_id| log_id.index)));
    let upto = log.last_beyond(KEPT_BYTES).min(snapshot);
    if upto > purged
        && let Some(upto) = upto
        && let Err(error) = raft.openraft().trigger().purge_log(upto).await
    {
        tracing::debug!(%error, "could not purge the log");
    }
}

/// Makes a snapshot when the log has grown by enough bytes; `dir` has the last one. Raft itself could count entries
/// only.
pub(crate) async fn bound_log(raft: Arc<RaftHandle>, log: LogStore, dir: PathBuf) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let snapshots = raft.settings().snapshots;
        // On a full disk a snapshot, whose space is reserved, makes room for the log.
        let is_full = !log.disk_space().full_for().is_zero();
        let limit =
            if is_full { snapshots.least_log_bytes } else { snapshots.log_bytes(snapshot::current_bytes(&dir)) };
        if log.take_appended_bytes(limit)
            && let Err(error) = raft.openraft().trigger().snapshot().await
        {
            tracing::debug!(%error, "could not begin a snapshot");
        }
        purge_beyond(&raft, &log).await;
    }
}
