//! The free space that the nodes report. A report is used for half a second, and a new one is awaited for half a
//! second: `df` shows what was written a moment ago, and does not hang because a node does. The nodes are queried only
//! when a program asks.

use std::{sync::Arc, time::Duration};

use chordfs_net::chunk_client::ChunkClient;
use chordfs_types::{disk_space::RingSpace, fs_error::FsError};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::debug;

use crate::fs::SpaceTotals;

const USED_FOR: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct SpaceReports {
    requested: Arc<Notify>,
    latest: watch::Receiver<Option<SpaceReport>>,
}

#[derive(Clone, Copy)]
struct SpaceReport {
    totals: SpaceTotals,
    /// When the nodes were queried.
    queried: Instant,
}

impl SpaceReports {
    /// Must be called on the runtime that is to run its task. Queries the nodes for the first time at once.
    pub fn start(chunks: Arc<ChunkClient>) -> Self {
        Self::of(move || {
            let chunks = chunks.clone();
            async move { chunks.space().await }
        })
    }

    fn of<F: Future<Output = Result<RingSpace, FsError>> + Send>(query: impl Fn() -> F + Send + 'static) -> Self {
        let (reports, latest) = watch::channel(None);
        let requested = Arc::new(Notify::new());
        requested.notify_one();
        let requests = requested.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = requests.notified() => {}
                    () = reports.closed() => return,
                }
                let queried = Instant::now();
                match query().await {
                    Ok(RingSpace { capacity_bytes, free_bytes }) => {
                        let totals = SpaceTotals { total_bytes: capacity_bytes, free_bytes };
                        reports.send_replace(Some(SpaceReport { totals, queried }));
                    }
                    Err(error) => debug!(%error, "cannot query the nodes for their space"),
                }
            }
        });
        Self { requested, latest }
    }

    /// A fresh report, or the last one if none arrives in time; `None` if there was none yet.
    pub async fn current(mut self) -> Option<SpaceTotals> {
        let asked = Instant::now();
        let is_fresh = |report: &Option<SpaceReport>| report.is_some_and(|report| report.queried + USED_FOR >= asked);
        let known = *self.latest.borrow();
        if !is_fresh(&known) {
            self.requested.notify_one();
            // Without an answer in time the last report is used.
            let _ = timeout(WAIT, self.latest.wait_for(is_fresh)).await;
        }
        self.latest.borrow().map(|report| report.totals)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    /// The nodes were queried every 10 s, so that `df` was wrong for as long.
    #[tokio::test(start_paused = true)]
    async fn a_report_is_at_most_a_second_old_and_awaited_for_half_a_second() {
        let (free, delay) = (Arc::new(AtomicU64::new(300)), Arc::new(AtomicU64::new(10)));
        let (reported, wait) = (free.clone(), delay.clone());
        let reports = SpaceReports::of(move || {
            let (free_bytes, wait) = (reported.load(SeqCst), Duration::from_millis(wait.load(SeqCst)));
            async move {
                tokio::time::sleep(wait).await;
                Ok(RingSpace { capacity_bytes: 1000, free_bytes })
            }
        });
        let current = async || reports.clone().current().await.map(|totals| totals.free_bytes);
        assert_eq!(current().await, Some(300));
        free.store(200, SeqCst);
        tokio::time::sleep(USED_FOR).await;
        tokio::time::sleep(WAIT).await;
        assert_eq!(current().await, Some(200));
        free.store(100, SeqCst);
        delay.store(5000, SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        assert_eq!(current().await, Some(200), "a node hangs");
        assert_eq!(begun.elapsed(), WAIT);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(current().await, Some(100));
    }
}
