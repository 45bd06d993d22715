//! What the leader does by itself: it closes sessions whose lease has expired, purges files without name and holder,
//! has dead chunks deleted, stores logged chunks on the nodes, and takes orphan chunks from these. Graces as in `chordfs-namespace`.

use std::{sync::Arc, time::Duration};

use chordfs_types::{
    chunk::{ChunkRef, ChunkRun},
    namespace::{Answer, Change, Extent, Query, SessionId},
};
use tokio::time::{Instant, sleep};

use super::{Lease, Namespace};

const SESSION_LEASE: Duration = Duration::from_secs(60);
const LEASES_EVERY: Duration = Duration::from_secs(1);
const GARBAGE_EVERY: Duration = Duration::from_secs(2);
/// As in `chordfs-namespace`.
const READERS_GRACE: Duration = Duration::from_secs(10);
/// No session that knows of the file is silent for longer.
const CURED_GRACE: Duration = Duration::from_secs(150);
const ROUND: u32 = 1024;
const PLACED_AT_ONCE: usize = 16;
const DELETE_TRIES: u32 = 10;
/// Short, so that a run has time for it; the nodes' default is an hour.
const ORPHAN_AGE: Duration = Duration::from_secs(24);
const ORPHANS_EVERY: Duration = Duration::from_secs(6);

impl Namespace {
    /// Starts the duties; they end with the runtime.
    pub(crate) fn start_duties(self: &Arc<Self>) {
        tokio::spawn(self.clone().keep_leases());
        tokio::spawn(self.clone().collect_garbage());
        tokio::spawn(self.clone().place_logged());
        if self.world.faults.orphan_scrub {
            tokio::spawn(self.clone().collect_orphans());
        }
    }

    async fn keep_leases(self: Arc<Self>) {
        loop {
            sleep(LEASES_EVERY).await;
            for session in self.expired() {
                self.world.note(format!("session {} has expired", session.0));
                self.propose(Change::CloseSession { session });
            }
        }
    }

    fn expired(&self) -> Vec<SessionId> {
        let mut leader = self.leader.lock();
        let now = Instant::now();
        if leader.voter.is_none() {
            return Vec::new();
        }
        let open: Vec<SessionId> = leader.tables.sessions().map(|(id, _)| id).collect();
        leader.sessions.retain(|id, _| open.contains(id));
        let mut last_heard =
            |session| leader.sessions.entry(session).or_insert(Lease { last_heard: now, answered: 0 }).last_heard;
        open.into_iter().filter(|session| now - last_heard(*session) >= SESSION_LEASE).collect()
    }

    async fn collect_garbage(self: Arc<Self>) {
        let mut tries = 0;
        loop {
            sleep(GARBAGE_EVERY).await;
            let (unneeded, unread) = self.collectable();
            if self.with_tables(|tables| tables.has_purgeable(unneeded)) {
                self.propose(Change::PurgeOrphans { before: unneeded, limit: ROUND });
            }
            let Ok(Answer::Dead(dead)) = self.query(&Query::Dead { before: unread, limit: ROUND }) else {
                continue;
            };
            if dead.is_empty() || !self.has_leader() {
                continue;
            }
            let (ids, runs): (Vec<u64>, Vec<ChunkRun>) = dead.into_iter().unzip();
            self.oracle.deleting(&runs, &self.leader.lock().tables);
            tries = if self.plane.delete(&runs) { 0 } else { tries + 1 };
            if tries == 0 || tries >= DELETE_TRIES {
                tries = 0;
                self.propose(Change::ForgetDead { ids });
            }
        }
    }

    /// Stores chunks whose data is in the log on their holders.
    async fn place_logged(self: Arc<Self>) {
        loop {
            let pause = self.world.random(|random| random.between(100, 3_000));
            sleep(Duration::from_millis(pause)).await;
            if !self.has_leader() {
                continue;
            }
            let chunks: Vec<ChunkRef> = self.with_tables(|tables| {
                let due = tables.chunks_to_place(u64::MAX).take(PLACED_AT_ONCE);
                due.map(|(id, file, _)| ChunkRef { file: file.clone(), id }).collect()
            });
            if let Some(placed) = self.plane.place(&chunks).await.filter(|placed| !placed.is_empty()) {
                self.propose(Change::ForgetLogged { chunks: placed });
            }
        }
    }

    /// The places in the log before which nameless files and dead versions can go.
    fn collectable(&self) -> (u64, u64) {
        let mut leader = self.leader.lock();
        let record = (Instant::now(), leader.index);
        leader.history.push(record);
        let unneeded =
            if self.world.faults.purge_early { leader.answered_by_all() } else { leader.index_before(CURED_GRACE) };
        (unneeded + 1, leader.index_before(READERS_GRACE) + 1)
    }

    /// Two looks make an orphan, as in `chordfs-node`.
    async fn collect_orphans(self: Arc<Self>) {
        let mut suspects: Vec<ChunkRun> = Vec::new();
        loop {
            sleep(ORPHANS_EVERY).await;
            let old = self.plane.old_chunks(ORPHAN_AGE);
            let loose: Vec<ChunkRun> = old.into_iter().filter(|run| self.is_unreferenced(run)).collect();
            let confirmed: Vec<ChunkRun> = loose.iter().filter(|run| suspects.contains(run)).cloned().collect();
            suspects = loose;
            if !confirmed.is_empty() {
                self.world.note(format!("{} runs of orphan chunks are collected", confirmed.len()));
                self.propose(Change::CollectOrphans { runs: confirmed });
            }
        }
    }

    fn is_unreferenced(&self, run: &ChunkRun) -> bool {
        let extent = Extent { first: run.first, count: run.count, version: run.version };
        matches!(
            self.query(&Query::Unreferenced { runs: vec![extent] }),
            Ok(Answer::Unreferenced { pieces, .. }) if pieces == [extent]
        )
    }
}
