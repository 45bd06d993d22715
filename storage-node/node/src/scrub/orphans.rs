//! Collecting orphans: old chunks of this node that belong to no file.
//!
//! Orphans come from writers that crashed before they committed, from writers that wrote a chunk again before they
//! committed, and from nodes that were away while chunks were overwritten or deleted. This node asks the namespace's
//! leader twice, some time apart (see `orphan_candidates`), which of its chunks are unreferenced, and then reports
//! those as orphans. The namespace checks the report, retires the versions for late writers, and deletes the chunks on
//! all nodes like all dead chunks. Nothing is reported in case of doubt: if the namespace is out of reach, if the
//! chunks belong to another namespace, or if a member of the ring does not say to which namespace it belongs.
//!
//! The possible conflicts, and why they do no harm:
//!
//! - A write under way. Its chunks are young: no chunk of a version is reported before all chunks of the version here
//!   are old, and two looks later. A slower writer gets an error, never a file with a hole, because a report and a
//!   commit are ordered by the log (`orphan_chunks.rs` of `chordfs-tables`, which also describes the other races).
//! - An outdated answer. The only error possible is to report a chunk that a commit under way is about to reference,
//!   and the namespace decides that as well. Nothing here deletes anything.
//! - Repair, which may bring a copy back from a node that was slower or away. Such a copy is found on that node, or
//!   here once it is old again. Each such round ends with the chunk deleted on every node that answers, and only
//!   another failure of a node can begin a new round (see `convergence_test`).
//!
//! A look asks about the chunks that have become old since the last one, about earlier candidates, and about a share of
//! all others (`look_plan`). The queries make the namespace read the extents in question, page by page. On this node's
//! disk only the first record of each reported run is read.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use chordfs_log::{info_limited, warn_limited};
use chordfs_net::rpc::RpcError;
use chordfs_store::{HeldChunk, StoreError};
use chordfs_types::{
    chunk::{ChunkId, ChunkRun},
    fs_error::FsError,
    namespace::{Answer, Change, Extent, Query, Reply},
    ring_id::NodeRef,
};
use futures_util::{StreamExt, stream};
use hyper::{HeaderMap, Method};
use thiserror::Error;
use tokio::time::sleep;
use tracing::debug;

use super::{
    ScrubShared,
    look_plan::LookPlan,
    namespace_marker::MarkerError,
    orphan_candidates::{OrphanCandidates, orphan_age},
    routes::NAMESPACE_PATH,
    unreferenced::{Unreferenced, remaining_runs, runs, unreferenced_chunks, version_spans},
};
use crate::{blocking::with_store, driver::RingError};

/// Runs in one query to the namespace.
const QUERY_RUNS: usize = 4096;
/// Runs reported in one operation: even with the longest names it stays below the size limit of the log.
const COLLECT_RUNS: usize = 256;
/// The most candidates and the most reported runs of one look; the others wait for the next one.
const MAX_CANDIDATES: usize = 1 << 20;
const MAX_REPORTED_RUNS: usize = 1 << 16;
const LOOKS_PER_AGE: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
const ROOM_CHECK_EVERY: Duration = Duration::from_secs(10);
/// The time between the two looks that confirm an orphan is the orphan age divided by this.
const CONFIRM_DIVISOR: u32 = 6;
const MEMBER_DEADLINE: Duration = Duration::from_secs(5);
const MEMBERS_AT_ONCE: usize = 16;

pub(super) struct Orphans {
    shared: Arc<ScrubShared>,
    candidates: OrphanCandidates,
    plan: LookPlan,
    /// The origin of the candidates' clock.
    start: Instant,
    age: Duration,
}

