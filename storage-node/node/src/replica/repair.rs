//! The background task that keeps three holders of every chunk.
//!
//! It has two duties, carried out after any change of neighbours, after a write that skipped a holder, and every few
//! seconds:
//! - a node reconciles the arc that it owns with its next two holders (`reconcile`);
//! - chunks in arcs of which this node is no longer a holder are sent to the three holders, and dropped here only after
//!   all three have them on their disks and have read them back sound.
//!
//! A failed step is left for the next round. A round keeps no state from the one before: the stores themselves show
//! which chunks are missing, so repair continues where it was after a crash of either side. For the same reason a round
//! can be interrupted when this node owns another arc or has other holders: filling one holder may take hours, in which
//! the chunks of a dead neighbour would have only two copies. No acknowledgement of a write waits for repair.

use std::{sync::Arc, time::Duration};

use chordfs_log::{info_limited, warn_limited};
use chordfs_net::router::Router;
use chordfs_replication::{arc_comparison::CopyAmount, plan::holds, restart_grace::RestartGrace};
use chordfs_store::{Store, StoreError};
use chordfs_types::{
    chunk_api::REPLICAS,
    compare_api::{ChunkAt, IdsRequest},
    placement,
    ring_id::{Neighbours, NodeRef},
    route_table::Route,
};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    copy_traffic::CopyTraffic,
    peer::{PeerError, Peers},
    reconcile::{CopyCounts, batches},
};
use crate::{blocking::with_store, replica::departure::Departure};

/// Surplus chunks that are read from the index at a time.
const SURPLUS_CHUNKS: usize = 8192;
/// The pause before chunks that were just fetched are sent on to the other holders.
const SOON: Duration = Duration::from_millis(500);
/// The view of the ring has to be unchanged for this long before surplus copies are dropped: while nodes come and go,
/// they would be fetched again a moment later.
const SETTLED: Duration = Duration::from_secs(6);
/// In a ring too large to be seen whole, changes far away go unnoticed, so surplus is searched for this often anyway.
const SURPLUS_PERIOD: Duration = Duration::from_secs(64);
/// A walk round the ring ends after this many arcs, whatever the answers say.
const MAX_ARCS: usize = 4096;

#[derive(Debug, Error)]
pub enum RepairError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a peer sent a damaged record: {0}")]
    Damaged(#[from] chordfs_types::chunk::RecordError),
    #[error("{count} copies beyond the third stay here: not all three holders have confirmed theirs")]
    Unconfirmed { count: usize },
    #[error("no route round the ring: {0}")]
    Route(#[from] chordfs_net::router::RouteError),
}

impl RepairError {
    /// Whether this node or the peer has no space left.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Peer(PeerError::NoSpace { .. }) | Self::Store(StoreError::NoSpace { .. }))
    }
}

pub struct Repair {
    pub store: Arc<Store>,
    pub peers: Peers,
    pub router: Arc<Router>,
    pub neighbours: watch::Receiver<Neighbours>,
    pub wake: Arc<Notify>,
    pub traffic: Arc<CopyTraffic>,
    pub period: Duration,
    /// How long a lost neighbour is expected back before another node is filled in its place.
    pub restart_grace: Duration,
    /// Whether a member of the ring is known to be a foreign node, which keeps no chunks.
    pub is_foreign: Arc<dyn Fn(&NodeRef) -> bool + Send + Sync>,
    /// No copy counts as surplus while another node drains: that node may have just sent it here.
    pub departure: Arc<Departure>,
}

