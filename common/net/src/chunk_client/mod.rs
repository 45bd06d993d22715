//! Stores and fetches chunks: groups them by owner, sends the groups in parallel, and adapts to changes of the ring.
//!
//! A put is sent once, to the owner, which replicates it. A get is sent to the owner, and for chunks missing there to
//! the next holders: during a join the new owner may not have received them yet. An unresponsive node delays either by
//! about a second, since other holders can serve it, too. Failures are retried until the deadline, by a new route.

mod batch;
mod clones;
mod durability_check;
mod get;
mod put;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use chordfs_log::warn_limited;
use chordfs_types::{
    chunk::{ChunkId, FileName, Version},
    chunk_api::calls,
    disk_space::{RingSpace, Space},
    fs_error::FsError,
    namespace::{ClonedRun, Extent, LoggedChunk},
    ring_id::{Neighbours, NodeRef, RingId},
    route_table::Route,
};
use futures_util::future::{BoxFuture, join_all};
use hyper::{HeaderMap, Method};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tracing::debug;

use self::{clones::KnownClones, sync::UnsyncedBatches};
use crate::{backoff::Backoff, http_pool::HttpPool, operation, router::Router};

/// A chunk that no file references this long after it was put will never be referenced: a writer commits within
/// seconds, and gives up within minutes. For this long the nodes remember the chunks that they have deleted.
const SETTLED_AFTER: Duration = Duration::from_secs(600);
/// For one attempt, not counting its bytes. A stopped node costs this once; the ring has dropped it by then.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Each attempt gets time for its bytes at this rate, so that a slow network is not taken for a dead node.
const SLOWEST_BYTES_PER_SECOND: usize = 1 << 20;
/// A node that does not answer for this long may have stopped: the request is hedged, that is, sent to other holders,
/// too.
const HEDGE_AFTER: Duration = Duration::from_secs(1);
/// Hedged requests at a time: if all nodes are slow, they must not double the load.
const MAX_HEDGED: usize = 4;
/// Attempts that go on for this long are reported: a node that dies costs about a second.
const LONG: Duration = Duration::from_secs(4);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The most look-ups for one request; each fills a gap of the route table.
const MAX_LOOK_UPS: usize = 1024;

#[derive(Clone, Debug)]
pub struct NewChunk {
    pub file: FileName,
    pub id: ChunkId,
    pub data: Bytes,
}

/// What the writer of a file knows of the chunks that it has stored.
pub trait LocalChunks: Sync {
    /// Returns the data of a chunk, if it is still in memory.
    fn copy(&self, id: ChunkId) -> Option<Bytes>;
    /// Whether the chunk belongs to the file no more, or the commit under way replaces it: then its loss is none.
    fn is_superseded(&self, id: ChunkId) -> bool;
}

/// Nothing is known of any chunk.
pub struct NoLocalChunks;

impl LocalChunks for NoLocalChunks {
    fn copy(&self, _: ChunkId) -> Option<Bytes> {
        None
    }

    fn is_superseded(&self, _: ChunkId) -> bool {
        false
    }
}

/// What the namespace knows of chunks.
pub trait ChunkReferences: Send + Sync {
    /// Returns the pieces of these runs that no file references. It may omit some and return them at a later call.
    fn unreferenced(&self, runs: Vec<Extent>) -> BoxFuture<'_, Result<Vec<Extent>, FsError>>;
    /// Returns those of the chunks whose data is in the log, because their holders may not have them yet. It may omit
    /// the last ones of many.
    fn logged(&self, ids: Vec<ChunkId>) -> BoxFuture<'_, Result<Vec<LoggedChunk>, FsError>>;
    /// Returns what the versions of clones stand for, apart from those that no file has.
    fn clones(&self, versions: Vec<Version>) -> BoxFuture<'_, Result<Vec<ClonedRun>, FsError>>;
}

pub struct ChunkClient {
    /// For tasks that outlive the operation by which they begin.
    this: Weak<Self>,
    router: Arc<Router>,
    pool: Arc<HttpPool>,
    deadline: Duration,
    unsynced: UnsyncedBatches,
    references: OnceLock<Arc<dyn ChunkReferences>>,
    clones: KnownClones,
    settled_after: Duration,
    /// One permit for each hedged request.
    hedged: Semaphore,
}