/// Why no orphans are reported.
#[derive(Debug, Error)]
enum OrphanDoubt {
    #[error("this node does not know yet which namespace it belongs to")]
    NoNamespace,
    #[error(transparent)]
    NamespaceMarker(#[from] MarkerError),
    #[error("not all members of the ring are known: {0}")]
    Ring(#[from] RingError),
    #[error("{node} does not report the namespace of its chunks: {reason}")]
    NoAnswer { node: NodeRef, reason: String },
    #[error("the chunks of {node} belong to another namespace, {theirs}")]
    OtherNamespace { node: NodeRef, theirs: String },
    #[error("the namespace did not answer: {0}")]
    Namespace(#[from] FsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrphanDoubt {
    /// Whether earlier candidates may have been found by the answers of another namespace.
    fn is_about_namespace(&self) -> bool {
        match self {
            Self::NoNamespace | Self::NamespaceMarker(_) | Self::OtherNamespace { .. } => true,
            Self::Ring(_) | Self::NoAnswer { .. } | Self::Namespace(_) | Self::Store(_) => false,
        }
    }
}

impl Orphans {
    pub(super) fn new(shared: Arc<ScrubShared>) -> Self {
        let age = shared.parts.settings.orphan_age;
        let (candidates, start) = (OrphanCandidates::new(age / CONFIRM_DIVISOR), Instant::now());
        let plan = LookPlan::new(shared.parts.settings.period, pause(age));
        Self { shared, candidates, plan, start, age }
    }

    pub(super) async fn run(mut self) {
        let mut doubted = false;
        loop {
            self.wait_for_look().await;
            self.candidates.confirm_after(self.age() / CONFIRM_DIVISOR);
            let looked = self.look().await;
            let (collected, kept) = match looked {
                Ok(collected) => (collected, None),
                Err(doubt) => {
                    if doubt.is_about_namespace() {
                        self.candidates.clear();
                        self.plan.start_over();
                    }
                    log_doubt(&doubt, doubted);
                    (0, Some(doubt.to_string()))
                }
            };
            doubted = kept.is_some();
            if collected > 0 {
                info_limited!(runs = collected, "reported orphans to the namespace, which deletes them");
            }
            self.shared.report.lock().orphans(collected, kept);
        }
    }

    /// The orphan age at present.
    fn age(&self) -> Duration {
        let stats = self.shared.parts.store.stats();
        let capacity = stats.live_bytes + stats.dead_bytes + stats.free_bytes;
        orphan_age(self.age, stats.free_bytes, capacity)
    }

    /// Waits for the next look, which comes sooner if the node gets short of room meanwhile.
    async fn wait_for_look(&self) {
        let began = Instant::now();
        loop {
            let pause = (self.age() / LOOKS_PER_AGE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left.min(ROOM_CHECK_EVERY)).await;
        }
    }

    /// Looks once. Returns the number of runs that the namespace accepted as orphans.
    async fn look(&mut self) -> Result<u64, OrphanDoubt> {
        let ours = self.agreed_namespace().await?;
        self.plan.follow_leader(self.shared.parts.namespace.leader());
        let Some(before) = SystemTime::now().checked_sub(self.age()) else { return Ok(0) };
        let found = self.find_unreferenced(before).await?;
        let chunks: Vec<ChunkId> = found.iter().map(|found| found.chunk.id).collect();
        let orphans: HashSet<ChunkId> = self.candidates.look(self.start.elapsed(), &chunks).into_iter().collect();
        let mut reported = runs(&found, &orphans);
        reported.truncate(MAX_REPORTED_RUNS);
        if reported.is_empty() {
            return Ok(0);
        }
        let runs = with_store(&self.shared.parts.store, move |store| store.named(&reported)).await?;
        if self.shared.parts.namespace.id() != Some(ours) {
            return Err(OrphanDoubt::NoNamespace);
        }
        self.collect(runs).await
    }

    /// Returns the unreferenced chunks, ascending, among those that this look asks about.
    async fn find_unreferenced(&mut self, before: SystemTime) -> Result<Vec<Unreferenced>, OrphanDoubt> {
        let (span, store) = (self.plan.newly_old(before), &self.shared.parts.store);
        let (mut found, mut all_kept) = (Vec::new(), true);
        for share in with_store(store, move |store| store.version_shares(span)).await? {
            let held = with_store(store, move |store| store.old_chunks(share, span)).await?;
            self.add_unreferenced(&held, &mut found).await?;
            all_kept &= found.len() <= MAX_CANDIDATES;
            found.truncate(MAX_CANDIDATES);
        }
        let (versions, share) = (self.candidates.versions(), self.plan.share());
        let held = with_store(store, move |store| store.old_chunks_of(&versions, share, before)).await?;
        self.add_unreferenced(&held, &mut found).await?;
        found.sort_unstable_by_key(|found| found.chunk.id);
        found.dedup_by_key(|found| found.chunk.id);
        all_kept &= found.len() <= MAX_CANDIDATES;
        found.truncate(MAX_CANDIDATES);
        self.plan.record(span, all_kept);
        Ok(found)
    }

    /// The namespace to which the chunks of this node and of all other members belong.
    async fn agreed_namespace(&self) -> Result<u64, OrphanDoubt> {
        let ours = self.shared.parts.namespace.id().ok_or(OrphanDoubt::NoNamespace)?;
        self.shared.marker.follow(ours)?;
        let ring = &self.shared.parts.ring;
        let me = ring.me().ring_address();
        let members = ring.members().await?;
        let others = members.into_iter().filter(|node| node.ring_address() != me);
        let mut answers = stream::iter(others).map(|node| self.agrees(node, ours)).buffer_unordered(MEMBERS_AT_ONCE);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(ours)
    }

    async fn agrees(&self, node: NodeRef, ours: u64) -> Result<(), OrphanDoubt> {
        let pool = &self.shared.parts.pool;
        let address = node.admin_address();
        let asked = pool.request(address, Method::GET, NAMESPACE_PATH, HeaderMap::new(), vec![], MEMBER_DEADLINE).await;
        let reason = match asked {
            Ok(answer) if answer.status.is_success() => {
                let theirs = answer.text();
                let same = theirs == format!("{ours:016x}");
                return if same { Ok(()) } else { Err(OrphanDoubt::OtherNamespace { node, theirs }) };
            }
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        match self.shared.parts.ring.load_of(node).await {
            // A foreign member of the ring keeps no chunks, and refuses the calls of storage nodes.
            Err(RingError::Peer(RpcError::Remote { .. })) => Ok(()),
            _ => Err(OrphanDoubt::NoAnswer { node, reason }),
        }
    }

    /// Adds those of the chunks that belong to no file.
    async fn add_unreferenced(&self, held: &[HeldChunk], found: &mut Vec<Unreferenced>) -> Result<(), OrphanDoubt> {
        let mut pieces = Vec::new();
        for some in version_spans(held).chunks(QUERY_RUNS) {
            self.query_unreferenced(some.to_vec(), &mut pieces).await?;
        }
        found.extend(unreferenced_chunks(held, &pieces));
        Ok(())
    }

    async fn query_unreferenced(&self, mut runs: Vec<Extent>, pieces: &mut Vec<Extent>) -> Result<(), OrphanDoubt> {
        loop {
            let answer = self.shared.parts.session.query(Query::Unreferenced { runs: runs.clone() }).await?;
            let Answer::Unreferenced { pieces: more, next } = answer else {
                return Err(FsError::Internal { detail: format!("expected unreferenced runs, got {answer:?}") }.into());
            };
            pieces.extend(more);
            let Some(next) = next else { return Ok(()) };
            let invalid = || FsError::Internal { detail: format!("{next:?} lies in none of the requested runs") };
            runs = remaining_runs(&runs, next).ok_or_else(invalid)?;
        }
    }

    async fn collect(&self, runs: Vec<ChunkRun>) -> Result<u64, OrphanDoubt> {
        let mut collected = 0;
        for some in runs.chunks(COLLECT_RUNS) {
            match self.shared.parts.session.apply(Change::CollectOrphans { runs: some.to_vec() }).await? {
                Reply::Collected { runs } => collected += u64::from(runs),
                other => {
                    return Err(FsError::Internal {
                        detail: format!("expected the number of collected runs, got {other:?}"),
                    }
                    .into());
                }
            }
        }
        Ok(collected)
    }
}

/// The time between two looks.
fn pause(age: Duration) -> Duration {
    (age / LOOKS_PER_AGE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Logs a doubt. Most doubts are normal while the ring changes; only chunks of another namespace need a person, and are
/// warned about once.
fn log_doubt(doubt: &OrphanDoubt, again: bool) {
    match doubt {
        OrphanDoubt::NamespaceMarker(_) | OrphanDoubt::OtherNamespace { .. } if !again => {
            warn_limited!(%doubt, "no orphans are collected")
        }
        _ => debug!(%doubt, "no orphans are collected"),
    }
}
