//! Deleting chunks on all storage nodes, without waiting for nodes that have failed lately: those are asked in the
//! background, and catch up with what was deleted meanwhile.
//!
//! A node that cannot delete, because its disk hangs or it is away, used to be waited for with every page, so that the
//! garbage of all nodes grew. What a node does not delete for very long is left there: it takes space and does no harm,
//! because a version is never used again, and the node's own scrub finds it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chordfs_log::{info_limited, warn_limited};
use chordfs_types::{chunk::ChunkRun, chunk_api::REPLICAS, ring_id::NodeRef};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use super::garbage::{Deleter, DeletionTargets, FailedDeletion};

/// How many runs are kept for one node.
const MAX_BACKLOG: usize = 1 << 16;
/// How many runs one request to such a node carries.
const PAGE: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Deletions {
    deleter: Deleter,
    failing: Arc<Mutex<HashMap<NodeRef, FailingNode>>>,
    background: JoinSet<()>,
}

/// A node that failed lately, and the runs that it has not deleted.
struct FailingNode {
    backlog: VecDeque<ChunkRun>,
    next_try: Instant,
    pause: Duration,
    is_asked: bool,
}

impl Deletions {
    pub(super) fn new(deleter: Deleter) -> Self {
        Self { deleter, failing: Arc::default(), background: JoinSet::new() }
    }

    /// Deletes the runs on all nodes that have not failed lately, and keeps them for the others. An error means that
    /// the runs should be deleted again.
    pub(super) async fn delete(&self, runs: Vec<ChunkRun>) -> Result<(), String> {
        let failing: Vec<NodeRef> = self.failing.lock().keys().copied().collect();
        if self.overdue() >= REPLICAS {
            return Err(format!("{} nodes do not delete, and may have all copies", self.overdue()));
        }
        let failed = (self.deleter)(runs.clone(), DeletionTargets::AllExcept(failing)).await?;
        let mut failing = self.failing.lock();
        failed.into_iter().for_each(|FailedDeletion { node, reason }| {
            warn_limited!(%reason, "a node does not delete dead chunks; the others no longer wait for it");
            failing.insert(node, FailingNode::new());
        });
        failing.values_mut().for_each(|node| node.add(&runs));
        Ok(())
    }

    /// Begins to ask the nodes whose next try is due.
    pub(super) fn retry(&mut self) {
        while self.background.try_join_next().is_some() {}
        let due: Vec<(NodeRef, Vec<ChunkRun>)> =
            self.failing.lock().iter_mut().filter_map(|(node, state)| Some((*node, state.take_turn()?))).collect();
        for (node, runs) in due {
            let (deleter, failing) = (self.deleter.clone(), self.failing.clone());
            self.background.spawn(async move {
                let count = runs.len();
                let deleted = (deleter)(runs, DeletionTargets::Only(vec![node])).await;
                let deleted = deleted.is_ok_and(|failed| failed.is_empty());
                let mut failing = failing.lock();
                if failing.get_mut(&node).is_some_and(|state| state.answered(deleted, count)) {
                    failing.remove(&node);
                    info_limited!(address = %node.ring_address(), "the node deletes dead chunks again");
                }
            });
        }
    }

    /// Forgets the failed nodes, because another node collects the garbage.
    pub(super) fn stop(&mut self) {
        self.background.abort_all();
        self.failing.lock().clear();
    }

    /// How many nodes lag so far behind that their runs are no longer kept.
    fn overdue(&self) -> usize {
        self.failing.lock().values().filter(|node| node.backlog.len() >= MAX_BACKLOG).count()
    }
}

impl FailingNode {
    fn new() -> Self {
        let next_try = Instant::now() + FIRST_PAUSE;
        Self { backlog: VecDeque::new(), next_try, pause: FIRST_PAUSE, is_asked: false }
    }

    fn add(&mut self, runs: &[ChunkRun]) {
        let room = MAX_BACKLOG - self.backlog.len();
        self.backlog.extend(runs.iter().take(room).cloned());
    }

    /// Returns the next page if the node should be asked now.
    fn take_turn(&mut self) -> Option<Vec<ChunkRun>> {
        if self.is_asked || Instant::now() < self.next_try {
            return None;
        }
        self.is_asked = true;
        Some(self.backlog.iter().take(PAGE).cloned().collect())
    }

    /// Notes the answer to a page of `count` runs. Returns true if the node has caught up.
    fn answered(&mut self, deleted: bool, count: usize) -> bool {
        self.is_asked = false;
        if deleted {
            self.backlog.drain(..count);
            (self.next_try, self.pause) = (Instant::now(), FIRST_PAUSE);
        } else {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.next_try = Instant::now() + self.pause;
        }
        self.backlog.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{IpAddr, Ipv4Addr},
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use chordfs_types::{
        chunk::{FileName, Version},
        ring_id::RingId,
    };
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Two nodes, of which the second hangs while `hangs` is set.
    #[derive(Default)]
    struct Ring {
        hangs: AtomicBool,
        deleted: Mutex<[BTreeSet<u64>; 2]>,
    }

    fn node(number: u16) -> NodeRef {
        NodeRef { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: number, id: RingId(number.into()) }
    }

    fn page(number: u64) -> Vec<ChunkRun> {
        let run = |version| ChunkRun { file: FileName::new("f").unwrap(), first: 1, count: 1, version };
        (number * 100..(number + 1) * 100).map(|version| run(Version(version))).collect()
    }

    fn deleter(ring: Arc<Ring>) -> Deleter {
        Arc::new(move |runs, targets| {
            let ring = ring.clone();
            Box::pin(async move {
                let mut failed = Vec::new();
                for number in (0..2).filter(|number| targets.contain(&node(*number))) {
                    if number == 1 && ring.hangs.load(Relaxed) {
                        sleep(PATIENCE).await;
                        failed.push(FailedDeletion { node: node(1), reason: "it hangs".into() });
                        continue;
                    }
                    ring.deleted.lock()[usize::from(number)].extend(runs.iter().map(|run| run.version.0));
                }
                Ok(failed)
            })
        })
    }

    /// A node with a hanging disk used to cost ten tries of a page, with every page.
    #[tokio::test(start_paused = true)]
    async fn one_failing_node_does_not_delay_the_others_and_catches_up() {
        let ring = Arc::new(Ring::default());
        ring.hangs.store(true, Relaxed);
        let mut deletions = Deletions::new(deleter(ring.clone()));
        let start = Instant::now();
        for number in 0..50 {
            deletions.delete(page(number)).await.unwrap();
            deletions.retry();
        }
        assert_eq!(start.elapsed(), PATIENCE, "only the first page waits");
        assert_eq!(ring.deleted.lock().each_ref().map(BTreeSet::len), [5000, 0]);
        for _ in 0..100 {
            deletions.retry();
            sleep(Duration::from_secs(2)).await;
            ring.hangs.store(false, Relaxed);
        }
        assert_eq!(ring.deleted.lock().each_ref().map(BTreeSet::len), [5000, 5000]);
        assert!(deletions.failing.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_runs_that_are_kept_for_a_node_have_a_limit() {
        let ring = Arc::new(Ring::default());
        ring.hangs.store(true, Relaxed);
        let deletions = Deletions::new(deleter(ring));
        for number in 0..1000 {
            deletions.delete(page(number)).await.unwrap();
        }
        assert_eq!(deletions.failing.lock()[&node(1)].backlog.len(), MAX_BACKLOG);
        assert_eq!(deletions.overdue(), 1);
    }
}
