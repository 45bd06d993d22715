//! Running background tasks until the namespace stops; and the task that keeps the log short.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{raft::handle::RaftHandle, storage::log_store::LogStore};

const LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// Makes a snapshot when the log has grown by a number of bytes. Raft itself counts entries, but large entries need a
/// snapshot earlier, because the log since the last one is in memory.
pub(crate) async fn bound_log(raft: Arc<RaftHandle>, log: LogStore) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if log.take_appended_bytes(raft.settings().snapshot_after_bytes)
            && let Err(error) = raft.openraft().trigger().snapshot().await
        {
            tracing::debug!(%error, "could not begin a snapshot");
        }
    }
}