impl Repair {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut surplus = Surplus::new(Instant::now());
        let mut grace = RestartGrace::new(self.restart_grace);
        let mut complaints = Complaints::default();
        let mut changes = self.neighbours.clone();
        loop {
            let view = self.neighbours.borrow_and_update().clone();
            let now = std::time::Instant::now();
            grace.observe(&view, now);
            grace.dismiss(|node| (self.is_foreign)(node));
            let stand_ins = grace.stand_ins(now);
            let due = surplus.is_due(&view, Instant::now()) && !self.departure.any_peer_drains();
            let done = tokio::select! {
                done = self.round(&view, &stand_ins, due) => done,
                () = has_other_duties(&mut changes, &view) => {
                    self.traffic.neighbours_changed();
                    continue;
                }
                () = stop.cancelled() => return,
            };
            let mut pause = self.period;
            match done {
                Ok(moved) => {
                    if due {
                        surplus.record_search(Instant::now());
                        self.traffic.record_no_surplus();
                    }
                    complaints = Complaints::default();
                    if moved.pulled > 0 {
                        pause = SOON.min(pause);
                    }
                }
                Err(error) => complaints.record(&error),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.neighbours.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.traffic.neighbours_changed();
                }
                () = self.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Runs one round, in which the holders in `stand_ins` are compared with this node but not filled. With `surplus`
    /// it also hands on surplus copies, which is only done now and then, and after a change of the ring until it has
    /// succeeded once.
    async fn round(&self, view: &Neighbours, stand_ins: &[NodeRef], surplus: bool) -> Result<CopyCounts, RepairError> {
        let holders = placement::holders(&view.onwards()).split_off(1);
        self.traffic.set_holders(&holders);
        // A holder that is full or unresponsive must not keep the others from getting their copies.
        let made = join_all(holders.iter().map(async |holder| {
            if stand_ins.contains(holder) {
                self.compare_only(view, holder).await
            } else {
                self.reconcile(view, holder).await
            }
        }))
        .await;
        let moved =
            made.into_iter().try_fold(CopyCounts::default(), |sum, moved| Ok::<_, RepairError>(sum.plus(moved?)));
        let handed_on = if surplus { self.hand_on_surplus(view).await } else { Ok(()) };
        // A plan for a node that is no longer a holder is void.
        let former =
            self.traffic.expecting_peers().into_iter().filter(|node| !holders.contains(node)).collect::<Vec<_>>();
        join_all(former.iter().map(|node| self.announce_nothing_left(view, node))).await;
        moved.and_then(|moved| handed_on.map(|()| moved))
    }

    /// Sends every chunk in arcs of which this node is no holder to the holders, then drops it here.
    pub async fn hand_on_surplus(&self, view: &Neighbours) -> Result<(), RepairError> {
        if view.successors.len() < REPLICAS {
            return Ok(());
        }
        // Routes learnt before the change must not decide what is dropped.
        self.router.clear();
        self.router.learn(view);
        let mut handed_on = Ok(());
        let mut after = view.node.id;
        for _ in 0..MAX_ARCS {
            let route = self.router.route(after.advance(1)).await?;
            if !holds(&route, &view.node) {
                handed_on = handed_on.and(self.hand_on(view, &route).await);
            }
            if route.arc.contains(view.node.id) {
                return handed_on;
            }
            after = route.arc.upto;
        }
        handed_on
    }

    pub(super) async fn hand_on(&self, view: &Neighbours, route: &Route) -> Result<(), RepairError> {
        if route.holders.len() < REPLICAS {
            return Ok(());
        }
        let mut request = IdsRequest { arcs: vec![route.arc], after: None };
        let (mut dropped, mut kept, mut more) = (0, 0, true);
        while more {
            let page = request.clone();
            let page = with_store(&self.store, move |store| Ok(store.ids(&page, SURPLUS_CHUNKS))).await?;
            for batch in batches(&page.chunks) {
                let confirmed = self.confirmed_by_all(view, route, &batch).await?;
                kept += batch.len() - confirmed.len();
                dropped += with_store(&self.store, move |store| Ok(store.drop_copies(&confirmed))).await?;
            }
            more = page.more;
            request.after = page.chunks.last().copied();
        }
        if dropped > 0 {
            info_limited!(after = %route.arc.after, upto = %route.arc.upto, chunks = dropped, "dropped copies beyond the third");
        }
        if kept == 0 { Ok(()) } else { Err(RepairError::Unconfirmed { count: kept }) }
    }

    /// Sends a batch to all holders. Returns the chunks that all of them have read back sound from their disks.
    async fn confirmed_by_all(
        &self,
        view: &Neighbours,
        route: &Route,
        batch: &[ChunkAt],
    ) -> Result<Vec<ChunkAt>, RepairError> {
        let mut confirmed = batch.to_vec();
        for holder in &route.holders {
            self.push(view, holder, batch, CopyAmount::of(batch)).await?;
            let answers = self.peers.confirm(holder, &confirmed).await?;
            let mut answers = answers.into_iter();
            confirmed.retain(|_| answers.next().unwrap_or(false));
        }
        Ok(confirmed)
    }
}

/// Returns when this node owns another arc, or other nodes should hold what it owns.
async fn has_other_duties(changes: &mut watch::Receiver<Neighbours>, view: &Neighbours) {
    let duties = |view: &Neighbours| (view.arc(), placement::holders(&view.onwards()));
    let others = changes.wait_for(|now| duties(now) != duties(view)).await.is_ok();
    if !others {
        // The ring has ended, and repair is about to be stopped as well.
        std::future::pending().await
    }
}

/// When to search for copies beyond the third: once after each change of the ring has settled, and then periodically.
struct Surplus {
    view: Option<Neighbours>,
    since: Instant,
    searched: Option<Instant>,
}

impl Surplus {
    fn new(now: Instant) -> Self {
        Self { view: None, since: now, searched: None }
    }

    fn is_due(&mut self, view: &Neighbours, now: Instant) -> bool {
        if self.view.as_ref() != Some(view) {
            (self.view, self.since, self.searched) = (Some(view.clone()), now, None);
        }
        now - self.since >= SETTLED && self.searched.is_none_or(|searched| now - searched >= SURPLUS_PERIOD)
    }

    fn record_search(&mut self, now: Instant) {
        self.searched = Some(now);
    }
}

/// Decides when a failing repair is worth a warning: not when a node has just gone, but once when it fails repeatedly.
#[derive(Default)]
struct Complaints {
    in_a_row: u32,
}

impl Complaints {
    const FAILURES_BEFORE_WARNING: u32 = 5;

    fn record(&mut self, error: &RepairError) {
        self.in_a_row += 1;
        match self.in_a_row {
            Self::FAILURES_BEFORE_WARNING => {
                warn_limited!(%error, "some chunks have fewer holders than they should; repair keeps trying")
            }
            _ => debug!(%error, "repair continues in the next round"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_dropped_while_the_ring_moves() {
        let view = |id| {
            let node = chordfs_types::ring_id::NodeRef {
                ip: [127, 0, 0, 1].into(),
                port: 5057,
                id: chordfs_types::ring_id::RingId(id),
            };
            Neighbours { predecessor: None, node, successors: vec![] }
        };
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut surplus = Surplus::new(start);
        assert!(!surplus.is_due(&view(1), at(0)));
        assert!(!surplus.is_due(&view(2), at(7)), "it has just changed");
        assert!(surplus.is_due(&view(2), at(14)));
        surplus.record_search(at(14));
        assert!(!surplus.is_due(&view(2), at(20)) && surplus.is_due(&view(2), at(90)));
    }
}
