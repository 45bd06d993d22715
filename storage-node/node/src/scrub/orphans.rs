//! Looking for orphans: chunks that have lain here for long and that no file has.
//!
//! They come from writers that crashed before they committed, or wrote a chunk once more before they did, and with
//! nodes that were away while something was overwritten or deleted. The namespace's leader is asked which of the chunks
//! here these are, twice and some time apart (see `orphan_candidates`); then they are handed to it as orphans. It takes
//! them only if they are, closes their versions for writers who come late, and deletes them on all nodes like
//! everything dead. When in doubt nothing is handed over: no namespace in reach, another one than the chunks are of, or
//! a member of the ring that does not say which one it belongs to.
//!
//! What this could hurt, and why it does not:
//!
//! - A write under way: its chunks are young. Of a version nothing is touched before all that is here of it is old, and
//!   two looks lie between its age and the end. A writer who needs longer gets an error, never a file with a hole: what
//!   was handed over is decided in the order of the log (`orphan_chunks.rs` of `chordfs-tables`, which has the rest of
//!   the races).
//! - An answer that was true and is not any more: only ever is a chunk taken for an orphan that is none yet, by a
//!   commit on its way, and that is decided there as well. Nothing here deletes anything.
//! - Repair, which brings a copy back from a node that was slower or away: it is found there, or here when it is old
//!   again. Each such round ends with the chunk gone on every node that answers, and only a new failure of a node can
//!   begin another one (see `convergence_test`).
//!
//! The questions cost the namespace a look at the extents in question, page by page, and the disk of this node nothing
//! but the first record of each run that is given up.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

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
use tracing::{debug, info, warn};

use super::{
    ScrubShared,
    namespace_marker::MarkerError,
    orphan_candidates::OrphanCandidates,
    routes::WHOSE_PATH,
    unreferenced::{Unreferenced, remaining_runs, runs, unreferenced_chunks, version_spans},
};
use crate::{blocking::with_store, driver::RingError};

/// Asked of the namespace at a time.
const QUERY_RUNS: usize = 4096;
/// Handed over in one operation: with the longest of names it stays below what the log takes.
const COLLECT_RUNS: usize = 256;
/// Chunks suspected at a time, and runs given up; the others wait for the next look.
const MOST_SUSPECTS: usize = 1 << 20;
const MOST_GIVEN_UP: usize = 1 << 16;
const LOOKS_PER_AGE: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// Between the two looks that make an orphan, as part of its age.
const CONFIRM_PART: u32 = 6;
const MEMBER_DEADLINE: Duration = Duration::from_secs(5);
const MEMBERS_AT_ONCE: usize = 16;

pub(super) struct Orphans {
    shared: Arc<ScrubShared>,
    candidates: OrphanCandidates,
    /// What the candidates' clock counts from.
    start: Instant,
    age: Duration,
}

