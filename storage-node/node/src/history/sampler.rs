//! Samples this node for its history: every few seconds, and when a minute ends.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chordfs_history::recorder::{HistoryRecorder, LatencyMeters, NodeCounters, NodeGauges, NodeSample, SampleTime};
use chordfs_types::admin::{BacklogMinute, DiskMinute, NodeHistory, NodeStatus, TransferProgress};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    driver::RingHandle,
    http::{admin::NodeAdmin, measured::RequestMeters},
};

/// So often that a minute that ends in a suspended machine still has most of its samples.
const SAMPLES_IN_A_MINUTE: u32 = 12;
/// Walks around the ring in a minute, to count its nodes.
const WALKS_IN_A_MINUTE: u32 = 2;
const WALK_DEADLINE: Duration = Duration::from_secs(10);
/// A timer may end a moment before the minute does.
const MINUTE_SLACK: Duration = Duration::from_millis(2);

/// This node's history. Cheap to clone; the clones share it.
#[derive(Clone)]
pub struct OwnHistory {
    recorder: Arc<Mutex<HistoryRecorder>>,
    period: Duration,
}

impl OwnHistory {
    /// `period`: the length of a minute; shorter ones are for tests.
    pub fn new(period: Duration, meters: LatencyMeters) -> Self {
        Self { recorder: Arc::new(Mutex::new(HistoryRecorder::new(period, meters))), period }
    }

    /// The points after `after`, in seconds since 1970; all without it.
    pub fn points(&self, after: Option<u64>) -> NodeHistory {
        self.recorder.lock().history(after)
    }

    pub(super) fn period_seconds(&self) -> u64 {
        self.period.as_secs().max(1)
    }
}

/// Fills a history until the node stops.
pub struct HistorySampler {
    pub history: OwnHistory,
    pub node: Arc<dyn NodeAdmin>,
    pub ring: RingHandle,
    pub requests: Arc<RequestMeters>,
}

impl HistorySampler {
    pub async fn run(self, stop: CancellationToken) {
        let nodes = Mutex::new(None);
        let both = async { tokio::join!(self.sample(&nodes), self.count_nodes(&nodes)) };
        stop.run_until_cancelled(both).await;
    }

    async fn sample(&self, nodes: &Mutex<Option<u32>>) {
        let began = Instant::now();
        loop {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let sample = sample_of(&self.node.status(), &self.requests, *nodes.lock());
            let rest = {
                let mut recorder = self.history.recorder.lock();
                recorder.observe(SampleTime { wall, steady: began.elapsed() }, sample);
                recorder.until_next_minute(wall)
            };
            sleep((self.history.period / SAMPLES_IN_A_MINUTE).min(rest + MINUTE_SLACK)).await;
        }
    }

    async fn count_nodes(&self, nodes: &Mutex<Option<u32>>) {
        loop {
            let members = timeout(WALK_DEADLINE, self.ring.storage_members()).await;
            *nodes.lock() = members.ok().and_then(Result::ok).map(|members| members.len() as u32);
            sleep(self.history.period / WALKS_IN_A_MINUTE).await;
        }
    }
}

fn sample_of(status: &NodeStatus, requests: &RequestMeters, nodes: Option<u32>) -> NodeSample {
    let NodeStatus { store, cache, repair, namespace, .. } = status;
    let backlog = |progress: &TransferProgress| BacklogMinute {
        chunks_left: progress.chunks_left,
        bytes_left: progress.bytes_left,
    };
    NodeSample {
        counters: NodeCounters {
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            requests: requests.requests.load(Relaxed),
            read_bytes: requests.read_bytes.load(Relaxed),
            written_bytes: requests.written_bytes.load(Relaxed),
        },
        gauges: NodeGauges {
            nodes,
            cache_items: cache.items,
            cache_bytes: cache.bytes,
            cache_capacity_bytes: cache.capacity_bytes,
            disk: DiskMinute {
                used_bytes: store.capacity_bytes.saturating_sub(store.free_bytes),
                capacity_bytes: store.capacity_bytes,
            },
            repair: backlog(&repair.outgoing),
            filling: backlog(&repair.incoming),
            votes: namespace.voter,
        },
    }
}