impl ChunkClient {
    /// Every operation ends by `deadline`.
    pub fn new(router: Arc<Router>, pool: Arc<HttpPool>, deadline: Duration) -> Arc<Self> {
        Self::with_settled_after(router, pool, deadline, SETTLED_AFTER)
    }

    fn with_settled_after(
        router: Arc<Router>,
        pool: Arc<HttpPool>,
        deadline: Duration,
        settled_after: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            router,
            pool,
            deadline,
            unsynced: UnsyncedBatches::default(),
            references: OnceLock::new(),
            clones: KnownClones::default(),
            settled_after,
            hedged: Semaphore::new(MAX_HEDGED),
        })
    }

    /// Sets the namespace to which the chunks belong. Without one, no sync succeeds while a chunk is on no node, and
    /// what is only in the log cannot be read.
    pub fn set_references(&self, references: Arc<dyn ChunkReferences>) {
        // The first one stays: a client belongs to one namespace.
        let _ = self.references.set(references);
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The ring's space for file contents. Each byte counts once, although several nodes store it, and each disk
    /// counts once, although several nodes share it.
    pub async fn space(&self) -> Result<RingSpace, FsError> {
        let members = self.router.all_members().await;
        let members = members.map_err(|error| FsError::NoReplica { detail: error.to_string() })?;
        let answers = join_all(members.iter().map(|node| self.space_of(node))).await;
        let reported: Vec<Space> = answers.into_iter().flatten().collect();
        if reported.is_empty() {
            return Err(FsError::NoReplica { detail: "no node reported its space".into() });
        }
        Ok(RingSpace::total(&reported, members.len()))
    }

    async fn space_of(&self, node: &NodeRef) -> Option<Space> {
        let address = node.files_address();
        let answer =
            self.pool.request(address, Method::GET, calls::SPACE, HeaderMap::new(), vec![], ATTEMPT_DEADLINE).await;
        postcard::from_bytes(&answer.ok()?.body).ok()
    }

    /// Fetches the neighbours of `node`. The successor of an unresponsive node is the first to know that the ring has
    /// closed up around it.
    fn refresh_from(&self, node: NodeRef) {
        let router = self.router.clone();
        tokio::spawn(async move { router.refresh(&node).await });
    }

    fn learn_from(&self, node: &NodeRef, json: &[u8]) {
        match serde_json::from_slice::<Neighbours>(json) {
            Ok(neighbours) => self.router.learn(&neighbours),
            Err(error) => {
                debug!(%node, %error, "cannot decode an answer about the ring");
                self.router.invalidate(node);
            }
        }
    }

    /// Returns the routes of the keys. Fills gaps of the route table with one look-up for each gap, not for each key.
    async fn routes(&self, keys: impl Iterator<Item = RingId> + Clone) -> Vec<Option<Arc<Route>>> {
        let mut routes = self.router.known_routes(keys.clone());
        for _ in 0..MAX_LOOK_UPS {
            let Some((key, _)) = keys.clone().zip(&routes).find(|(_, route)| route.is_none()) else { break };
            if let Err(error) = self.router.route(key).await {
                debug!(%key, %error, "no route");
                break;
            }
            routes = self.router.known_routes(keys.clone());
        }
        routes
    }
}

fn attempt_deadline(bytes: usize) -> Duration {
    ATTEMPT_DEADLINE + Duration::from_secs_f64(bytes as f64 / SLOWEST_BYTES_PER_SECOND as f64)
}

/// The attempts of one operation, with pauses between them; ends at the deadline.
struct ChunkAttempts {
    began: Instant,
    end: Instant,
    backoff: Backoff,
}

impl ChunkAttempts {
    fn new(deadline: Duration) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { began: Instant::now(), end: operation::end_of_wait(deadline), backoff }
    }

    async fn pause(&mut self, detail: impl Fn() -> String) -> Result<(), FsError> {
        let pause = self.backoff.pause();
        if Instant::now() + pause > self.end {
            return Err(FsError::NoReplica { detail: detail() });
        }
        let time = self.began.elapsed();
        if time > LONG {
            warn_limited!(?time, reason = detail(), "chunks are not stored or read yet, trying again");
        }
        sleep(pause).await;
        Ok(())
    }
}