/// Why nothing is handed over.
#[derive(Debug, Error)]
enum Doubt {
    #[error("this node does not know yet which namespace it belongs to")]
    NoNamespace,
    #[error(transparent)]
    NamespaceMarker(#[from] MarkerError),
    #[error("not all members of the ring are known: {0}")]
    Ring(#[from] RingError),
    #[error("{node} does not say which namespace its chunks are of: {reason}")]
    Silent { node: NodeRef, reason: String },
    #[error("the chunks of {node} are of another namespace, {theirs}")]
    Stranger { node: NodeRef, theirs: String },
    #[error("the namespace was asked in vain: {0}")]
    Namespace(#[from] FsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Orphans {
    pub(super) fn new(shared: Arc<ScrubShared>) -> Self {
        let age = shared.parts.settings.orphan_age;
        Self { shared, candidates: OrphanCandidates::new(age / CONFIRM_PART), start: Instant::now(), age }
    }

    pub(super) async fn run(mut self) {
        let pause = (self.age / LOOKS_PER_AGE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut doubted = false;
        loop {
            sleep(pause).await;
            let looked = self.look().await;
            let (collected, kept) = match looked {
                Ok(collected) => (collected, None),
                Err(doubt) => {
                    // What was seen before a doubt arose was perhaps seen in another namespace.
                    self.candidates.clear();
                    complain(&doubt, doubted);
                    (0, Some(doubt.to_string()))
                }
            };
            doubted = kept.is_some();
            if collected > 0 {
                info!(runs = collected, "chunks that no file has were handed to the namespace to be deleted");
            }
            self.shared.report.lock().orphans(collected, kept);
        }
    }

    /// How many runs the namespace took.
    async fn look(&mut self) -> Result<u64, Doubt> {
        let ours = self.agreed_namespace().await?;
        let Some(before) = SystemTime::now().checked_sub(self.age) else { return Ok(0) };
        let mut found = Vec::new();
        for share in self.shared.parts.store.version_shares() {
            let held = with_store(&self.shared.parts.store, move |store| store.old_chunks(share, before)).await?;
            self.add_loose(&held, &mut found).await?;
            found.truncate(MOST_SUSPECTS);
        }
        let chunks: Vec<ChunkId> = found.iter().map(|loose| loose.chunk.id).collect();
        let orphans: HashSet<ChunkId> = self.candidates.look(self.start.elapsed(), &chunks).into_iter().collect();
        let mut given_up = runs(&found, &orphans);
        given_up.truncate(MOST_GIVEN_UP);
        if given_up.is_empty() {
            return Ok(0);
        }
        let runs = with_store(&self.shared.parts.store, move |store| store.named(&given_up)).await?;
        if self.shared.parts.namespace.id() != Some(ours) {
            return Err(Doubt::NoNamespace);
        }
        self.collect(runs).await
    }

    /// The namespace that this node's chunks, and those of all other members, are of.
    async fn agreed_namespace(&self) -> Result<u64, Doubt> {
        let ours = self.shared.parts.namespace.id().ok_or(Doubt::NoNamespace)?;
        self.shared.mark.follow(ours)?;
        let ring = &self.shared.parts.ring;
        let me = ring.me().ring_address();
        let members = ring.members().await?;
        let others = members.into_iter().filter(|node| node.ring_address() != me);
        let mut words = stream::iter(others).map(|node| self.agrees(node, ours)).buffer_unordered(MEMBERS_AT_ONCE);
        while let Some(word) = words.next().await {
            word?;
        }
        Ok(ours)
    }

    async fn agrees(&self, node: NodeRef, ours: u64) -> Result<(), Doubt> {
        let pool = &self.shared.parts.pool;
        let address = node.admin_address();
        let asked = pool.request(address, Method::GET, WHOSE_PATH, HeaderMap::new(), vec![], MEMBER_DEADLINE).await;
        let reason = match asked {
            Ok(answer) if answer.status.is_success() => {
                let theirs = answer.text();
                let same = theirs == format!("{ours:016x}");
                return if same { Ok(()) } else { Err(Doubt::Stranger { node, theirs }) };
            }
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        match self.shared.parts.ring.load_of(node).await {
            // A foreign member of the ring keeps no chunks, and knows none of our calls.
            Err(RingError::Peer(RpcError::Remote { .. })) => Ok(()),
            _ => Err(Doubt::Silent { node, reason }),
        }
    }

    /// Those of the chunks that no file has.
    async fn add_loose(&self, held: &[HeldChunk], found: &mut Vec<Unreferenced>) -> Result<(), Doubt> {
        let mut pieces = Vec::new();
        for some in version_spans(held).chunks(QUERY_RUNS) {
            self.add_unreferenced(some.to_vec(), &mut pieces).await?;
        }
        found.extend(unreferenced_chunks(held, &pieces));
        Ok(())
    }

    async fn add_unreferenced(&self, mut runs: Vec<Extent>, pieces: &mut Vec<Extent>) -> Result<(), Doubt> {
        loop {
            let answer = self.shared.parts.session.query(Query::Unreferenced { runs: runs.clone() }).await?;
            let Answer::Unreferenced { pieces: more, next } = answer else {
                return Err(FsError::Internal { detail: format!("asked for runs, got {answer:?}") }.into());
            };
            pieces.extend(more);
            let Some(next) = next else { return Ok(()) };
            let nonsense = || FsError::Internal { detail: format!("{next:?} is no place to go on from") };
            runs = remaining_runs(&runs, next).ok_or_else(nonsense)?;
        }
    }

    async fn collect(&self, runs: Vec<ChunkRun>) -> Result<u64, Doubt> {
        let mut collected = 0;
        for some in runs.chunks(COLLECT_RUNS) {
            match self.shared.parts.session.apply(Change::CollectOrphans { runs: some.to_vec() }).await? {
                Reply::Collected { runs } => collected += u64::from(runs),
                other => return Err(FsError::Internal { detail: format!("collected orphans, got {other:?}") }.into()),
            }
        }
        Ok(collected)
    }
}

/// A ring that changes is in doubt now and then; chunks of another namespace are a person's business, said once.
fn complain(doubt: &Doubt, again: bool) {
    match doubt {
        Doubt::NamespaceMarker(_) | Doubt::Stranger { .. } if !again => {
            warn!(%doubt, "nothing is given up as an orphan")
        }
        _ => debug!(%doubt, "nothing is given up as an orphan"),
    }
}
